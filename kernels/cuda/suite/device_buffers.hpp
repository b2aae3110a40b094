#pragma once
// Device memory for one call: every tensor between two guards, outputs poisoned.

#include "../../../reference/tensor.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace kdacheck::cuda {

/// Tensors are added first, then placed together, then read back. Throws std::runtime_error with the place of a CUDA error.
class DeviceBuffers {
public:
  /// Index of a tensor of that size; `source` is copied in by place() if not null, otherwise the tensor is poisoned.
  std::size_t add(std::string name, std::size_t bytes, const void* source);
  /// Allocates and fills everything. `pattern` is the byte of the poison; the guards hold its complement.
  void place(unsigned char pattern);
  /// Where a tensor lies; before place(), an address that is aligned alike and not null, to be checked but not followed.
  void* operator[](std::size_t index) const;
  /// Copies a tensor back to the host.
  void read(std::size_t index, void* to) const;
  /// Throws if a guard or a tensor with a source changed; `changing` is exempt (in-place state).
  void verify(std::size_t changing) const;

private:
  struct Tensor {
    std::string name;
    std::size_t bytes, offset;
    const void* source;
  };
  std::vector<Tensor> tensors;
  std::size_t total = 0;
  unsigned char* memory = nullptr; ///< this thread's, kept between calls
  unsigned char guard = 0;
};

inline constexpr std::size_t guard_bytes = 1024;

} // namespace kdacheck::cuda
