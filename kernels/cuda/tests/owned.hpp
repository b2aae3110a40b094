#pragma once
// Tensors of emulated kernels, and how far what a kernel made of them is from the token recurrence.

#include "../host/arguments.hpp"
#include "../host/recurrence_fp64.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace kdacheck::cuda::testing {

/// A tensor with its own storage.
struct Owned {
  std::vector<unsigned char> bytes;
  TensorView view;
  Owned() = default;
  Owned(Format format, std::array<std::int64_t, 4> shape) : view{nullptr, format, shape, contiguous_strides(shape)} {
    bytes.assign(static_cast<std::size_t>(view.elements()) * storage_bytes(format) + 1, 0xff); // an empty one has an address too
    view.data = bytes.data();
  }
  template <class Draw> Owned& fill(Draw draw) {
    for (std::int64_t i = 0; i < view.elements(); ++i) store(view, i, draw());
    return *this;
  }
};

inline View row_view(const TensorView& view) { return {view.data, view.stride[0], view.stride[1], view.stride[2]}; }

inline Stored stored(Format format) { return format == Format::fp32 ? Stored::fp32 : format == Format::bf16 ? Stored::bf16 : Stored::fp16; }

/// The larger of two; a NaN stays.
inline void raise_to(double& worst, double error) {
  if (!std::isnan(worst) && !(error <= worst)) worst = error;
}

/// Relative where the truth is not all zeros. NaN for a NaN.
inline double relative_error(double difference, double norm) { return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference); }

/// Worst relative error over heads and sequences of o and the state; NaN if one is. `data` has in, N, o and h, `test` shape, cu_seqlens
/// and v_first.
template <class Emulated, class Case> std::pair<double, double> errors_against_recurrence(const Emulated& data, const Case& test) {
  const Shape& s = test.shape;
  const TensorView &o = data.o.view, &h = data.h.view;
  std::pair<double, double> worst{0, 0};
  for (std::int64_t n = 0; n < data.N; ++n)
    for (std::int64_t head = 0; head < s.HV; ++head) {
      const auto truth = recurrence_fp64(data.in, n, head, test.v_first);
      const std::int64_t first = test.cu_seqlens.empty() ? 0 : test.cu_seqlens[static_cast<std::size_t>(n)];
      double difference = 0, norm = 0;
      for (std::size_t e = 0; e < truth.o.size(); ++e) {
        const auto row = static_cast<std::int64_t>(e) / s.V, j = static_cast<std::int64_t>(e) % s.V;
        const double d = load(o, o.offset(test.cu_seqlens.empty() ? n : 0, first + row, head, j)) - truth.o[e];
        difference += d * d, norm += truth.o[e] * truth.o[e];
      }
      raise_to(worst.first, relative_error(difference, norm));
      difference = norm = 0;
      for (std::int64_t c = 0; c < s.K; ++c)
        for (std::int64_t j = 0; j < s.V; ++j) {
          const double exact = truth.state[static_cast<std::size_t>(c * s.V + j)];
          const double d = load(h, test.v_first ? h.offset(n, head, j, c) : h.offset(n, head, c, j)) - exact;
          difference += d * d, norm += exact * exact;
        }
      raise_to(worst.second, relative_error(difference, norm));
    }
  return worst;
}

} // namespace kdacheck::cuda::testing
