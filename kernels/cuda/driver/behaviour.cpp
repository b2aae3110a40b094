#include "device.hpp"
#include "driver.hpp"
#include "notes.hpp"

#include <cstdio>
#include <cstring>

namespace kdacheck::cuda {
namespace {

std::vector<unsigned char> download(const void* from, std::size_t bytes) {
  std::vector<unsigned char> host(bytes);
  require(cudaMemcpy(host.data(), from, bytes, cudaMemcpyDeviceToHost), "copy");
  return host;
}

std::size_t output_bytes(const kdacheck_cuda_problem& p) { return static_cast<std::size_t>(p.B * p.T * p.HV * p.V) * 2; }
std::size_t state_bytes(const kdacheck_cuda_problem& p) { return static_cast<std::size_t>(p.B * p.HV * p.K * p.V) * 4; }

std::vector<unsigned char> results(const kdacheck_cuda_problem& p) {
  auto all = download(p.o.data, output_bytes(p));
  const auto state = download(p.final_state, state_bytes(p));
  all.insert(all.end(), state.begin(), state.end());
  return all;
}

/// The same call again and again, outputs and workspace poisoned in between, beside a stream that keeps the device busy.
bool repeats(int kernel, const DeviceProblem& made, int runs = 50) {
  const kdacheck_cuda_problem& p = made.problem;
  cudaStream_t busy, stream;
  require(cudaStreamCreateWithFlags(&busy, cudaStreamNonBlocking), "stream");
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  const DeviceProblem load = make_problem(2, 700, 7, 128, 128, 77);
  std::vector<unsigned char> first;
  bool same = true;
  for (int run = 0; run < runs; ++run) {
    for (int i = 0; i < run % 4; ++i) require(load.forward(KDACHECK_CUDA_CHUNK_FAST, busy));
    require(cudaMemsetAsync(p.o.data, run % 2 ? 0xff : 0x7b, output_bytes(p), stream), "poison");
    require(cudaMemsetAsync(p.final_state, run % 2 ? 0xff : 0x7b, state_bytes(p), stream), "poison");
    if (made.workspace_bytes > 0)
      require(cudaMemsetAsync(made.workspace.get(), run % 2 ? 0xff : 0x7b, made.workspace_bytes, stream), "poison");
    require(made.forward(kernel, stream));
    require(cudaDeviceSynchronize(), "run");
    auto now = results(p);
    if (run == 0)
      first = std::move(now);
    else
      same = same && now == first;
  }
  cudaStreamDestroy(busy);
  cudaStreamDestroy(stream);
  return same;
}

/// Later tokens replaced: everything before them must keep its bits.
bool causal(int kernel, const DeviceProblem& made, std::int64_t kept) {
  const kdacheck_cuda_problem& p = made.problem;
  require(made.forward(kernel, nullptr));
  const auto row = static_cast<std::size_t>(p.HV * p.V) * 2;
  const auto before = download(p.o.data, row * static_cast<std::size_t>(kept));
  kdacheck_cuda_problem shorter = p; // B = 1: the same memory, fewer tokens
  shorter.T = kept;
  require(cudaMemset(p.o.data, 0xff, output_bytes(p)), "poison");
  require(made.forward(kernel, shorter, nullptr));
  return before == download(p.o.data, row * static_cast<std::size_t>(kept));
}

/// A captured graph reads what the storage holds when it is replayed.
bool replays(int kernel, const DeviceProblem& made) {
  const kdacheck_cuda_problem& p = made.problem;
  cudaStream_t stream;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  require(made.forward(kernel, stream));
  require(cudaStreamEndCapture(stream, &graph), "capture");
  require(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  const auto count = p.B * p.T * p.HV * p.V;
  const DeviceMemory fresh = random_bf16(count, 0, 2, 4242);
  require(cudaMemcpy(p.v.data, fresh.get(), static_cast<std::size_t>(count) * 2, cudaMemcpyDeviceToDevice), "copy");
  require(cudaGraphLaunch(exec, stream), "launch");
  require(cudaStreamSynchronize(stream), "replay");
  const auto replayed = results(p);
  require(made.forward(kernel, nullptr));
  require(cudaDeviceSynchronize(), "run");
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  return replayed == results(p);
}

/// Negative slots leave state and output alone; a permutation of slots permutes states.
bool respects_slots() {
  const DeviceProblem made = make_problem(4, 2, 3, 128, 128, 31, true);
  kdacheck_cuda_problem p = made.problem;
  const std::vector<std::int32_t> slots{2, -1, 0, 5};
  p.slots = 4; // slot 5 is outside and must be ignored too
  const DeviceMemory device_slots = allocate(16);
  require(cudaMemcpy(device_slots.get(), slots.data(), 16, cudaMemcpyHostToDevice), "copy");
  const auto before = download(p.state, state_bytes(p));
  require(cudaMemset(p.o.data, 0x55, output_bytes(p)), "poison");
  p.slot = static_cast<const std::int32_t*>(device_slots.get());
  require(made.forward(KDACHECK_CUDA_DECODE, p, nullptr));
  const auto after = download(p.state, state_bytes(p)), o = download(p.o.data, output_bytes(p));
  const std::size_t one = before.size() / 4, row = o.size() / 4;
  const auto equal = [&](std::size_t slot) { return std::memcmp(before.data() + slot * one, after.data() + slot * one, one) == 0; };
  const auto untouched = [&](std::size_t b) {
    return std::all_of(o.begin() + b * row, o.begin() + (b + 1) * row, [](auto x) { return x == 0x55; });
  };
  return !equal(0) && equal(1) && !equal(2) && equal(3) && !untouched(0) && untouched(1) && !untouched(2) && untouched(3);
}

/// A refused call leaves no error behind and writes nothing.
bool refuses() {
  const DeviceProblem made = make_problem(1, 20, 2, 128, 128, 8);
  kdacheck_cuda_problem p = made.problem;
  require(cudaMemset(p.o.data, 0x55, output_bytes(p)), "poison");
  std::vector<std::uint16_t> host(static_cast<std::size_t>(p.T * p.H * p.K));
  p.q.data = host.data();
  bool good = made.forward(KDACHECK_CUDA_CHUNK_FAST, p, nullptr).status == KDACHECK_CUDA_NOT_DEVICE_MEMORY;
  p = made.problem;
  p.k.data = static_cast<std::uint16_t*>(p.k.data) + 1;
  good = good && made.forward(KDACHECK_CUDA_CHUNK_FAST, p, nullptr).status == KDACHECK_CUDA_BAD_LAYOUT;
  good = good && cudaDeviceSynchronize() == cudaSuccess && cudaGetLastError() == cudaSuccess;
  const auto o = download(p.o.data, output_bytes(p));
  return good && std::all_of(o.begin(), o.end(), [](auto x) { return x == 0x55; });
}

} // namespace

bool check_behaviour(nlohmann::json& report, bool small) {
  Notes note(report);
  struct Named {
    int kernel;
    bool dplr;
    const char* name;
  };
  const int runs = small ? 2 : 50;
  const std::int64_t T = small ? 70 : 333, H = small ? 3 : 20;
  for (const Named& k : {Named{KDACHECK_CUDA_RECURRENCE, false, "recurrence"}, Named{KDACHECK_CUDA_CHUNK_FAST, false, "fast"},
                         Named{KDACHECK_CUDA_CHUNK_ACCURATE, false, "accurate"}, Named{KDACHECK_CUDA_CHUNK_FAST, true, "dplr"}}) {
    note(small ? "2 runs under load are bitwise equal" : "50 runs under load are bitwise equal", k.name,
         repeats(k.kernel, make_problem(1, T, H, 128, 128, 3, false, k.dplr), runs));
    note("a prefix keeps its bits", k.name, causal(k.kernel, make_problem(1, T, 5, 128, 128, 4, false, k.dplr), T / 2 - 29));
    note("a replayed graph sees new values", k.name, replays(k.kernel, make_problem(2, 100, 5, 64, 64, 5, false, k.dplr)));
  }
  if (!small) {
    const auto run = [&](int kernel, const char* name, bool dplr, int count) {
      note("more than 65535 blocks run", name, repeats(kernel, make_problem(1000, 1, 70, 64, 16, 6, false, dplr), count));
    };
    run(KDACHECK_CUDA_CHUNK_FAST, "dplr", true, 50), run(KDACHECK_CUDA_CHUNK_FAST, "fast", false, 50);
    run(KDACHECK_CUDA_CHUNK_ACCURATE, "accurate", false, 4), run(KDACHECK_CUDA_RECURRENCE, "recurrence", false, 4);
  }
  note("negative slots are skipped", "decode", respects_slots());
  note("refused calls write nothing", "all", refuses());
  return note.all_good();
}

} // namespace kdacheck::cuda
