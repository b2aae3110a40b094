// Tensors that begin anywhere: right, bit for bit, where a kernel takes them, and refused where it does not.

#include "device.hpp"
#include "driver.hpp"
#include "notes.hpp"

#include <array>
#include <cstring>
#include <string>

namespace kdacheck::cuda {
namespace {

using Member = kdacheck_cuda_tensor kdacheck_cuda_problem::*;
constexpr std::array<Member, 6> rows{&kdacheck_cuda_problem::q, &kdacheck_cuda_problem::k,    &kdacheck_cuda_problem::v,
                                     &kdacheck_cuda_problem::g, &kdacheck_cuda_problem::beta, &kdacheck_cuda_problem::o};

std::int64_t elements(const kdacheck_cuda_problem& p, Member member) {
  const std::int64_t tokens = p.B * p.T;
  if (member == &kdacheck_cuda_problem::beta) return tokens * p.HV;
  if (member == &kdacheck_cuda_problem::v || member == &kdacheck_cuda_problem::o) return tokens * p.HV * p.V;
  return tokens * (member == &kdacheck_cuda_problem::g ? p.HV : p.H) * p.K;
}

std::vector<unsigned char> download(const void* from, std::size_t bytes) {
  std::vector<unsigned char> host(bytes);
  require(cudaMemcpy(host.data(), from, bytes, cudaMemcpyDeviceToHost), "copy");
  return host;
}

/// Every tensor of 16-bit numbers begins one element further on, where 4 bytes divide no address.
bool right_anywhere(int kernel, const DeviceProblem& made) {
  const kdacheck_cuda_problem& p = made.problem;
  const auto states = static_cast<std::size_t>(p.B * p.HV * p.K * p.V) * 4;
  float* state = kernel == KDACHECK_CUDA_DECODE ? p.state : p.final_state;
  if (state == p.final_state) require(cudaMemset(state, 0x55, states), "poison");
  const auto before = download(state, states);
  require(made.forward(kernel, nullptr));
  require(cudaDeviceSynchronize(), "run");
  const auto wanted_state = download(state, states);
  const auto bytes = [&](Member member) { return static_cast<std::size_t>(elements(p, member)) * 2; };
  const auto wanted = download(p.o.data, bytes(&kdacheck_cuda_problem::o));
  kdacheck_cuda_problem moved = p;
  std::vector<DeviceMemory> memory;
  for (const Member member : rows) {
    memory.push_back(allocate(bytes(member) + 4));
    (moved.*member).data = static_cast<unsigned char*>(memory.back().get()) + 2;
    require(cudaMemset(memory.back().get(), 0x55, bytes(member) + 4), "poison");
    if (member != &kdacheck_cuda_problem::o)
      require(cudaMemcpy((moved.*member).data, (p.*member).data, bytes(member), cudaMemcpyDeviceToDevice), "copy");
  }
  require(cudaMemcpy(state, before.data(), states, cudaMemcpyHostToDevice), "copy");
  require(made.forward(kernel, moved, nullptr));
  require(cudaDeviceSynchronize(), "run");
  const auto all = download(memory.back().get(), wanted.size() + 4); // o, with its neighbours
  return std::memcmp(all.data() + 2, wanted.data(), wanted.size()) == 0 && all[0] == 0x55 && all[1] == 0x55 &&
         all[all.size() - 1] == 0x55 && all[all.size() - 2] == 0x55 && download(state, states) == wanted_state;
}

/// Each tensor of rows on its own: one element further on, and with strides that 16 bytes do not divide.
bool refused_by_chunks(int kernel, bool dplr) {
  const DeviceProblem made = make_problem(2, 40, 2, 64, 64, 15, false, dplr);
  const auto output = static_cast<std::size_t>(elements(made.problem, &kdacheck_cuda_problem::o)) * 2;
  require(cudaMemset(made.problem.o.data, 0x55, output), "poison");
  bool good = true;
  for (const Member member : {rows[0], rows[1], rows[2], rows[3], rows[5]}) {
    kdacheck_cuda_problem wrong = made.problem;
    (wrong.*member).data = static_cast<std::uint16_t*>((wrong.*member).data) + 1;
    good = good && made.forward(kernel, wrong, nullptr).status == KDACHECK_CUDA_BAD_LAYOUT;
    wrong = made.problem;
    const std::int64_t stride[3] = {20000, 132, 66};
    std::memcpy((wrong.*member).stride, stride, sizeof stride);
    good = good && made.forward(kernel, wrong, nullptr).status == KDACHECK_CUDA_BAD_LAYOUT;
  }
  good = good && cudaDeviceSynchronize() == cudaSuccess && cudaGetLastError() == cudaSuccess;
  const auto o = download(made.problem.o.data, output);
  for (unsigned char byte : o) good = good && byte == 0x55;
  return good;
}

/// A stream on which nothing may be started: the old default stream while another that waits for it is being captured.
bool failed_launches_are_reported(int kernel, const DeviceProblem& made) {
  const kdacheck_cuda_problem& p = made.problem;
  const auto output = static_cast<std::size_t>(elements(p, &kdacheck_cuda_problem::o)) * 2;
  cudaStream_t stream;
  cudaGraph_t graph = nullptr;
  require(cudaStreamCreate(&stream), "stream");
  require(made.forward(kernel, stream));
  require(cudaDeviceSynchronize(), "run");
  const auto wanted = download(p.o.data, output);
  require(cudaMemset(p.o.data, 0x55, output), "poison");
  require(cudaDeviceSynchronize(), "run");
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "capture");
  const kdacheck_cuda_result result = made.forward(kernel, p, cudaStreamLegacy);
  bool good = result.status == KDACHECK_CUDA_LAUNCH_FAILED && result.text[0] != '\0' && cudaGetLastError() == cudaSuccess;
  if (cudaStreamEndCapture(stream, &graph) == cudaSuccess && graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
  require(cudaDeviceSynchronize(), "run");
  for (unsigned char byte : download(p.o.data, output)) good = good && byte == 0x55;
  require(made.forward(kernel, stream)); // and the next call is none the worse
  require(cudaDeviceSynchronize(), "run");
  good = good && download(p.o.data, output) == wanted;
  cudaStreamDestroy(stream);
  return good;
}

} // namespace

bool check_misaligned(nlohmann::json& report) {
  Notes note(report);
  const char* right = "tensors that begin at any element give the same bits";
  note(right, "recurrence", right_anywhere(KDACHECK_CUDA_RECURRENCE, make_problem(2, 50, 3, 37, 19, 91)));
  note(right, "decode", right_anywhere(KDACHECK_CUDA_DECODE, make_problem(3, 4, 3, 128, 64, 92, true)));
  note(right, "decode, one token", right_anywhere(KDACHECK_CUDA_DECODE, make_problem(3, 1, 3, 64, 64, 93, true)));
  note(right, "decode, many heads", right_anywhere(KDACHECK_CUDA_DECODE, make_problem(50, 2, 3, 112, 100, 94, true)));
  const char* refused = "misaligned rows are refused and nothing written";
  note(refused, "fast", refused_by_chunks(KDACHECK_CUDA_CHUNK_FAST, false));
  note(refused, "accurate", refused_by_chunks(KDACHECK_CUDA_CHUNK_ACCURATE, false));
  note(refused, "dplr", refused_by_chunks(KDACHECK_CUDA_CHUNK_FAST, true));
  const char* failed = "a launch that fails is reported and forgotten";
  note(failed, "fast", failed_launches_are_reported(KDACHECK_CUDA_CHUNK_FAST, make_problem(1, 300, 2, 128, 128, 95)));
  note(failed, "recurrence", failed_launches_are_reported(KDACHECK_CUDA_RECURRENCE, make_problem(1, 20, 2, 40, 20, 96)));
  return note.all_good();
}

} // namespace kdacheck::cuda
