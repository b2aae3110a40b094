#include "device_buffers.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <cuda_runtime_api.h>
#include <stdexcept>

namespace kdacheck::cuda {
namespace {

void checked(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(error));
}

/// Grows on demand and lives as long as its thread.
struct Arena {
  unsigned char* memory = nullptr;
  std::size_t size = 0;
  ~Arena() { cudaFree(memory); }
};
thread_local Arena arena;

} // namespace

std::size_t DeviceBuffers::add(std::string name, std::size_t bytes, const void* source) {
  total += guard_bytes;
  tensors.push_back({std::move(name), bytes, total, source});
  total += (bytes + 255) / 256 * 256; // the gap up to the next multiple belongs to the guard
  return tensors.size() - 1;
}

void DeviceBuffers::place(unsigned char pattern) {
  const std::size_t size = total + guard_bytes;
  if (arena.size < size) {
    checked(cudaFree(arena.memory), "cudaFree");
    arena = {};
    checked(cudaMalloc(reinterpret_cast<void**>(&arena.memory), size), "cudaMalloc");
    arena.size = size;
  }
  memory = arena.memory;
  guard = static_cast<unsigned char>(~pattern);
  checked(cudaMemset(memory, guard, size), "cudaMemset");
  for (const Tensor& tensor : tensors) {
    if (tensor.source != nullptr)
      checked(cudaMemcpy(memory + tensor.offset, tensor.source, tensor.bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    else
      checked(cudaMemset(memory + tensor.offset, pattern, tensor.bytes), "cudaMemset");
  }
}

void* DeviceBuffers::operator[](std::size_t index) const {
  return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(memory) + tensors[index].offset);
}

void DeviceBuffers::read(std::size_t index, void* to) const {
  checked(cudaMemcpy(to, memory + tensors[index].offset, tensors[index].bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
}

void DeviceBuffers::verify(std::size_t changing) const {
  std::vector<unsigned char> all(total + guard_bytes);
  checked(cudaMemcpy(all.data(), memory, all.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
  std::size_t end = 0;
  for (std::size_t index = 0; index <= tensors.size(); ++index) {
    const std::size_t begin = index < tensors.size() ? tensors[index].offset : all.size();
    if (std::any_of(all.begin() + static_cast<std::ptrdiff_t>(end), all.begin() + static_cast<std::ptrdiff_t>(begin),
                    [&](unsigned char byte) { return byte != guard; }))
      throw std::runtime_error("CUDA: a kernel wrote outside its buffers, next to " + tensors[std::min(index, tensors.size() - 1)].name);
    if (index == tensors.size()) break;
    const Tensor& tensor = tensors[index];
    if (tensor.source != nullptr && index != changing && std::memcmp(all.data() + begin, tensor.source, tensor.bytes) != 0)
      throw std::runtime_error("CUDA: a kernel changed its input " + tensor.name);
    end = begin + tensor.bytes;
  }
}

} // namespace kdacheck::cuda
