#pragma once
// Remembers what was computed from large inputs, by a 128-bit hash of their content, within bounded memory.

#include "../kernels/contract.hpp"
#include "../reference/problem.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace kdacheck {

struct ContentHash {
  std::uint64_t first = 0, second = 0;
  bool operator==(const ContentHash&) const = default;
};

/// Hash of everything in a problem; equal problems have equal hashes, unequal ones differ but for a chance of 2^-128.
ContentHash content_hash(const Problem&);

/// Hash of what a contract says about rounding errors: formats inside the kernel, exp, order, chunk.
ContentHash error_hash(const Contract&);

/// Order matters.
ContentHash combine(const ContentHash&, const ContentHash&);
ContentHash combine(const ContentHash&, std::uint64_t);

/// Least recently used values go first when their sizes add up to more than the capacity. Safe from several threads; two
/// that ask for the same missing key at once both compute it, with the same result.
template <class Value> class ContentCache {
public:
  explicit ContentCache(std::size_t capacity_bytes) : capacity_(capacity_bytes) {}

  std::shared_ptr<const Value> find(const ContentHash& key) {
    const std::lock_guard lock(mutex_);
    const auto found = index_.find(key);
    if (found == index_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, found->second);
    return found->second->value;
  }

  std::shared_ptr<const Value> keep(const ContentHash& key, std::shared_ptr<const Value> value, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (const auto found = index_.find(key); found != index_.end()) {
      held_ -= found->second->bytes;
      entries_.erase(found->second);
      index_.erase(found);
    }
    entries_.push_front({key, value, bytes});
    index_[key] = entries_.begin();
    held_ += bytes;
    while (held_ > capacity_ && entries_.size() > 1) {
      held_ -= entries_.back().bytes;
      index_.erase(entries_.back().key);
      entries_.pop_back();
    }
    return value;
  }

private:
  struct Entry {
    ContentHash key;
    std::shared_ptr<const Value> value;
    std::size_t bytes;
  };
  struct Hash {
    std::size_t operator()(const ContentHash& key) const { return static_cast<std::size_t>(key.first); }
  };
  std::mutex mutex_;
  std::list<Entry> entries_; // most recently used first
  std::unordered_map<ContentHash, typename std::list<Entry>::iterator, Hash> index_;
  std::size_t capacity_, held_ = 0;
};

} // namespace kdacheck
