// Tensors with gaps between their rows: a call on them must give the bits of the same call on dense ones, and leave the gaps alone.

#include "device.hpp"
#include "driver.hpp"
#include "notes.hpp"

#include <cstring>

namespace kdacheck::cuda {
namespace {

constexpr int filler = 0x55;

std::vector<unsigned char> bytes_of(const void* from, std::size_t bytes) {
  std::vector<unsigned char> host(bytes);
  require(cudaMemcpy(host.data(), from, bytes, cudaMemcpyDeviceToHost), "copy");
  return host;
}

/// A tensor [B,T,heads,channels] of 16-bit numbers whose dense elements lie `gap` apart between heads, three gaps between tokens and five
/// between sequences.
struct Spread {
  DeviceMemory memory;
  kdacheck_cuda_tensor tensor{};
  std::int64_t B, T, heads, channels;
  std::size_t elements = 0;

  Spread(const kdacheck_cuda_tensor& dense, std::int64_t batches, std::int64_t tokens, std::int64_t of_heads, std::int64_t of_channels,
         std::int64_t gap)
      : B(batches), T(tokens), heads(of_heads), channels(of_channels) {
    const std::int64_t head = channels == 1 ? 1 : channels + gap, token = heads * head + 3 * gap, batch = T * token + 5 * gap;
    elements = static_cast<std::size_t>(B * batch);
    memory = allocate(2 * elements);
    tensor = {memory.get(), dense.format, {batch, token, head}};
    const auto from = bytes_of(dense.data, static_cast<std::size_t>(B * T * heads * channels) * 2);
    std::vector<unsigned char> to(2 * elements, filler);
    each_row([&](std::size_t in_dense, std::size_t place, std::size_t bytes) { std::memcpy(&to[place], &from[in_dense], bytes); });
    require(cudaMemcpy(memory.get(), to.data(), to.size(), cudaMemcpyHostToDevice), "copy");
  }
  /// Calls with byte offsets in the dense tensor and here, and the bytes of a row.
  template <class Row> void each_row(Row row) const {
    const auto bytes = static_cast<std::size_t>(2 * channels);
    std::size_t in_dense = 0;
    for (std::int64_t b = 0; b < B; ++b)
      for (std::int64_t t = 0; t < T; ++t)
        for (std::int64_t h = 0; h < heads; ++h, in_dense += bytes)
          row(in_dense, static_cast<std::size_t>(2 * (b * tensor.stride[0] + t * tensor.stride[1] + h * tensor.stride[2])), bytes);
  }
  /// Whether it holds the bits of a dense tensor, and nothing has been written between its rows.
  bool holds(const void* dense) const {
    auto here = bytes_of(memory.get(), 2 * elements);
    const auto wanted = bytes_of(dense, static_cast<std::size_t>(B * T * heads * channels) * 2);
    bool same = true;
    each_row([&](std::size_t in_dense, std::size_t place, std::size_t bytes) {
      same = same && std::memcmp(&here[place], &wanted[in_dense], bytes) == 0;
      std::memset(&here[place], filler, bytes);
    });
    for (unsigned char byte : here) same = same && byte == filler;
    return same;
  }
};

/// A problem's tensors, spread.
struct SpreadProblem {
  std::vector<Spread> tensors;
  kdacheck_cuda_problem problem;
  SpreadProblem(const DeviceProblem& made, std::int64_t gap) : problem(made.problem) {
    const kdacheck_cuda_problem& p = made.problem;
    tensors.reserve(8);
    const auto spread = [&](kdacheck_cuda_tensor& tensor, std::int64_t heads, std::int64_t channels) {
      if (tensor.data != nullptr) tensor = tensors.emplace_back(tensor, p.B, p.T, heads, channels, gap).tensor;
    };
    spread(problem.o, p.HV, p.V); // the first one
    spread(problem.q, p.H, p.K), spread(problem.k, p.H, p.K), spread(problem.v, p.HV, p.V), spread(problem.g, p.HV, p.K);
    spread(problem.beta, p.HV, 1), spread(problem.a, p.HV, p.K), spread(problem.b, p.HV, p.K);
  }
};

bool forward_agrees(int kernel, const DeviceProblem& made, std::int64_t gap) {
  const kdacheck_cuda_problem& p = made.problem;
  const auto states = static_cast<std::size_t>(p.B * p.HV * p.K * p.V) * 4;
  float* state = kernel == KDACHECK_CUDA_DECODE ? p.state : p.final_state;
  if (state == p.final_state) require(cudaMemset(state, filler, states), "filler"); // of which the kernel is to write every byte
  const auto before = bytes_of(state, states);
  require(made.forward(kernel, nullptr));
  require(cudaDeviceSynchronize(), "run");
  const auto wanted = bytes_of(state, states);
  require(cudaMemcpy(state, before.data(), states, cudaMemcpyHostToDevice), "copy");
  const SpreadProblem spread(made, gap);
  require(made.forward(kernel, spread.problem, nullptr));
  require(cudaDeviceSynchronize(), "run");
  return spread.tensors.front().holds(p.o.data) && bytes_of(state, states) == wanted;
}

bool backward_agrees(int kernel, const DeviceProblem& made, std::int64_t gap) {
  const kdacheck_cuda_problem& p = made.problem;
  const DeviceGradients back = make_gradients(kernel, made, 500);
  require(cudaMemset(p.o.data, filler, static_cast<std::size_t>(p.B * p.T * p.HV * p.V) * 2),
          "filler"); // spread with the others, of no use
  const auto run = [&](const kdacheck_cuda_problem& problem, const kdacheck_cuda_gradients& gradients) {
    require(kdacheck_cuda_backward(kernel, &problem, &gradients, back.workspace.get(), back.workspace_bytes, nullptr));
    require(cudaDeviceSynchronize(), "run");
  };
  run(p, back.gradients);
  const SpreadProblem spread(made, gap);
  kdacheck_cuda_gradients d = back.gradients;
  std::vector<Spread> tensors;
  tensors.reserve(6);
  std::vector<const void*> dense;
  const auto place = [&](kdacheck_cuda_tensor& tensor, std::int64_t heads, std::int64_t channels) {
    dense.push_back(tensor.data);
    tensor = tensors.emplace_back(tensor, p.B, p.T, heads, channels, gap).tensor;
  };
  place(d.d_o, p.HV, p.V), place(d.dq, p.H, p.K), place(d.dk, p.H, p.K), place(d.dv, p.HV, p.V), place(d.dg, p.HV, p.K);
  place(d.dbeta, p.HV, 1);
  for (std::size_t i = 1; i < tensors.size(); ++i) { // results: poisoned where they will lie
    auto poison = bytes_of(tensors[i].memory.get(), 2 * tensors[i].elements);
    tensors[i].each_row([&](std::size_t, std::size_t at, std::size_t bytes) { std::memset(&poison[at], 0xff, bytes); });
    require(cudaMemcpy(tensors[i].memory.get(), poison.data(), poison.size(), cudaMemcpyHostToDevice), "poison");
  }
  run(spread.problem, d);
  bool same = true;
  for (std::size_t i = 0; i < tensors.size(); ++i) same = same && tensors[i].holds(dense[i]);
  return same;
}

} // namespace

bool check_strided(nlohmann::json& report) {
  Notes note(report);
  const char* what = "rows with gaps between them give the bits of dense ones";
  constexpr std::int64_t aligned = 8; // 16 bytes
  note(what, "recurrence", forward_agrees(KDACHECK_CUDA_RECURRENCE, make_problem(2, 70, 3, 37, 19, 41), 3));
  note(what, "decode", forward_agrees(KDACHECK_CUDA_DECODE, make_problem(3, 4, 3, 128, 64, 42, true), 3));
  note(what, "decode, one token", forward_agrees(KDACHECK_CUDA_DECODE, make_problem(3, 1, 3, 128, 64, 48, true), 3));
  note(what, "decode", forward_agrees(KDACHECK_CUDA_DECODE, make_problem(200, 2, 3, 112, 100, 43, true), 5));
  note(what, "fast", forward_agrees(KDACHECK_CUDA_CHUNK_FAST, make_problem(2, 150, 3, 128, 64, 44), aligned));
  note(what, "fast", forward_agrees(KDACHECK_CUDA_CHUNK_FAST, make_problem(1, 400, 80, 64, 32, 45), aligned));
  note(what, "fast, K 80", forward_agrees(KDACHECK_CUDA_CHUNK_FAST, make_problem(2, 150, 3, 80, 48, 46), aligned));
  note(what, "accurate", forward_agrees(KDACHECK_CUDA_CHUNK_ACCURATE, make_problem(2, 150, 3, 128, 64, 47), aligned));
  note(what, "accurate, K 208", forward_agrees(KDACHECK_CUDA_CHUNK_ACCURATE, make_problem(2, 150, 3, 208, 48, 48), aligned));
  note(what, "dplr", forward_agrees(KDACHECK_CUDA_CHUNK_FAST, make_problem(2, 150, 3, 64, 64, 49, false, true), aligned));
  note("gradients in rows with gaps have the bits of dense ones", "fast",
       backward_agrees(KDACHECK_CUDA_CHUNK_FAST, make_problem(2, 150, 3, 128, 64, 50), aligned));
  note("gradients in rows with gaps have the bits of dense ones", "fast, K 80",
       backward_agrees(KDACHECK_CUDA_CHUNK_FAST, make_problem(2, 150, 3, 80, 64, 51), aligned));
  note("gradients in rows with gaps have the bits of dense ones", "accurate",
       backward_agrees(KDACHECK_CUDA_CHUNK_ACCURATE, make_problem(2, 150, 3, 64, 64, 52), aligned));
  return note.all_good();
}

} // namespace kdacheck::cuda
