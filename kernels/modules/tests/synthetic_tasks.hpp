#pragma once
// Tasks of recall in small and in large: associative recall (MQAR), reversal (Palindrome), stacks. Source: Kimi Linear technical report
// (arXiv 2510.26692), section 5.1.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

namespace kdacheck::modules::tests {

using Random = std::mt19937_64;

inline std::int64_t below(Random& random, std::int64_t count) {
  return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(count));
}

/// Tokens of a batch, one sequence after the other, and what is to follow each: -1 where nothing is asked.
struct Batch {
  std::vector<std::int64_t> tokens, targets;
  void put(std::int64_t token, std::int64_t target) { tokens.push_back(token), targets.push_back(target); }
};

/// `put` appends one sequence of T tokens.
struct Task {
  std::int64_t vocabulary, T;
  std::function<void(Random&, Batch&)> put;
  Batch draw(Random& random, std::int64_t sequences) const {
    Batch batch;
    for (std::int64_t b = 0; b < sequences; ++b) put(random, batch);
    return batch;
  }
};

inline std::vector<std::int64_t> shuffled(Random& random, std::int64_t first, std::int64_t count) {
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < count; ++i) all.push_back(first + i);
  for (std::int64_t i = count - 1; i > 0; --i)
    std::swap(all[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(below(random, i + 1))]);
  return all;
}

/// `pairs` of `symbols` keys, each with one of `symbols` values, `blanks`, and the keys again in another order: each is to be followed by
/// its value. T = 3 pairs + blanks.
inline Task associative_recall(std::int64_t pairs, std::int64_t symbols, std::int64_t blanks) {
  return {1 + 2 * symbols, 3 * pairs + blanks, [=](Random& random, Batch& batch) {
            std::vector<std::int64_t> keys = shuffled(random, 1, symbols), values(static_cast<std::size_t>(1 + symbols));
            keys.resize(static_cast<std::size_t>(pairs));
            for (std::int64_t key : keys) {
              values[static_cast<std::size_t>(key)] = 1 + symbols + below(random, symbols);
              batch.put(key, -1), batch.put(values[static_cast<std::size_t>(key)], -1);
            }
            for (std::int64_t i = 0; i < blanks; ++i) batch.put(0, -1);
            for (std::int64_t i : shuffled(random, 0, pairs)) {
              const std::int64_t key = keys[static_cast<std::size_t>(i)];
              batch.put(key, values[static_cast<std::size_t>(key)]);
            }
          }};
}

/// `length` of `symbols` symbols, a mark, and the symbols from the last to the first. T = 2 length.
inline Task palindrome(std::int64_t length, std::int64_t symbols) {
  return {1 + symbols, 2 * length, [=](Random& random, Batch& batch) {
            std::vector<std::int64_t> drawn;
            for (std::int64_t i = 0; i < length; ++i) drawn.push_back(1 + below(random, symbols)), batch.put(drawn.back(), -1);
            for (std::size_t i = 0; i < drawn.size(); ++i) batch.put(i == 0 ? 0 : drawn[drawn.size() - i], drawn[drawn.size() - 1 - i]);
          }};
}

/// `commands` of two tokens on `count` stacks of `symbols` symbols: push and the symbol, or pop, which is to be followed by what comes
/// off. T = 2 commands.
inline Task stacks(std::int64_t count, std::int64_t symbols, std::int64_t commands) {
  return {2 * count + symbols, 2 * commands, [=](Random& random, Batch& batch) {
            std::vector<std::vector<std::int64_t>> all(static_cast<std::size_t>(count));
            for (std::int64_t command = 0; command < commands; ++command) {
              const std::int64_t s = below(random, count);
              std::vector<std::int64_t>& stack = all[static_cast<std::size_t>(s)];
              if (stack.empty() || below(random, 2) == 0) {
                stack.push_back(2 * count + below(random, symbols));
                batch.put(s, -1), batch.put(stack.back(), -1);
              } else {
                batch.put(count + s, stack.back()), batch.put(stack.back(), -1);
                stack.pop_back();
              }
            }
          }};
}

} // namespace kdacheck::modules::tests
