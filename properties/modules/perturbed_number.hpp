#pragma once
// A number whose every operation errs as fp32 does: an oracle instantiated with it is the algorithm in a random fp32. The
// spread of such runs is what fp32 costs on the case at hand; no site is named by hand.
//
//   independent   x op y, times 1 + u xi with xi uniform in [-1,1): rounding errors that have nothing to do with each other
//   grid          x op y rounded to 24 bits after a scaling by s in [1,2), one s per run: equal numbers err alike, as they do
//                 in a real kernel, so that errors of equal tokens add up
// u = 2^-24 bounds the error of a rounding to nearest. exp and log1p are allowed what the fp32 kernels declare: 2 and 4 units
// in the last place, of at most 2 u each. Sums are perturbed term by term, as a chain of fp32 additions is.

#include <bit>
#include <cmath>
#include <cstdint>

namespace kdacheck {

class PerturbedNumber {
public:
  PerturbedNumber() = default;
  explicit constexpr PerturbedNumber(double x) : value_(x) {}
  explicit operator double() const { return value_; }

  /// The noise of this thread from here on.
  static void start(bool on_grid, std::uint64_t seed) {
    bits_ = seed * 0x9e3779b97f4a7c15ull + 0x632be59bd9b4e019ull;
    for (int i = 0; i < 4; ++i) xi();
    on_grid_ = on_grid;
    scale_ = std::exp2(0.5 * (xi() + 1.0));
  }

  PerturbedNumber operator-() const { return PerturbedNumber(-value_); }
  friend PerturbedNumber operator+(PerturbedNumber x, PerturbedNumber y) { return erring(x.value_ + y.value_, 1); }
  friend PerturbedNumber operator-(PerturbedNumber x, PerturbedNumber y) { return erring(x.value_ - y.value_, 1); }
  friend PerturbedNumber operator*(PerturbedNumber x, PerturbedNumber y) { return erring(x.value_ * y.value_, 1); }
  friend PerturbedNumber operator/(PerturbedNumber x, PerturbedNumber y) { return erring(x.value_ / y.value_, 1); }
  friend bool operator<(PerturbedNumber x, PerturbedNumber y) { return x.value_ < y.value_; }
  friend bool operator==(PerturbedNumber x, PerturbedNumber y) { return x.value_ == y.value_; }
  friend PerturbedNumber exp(PerturbedNumber x) { return erring(std::exp(x.value_), 4); }
  friend PerturbedNumber log(PerturbedNumber x) { return erring(std::log(x.value_), 4); }
  friend PerturbedNumber log1p(PerturbedNumber x) { return erring(std::log1p(x.value_), 8); }
  friend PerturbedNumber sqrt(PerturbedNumber x) { return erring(std::sqrt(x.value_), 1); }

private:
  static constexpr double unit = 0x1p-24;

  /// Uniform in [-1,1).
  static double xi() {
    bits_ ^= bits_ << 13, bits_ ^= bits_ >> 7, bits_ ^= bits_ << 17;
    return static_cast<double>(static_cast<std::int64_t>(bits_)) * 0x1p-63;
  }

  /// x wrong by at most `units` u: on the grid by a rounding, the rest by a hash of the rounded number.
  static PerturbedNumber erring(double x, double units) {
    if (!on_grid_) return PerturbedNumber(x * (1 + units * unit * xi()));
    const double y = x * scale_, shifted = y * 0x1.00000002p29; // Dekker's splitting: 24 bits of y
    const double rounded = shifted - (shifted - y);
    if (units == 1) return PerturbedNumber(rounded / scale_);
    std::uint64_t hash = std::bit_cast<std::uint64_t>(rounded) * 0x9e3779b97f4a7c15ull;
    hash ^= hash >> 29;
    const double within = static_cast<double>(static_cast<std::int64_t>(hash * 0xbf58476d1ce4e5b9ull)) * 0x1p-63;
    return PerturbedNumber(rounded / scale_ * (1 + (units - 1) * unit * within));
  }

  double value_ = 0;
  static inline thread_local std::uint64_t bits_ = 1;
  static inline thread_local bool on_grid_ = false;
  static inline thread_local double scale_ = 1;
};

} // namespace kdacheck
