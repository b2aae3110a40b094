#include "guarded_memory.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <csignal>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>

#include <sys/mman.h>
#include <unistd.h>

namespace kdacheck {
namespace {

constexpr std::size_t alignment = 64;
constexpr std::size_t near_canary = 256;            // bytes checked before the block
constexpr std::size_t forbidden_bytes = 256 * 1024; // address space behind the block; costs no memory until touched
constexpr std::size_t pooled_bytes = 64u << 20;     // larger mappings go back to the system at once

std::size_t page_bytes() {
  static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

// Forbidden ranges that the signal handler looks through. Slots are claimed once per mapping, never per call.
struct Forbidden {
  std::atomic<std::uintptr_t> begin{0};   // 0: slot free; 1: being set up
  std::atomic<std::uintptr_t> touched{0}; // address of the first touch since it was last closed
};
std::array<Forbidden, 16384> forbidden;
std::atomic<std::size_t> slots_used{0};
struct sigaction previous_action;

void on_fault(int signal, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  const std::size_t used = slots_used.load();
  for (std::size_t i = 0; i < used; ++i) {
    const std::uintptr_t begin = forbidden[i].begin.load();
    if (begin <= 1 || address < begin || address >= begin + forbidden_bytes) continue;
    std::uintptr_t none = 0;
    forbidden[i].touched.compare_exchange_strong(none, address);
    if (mprotect(reinterpret_cast<void*>(begin), forbidden_bytes, PROT_READ | PROT_WRITE) == 0) return;
  }
  // Not ours: whoever handled faults before us gets this one, once; then the process ends as it would have.
  struct sigaction before = previous_action;
  previous_action = {};
  sigaction(signal, &previous_action, nullptr);
  if (before.sa_flags & SA_SIGINFO) return before.sa_sigaction(signal, info, context);
  if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) return before.sa_handler(signal);
  raise(signal);
}

// Others (test frameworks, plug-ins) set handlers too, so ours is put back on top before every call.
void install_handler() {
  static std::mutex alone;
  const std::lock_guard lock(alone);
  struct sigaction current {};
  sigaction(SIGSEGV, nullptr, &current);
  if ((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_fault) return;
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  previous_action = current;
  sigaction(SIGSEGV, &action, nullptr);
}

Forbidden* claim_slot(std::uintptr_t begin) {
  for (std::size_t i = 0; i < forbidden.size(); ++i) {
    std::uintptr_t free = 0;
    if (!forbidden[i].begin.compare_exchange_strong(free, 1)) continue;
    forbidden[i].touched = 0;
    forbidden[i].begin = begin;
    std::size_t used = slots_used.load();
    while (used < i + 1 && !slots_used.compare_exchange_weak(used, i + 1)) {
    }
    return &forbidden[i];
  }
  throw std::bad_alloc();
}

} // namespace

struct GuardedBuffer::Region {
  std::byte* begin;
  std::size_t usable; // bytes before the forbidden pages
  Forbidden* slot;
  std::byte* end() const { return begin + usable; }

