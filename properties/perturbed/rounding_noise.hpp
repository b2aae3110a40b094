#pragma once
// What stands in for a kernel's roundings when the canonical algorithm is run in fp64 to see how far legal errors go.
//
// Three models of one rounding of x to precision p, because real roundings are neither fully random nor fully coherent:
//   independent   x (1 + u xi), xi uniform in [-1,1], fresh for each use: no two roundings know of each other;
//   grid          RN_p(s x) / s with one random s in [1,2) per site and draw: equal values get equal errors, as in a real
//                 kernel on constant tokens or near a fixed point, where errors then add up instead of averaging out;
//   grid_of_pairs the same, but scores take their row as it is and round its column, decayed all the way, for every pair of tokens: on
//                 constant decay the error is then a function of i - j in every channel alike, which a solve whose entries alternate
//                 (reflections) adds up over all pairs of a distance, where errors of rows and columns would cancel.
// Sums of products round at every addition, and how much depends on the order of sizes and signs of the partial sums and on
// whether the terms are equal: adding the same number again and again errs the same way each time. Without a fused operation the
// products round as well, and where a sum cancels and its terms are those of the token before, that error is the same in every token,
// which of the additions' need not be. A noise-free run (Recorder) therefore forms every sum a second time, term by term, rounded on
// eight random grids, and leaves the errors on a tape. The grid model adds them as they are; the independent one draws fresh errors of
// their size.

#include "../../kernels/contract.hpp"
#include "lanes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace kdacheck {

enum class NoiseModel : std::uint8_t { independent, grid, grid_of_pairs };

/// Where a kernel rounds. Each site has its own random grid.
enum class Site : std::uint8_t {
  cumsum,
  exponential,
  beta,
  norm,
  key,
  query,
  key_decayed,
  query_decayed,
  key_remaining,
  second_remaining,
  score_row_key,
  score_row_query,
  score_column,
  second_score_column,
  scores,
  second_scores,
  triangle,
  solve,
  inverse,
  state_operand,
  residual,
  weighted_key,
  weighted_value,
  wy_key,
  wy_value,
  update,
  state,
  decayed_state,
  cotangent_state,
  cotangent_update,
  cotangent_residual,
  cotangent_weighted,
  cotangent_scores,
  gate_terms,
  gate_sum,
  gradient,
  count
};

/// One kind of rounding. `least`: a result below it in magnitude may be flushed (or, on fp16's subnormal grid, rounded by
/// `quantum`); at `overflow` and above the result is infinite.
struct Rounding {
  double unit = 0;         ///< half an ulp of 1, times the root of the number of elementwise operations it stands for
  double splitter = 0;     ///< 2^(53-p)+1: Veltkamp's constant, which rounds an fp64 number to p bits
  double amplitude = 1;    ///< unit / half an ulp of 1
  double least = 0x1p-126; ///< below it fp32 hardware may flush to zero
  double quantum = 0;      ///< spacing of the subnormal grid, where it is coarse enough to matter (fp16)
  double overflow = std::numeric_limits<double>::infinity();
  bool truncate = false;
};

/// Rounding to a format in which `operations` fp32 operations came before (they matter only for fp32 itself: a coarser
/// format swallows them).
inline Rounding rounding_to(Format format, bool truncate, double operations) {
  Rounding r;
  const int p = precision(format);
  r.amplitude = format == Format::fp32 || format == Format::fp64 ? std::sqrt(operations) : 1.0;
  r.unit = std::ldexp(r.amplitude, -p);
  r.splitter = std::ldexp(1.0, 53 - p) + 1;
  if (format == Format::fp16) {
    r.quantum = 0x1p-24;
    r.least = 0x1p-25;
    r.overflow = 65520;
  }
  r.truncate = truncate && format == Format::tf32;
  return r;
}

/// Whether a kernel that rounds x leaves it as it is.
inline bool is_number_of(const Rounding& r, double x) {
  const double size = std::abs(x);
  if (size == 0) return true;
  if (size < r.least || size >= r.overflow) return false;
  if (r.quantum > 0 && size < 0x1p-14) return x / r.quantum == std::nearbyint(x / r.quantum);
  const double shifted = x * r.splitter;
  return shifted - (shifted - x) == x;
}

