#pragma once
// Every parser that meets bytes from elsewhere, fed with whatever bytes there are. libFuzzer (fuzzer.cpp) and the ordinary
// tests (../tests/hostile_bytes.cpp) call the same functions.

#include <cstddef>
#include <span>
#include <string_view>

namespace kdacheck {

/// `feed` returns whether the bytes were accepted. What is not must be refused with one clear sentence by the exception that
/// the parser documents; what is must mean the same when it is written and read again. Anything else leaves feed as
/// another exception (std::logic_error for a broken promise).
struct FuzzTarget {
  std::string_view name;
  bool (*feed)(std::span<const std::byte>);
};

std::span<const FuzzTarget> fuzz_targets();

} // namespace kdacheck
