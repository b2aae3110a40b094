// Bands of rows are shared out to threads, first through the narrow projection, then through the wide one and the gate while
// they are in the innermost cache. Nothing reads the inputs only to check them: what is not finite shows in the sums.

#include "gating.hpp"

#include "../cpu/product.hpp"
#include "gate_lanes.hpp"
#include "gating_checks.hpp"
#include "gating_projection.hpp"
#include "partial_lanes.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace kdacheck::modules {
namespace {

using cpu::lane_count;
using cpu::load;
using cpu::padded;

constexpr int band_rows = 8; // 8 rows of 512 logits are 16 KB
constexpr std::int64_t worth_threads = 64;

GateColumns columns_at(const Gating& module, const ColumnParameters& columns, std::int64_t at) {
  return {load(columns.rate.data() + at), load(columns.bias.data() + at), cpu::broadcast(module.lower_bound)};
}

/// The gates of `count` rows. False if a logit is not finite.
template <GateForm form, bool with_log_decay>
bool write_gates(const Gating& module, const ColumnParameters& columns, const float* logits, std::int64_t row, std::int64_t count,
                 const Gates& gates) {
  const std::int64_t W = module.width(), stride = padded(W);
  Magnitudes seen{};
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t at = 0; at < W; at += lane_count) {
      const Lanes logit = load(logits + i * stride + at);
      seen = larger(seen, logit);
      const GateLanes lanes = gate_of<form, with_log_decay>(logit, columns_at(module, columns, at));
      const std::int64_t place = (row + i) * W + at;
      store_part(gates.alpha.data() + place, lanes.alpha, W - at);
      if constexpr (with_log_decay) store_part(gates.log_decay.data() + place, lanes.log_decay, W - at);
    }
  return finite(seen);
}

/// The gates of a whole band of rows, block by block: their logits, the chains of multiply-adds of
/// cpu::product, go from the registers to the gate through 1 KB. W is a multiple of the block. False if a logit is not finite.
constexpr int block_wide = lane_count == 16 ? 2 : 1; // half of the registers
constexpr int at_once = 8, rows_at_once = at_once / block_wide;
template <GateForm form, bool with_log_decay>
bool gates_of_band(const Gating& module, const ColumnParameters& columns, const Projections& weights, const float* hidden, std::int64_t row,
                   const Gates& gates) {
  const std::int64_t W = module.width(), R = weights.down.stride, depth = weights.up.rows, stride = weights.up.stride;
  const float* up = weights.up.data;
  float *alpha = gates.alpha.data() + row * W, *log_decay = with_log_decay ? gates.log_decay.data() + row * W : nullptr;
  Magnitudes seen{};
  for (std::int64_t at = 0; at < W; at += block_wide * lane_count) {
    Lanes sums[band_rows][block_wide]{};
    for (std::int64_t m = 0; m < depth; ++m) {
      Lanes values[block_wide];
#pragma GCC unroll 2
      for (int w = 0; w < block_wide; ++w) values[w] = load(up + m * stride + at + w * lane_count);
#pragma GCC unroll 8
      for (int r = 0; r < band_rows; ++r)
#pragma GCC unroll 2
        for (int w = 0; w < block_wide; ++w) sums[r][w] = cpu::multiply_add(cpu::broadcast(hidden[r * R + m]), values[w], sums[r][w]);
    }
    Lanes logits[band_rows / rows_at_once][at_once];
#pragma GCC unroll 8
    for (int r = 0; r < band_rows; ++r)
#pragma GCC unroll 2
      for (int w = 0; w < block_wide; ++w) logits[r / rows_at_once][r % rows_at_once * block_wide + w] = sums[r][w];
    GateColumns column[at_once];
    for (int i = 0; i < at_once; ++i) column[i] = columns_at(module, columns, at + i % block_wide * lane_count);
#pragma GCC unroll 1
    for (int some = 0; some < band_rows / rows_at_once; ++some) {
      GateLanes lanes[at_once];
      gates_of<form, with_log_decay>(logits[some], column, lanes);
#pragma GCC unroll 8
      for (int i = 0; i < at_once; ++i) {
        const std::int64_t place = (some * rows_at_once + i / block_wide) * W + at + i % block_wide * lane_count;
        seen = larger(seen, logits[some][i]);
        cpu::store(alpha + place, lanes[i].alpha);
        if constexpr (with_log_decay) cpu::store(log_decay + place, lanes[i].log_decay);
      }
    }
  }
  return finite(seen);
}

