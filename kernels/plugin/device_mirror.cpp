#include "device_mirror.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

namespace kdacheck::plugin {
namespace {

constexpr int host_to_device = 1, device_to_host = 2; // cudaMemcpyKind

/// The first CUDA runtime that can be loaded: KDACHECK_CUDART, then by the names that toolkits and drivers install.
void* open_runtime() {
  if (const char* chosen = std::getenv("KDACHECK_CUDART")) return dlopen(chosen, RTLD_NOW | RTLD_LOCAL);
  for (const char* name : {"libcudart.so.13", "libcudart.so.12", "libcudart.so", "/usr/local/cuda/lib64/libcudart.so"})
    if (void* handle = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return handle;
  return nullptr;
}

} // namespace

struct DeviceMirror::Runtime {
  int (*get_device_count)(int*) = nullptr;
  int (*allocate)(void**, std::size_t) = nullptr;
  int (*release)(void*) = nullptr;
  int (*copy)(void*, const void*, std::size_t, int) = nullptr;
  int (*create_stream)(void**) = nullptr;
  int (*destroy_stream)(void*) = nullptr;
  int (*synchronize)(void*) = nullptr;
  int (*last_error)() = nullptr;
  const char* (*error_text)(int) = nullptr;

  Runtime() {
    void* handle = open_runtime();
    if (!handle) throw NoDevice("memory=device needs a CUDA runtime, and no libcudart can be loaded");
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
      if (!function) throw NoDevice(std::string("memory=device: the CUDA runtime has no ") + name);
    };
    find(get_device_count, "cudaGetDeviceCount");
    find(allocate, "cudaMalloc");
    find(release, "cudaFree");
    find(copy, "cudaMemcpy");
    find(create_stream, "cudaStreamCreate");
    find(destroy_stream, "cudaStreamDestroy");
    find(synchronize, "cudaStreamSynchronize");
    find(last_error, "cudaGetLastError");
    find(error_text, "cudaGetErrorString");
    int devices = 0;
    if (const int status = get_device_count(&devices); status != 0 || devices < 1)
      throw NoDevice(std::string("memory=device needs a CUDA device, and there is none") +
                     (status != 0 ? std::string(" (") + error_text(status) + ")" : ""));
  }
};

void DeviceMirror::check(int status, const char* what) const {
  if (status != 0) throw DeviceBroken(std::string("the device reported an error ") + what + ": " + runtime_->error_text(status));
}

DeviceMirror::DeviceMirror() {
  static const Runtime runtime;
  runtime_ = &runtime;
  if (const int status = runtime_->create_stream(&stream_); status != 0)
    throw NoDevice(std::string("memory=device: the device cannot be used: ") + runtime_->error_text(status));
}

DeviceMirror::~DeviceMirror() {
  if (memory_) runtime_->release(memory_);
  runtime_->destroy_stream(stream_);
}

std::byte* DeviceMirror::upload(const std::byte* host, std::size_t bytes) {
  if (bytes > capacity_) {
    if (memory_) check(runtime_->release(memory_), "when its memory was given back");
    memory_ = nullptr, capacity_ = 0;
    check(runtime_->allocate(&memory_, bytes), "when memory was asked for");
    capacity_ = bytes;
  }
  bytes_ = bytes;
  check(runtime_->copy(memory_, host, bytes, host_to_device), "when the call was copied to it");
  return static_cast<std::byte*>(memory_);
}

void DeviceMirror::download(std::byte* host) {
  check(runtime_->last_error(), "after the call");
  check(runtime_->synchronize(stream_), "during the call");
  check(runtime_->copy(host, memory_, bytes_, device_to_host), "when the results were copied back");
}

} // namespace kdacheck::plugin
