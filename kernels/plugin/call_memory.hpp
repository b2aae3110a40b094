#pragma once
// One kernel call laid out in memory that a child process shares. Both sides are built from this file, so the layout is
// their own affair; foreign programs use kdacheck_plugin.h or the line protocol instead.

#include "../kernel.hpp"

#include <cstdint>
#include <span>
#include <string>

namespace kdacheck::plugin {

/// Where a tensor lies: offset in bytes from the start of the shared memory, -1: absent.
struct Slot {
  std::int64_t offset = -1, bytes = 0;
  std::int32_t format = 0, reserved = 0;
  std::array<std::int64_t, 4> shape{}, stride{};
};

enum class Operation : std::uint32_t { describe, workspace, forward, backward, decode };
enum class Answer : std::uint32_t { none, done, refused, failed };

/// Stands at offset 0. Everything a child answers is bounded in size.
struct CallRecord {
  Operation operation = Operation::describe;
  Answer answer = Answer::none;
  std::uint32_t kernel = 0, want_backward = 0;
  Shape shape;
  std::int64_t N = 0;
  std::int32_t rule = 0, gate = 0, beta_form = 0, l2norm = 0;
  float scale = 1, lower_bound = -5;
  std::array<Slot, all_inputs.size()> inputs, gradients;
  std::array<Slot, 2> outputs, cotangents; ///< o, final_state
  std::int64_t lengths_offset = -1, lengths_count = 0;
  std::int64_t workspace_offset = 0, workspace_bytes = 0;
  std::int64_t call_begin = 0, call_end = 0; ///< all that was placed, canaries included
  std::array<char, 1 << 16> text{};          ///< refusal, or the descriptions of all kernels
};

inline constexpr std::int64_t memory_limit = std::int64_t{16} << 30; ///< address space that both sides map
inline constexpr std::int64_t guard_bytes = 256;                     ///< canary before and after every tensor
inline constexpr unsigned char guard_pattern = 0xc5;

/// Shared anonymous memory, grown on demand.
class SharedMemory {
public:
  SharedMemory();                        ///< creates; throws std::runtime_error
  explicit SharedMemory(int descriptor); ///< maps what a parent created
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory();

  void grow_to(std::int64_t bytes); ///< throws Refused beyond memory_limit, std::runtime_error if there is no memory
  std::byte* at(std::int64_t offset) const { return base_ + offset; }
  CallRecord& record() const { return *reinterpret_cast<CallRecord*>(base_); }
  int descriptor() const { return descriptor_; }

private:
  int descriptor_ = -1;
  std::byte* base_ = nullptr;
  std::int64_t size_ = 0;
};

/// What a call needs, as the caller holds it. Empty views are absent.
struct CallViews {
  const Inputs* inputs = nullptr;
  Outputs outputs;
  Cotangents cotangents;
  GradientOutputs gradients;
  std::span<std::byte> workspace;
};

/// For a decode step the outputs' final_state is left out: it is the inputs' initial_state.
/// Copies a call into shared memory, each tensor between canaries, results with whatever they hold (poison included).
void place_call(SharedMemory&, Operation, std::uint32_t kernel, const CallViews&);

/// Copies inputs, results and workspace back as the child left them, so that the caller's own checks see every change.
/// Returns sentences about canaries that were overwritten.
std::vector<std::string> fetch_call(const SharedMemory&, const CallViews&);

} // namespace kdacheck::plugin
