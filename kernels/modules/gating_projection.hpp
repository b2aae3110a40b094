#pragma once
// The two thin projections of the gating module, on rows padded to multiples of sixteen.

#include "gating.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace kdacheck::modules {

/// A row-major matrix with its columns padded by zeros to `stride`; a view where no padding is needed.
struct PaddedMatrix {
  std::vector<float> storage;
  const float* data = nullptr;
  std::int64_t rows = 0, columns = 0, stride = 0;
};
PaddedMatrix padded_matrix(std::span<const float> values, std::int64_t rows, std::int64_t columns);
PaddedMatrix padded_transpose(std::span<const float> values, std::int64_t rows, std::int64_t columns);

struct Projections {
  PaddedMatrix down, up;
};

/// hidden [count, down.stride] of rows x [count, D], and logits [count, up.stride] of hidden, in fp32.
void project_down(const Projections&, const float* x, std::int64_t count, float* hidden);
void project_up(const Projections&, const float* hidden, std::int64_t count, float* logits);

/// Rows of hidden or logits that are not finite are summed again in fp64, where no finite x overflows.
void make_finite(const Projections&, const float* x, std::int64_t count, float* hidden, float* logits);

bool all_finite(const float* values, std::int64_t count);

/// e^{A_log} and dt_bias of every padded column.
struct ColumnParameters {
  std::vector<float> rate, bias;
};
ColumnParameters column_parameters(const Gating&, const GatingParameters&);

} // namespace kdacheck::modules
