#pragma once
// How long work on a stream takes, and what this device reaches at most.

#include <cuda_runtime_api.h>
#include <functional>
#include <vector>

namespace kdacheck::cuda {

using Enqueue = std::function<void(cudaStream_t)>;

/// How work is started: as a captured graph; by calling the function; as a graph after half a gigabyte was written, so that nothing of
/// it is in a cache.
enum class Way { graph, call, flushed };

/// Of single runs, in milliseconds.
struct Times {
  double median = 0, least = 0;
};

/// The jobs take turns, so that their data need not be in a cache.
Times time_jobs(const std::vector<Enqueue>& jobs, int runs, Way = Way::graph);

/// Bytes per second, read and written counted, of a device copy of 1 GiB: the better of the runtime's and a kernel's.
double copy_bandwidth();

/// Operations per second of cuBLAS's product of bf16 matrices of 8192 x 8192 normal numbers; 0 if there is no cuBLAS here.
double matrix_product_rate();

} // namespace kdacheck::cuda
