// Chunkwise forward, tier `fast`, for keys of neither 64 nor 128 channels: the kernels of chunk_fast.cu with room for 64, 128 or 256, of
// which a call takes the first K (channels_of in rows.cuh).

#include "chunk_launch.cuh"

namespace kdacheck::cuda {

cudaError_t launch_chunk_narrow_fast(const ForwardArguments& args, cudaStream_t stream, ChunkShape wanted) {
  return launch_chunk_narrow<1>(args, stream, wanted);
}

} // namespace kdacheck::cuda
