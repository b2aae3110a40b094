/* Stands in for libcudart in tests: a device whose memory is the host's. Device memory comes up filled with a pattern. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static int pending(void) {
  const char* error = getenv("KDACHECK_FAKE_CUDA_ERROR");
  return error ? atoi(error) : 0;
}

int cudaGetDeviceCount(int* count) {
  const char* devices = getenv("KDACHECK_FAKE_CUDA_DEVICES");
  *count = devices ? atoi(devices) : 1;
  return *count > 0 ? 0 : 100;
}
int cudaMalloc(void** memory, size_t bytes) {
  *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*memory) memset(*memory, 0x7f, bytes);
  return *memory ? 0 : 2;
}
int cudaFree(void* memory) {
  free(memory);
  return 0;
}
int cudaMemcpy(void* to, const void* from, size_t bytes, int kind) {
  (void)kind;
  if (pending() == 0) memcpy(to, from, bytes);
  return pending();
}
int cudaStreamCreate(void** stream) {
  *stream = (void*)0x5eed;
  return 0;
}
int cudaStreamDestroy(void* stream) {
  (void)stream;
  return 0;
}
int cudaStreamSynchronize(void* stream) { return stream == (void*)0x5eed ? pending() : 400; }
int cudaGetLastError(void) { return 0; }
const char* cudaGetErrorString(int error) {
  return error == 700 ? "an illegal memory access was encountered" : error == 100 ? "no CUDA-capable device is detected" : "unknown error";
}
