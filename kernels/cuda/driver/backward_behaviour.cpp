#include "device.hpp"
#include "driver.hpp"
#include "notes.hpp"

#include <cstdio>
#include <cstring>

namespace kdacheck::cuda {
namespace {

std::vector<unsigned char> results(const DeviceGradients& made) {
  std::vector<unsigned char> all;
  for (const auto& [data, bytes] : made.outputs) {
    const std::size_t at = all.size();
    all.resize(at + bytes);
    require(cudaMemcpy(all.data() + at, data, bytes, cudaMemcpyDeviceToHost), "copy");
  }
  return all;
}

void enqueue(int kernel, const DeviceProblem& made, const DeviceGradients& back, cudaStream_t stream) {
  require(kdacheck_cuda_backward(kernel, &made.problem, &back.gradients, back.workspace.get(), back.workspace_bytes, stream));
}

/// The same call again and again, outputs and workspace poisoned in between, beside a stream that keeps the device busy.
bool repeats(int kernel, const DeviceProblem& made, int runs) {
  const DeviceGradients back = make_gradients(kernel, made, 900);
  const DeviceProblem load = make_problem(2, 700, 7, 128, 128, 77);
  cudaStream_t busy, stream;
  require(cudaStreamCreateWithFlags(&busy, cudaStreamNonBlocking), "stream");
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  std::vector<unsigned char> first;
  bool same = true;
  for (int run = 0; run < runs; ++run) {
    const int poison = run % 2 ? 0xff : 0x7b;
    for (int i = 0; i < run % 4; ++i) require(load.forward(KDACHECK_CUDA_CHUNK_FAST, busy));
    for (const auto& [data, bytes] : back.outputs) require(cudaMemsetAsync(data, poison, bytes, stream), "poison");
    require(cudaMemsetAsync(back.workspace.get(), poison, back.workspace_bytes, stream), "poison");
    enqueue(kernel, made, back, stream);
    require(cudaDeviceSynchronize(), "run");
    auto now = results(back);
    if (run == 0)
      first = std::move(now);
    else
      same = same && now == first;
  }
  cudaStreamDestroy(busy);
  cudaStreamDestroy(stream);
  return same;
}

/// A captured graph reads what the storage holds when it is replayed.
bool replays(int kernel, const DeviceProblem& made) {
  const DeviceGradients back = make_gradients(kernel, made, 901);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  enqueue(kernel, made, back, stream);
  require(cudaStreamSynchronize(stream), "run");
  const auto before = results(back);
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  enqueue(kernel, made, back, stream);
  require(cudaStreamEndCapture(stream, &graph), "capture");
  require(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  const kdacheck_cuda_problem& p = made.problem;
  const auto count = p.B * p.T * p.HV * p.V;
  const DeviceMemory fresh = random_bf16(count, 0, 2, 4242);
  require(cudaMemcpy(back.gradients.d_o.data, fresh.get(), static_cast<std::size_t>(count) * 2, cudaMemcpyDeviceToDevice), "copy");
  require(cudaGraphLaunch(exec, stream), "launch");
  require(cudaStreamSynchronize(stream), "replay");
  const auto replayed = results(back);
  enqueue(kernel, made, back, nullptr);
  require(cudaDeviceSynchronize(), "run");
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  return replayed == results(back) && replayed != before;
}

/// A refused call leaves no error behind and writes nothing.
bool refuses(int kernel) {
  const DeviceProblem made = make_problem(1, 20, 2, 128, 128, 8);
  const DeviceGradients back = make_gradients(kernel, made, 902);
  for (const auto& [data, bytes] : back.outputs) require(cudaMemset(data, 0x55, bytes), "poison");
  const auto status = [&](const kdacheck_cuda_gradients& gradients, std::size_t bytes) {
    return kdacheck_cuda_backward(kernel, &made.problem, &gradients, back.workspace.get(), bytes, nullptr).status;
  };
  std::vector<std::uint16_t> host(1 << 16);
  kdacheck_cuda_gradients wrong = back.gradients;
  bool good = status(wrong, back.workspace_bytes - 1) == KDACHECK_CUDA_SMALL_WORKSPACE;
  wrong.dq.data = host.data();
  good = good && status(wrong, back.workspace_bytes) == KDACHECK_CUDA_NOT_DEVICE_MEMORY;
  good = good && cudaDeviceSynchronize() == cudaSuccess && cudaGetLastError() == cudaSuccess;
  for (unsigned char byte : results(back)) good = good && byte == 0x55;
  return good;
}

} // namespace

bool check_backward_behaviour(nlohmann::json& report, bool small) {
  Notes note(report);
  struct Named {
    int kernel;
    bool dplr;
    const char* name;
  };
  for (const Named& k : {Named{KDACHECK_CUDA_CHUNK_FAST, false, "fast"}, Named{KDACHECK_CUDA_CHUNK_ACCURATE, false, "accurate"},
                         Named{KDACHECK_CUDA_CHUNK_FAST, true, "dplr"}, Named{KDACHECK_CUDA_RECURRENCE, false, "recurrence"},
                         Named{KDACHECK_CUDA_RECURRENCE, true, "recurrence, DPLR"}}) {
    note(small ? "2 backward runs under load are bitwise equal" : "50 backward runs under load are bitwise equal", k.name,
         repeats(k.kernel, make_problem(1, small ? 70 : 333, small ? 3 : 20, 128, 128, 3, false, k.dplr), small ? 2 : 50));
    note("a replayed graph of the backward sees new values", k.name, replays(k.kernel, make_problem(2, 100, 5, 64, 64, 5, false, k.dplr)));
    note("a refused backward call writes nothing", k.name, refuses(k.kernel));
    if (!small)
      note("more than 65535 blocks of a backward pass run", k.name,
           repeats(k.kernel, make_problem(1000, 1, 70, 64, 16, 6, false, k.dplr), 3));
  }
  return note.all_good();
}

} // namespace kdacheck::cuda
