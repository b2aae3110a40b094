#include "call_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace kdacheck::plugin {
namespace {

constexpr std::int64_t alignment = 64;

std::int64_t aligned(std::int64_t offset) { return (offset + alignment - 1) / alignment * alignment; }

/// Bytes from the first to the last element of a view, gaps included.
std::int64_t extent(const TensorView& view) {
  if (view.elements() == 0) return 0;
  std::int64_t last = 0;
  for (std::size_t d = 0; d < 4; ++d) last += (view.shape[d] - 1) * view.stride[d];
  return (last + 1) * static_cast<std::int64_t>(storage_bytes(view.format));
}

/// Every tensor of a call with its name, in a fixed order.
template <class Visit> void each_tensor(CallRecord& record, const CallViews& views, const Visit& visit) {
  for (Input input : all_inputs) {
    const auto i = static_cast<std::size_t>(input);
    visit(record.inputs[i], views.inputs->tensor[i], std::string(name(input)));
    visit(record.gradients[i], views.gradients.tensor[i], "d" + std::string(name(input)));
  }
  visit(record.outputs[0], views.outputs.o, "o");
  visit(record.outputs[1], views.outputs.final_state, "final_state");
  visit(record.cotangents[0], views.cotangents.d_o, "d_o");
  visit(record.cotangents[1], views.cotangents.d_final_state, "d_final_state");
}

} // namespace

SharedMemory::SharedMemory() {
  descriptor_ = memfd_create("kdacheck-call", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  // A child that made it shorter would end this process at its next access.
  if (descriptor_ < 0 || fcntl(descriptor_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
    throw std::runtime_error(std::string("cannot create shared memory: ") + std::strerror(errno));
  base_ = static_cast<std::byte*>(mmap(nullptr, memory_limit, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor_, 0));
  if (base_ == MAP_FAILED) {
    close(descriptor_);
    throw std::runtime_error(std::string("cannot map shared memory: ") + std::strerror(errno));
  }
  grow_to(sizeof(CallRecord));
  new (base_) CallRecord;
}

SharedMemory::SharedMemory(int descriptor) : descriptor_(descriptor) {
  base_ = static_cast<std::byte*>(mmap(nullptr, memory_limit, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor_, 0));
  if (base_ == MAP_FAILED) throw std::runtime_error(std::string("cannot map shared memory: ") + std::strerror(errno));
}

SharedMemory::~SharedMemory() {
  if (base_ != nullptr && base_ != MAP_FAILED) munmap(base_, memory_limit);
  if (descriptor_ >= 0) close(descriptor_);
}

void SharedMemory::grow_to(std::int64_t bytes) {
  if (bytes <= size_) return;
  if (bytes > memory_limit) throw Refused("the call needs more shared memory than a plug-in may have (16 GiB)");
  if (ftruncate(descriptor_, bytes) != 0) throw std::runtime_error(std::string("cannot grow shared memory: ") + std::strerror(errno));
  size_ = bytes;
}

void place_call(SharedMemory& memory, Operation operation, std::uint32_t kernel, const CallViews& views) {
  const Inputs& in = *views.inputs;
  auto own = std::make_unique<CallRecord>(); // the one that is shared is only written: a child may change it at any moment
  CallRecord& record = *own;
  record.operation = operation;
  record.kernel = kernel;
  record.shape = in.shape;
  record.N = in.N();
  record.rule = static_cast<std::int32_t>(in.options.rule);
  record.gate = static_cast<std::int32_t>(in.options.gate);
  record.beta_form = static_cast<std::int32_t>(in.options.beta);
  record.l2norm = in.options.l2norm ? 1 : 0;
  record.scale = in.options.scale;
  record.lower_bound = in.options.lower_bound;

  std::int64_t end = aligned(sizeof(CallRecord));
  record.call_begin = end;
  each_tensor(record, views, [&](Slot& slot, const TensorView& view, const std::string&) {
    slot = Slot{};
    if (!view) return;
    slot.format = static_cast<std::int32_t>(view.format);
    slot.shape = view.shape;
    slot.stride = view.stride;
    slot.bytes = extent(view);
    slot.offset = aligned(end + guard_bytes);
    end = slot.offset + slot.bytes + guard_bytes;
  });
  record.lengths_count = static_cast<std::int64_t>(in.cu_seqlens.size());
  record.lengths_offset = in.cu_seqlens.empty() ? -1 : aligned(end);
  if (!in.cu_seqlens.empty()) end = record.lengths_offset + record.lengths_count * 8;
  record.workspace_bytes = static_cast<std::int64_t>(views.workspace.size());
  record.workspace_offset = aligned(end + guard_bytes);
  end = record.workspace_offset + record.workspace_bytes + guard_bytes;
  record.call_end = end;

  memory.grow_to(end);
  const auto guard = [&](std::int64_t offset, std::int64_t bytes) {
    std::memset(memory.at(offset - guard_bytes), guard_pattern, guard_bytes);
    std::memset(memory.at(offset + bytes), guard_pattern, guard_bytes);
  };
  each_tensor(record, views, [&](Slot& slot, const TensorView& view, const std::string&) {
    if (slot.offset < 0) return;
    guard(slot.offset, slot.bytes);
    if (slot.bytes > 0) std::memcpy(memory.at(slot.offset), view.data, static_cast<std::size_t>(slot.bytes));
  });
  guard(record.workspace_offset, record.workspace_bytes);
  if (!in.cu_seqlens.empty()) std::memcpy(memory.at(record.lengths_offset), in.cu_seqlens.data(), in.cu_seqlens.size_bytes());
  if (!views.workspace.empty()) std::memcpy(memory.at(record.workspace_offset), views.workspace.data(), views.workspace.size());
  memory.record() = record;
}

std::vector<std::string> fetch_call(const SharedMemory& memory, const CallViews& views) {
  std::vector<std::string> trespasses;
  // The child may have written over the record as well: offsets are computed anew from the views, never read back.
  std::int64_t end = aligned(sizeof(CallRecord));
  const auto intact = [&](std::int64_t offset) {
    const std::byte* guard = memory.at(offset);
    return std::all_of(guard, guard + guard_bytes, [](std::byte b) { return b == std::byte{guard_pattern}; });
  };
  const auto check = [&](std::int64_t offset, std::int64_t bytes, const std::string& label) {
    if (!intact(offset - guard_bytes)) trespasses.push_back("wrote before the start of " + label);
    if (!intact(offset + bytes)) trespasses.push_back("wrote past the end of " + label);
  };
  CallRecord scratch;
  each_tensor(scratch, views, [&](Slot&, const TensorView& view, const std::string& label) {
    if (!view) return;
    const std::int64_t bytes = extent(view), offset = aligned(end + guard_bytes);
    end = offset + bytes + guard_bytes;
    check(offset, bytes, label);
    if (bytes > 0) std::memcpy(view.data, memory.at(offset), static_cast<std::size_t>(bytes));
  });
  if (!views.inputs->cu_seqlens.empty()) {
    const std::int64_t offset = aligned(end);
    if (std::memcmp(memory.at(offset), views.inputs->cu_seqlens.data(), views.inputs->cu_seqlens.size_bytes()) != 0)
      trespasses.push_back("changed cu_seqlens");
    end = offset + static_cast<std::int64_t>(views.inputs->cu_seqlens.size_bytes());
  }
  check(aligned(end + guard_bytes), static_cast<std::int64_t>(views.workspace.size()), "the workspace");
  if (!views.workspace.empty()) std::memcpy(views.workspace.data(), memory.at(aligned(end + guard_bytes)), views.workspace.size());
  return trespasses;
}

} // namespace kdacheck::plugin
