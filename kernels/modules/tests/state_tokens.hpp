#pragma once
// Random tokens for the state manager's tests, a function of a seed.

#include "../state_manager.hpp"

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <unistd.h>
#include <vector>

namespace kdacheck::modules {

struct TokenNumbers {
  std::int64_t B = 0, T = 0;
  std::vector<float> alpha, k, beta, v;
  StateTokens view() const { return {B, T, alpha, k, beta, v}; }
};

inline TokenNumbers random_tokens(const StateShape& shape, std::int64_t B, std::int64_t T, std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  const auto draw = [&](std::int64_t count, float low, float high) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& x : values) x = low + (high - low) * static_cast<float>(bits() % 65536) / 65536.0f;
    return values;
  };
  const std::int64_t rows = B * T * shape.H;
  return {B, T, draw(rows * shape.K, 0.5f, 1), draw(rows * shape.K, -0.5f, 0.5f), draw(rows, 0, 1), draw(rows * shape.V, -1, 1)};
}

/// Token t of every sequence alone.
inline TokenNumbers one_token(const StateShape& shape, const TokenNumbers& all, std::int64_t t) {
  TokenNumbers one{all.B, 1, {}, {}, {}, {}};
  const auto take = [&](const std::vector<float>& from, std::vector<float>& to, std::int64_t width) {
    for (std::int64_t b = 0; b < all.B; ++b) {
      const auto start = from.begin() + (b * all.T + t) * width;
      to.insert(to.end(), start, start + width);
    }
  };
  take(all.alpha, one.alpha, shape.H * shape.K);
  take(all.k, one.k, shape.H * shape.K);
  take(all.beta, one.beta, shape.H);
  take(all.v, one.v, shape.H * shape.V);
  return one;
}

/// A folder of its own that goes with the object.
struct ScratchFolder {
  std::filesystem::path path;
  ScratchFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "kdacheck-states-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~ScratchFolder() { std::filesystem::remove_all(path); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
};

} // namespace kdacheck::modules