/// Calls the instance for the module's form.
template <class Call> void for_form(GateForm form, Call call) {
  if (form == GateForm::sigmoid) return call.template operator()<GateForm::sigmoid>();
  if (form == GateForm::softplus) return call.template operator()<GateForm::softplus>();
  call.template operator()<GateForm::bounded>();
}

/// task(first, count) over bands of `total` on the threads; a band's result does not depend on its thread. Each
/// thread has the same bands every time: what they read and write stays in its cache.
template <class Task> void for_bands(std::int64_t total, std::int64_t band, bool threads, Task task) {
#pragma omp parallel for schedule(static) if (threads)
  for (std::int64_t first = 0; first < total; first += band) task(first, std::min(band, total - first));
}

/// d logits in place of logits for as many columns as there are lanes, and their sums for A_log and dt_bias.
template <GateForm form>
void logits_backward(const Gating& module, const ColumnParameters& columns, const GateCotangents& d, std::int64_t rows, std::int64_t at,
                     float* logits, double* A_sums, double* bias_sums) {
  const std::int64_t W = module.width(), stride = padded(W), width = std::clamp<std::int64_t>(W - at, 0, lane_count);
  const GateColumns column = columns_at(module, columns, at);
  const auto part = [&](std::span<const float> values, std::int64_t row) {
    Lanes lanes{};
    if (!values.empty()) std::memcpy(&lanes, values.data() + row * W + at, static_cast<std::size_t>(width) * sizeof(float));
    return lanes;
  };
  for (std::int64_t row = 0; row < rows; ++row) {
    float* place = logits + row * stride + at;
    const Lanes logit = load(place);
    Lanes arriving = part(d.log_decay, row);
    if (!d.alpha.empty()) arriving += part(d.alpha, row) * gate_of<form, false>(logit, column).alpha;
    const GateSlopes slopes = gate_slopes<form>(logit, column);
    const Lanes d_logit = within_fp32(arriving * slopes.logit), d_A = arriving * slopes.A_log;
    cpu::store(place, d_logit);
    for (std::int64_t lane = 0; lane < width; ++lane) {
      A_sums[at + lane] += static_cast<double>(d_A[lane]);
      bias_sums[at + lane] += static_cast<double>(d_logit[lane]);
    }
  }
}

/// Takes the padding out again.
std::vector<float> without_padding(const std::vector<float>& padded_rows, std::int64_t rows, std::int64_t columns) {
  if (padded(columns) == columns) return padded_rows;
  std::vector<float> result(static_cast<std::size_t>(rows * columns));
  for (std::int64_t i = 0; i < rows; ++i) std::copy_n(padded_rows.data() + i * padded(columns), columns, result.data() + i * columns);
  return result;
}

/// left [rows, depth] times right, bands of rows on the threads.
std::vector<float> banded_product(std::int64_t rows, std::int64_t depth, cpu::Left left, const float* right, std::int64_t columns) {
  const std::int64_t stride = padded(columns);
  std::vector<float> target(static_cast<std::size_t>(rows * stride));
  for_bands(rows, 16, rows >= worth_threads, [&](std::int64_t first, std::int64_t count) {
    cpu::product(count, stride, depth, {left.data + first * left.row, left.row, left.step}, right, stride, cpu::Into::assign,
                 target.data() + first * stride, stride);
  });
  return without_padding(target, rows, columns);
}

} // namespace

void gates(const Gating& module, const GatingParameters& parameters, const GatingInput& input, const Gates& outputs) {
  check_gating_call(module, parameters, input);
  const std::int64_t rows = input.B * input.T, W = module.width();
  const char* shape = module.per_head ? "[B,T,H]" : "[B,T,H,K]";
  check_count("alpha", shape, outputs.alpha.size(), rows * W, false);
  check_count("log_decay", shape, outputs.log_decay.size(), rows * W, true);
  const Projections weights{padded_matrix(parameters.down, module.D, module.rank), padded_matrix(parameters.up, module.rank, W)};
  const ColumnParameters columns = column_parameters(module, parameters);
  const std::int64_t R = weights.down.stride;
  const float* x = input.x.data();
  thread_local std::vector<float> kept; // between calls: fresh pages cost more than the gates
  kept.resize(std::max(kept.size(), static_cast<std::size_t>(rows * R)));
  float* const hidden = kept.data(); // of the calling thread
  std::atomic<bool> overflow = false;
  for_bands(rows, band_rows, rows >= worth_threads, [&](std::int64_t first, std::int64_t count) {
    project_down(weights, x + first * module.D, count, hidden + first * R);
    if (!all_finite(hidden + first * R, count * R)) overflow = true;
  });
  if (overflow) check_finite("x", input.x); // else sums of finite numbers overflowed
  for_bands(rows, band_rows, rows >= worth_threads, [&](std::int64_t first, std::int64_t count) {
    thread_local std::vector<float> memory;
    memory.resize(static_cast<std::size_t>(band_rows * weights.up.stride));
    float* const logits = memory.data();
    const auto write = [&]<GateForm form, bool with_log_decay>() {
      if (count == band_rows && W % (block_wide * lane_count) == 0 && !overflow &&
          gates_of_band<form, with_log_decay>(module, columns, weights, hidden + first * R, first, outputs))
        return;
      project_up(weights, hidden + first * R, count, logits);
      if (write_gates<form, with_log_decay>(module, columns, logits, first, count, outputs) && !overflow) return;
      make_finite(weights, x + first * module.D, count, hidden + first * R, logits);
      write_gates<form, with_log_decay>(module, columns, logits, first, count, outputs);
    };
    for_form(module.form, [&]<GateForm form>() {
      if (outputs.log_decay.empty()) return write.template operator()<form, false>();
      write.template operator()<form, true>();
    });
  });
}

