// Bytes from elsewhere: the committed corpus of each parser (../fuzz/corpus) and thousands of deterministic mutations of it,
// through the same entry points as libFuzzer's programs. No crash, no other exception than the parser documents.

#include "../fuzz/entry_points.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

using namespace kdacheck;

namespace {

constexpr int mutations_per_file = 400;

using Bytes = std::vector<std::byte>;

std::vector<std::pair<std::string, Bytes>> corpus_of(std::string_view target) {
  std::vector<std::pair<std::string, Bytes>> files;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(KDACHECK_FUZZ_CORPUS) / target)) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const auto bytes = std::as_bytes(std::span(text));
    files.emplace_back(entry.path().filename().string(), Bytes(bytes.begin(), bytes.end()));
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// splitmix64.
struct Dice {
  std::uint64_t state;
  std::uint64_t next() {
    std::uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(next() % std::max<std::size_t>(n, 1)); }
};

/// One change: a bit, a byte, a piece taken out, doubled or put in from another file, the end cut off, a number grown.
void mutate(Bytes& bytes, const Bytes& other, Dice& dice) {
  const std::size_t at = dice.below(bytes.size() + 1), length = 1 + dice.below(16);
  const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  const auto to = from + static_cast<std::ptrdiff_t>(std::min(length, bytes.size() - at));
  switch (dice.below(7)) {
  case 0:
    if (from != bytes.end()) *from ^= std::byte{1} << dice.below(8);
    break;
  case 1:
    if (from != bytes.end()) *from = std::byte(dice.below(256));
    break;
  case 2: bytes.erase(from, to); break;
  case 3: {
    const Bytes piece(from, to);
    bytes.insert(from, piece.begin(), piece.end());
    break;
  }
  case 4: {
    const std::size_t start = dice.below(other.size() + 1);
    bytes.insert(from, other.begin() + static_cast<std::ptrdiff_t>(start),
                 other.begin() + static_cast<std::ptrdiff_t>(std::min(start + length, other.size())));
    break;
  }
  case 5: bytes.erase(from, bytes.end()); break;
  default:
    for (auto digit = from; digit != bytes.end(); ++digit)
      if (*digit >= std::byte{'0'} && *digit <= std::byte{'9'}) {
        const std::string grown =
            std::vector<std::string>{"18446744073709551616", "-1", "9223372036854775807", "1e308", "0", "4294967296"}[dice.below(6)];
        const auto added = std::as_bytes(std::span(grown));
        bytes.insert(digit, added.begin(), added.end());
        break;
      }
  }
}

} // namespace

TEST_CASE("every file of the corpus, and what mutation makes of it, is accepted or refused with a sentence") {
  REQUIRE(fuzz_targets().size() == 7);
  for (const FuzzTarget& target : fuzz_targets()) {
    const auto corpus = corpus_of(target.name);
    int accepted = 0, fed = 0;
    for (std::size_t i = 0; i < corpus.size(); ++i) {
      const auto& [name, bytes] = corpus[i];
      Dice dice{i};
      for (int mutation = 0; mutation <= mutations_per_file; ++mutation) {
        Bytes mutated = bytes;
        for (std::size_t changes = mutation == 0 ? 0 : 1 + dice.below(4); changes > 0; --changes)
          mutate(mutated, corpus[dice.below(corpus.size())].second, dice);
        INFO(target.name << ", " << name << ", mutation " << mutation);
        bool taken = false;
        REQUIRE_NOTHROW(taken = target.feed(mutated));
        if (mutation == 0 && name.starts_with("good")) CHECK(taken);
        if (mutation == 0 && name.starts_with("bad")) CHECK_FALSE(taken);
        accepted += taken;
        ++fed;
      }
    }
    INFO(target.name << ": " << fed << " inputs, " << accepted << " accepted");
    CHECK(fed >= 1600);
    CHECK(accepted > 0);
    CHECK(accepted < fed);
  }
}