  explicit Region(std::size_t bytes) : usable(bytes) {
    void* memory = mmap(nullptr, usable + forbidden_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    begin = static_cast<std::byte*>(memory);
    if (mprotect(begin, usable, PROT_READ | PROT_WRITE) != 0) {
      munmap(begin, usable + forbidden_bytes);
      throw std::bad_alloc();
    }
    try {
      slot = claim_slot(reinterpret_cast<std::uintptr_t>(end()));
    } catch (...) {
      munmap(begin, usable + forbidden_bytes);
      throw;
    }
  }
  ~Region() {
    slot->begin = 0;
    munmap(begin, usable + forbidden_bytes);
  }
  Region(const Region&) = delete;

  // Closes the pages again after a touch; their contents go back to zero.
  void close() {
    if (slot->touched.exchange(0) == 0) return;
    madvise(end(), forbidden_bytes, MADV_DONTNEED);
    mprotect(end(), forbidden_bytes, PROT_NONE);
  }
};

namespace {

// Free regions of this thread by the power of two of their size, the lowest address last: equal calls then find equal
// addresses, so that a kernel which remembers results by pointer is caught.
struct Pool {
  std::array<std::vector<std::unique_ptr<GuardedBuffer::Region>>, 64> free;
};
Pool& pool() {
  thread_local Pool regions;
  return regions;
}

std::size_t size_class(std::size_t usable) { return static_cast<std::size_t>(std::countr_zero(usable)); }

std::unique_ptr<GuardedBuffer::Region> take_region(std::size_t bytes) {
  const std::size_t usable = std::bit_ceil(std::max(bytes + near_canary + 2 * alignment, page_bytes()));
  auto& ready = pool().free[size_class(usable)];
  if (ready.empty()) return std::make_unique<GuardedBuffer::Region>(usable);
  auto region = std::move(ready.back());
  ready.pop_back();
  return region;
}

void write_pattern(std::byte* to, std::size_t bytes, std::uint32_t pattern) {
  std::size_t i = 0;
  for (; i + 4 <= bytes; i += 4) std::memcpy(to + i, &pattern, 4);
  if (i < bytes) std::memcpy(to + i, &pattern, bytes - i);
}

// Index after the last byte (or of the first) that does not hold the pattern, counted from `at`; none: 0 wrong bytes.
struct Damage {
  std::size_t bytes = 0, first = 0, last = 0;
};
Damage damage(const std::byte* at, std::size_t bytes, std::uint32_t pattern) {
  Damage found;
  for (std::size_t i = 0; i < bytes; ++i) {
    std::uint8_t due;
    std::memcpy(&due, reinterpret_cast<const std::byte*>(&pattern) + i % 4, 1);
    if (static_cast<std::uint8_t>(at[i]) == due) continue;
    if (found.bytes++ == 0) found.first = i;
    found.last = i;
  }
  return found;
}

} // namespace

GuardedBuffer::GuardedBuffer(std::size_t bytes, std::uint32_t canary) : bytes_(bytes), canary_(canary) {
  install_handler();
  auto region = take_region(bytes);
  region_ = region.release();
  data_ = region_->end() - alignment - (bytes + alignment - 1) / alignment * alignment;
  write_pattern(data_ - near_canary, near_canary, canary);
  write_pattern(data_ + bytes, static_cast<std::size_t>(region_->end() - data_) - bytes, canary);
}

GuardedBuffer::GuardedBuffer(GuardedBuffer&& other) noexcept
    : region_(other.region_), data_(other.data_), bytes_(other.bytes_), canary_(other.canary_) {
  other.region_ = nullptr;
}

GuardedBuffer::~GuardedBuffer() {
  if (!region_) return;
  std::unique_ptr<Region> region(region_);
  region->close();
  if (region->usable > pooled_bytes) return;
  auto& ready = pool().free[size_class(region->usable)];
  const auto lower = [](const auto& left, const auto& right) { return left->begin > right->begin; };
  ready.insert(std::upper_bound(ready.begin(), ready.end(), region, lower), std::move(region));
}

void GuardedBuffer::fill(std::uint32_t pattern) const { write_pattern(data_, bytes_, pattern); }

std::vector<std::string> GuardedBuffer::trespasses(const std::string& label) const {
  std::vector<std::string> found;
  if (const Damage before = damage(data_ - near_canary, near_canary, canary_); before.bytes)
    found.push_back("wrote " + std::to_string(before.bytes) + " bytes before the start of " + label + ", as far as " +
                    std::to_string(near_canary - before.first) + " bytes away");
  const std::byte* end = data_ + bytes_;
  if (const Damage behind = damage(end, static_cast<std::size_t>(region_->end() - end), canary_); behind.bytes)
    found.push_back("wrote " + std::to_string(behind.bytes) + " bytes past the end of " + label + ", as far as " +
                    std::to_string(behind.last + 1) + " bytes away");
  if (const std::uintptr_t touched = region_->slot->touched.load())
    found.push_back("touched memory " + std::to_string(touched - reinterpret_cast<std::uintptr_t>(end)) + " bytes past the end of " +
                    label);
  return found;
}

} // namespace kdacheck