GatingGradients gates_backward(const Gating& module, const GatingParameters& parameters, const GatingInput& input,
                               const GateCotangents& d) {
  check_gating_call(module, parameters, input);
  check_finite("x", input.x);
  const std::int64_t rows = input.B * input.T, D = module.D, rank = module.rank, W = module.width();
  const char* shape = module.per_head ? "[B,T,H]" : "[B,T,H,K]";
  check_count("the cotangent of alpha", shape, d.alpha.size(), rows * W, true);
  check_count("the cotangent of log_decay", shape, d.log_decay.size(), rows * W, true);
  check_finite("the cotangent of alpha", d.alpha);
  check_finite("the cotangent of log_decay", d.log_decay);
  const Projections weights{padded_matrix(parameters.down, D, rank), padded_matrix(parameters.up, rank, W)};
  const ColumnParameters columns = column_parameters(module, parameters);
  const std::int64_t R = weights.down.stride, stride = weights.up.stride;
  const bool threads = rows >= worth_threads;
  std::vector<float> hidden(static_cast<std::size_t>(rows * R)), logits(static_cast<std::size_t>(rows * stride));
  for_bands(rows, band_rows, threads, [&](std::int64_t first, std::int64_t count) {
    float *thin = hidden.data() + first * R, *wide = logits.data() + first * stride;
    project_down(weights, input.x.data() + first * D, count, thin), project_up(weights, thin, count, wide);
    make_finite(weights, input.x.data() + first * D, count, thin, wide);
  });

  std::vector<double> A_sums(static_cast<std::size_t>(stride), 0.0), bias_sums(static_cast<std::size_t>(stride), 0.0);
  for_bands(stride, lane_count, threads, [&](std::int64_t at, std::int64_t) {
    for_form(module.form,
             [&]<GateForm form>() { logits_backward<form>(module, columns, d, rows, at, logits.data(), A_sums.data(), bias_sums.data()); });
  });

  GatingGradients result;
  const PaddedMatrix up_turned = padded_transpose(parameters.up, rank, W), down_turned = padded_transpose(parameters.down, D, rank);
  std::vector<float> d_hidden(static_cast<std::size_t>(rows * R));
  for_bands(rows, 16, threads, [&](std::int64_t first, std::int64_t count) {
    cpu::product(count, R, W, {logits.data() + first * stride, stride, 1}, up_turned.data, R, cpu::Into::assign,
                 d_hidden.data() + first * R, R);
  });
  result.up = banded_product(rank, rows, {hidden.data(), 1, R}, logits.data(), W);
  result.down = banded_product(D, rows, {input.x.data(), 1, D}, d_hidden.data(), rank);
  result.x = banded_product(rows, rank, {d_hidden.data(), R, 1}, down_turned.data, D);
  if (!parameters.dt_bias.empty()) result.dt_bias.assign(bias_sums.begin(), bias_sums.begin() + W);
  const std::int64_t columns_per_head = module.per_head ? 1 : module.K;
  for (std::int64_t h = 0; h < module.H && !parameters.A_log.empty(); ++h) {
    double sum = 0;
    for (std::int64_t c = h * columns_per_head; c < (h + 1) * columns_per_head; ++c) sum += A_sums[static_cast<std::size_t>(c)];
    result.A_log.push_back(static_cast<float>(sum));
  }
  return result;
}

} // namespace kdacheck::modules
