#pragma once
// SHA-256 (FIPS 180-4), by libcrypto.

#include <cstddef>
#include <span>
#include <string>

namespace kdacheck {

/// 64 lower-case hexadecimal digits.
std::string sha256_of(std::span<const std::byte> bytes);

} // namespace kdacheck
