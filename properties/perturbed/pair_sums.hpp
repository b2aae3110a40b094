#pragma once
// Sums over all pairs that a token of a chunk stands in, channel by channel, as a kernel may form them that adds one pair after another
// to what it has.
//
// The perturbed runs form them block by block. Every order is the contract's, and rounding depends on it: 63 equal terms that are added
// to one running number err alike as long as its exponent stays, up to half a unit each, which the sums of 16 and of four blocks do not
// show; and pairs that add little to a large share of the state's drop the same rest 63 times. The noise-free run therefore follows each
// sum through all blocks, from what stood there before the first pair, and leaves its error on the tape in place of the blocks'.

#include "perturbed_products.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// Forms sums of products whose roundings are accounted for elsewhere.
template <class Run> struct WithoutRounding {
  using Number = typename Run::Number;
  static constexpr bool records = false;
  Number sum_error(Number sum) const { return sum; }
};

/// The sums of one matrix of numbers. Does nothing but read the tape, in `finish`, for runs that do not record.
template <class Run> class PairSums {
public:
  using Number = typename Run::Number;

  void start(const Run& run, const std::vector<Number>& sums) {
    if constexpr (Run::records) {
      squares_.assign(sums.size(), 0.0);
      if (!run.follows()) return;
      twin_.resize(sums.size());
      for (std::size_t at = 0; at < sums.size(); ++at) twin_[at] = run.start(sums[at]).sum;
    }
  }

  /// The terms factor(c) a(m) b(m, c), m in the range, of `count` sums: those from `first` on, which are not changed.
  template <class Factor, class A, class B>
  void add(const Run& run, const std::vector<Number>& sums, std::size_t first, std::int64_t count, Range range, Factor&& factor, A&& a,
           B&& b) {
    if constexpr (Run::records) {
      if (run.follows())
        add_all<true>(run, sums, first, count, range, factor, a, b);
      else
        add_all<false>(run, sums, first, count, range, factor, a, b);
    }
  }

  /// Puts the errors of all sums on the tape, or takes them from it.
  void finish(Run& run, std::vector<Number>& sums) const {
    for (std::size_t at = 0; at < sums.size(); ++at) {
      if constexpr (!Run::records)
        sums[at] = run.sum_error(sums[at]);
      else if (run.follows())
        run.finish({twin_[at], squares_[at]}, sums[at]);
      else
        run.finish(squares_[at]);
    }
  }

private:
  template <bool follows, class Factor, class A, class B>
  void add_all(const Run& run, const std::vector<Number>& sums, std::size_t first, std::int64_t count, Range range, Factor& factor, A& a,
               B& b) {
    constexpr std::int64_t width = 8;
    std::int64_t c = 0;
    for (; c + width <= count; c += width) add_some<follows, width>(run, sums, first, c, range, factor, a, b);
    for (; c < count; ++c) add_some<follows, 1>(run, sums, first, c, range, factor, a, b);
  }

  template <bool follows, std::int64_t width, class Factor, class A, class B>
  void add_some(const Run& run, const std::vector<Number>& sums, std::size_t first, std::int64_t c0, Range range, Factor& factor, A& a,
                B& b) {
    const std::size_t at = first + static_cast<std::size_t>(c0);
    double sum[width], scale[width], squares[width];
    typename Run::Twin twin[follows ? width : 1] = {};
    for (std::int64_t c = 0; c < width; ++c) {
      const std::size_t entry = at + static_cast<std::size_t>(c);
      sum[c] = sums[entry], scale[c] = factor(c0 + c), squares[c] = squares_[entry];
      if constexpr (follows) twin[c].sum = twin_[entry];
    }
    for (std::int64_t m = range.begin; m < range.end; ++m) {
      const double x = a(m);
      for (std::int64_t c = 0; c < width; ++c) {
        const double term = scale[c] * (x * b(m, c0 + c));
        sum[c] += term;
        if constexpr (follows) run.add(twin[c], term, sum[c]);
        squares[c] += run.squares_of(term, sum[c]);
      }
    }
    for (std::int64_t c = 0; c < width; ++c) {
      const std::size_t entry = at + static_cast<std::size_t>(c);
      squares_[entry] = squares[c];
      if constexpr (follows) twin_[entry] = twin[c].sum;
    }
  }

  std::vector<Lanes> twin_;
  std::vector<double> squares_;
};

} // namespace kdacheck
