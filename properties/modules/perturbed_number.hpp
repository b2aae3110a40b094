#pragma once
// A number whose every operation errs as fp32 does: an oracle instantiated with it is the algorithm in a random fp32. The
// spread of such runs is what fp32 costs on the case at hand; no site is named by hand.
//
//   independent   x op y, times 1 + u xi with xi uniform in [-1,1): rounding errors that have nothing to do with each other
//   grid          x op y rounded to 24 bits after a scaling by s in [1,2), one s per run: equal numbers err alike, as they do
//                 in a real kernel, so that errors of equal tokens add up
// u = 2^-24 bounds the error of a rounding to nearest. exp and log1p are allowed what the fp32 kernels declare: 2 and 4 units
// in the last place, of at most 2 u each. Sums are perturbed term by term, as a chain of fp32 additions is.
//
// A PerturbedTo<p> can also be rounded to p bits, which mixed_precision.hpp does where a layer in mixed precision does.

#include <bit>
#include <cmath>
#include <cstdint>

namespace kdacheck {

/// How ln(1 + e^x) is formed: as log1p, or as the logarithm of a rounded sum (mixed_precision.hpp).
enum class SoftplusBy : std::uint8_t { log1p, rounded_sum };

template <int coarse_bits, SoftplusBy softplus_by = SoftplusBy::log1p> class PerturbedTo {
public:
  PerturbedTo() = default;
  explicit constexpr PerturbedTo(double x) : value_(x) {}
  explicit operator double() const { return value_; }

  /// The noise of this thread from here on.
  static void start(bool on_grid, std::uint64_t seed) {
    bits_ = seed * 0x9e3779b97f4a7c15ull + 0x632be59bd9b4e019ull;
    for (int i = 0; i < 4; ++i) xi();
    on_grid_ = on_grid;
    scale_ = std::exp2(0.5 * (xi() + 1.0));
  }

  PerturbedTo operator-() const { return PerturbedTo(-value_); }
  friend PerturbedTo operator+(PerturbedTo x, PerturbedTo y) { return erring(x.value_ + y.value_, 1); }
  friend PerturbedTo operator-(PerturbedTo x, PerturbedTo y) { return erring(x.value_ - y.value_, 1); }
  friend PerturbedTo operator*(PerturbedTo x, PerturbedTo y) { return erring(x.value_ * y.value_, 1); }
  friend PerturbedTo operator/(PerturbedTo x, PerturbedTo y) { return erring(x.value_ / y.value_, 1); }
  friend bool operator<(PerturbedTo x, PerturbedTo y) { return x.value_ < y.value_; }
  friend bool operator==(PerturbedTo x, PerturbedTo y) { return x.value_ == y.value_; }
  friend PerturbedTo exp(PerturbedTo x) { return erring(std::exp(x.value_), 4); }
  friend PerturbedTo log(PerturbedTo x) { return erring(std::log(x.value_), 4); }
  friend PerturbedTo log1p(PerturbedTo x) { return erring(std::log1p(x.value_), 8); }
  friend PerturbedTo sqrt(PerturbedTo x) { return erring(std::sqrt(x.value_), 1); }

  /// x rounded to coarse_bits, in the noise model of this thread.
  friend PerturbedTo rounded(PerturbedTo x) {
    constexpr double coarse = 1.0 / static_cast<double>(1ll << coarse_bits);
    if (!on_grid_) return PerturbedTo(x.value_ * (1 + coarse * xi()));
    return PerturbedTo(on_grid<coarse_bits>(x.value_ * scale_) / scale_);
  }

  /// x wrong by at most `largest`; on the grid by a function of x.
  friend PerturbedTo absolutely_wrong(PerturbedTo x, double largest) {
    return PerturbedTo(x.value_ + largest * (on_grid_ ? hashed(on_grid<24>(x.value_ * scale_)) : xi()));
  }

private:
  static constexpr double unit = 0x1p-24;

  /// y to the nearest of `bits` bits, by Dekker's splitting.
  template <int bits> static double on_grid(double y) {
    const double shifted = y * static_cast<double>((1ll << (53 - bits)) + 1);
    return shifted - (shifted - y);
  }

  /// Uniform in [-1,1).
  static double xi() {
    bits_ ^= bits_ << 13, bits_ ^= bits_ >> 7, bits_ ^= bits_ << 17;
    return static_cast<double>(static_cast<std::int64_t>(bits_)) * 0x1p-63;
  }

  /// In [-1,1), a function of x.
  static double hashed(double x) {
    std::uint64_t hash = std::bit_cast<std::uint64_t>(x) * 0x9e3779b97f4a7c15ull;
    hash ^= hash >> 29;
    return static_cast<double>(static_cast<std::int64_t>(hash * 0xbf58476d1ce4e5b9ull)) * 0x1p-63;
  }

  /// x wrong by at most `units` u: on the grid by a rounding, the rest by a hash of the rounded number.
  static PerturbedTo erring(double x, double units) {
    if (!on_grid_) return PerturbedTo(x * (1 + units * unit * xi()));
    const double near = on_grid<24>(x * scale_);
    if (units == 1) return PerturbedTo(near / scale_);
    return PerturbedTo(near / scale_ * (1 + (units - 1) * unit * hashed(near)));
  }

  double value_ = 0;
  static inline thread_local std::uint64_t bits_ = 1;
  static inline thread_local bool on_grid_ = false;
  static inline thread_local double scale_ = 1;
};

/// A module in fp32.
using PerturbedNumber = PerturbedTo<24>;

} // namespace kdacheck