/// Accumulation errors in the order in which the sums are formed.
struct Tape {
  std::vector<Lanes> error; ///< of each sum on eight grids; a factor of a split may make it larger than fp32 can hold
  std::vector<double> size; ///< half width of a uniform distribution with their spread
  std::size_t next = 0;

  void clear() {
    error.clear();
    size.clear();
    next = 0;
  }
};

/// Noise-free run: numbers are plain, every sum of products leaves its errors on the tape.
class Recorder {
public:
  using Number = double;
  static constexpr bool records = true;

  /// `follows`: sums are followed on the grids. Otherwise the tape holds sizes alone, those of additions that round
  /// independently of each other, and serves no run of the grid model.
  Recorder(std::uint64_t seed, Format accumulate, Tape& tape, bool follows = true)
      : tape_(tape), follows_(follows), unit_(unit_roundoff(accumulate)), splitter_(std::ldexp(1.0, 53 - precision(accumulate)) + 1),
        product_splitter_(std::ldexp(1.0, 53 - precision_of_products(accumulate)) + 1),
        product_share_(std::ldexp(1.0, 2 * (precision(accumulate) - precision_of_products(accumulate)))) {
    LaneGenerator generator(seed);
    const Lanes exponent = 0.5 * (generator.uniform() + 1.0);
    for (int lane = 0; lane < draws_per_batch; ++lane) scale_[lane] = std::exp2(exponent[lane]);
    inverse_ = 1.0 / scale_;
  }
  double round(const Rounding&, Site, double x) { return x; }
  double underflow(const Rounding&, Site, double x) { return x; }
  double absolute_error(Site, double, double) { return 0; }
  static constexpr bool draws_pairs = false, rounds_pairs = false;
  double sum_error(double sum) { return sum; }
  bool follows() const { return follows_; }

  /// One sum in the making, rounded after every addition.
  struct Twin {
    Lanes sum;
    double squares = 0; ///< of what rounds: `squares_of` all steps
  };
  Twin start(double x) const { return {on_grid(scale_ * x, splitter_)}; }
  void add(Twin& twin, double term, double partial_sum) const {
    twin.sum = on_grid(twin.sum + on_grid(scale_ * term, product_splitter_), splitter_);
    twin.squares += squares_of(term, partial_sum);
  }
  /// The squares of the two numbers that round where a product is added, in the unit of the sum.
  double squares_of(double term, double partial_sum) const { return partial_sum * partial_sum + product_share_ * (term * term); }
  void finish(const Twin& twin, double sum) {
    const Lanes error = twin.sum * inverse_ - sum, squares = error * error;
    tape_.error.push_back(error);
    double spread = 0;
    for (int lane = 0; lane < draws_per_batch; ++lane) spread += squares[lane];
    tape_.size.push_back(std::sqrt(std::max(3 * spread / draws_per_batch, unit_ * unit_ * twin.squares)));
  }
  /// A sum that is not followed, by `squares_of` all its steps.
  void finish(double squares) { tape_.size.push_back(unit_ * std::sqrt(squares)); }

private:
  /// Products are formed in fp32 where sums are kept in less.
  static int precision_of_products(Format accumulate) { return std::max(precision(accumulate), precision(Format::fp32)); }
  static Lanes on_grid(Lanes x, double splitter) {
    const Lanes shifted = x * splitter;
    return shifted - (shifted - x);
  }

  Tape& tape_;
  bool follows_;
  double unit_, splitter_, product_splitter_, product_share_;
  Lanes scale_{}, inverse_{};
};

