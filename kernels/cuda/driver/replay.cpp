#include "replay.hpp"

#include "copy.hpp"
#include "device.hpp"

#include <algorithm>
#include <cstdio>
#include <dlfcn.h>
#include <library_types.h>

namespace kdacheck::cuda {
namespace {

cudaGraphExec_t captured(const Enqueue& job, cudaStream_t stream) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  job(stream);
  require(cudaStreamEndCapture(stream, &graph), "capture");
  require(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  require(cudaGraphDestroy(graph), "graph");
  return exec;
}

} // namespace

Times time_jobs(const std::vector<Enqueue>& jobs, int runs, Way way) {
  cudaStream_t stream;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  std::vector<cudaGraphExec_t> graphs;
  for (const Enqueue& job : jobs) {
    job(stream);
    require(cudaStreamSynchronize(stream), "warm-up");
    if (way != Way::call) graphs.push_back(captured(job, stream));
  }
  constexpr std::size_t flushed_bytes = std::size_t{1} << 29;
  const DeviceMemory flushed = way == Way::flushed ? allocate(flushed_bytes) : DeviceMemory{};
  const auto run = [&](std::size_t i) {
    if (way == Way::call)
      jobs[i % jobs.size()](stream);
    else
      require(cudaGraphLaunch(graphs[i % graphs.size()], stream), "launch");
  };
  std::vector<cudaEvent_t> before(static_cast<std::size_t>(runs)), after(before.size());
  for (std::size_t i = 0; i < before.size(); ++i) {
    require(cudaEventCreate(&after[i]), "event");
    // Back to back, one run's end is the next one's beginning.
    if (i == 0 || way == Way::flushed)
      require(cudaEventCreate(&before[i]), "event");
    else
      before[i] = after[i - 1];
  }
  for (std::size_t i = 0; i < 5; ++i) run(i);
  require(cudaEventRecord(before[0], stream), "event");
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (way == Way::flushed) {
      require(cudaMemsetAsync(flushed.get(), static_cast<int>(i % 251), flushed_bytes, stream), "flush");
      require(cudaEventRecord(before[i], stream), "event");
    }
    run(i);
    require(cudaEventRecord(after[i], stream), "event");
  }
  require(cudaStreamSynchronize(stream), "replay");
  std::vector<float> times(before.size());
  for (std::size_t i = 0; i < before.size(); ++i) require(cudaEventElapsedTime(&times[i], before[i], after[i]), "time");
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (i == 0 || way == Way::flushed) cudaEventDestroy(before[i]);
    cudaEventDestroy(after[i]);
  }
  for (auto& exec : graphs) cudaGraphExecDestroy(exec);
  cudaStreamDestroy(stream);
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times[0]};
}

double copy_bandwidth() {
  const std::size_t bytes = std::size_t{1} << 30;
  const DeviceMemory from = random_bf16(static_cast<std::int64_t>(bytes / 2), 0, 1, 5), to = allocate(bytes);
  const Times by_runtime = time_jobs(
      {[&](cudaStream_t stream) { require(cudaMemcpyAsync(to.get(), from.get(), bytes, cudaMemcpyDeviceToDevice, stream), "copy"); }}, 30);
  const Times by_kernel = time_jobs({[&](cudaStream_t stream) { require(launch_copy(to.get(), from.get(), bytes, stream), "copy"); }}, 30);
  const auto rate = [&](const Times& times) { return 2.0 * static_cast<double>(bytes) / (times.median * 1e-3); };
  std::printf("copy by the runtime %.3f TB/s, by a kernel %.3f TB/s\n", rate(by_runtime) * 1e-12, rate(by_kernel) * 1e-12);
  return std::max(rate(by_runtime), rate(by_kernel));
}

double matrix_product_rate() {
  // Loaded, not linked: it is larger than all else here, and not every toolkit has it. Types as its header declares them.
  using Handle = void*;
  using Create = int (*)(Handle*);
  using SetStream = int (*)(Handle, cudaStream_t);
  using Destroy = int (*)(Handle);
  using Product = int (*)(Handle, int, int, int, int, int, const void*, const void*, cudaDataType, int, const void*, cudaDataType, int,
                          const void*, void*, cudaDataType, int, int, int);
  constexpr int success = 0, untransposed = 0, compute_fp32 = 68, any_algorithm = -1;
  void* library = nullptr;
  for (const char* name : {"libcublas.so.13", "/usr/local/cuda/lib64/libcublas.so.13", "libcublas.so.12"})
    if (library == nullptr) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return 0;
  const auto create = reinterpret_cast<Create>(dlsym(library, "cublasCreate_v2"));
  const auto set_stream = reinterpret_cast<SetStream>(dlsym(library, "cublasSetStream_v2"));
  const auto destroy = reinterpret_cast<Destroy>(dlsym(library, "cublasDestroy_v2"));
  const auto product = reinterpret_cast<Product>(dlsym(library, "cublasGemmEx"));
  Handle handle = nullptr;
  if (create == nullptr || set_stream == nullptr || destroy == nullptr || product == nullptr || create(&handle) != success) return 0;
  constexpr int n = 8192;
  const DeviceMemory a = random_bf16(std::int64_t{n} * n, 0, 1, 6), b = random_bf16(std::int64_t{n} * n, 0, 1, 7),
                     c = allocate(std::size_t{n} * n * 2);
  bool good = true;
  const Enqueue job = [&](cudaStream_t stream) {
    const float one = 1, zero = 0;
    good = good && set_stream(handle, stream) == success &&
           product(handle, untransposed, untransposed, n, n, n, &one, a.get(), CUDA_R_16BF, n, b.get(), CUDA_R_16BF, n, &zero, c.get(),
                   CUDA_R_16BF, n, compute_fp32, any_algorithm) == success;
  };
  const Times times = time_jobs({job}, 30, Way::call);
  destroy(handle);
  return good ? 2.0 * n * n * n / (times.median * 1e-3) : 0;
}

} // namespace kdacheck::cuda
