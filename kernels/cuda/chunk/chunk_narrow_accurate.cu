// Chunkwise forward, tier `accurate`, for keys of neither 64 nor 128 channels: the kernels of chunk_accurate.cu with room for 64, 128 or
// 256, of which a call takes the first K (channels_of in rows.cuh). What is not there is copied as zeros, takes part in every product,
// and is left out where states are read and written: simple, and slow where K is far below the room. With room for 256 a consumer's
// state alone takes 128 registers: 8 warps at 255 (nothing spilled) in place of 12 at 168 (64 bytes spilled with room for 128). Chunks
// are not dealt out. The kernels for 64 and 128 channels are as they were.

#include "chunk_launch.cuh"

namespace kdacheck::cuda {

cudaError_t launch_chunk_narrow_accurate(const ForwardArguments& args, cudaStream_t stream, ChunkShape wanted) {
  return launch_chunk_narrow<mixed_terms>(args, stream, wanted);
}

} // namespace kdacheck::cuda
