// One libFuzzer program for the target that KDACHECK_FUZZ_TARGET names: `ninja fuzz_contract && golden/fuzz_contract FOLDER CORPUS`.

#include "entry_points.hpp"

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  for (const kdacheck::FuzzTarget& target : kdacheck::fuzz_targets())
    if (target.name == KDACHECK_FUZZ_TARGET) target.feed(std::as_bytes(std::span(data, size)));
  return 0;
}
