#pragma once
// Sums of log decay inside a chunk and their exponentials, with a rounding at every site where a kernel has one.

#include "chunk_factors.hpp"
#include "perturbed_products.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck {

template <class Run> class LogDecaySites {
public:
  using Number = typename Run::Number;

  LogDecaySites(const Head& head, const Roundings& roundings) : head_(head), roundings_(roundings) {}

protected:
  static std::size_t at(std::int64_t i, std::int64_t j, std::int64_t width) { return static_cast<std::size_t>(i * width + j); }

  /// Error of the in-chunk sums of log decay: each term is resolved with its own error, each partial sum is rounded.
  void sum_log_decay(const ChunkFactors& f) {
    const std::int64_t K = head_.K;
    std::vector<double> largest(static_cast<std::size_t>(K));
    log_error_.assign(static_cast<std::size_t>(f.n * K), Number{});
    for (std::int64_t i = 0; i < f.n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(i, c, K);
        const double g = head_.g[at(f.first + i, c, K)];
        Number error = i > 0 ? log_error_[at(i - 1, c, K)] : Number{};
        const double resolved = head_.gate_error[at(f.first + i, c, K)];
        double& most = largest[static_cast<std::size_t>(c)];
        most += resolved;
        if (resolved > 0) error += run_->absolute_error(Site::exponential, g, resolved);
        const double taken = head_.sum_error[at(f.first + i, c, K)];
        most += taken;
        if (taken > 0) error += run_->absolute_error(Site::cumsum, g + error, taken);
        // The sum as it stands is rounded; the first of a chunk is its first term. Equal terms err alike as long as the sum's exponent
        // stays: on constant tokens a running sum drifts, which only a rounding of the sum itself, on the grid, shows.
        const double rounded = i > 0 ? roundings_.cumsum * std::abs(f.G[entry]) : 0;
        most += rounded;
        if (rounded > 0) error = run_->round(roundings_.sum, Site::cumsum, f.G[entry] + error) - f.G[entry];
        log_error_[entry] = error;
      }
    // two such sums and a rounding of the argument, at most 2^-24 |G| each, meet in an exponential
    double most = 0;
    for (std::int64_t c = 0; c < K && f.n > 0; ++c)
      most = std::max(most, 2 * (largest[static_cast<std::size_t>(c)] + 0x1p-24 * std::abs(f.G[at(f.n - 1, c, K)])));
    small_errors_ = most + roundings_.exponential <= largest_small;
  }

  /// e^log_error; coarse sums of hundreds err by more than 1. Capped at e^600, so that a decay of 0 stays 0.
  Number grown(Number log_error) const { return small_errors_ ? grow(log_error) : exponential_below(log_error, 600); }

  /// factor * exp(log decay), where exp itself errs by its declared units and its argument by one rounding.
  Number decayed(double factor, Number log_error, double log_decay) {
    if (!roundings_.coarse)
      log_error += run_->absolute_error(Site::exponential, log_decay + log_error, roundings_.exponential + 0x1p-24 * std::abs(log_decay));
    return factor * grown(log_error);
  }

  /// Sum of log decay up to token i of the chunk (before it, if exclusive), and its error.
  double log_decay(const ChunkFactors& f, std::int64_t i, std::int64_t c, bool exclusive) const {
    return exclusive ? (i > 0 ? f.G[at(i - 1, c, head_.K)] : 0.0) : f.G[at(i, c, head_.K)];
  }
  Number log_error(std::int64_t i, std::int64_t c, bool exclusive) const {
    return exclusive ? (i > 0 ? log_error_[at(i - 1, c, head_.K)] : Number{}) : log_error_[at(i, c, head_.K)];
  }

  const Head& head_;
  const Roundings& roundings_;
  Run* run_ = nullptr;
  std::vector<Number> log_error_; ///< [n,K]
  bool small_errors_ = true;      ///< no error of this chunk's log decays reaches `largest_small`
};

} // namespace kdacheck
