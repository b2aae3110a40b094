#include "covering_rows.hpp"

#include "random.hpp"

#include <algorithm>
#include <numeric>

namespace kdacheck {
namespace {

/// Candidates of a row, and how often as many are made where they cost too much.
constexpr int candidates = 24, tries = 40;

/// Sets of (factor, level) pairs and triples that rows have met.
class Met {
public:
  explicit Met(std::span<const int> levels) : first_(levels.size() + 1, 0) {
    std::partial_sum(levels.begin(), levels.end(), first_.begin() + 1);
    size_ = static_cast<std::size_t>(first_.back());
    pairs_.assign(size_ * size_, false);
    triples_.assign(size_ * size_ * size_, false);
  }

  bool pair(std::size_t i, int a, std::size_t j, int b) const { return pairs_[at(i, a) * size_ + at(j, b)]; }
  void drop(std::size_t i, int a, std::size_t j, int b) { pairs_[at(i, a) * size_ + at(j, b)] = true; }

  int new_pairs(const CoveringRow& row) const {
    int count = 0;
    for (std::size_t j = 1; j < row.size(); ++j)
      for (std::size_t i = 0; i < j; ++i) count += !pair(i, row[i], j, row[j]);
    return count;
  }

  int new_triples(const CoveringRow& row) const {
    int count = 0;
    each_triple(row, [&](std::size_t place) { count += !triples_[place]; });
    return count;
  }

  void add(const CoveringRow& row) {
    for (std::size_t j = 1; j < row.size(); ++j)
      for (std::size_t i = 0; i < j; ++i) drop(i, row[i], j, row[j]);
    each_triple(row, [&](std::size_t place) { triples_[place] = true; });
  }

private:
  std::size_t at(std::size_t factor, int level) const { return static_cast<std::size_t>(first_[factor] + level); }

  void each_triple(const CoveringRow& row, const auto& visit) const {
    for (std::size_t l = 2; l < row.size(); ++l)
      for (std::size_t j = 1; j < l; ++j)
        for (std::size_t i = 0; i < j; ++i) visit((at(i, row[i]) * size_ + at(j, row[j])) * size_ + at(l, row[l]));
  }

  std::vector<int> first_;
  std::size_t size_ = 0;
  std::vector<bool> pairs_, triples_;
};

class Chance {
public:
  int below(int n) { return static_cast<int>(stream_.below(static_cast<std::uint32_t>(n), next_++)); }

private:
  Stream stream_{0, Draw::recipe};
  std::uint32_t next_ = 0;
};

/// A row with two levels given: the other factors in random order, each with the level that meets most of those before it anew.
CoveringRow completed(std::span<const int> levels, const MissingPair& pair, const Met& met, Chance& chance) {
  CoveringRow row(levels.size(), -1);
  row[pair.first] = pair.first_level;
  row[pair.second] = pair.second_level;
  std::vector<std::size_t> order(levels.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[static_cast<std::size_t>(chance.below(static_cast<int>(i)))]);
  for (const std::size_t factor : order) {
    if (row[factor] >= 0) continue;
    int best = -1;
    for (int i = 0, start = chance.below(levels[factor]); i < levels[factor]; ++i) {
      const int level = (start + i) % levels[factor];
      int count = 0;
      for (std::size_t other = 0; other < row.size(); ++other)
        if (other != factor && row[other] >= 0)
          count += other < factor ? !met.pair(other, row[other], factor, level) : !met.pair(factor, level, other, row[other]);
      if (count > best) best = count, row[factor] = level;
    }
  }
  return row;
}

/// The first pair that is not met, or nothing (levels -1).
MissingPair first_missing(std::span<const int> levels, const Met& met) {
  for (std::size_t j = 1; j < levels.size(); ++j)
    for (std::size_t i = 0; i < j; ++i)
      for (int a = 0; a < levels[i]; ++a)
        for (int b = 0; b < levels[j]; ++b)
          if (!met.pair(i, a, j, b)) return {i, j, a, b};
  return {0, 0, -1, -1};
}

} // namespace

std::vector<CoveringRow> covering_rows(std::span<const int> levels, const std::function<std::int64_t(const CoveringRow&)>& cost,
                                       std::span<const std::int64_t> limits) {
  std::vector<CoveringRow> rows;
  Met met(levels);
  Chance chance;
  const auto best_for = [&](const MissingPair& pair, std::int64_t limit) {
    CoveringRow best;
    int pairs = 0, triples = 0;
    for (int made = 0, found = 0; found < candidates && made < candidates * tries; ++made) {
      CoveringRow row = completed(levels, pair, met, chance);
      if (cost(row) > limit) { // what is new is often what is too large together: more and more of it at random
        for (std::size_t i = 0; i < row.size(); ++i)
          if (i != pair.first && i != pair.second && chance.below(candidates * tries) < made + candidates * tries / 4)
            row[i] = chance.below(levels[i]);
        if (cost(row) > limit) continue;
      }
      ++found;
      const int new_pairs = met.new_pairs(row), new_triples = new_pairs >= pairs ? met.new_triples(row) : 0;
      if (new_pairs > pairs || (new_pairs == pairs && new_triples > triples)) best = row, pairs = new_pairs, triples = new_triples;
    }
    return best;
  };
  for (MissingPair pair = first_missing(levels, met); pair.first_level >= 0; pair = first_missing(levels, met)) {
    CoveringRow best;
    for (std::size_t i = 0; best.empty() && i < limits.size(); ++i) best = best_for(pair, limits[i]);
    if (best.empty()) {
      met.drop(pair.first, pair.first_level, pair.second, pair.second_level);
      continue;
    }
    met.add(best);
    rows.push_back(std::move(best));
  }
  return rows;
}

std::vector<MissingPair> missing_pairs(std::span<const int> levels, std::span<const CoveringRow> rows) {
  Met met(levels);
  for (const CoveringRow& row : rows) met.add(row);
  std::vector<MissingPair> missing;
  for (MissingPair pair = first_missing(levels, met); pair.first_level >= 0; pair = first_missing(levels, met)) {
    missing.push_back(pair);
    met.drop(pair.first, pair.first_level, pair.second, pair.second_level);
  }
  return missing;
}

} // namespace kdacheck