template <NoiseModel model> class Perturbed {
public:
  using Number = Lanes;
  static constexpr bool records = false;

  /// `accumulates`: sums of products err as the tape says; otherwise they are exact and no tape is read.
  Perturbed(std::uint64_t seed, bool accumulates, Tape& tape) : generator_(seed), tape_(tape), accumulates_(accumulates) {
    for (std::size_t site = 0; site < scale_.size(); ++site) {
      const Lanes exponent = 0.5 * (generator_.uniform() + 1.0);
      for (int lane = 0; lane < draws_per_batch; ++lane) scale_[site][lane] = std::exp2(exponent[lane]);
      inverse_[site] = 1.0 / scale_[site];
    }
  }

  /// x rounded at a site.
  Lanes round(const Rounding& r, Site site, Lanes x) {
    const Lanes size = absolute(x);
    Lanes result;
    if constexpr (model == NoiseModel::independent) {
      const Lanes xi = generator_.uniform();
      const Lanes noise = r.unit * x;
      result = x + (r.truncate ? -noise - noise * xi : noise * xi) + minimum(size, r.least) * xi;
    } else {
      const Lanes y = x * scale_[index(site)];
      Lanes rounded;
      if (r.truncate) {
        rounded = lanes_of(bits_of(y) & ~((1ull << 42) - 1)); // tf32 keeps 10 stored bits
      } else {
        const Lanes shifted = y * r.splitter;
        rounded = shifted - (shifted - y);
      }
      if (r.quantum > 0) {
        rounded = select(size < 0x1p-14, on_quanta(y, r.quantum), rounded);
      } else {
        rounded = select(size < r.least, Lanes{}, rounded);
      }
      result = x + (rounded * inverse_[index(site)] - x) * r.amplitude;
    }
    if (r.overflow < std::numeric_limits<double>::infinity()) {
      constexpr double infinity = std::numeric_limits<double>::infinity();
      result = select(size >= r.overflow, select(x > 0, lanes(infinity), lanes(-infinity)), result);
    }
    return result;
  }
  Lanes round(const Rounding& r, Site site, double x) { return round(r, site, lanes(x)); }

  /// What a format has no finer numbers for: the rounding of a product whose relative error a factor of it carries already.
  Lanes underflow(const Rounding& r, Site site, Lanes x) {
    const Lanes size = absolute(x);
    if constexpr (model == NoiseModel::independent) return x + minimum(size, r.least) * generator_.uniform();
    if (!(r.quantum > 0)) return select(size < r.least, Lanes{}, x);
    const Lanes y = x * scale_[index(site)];
    return select(size < 0x1p-14, on_quanta(y, r.quantum) * inverse_[index(site)], x);
  }

  /// An error of at most `largest` that, in the grid model, is a function of `value` (computed from the same number twice,
  /// it is the same twice).
  Lanes absolute_error(Site site, Lanes value, double largest) { return largest * variate(site, value); }
  Lanes absolute_error(Site site, double value, double largest) { return absolute_error(site, lanes(value), largest); }

  /// Whether a number that is rounded anew for every pair that it enters errs anew each time.
  static constexpr bool draws_pairs = model == NoiseModel::independent;
  /// Whether it is rounded on the grid, pair by pair, where it enters.
  static constexpr bool rounds_pairs = model == NoiseModel::grid_of_pairs;
  Lanes fresh_error(double largest) { return largest * generator_.uniform(); }

  /// The error that a sum of products picks up, added to it.
  Lanes sum_error(Lanes sum) {
    if (!accumulates_) return sum;
    const std::size_t at = tape_.next++;
    if constexpr (model == NoiseModel::independent) return sum + tape_.size[at] * generator_.uniform();
    return sum + tape_.error[at];
  }

private:
  static std::size_t index(Site site) { return static_cast<std::size_t>(site); }

  /// Adding and subtracting 1.5 2^52 quanta rounds to a whole number of them.
  static Lanes on_quanta(Lanes y, double quantum) {
    const double anchor = quantum * 0x1.8p52;
    return (y + anchor) - anchor;
  }

  /// In [-1,1): fresh, or a hash of the value on the site's random grid.
  Lanes variate(Site site, Lanes value) {
    if constexpr (model == NoiseModel::independent) return generator_.uniform();
    // Values that are the same number in fp32 (29 bits shorter) give the same error, neighbours an unrelated one.
    const LaneBits bits = (bits_of(value * scale_[index(site)]) + (1ull << 28)) >> 29;
    return symmetric(bits * 0x9e3779b97f4a7c15ull);
  }

  LaneGenerator generator_;
  std::array<Lanes, static_cast<std::size_t>(Site::count)> scale_, inverse_;
  Tape& tape_;
  bool accumulates_;
};

} // namespace kdacheck
