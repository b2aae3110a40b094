#pragma once
// A copy of a call in the memory of a CUDA device. The CUDA runtime is found when it is first needed: programs that use this
// build and start where there is none.

#include <cstddef>
#include <stdexcept>

namespace kdacheck::plugin {

/// No device, or no CUDA runtime, on this machine: one sentence.
struct NoDevice : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The device reported an error, and cannot be used by this process any more: one sentence.
struct DeviceBroken : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class DeviceMirror {
public:
  DeviceMirror(); ///< throws NoDevice
  DeviceMirror(const DeviceMirror&) = delete;
  DeviceMirror& operator=(const DeviceMirror&) = delete;
  ~DeviceMirror();

  /// Copies host bytes to the device and returns where they lie, 256-byte aligned. Throws DeviceBroken.
  std::byte* upload(const std::byte* host, std::size_t bytes);
  /// Waits for the stream and copies back what upload() copied. Throws DeviceBroken.
  void download(std::byte* host);
  void* stream() const { return stream_; } ///< a cudaStream_t

private:
  struct Runtime;
  void check(int status, const char* what) const;

  const Runtime* runtime_;
  void *stream_ = nullptr, *memory_ = nullptr;
  std::size_t capacity_ = 0, bytes_ = 0;
};

} // namespace kdacheck::plugin
