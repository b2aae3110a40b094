#include "chunkwise_kda.hpp"

#include "../cpu/chunk.hpp"
#include "../cpu/inverse.hpp"
#include "../cpu/lanes.hpp"
#include "../cpu/product.hpp"
#include "../cpu/rows.hpp"

#include <algorithm>
#include <fmt/core.h>
#include <memory>
#include <stdexcept>

namespace kdacheck::modules {
namespace {

static_assert(sub_block == cpu::score_block);

const Kernel& chunk_kernel(std::int64_t C) {
  static const std::vector<Kernel> kernels = [] {
    std::vector<Kernel> list;
    for (std::int64_t length : chunk_lengths) {
      Contract contract;
      contract.chunk = length;
      contract.order = Order::residual_first;
      contract.l2norm_inside = true;
      list.push_back(cpu::chunkwise(fmt::format("chunks of {}", length), "", contract));
    }
    return list;
  }();
  const auto found = std::ranges::find(chunk_lengths, C);
  if (found == chunk_lengths.end()) throw std::invalid_argument(fmt::format("chunkwise: C = {} is none of 16, 32, 64, 128", C));
  return kernels[static_cast<std::size_t>(found - chunk_lengths.begin())];
}

void check_decay(const CoreTokens& tokens) {
  for (std::size_t i = 0; i < tokens.log_decay.size(); ++i)
    if (!(tokens.log_decay[i] <= 0))
      throw std::invalid_argument(fmt::format("chunkwise: log_decay holds {} at element {}; it must be at most 0", tokens.log_decay[i], i));
}

Inputs inputs_of(const CoreTokens& t) {
  Inputs inputs;
  inputs.shape = {.B = 1, .T = t.rows(), .H = t.H, .HV = t.HV, .K = t.K, .V = t.V};
  inputs.options.scale = t.scale;
  inputs.cu_seqlens = t.cu_seqlens;
  const auto take = [&](Input input, std::span<const float> values) {
    const auto shape = shape_of(input, inputs.shape, t.sequences());
    if (static_cast<std::int64_t>(values.size()) != shape[0] * shape[1] * shape[2] * shape[3])
      throw std::invalid_argument(fmt::format("chunkwise: {} has {} numbers, which is not its shape", name(input), values.size()));
    inputs[input] = {const_cast<float*>(values.data()), Format::fp32, shape, contiguous_strides(shape)};
  };
  take(Input::q, t.q), take(Input::k, t.k), take(Input::v, t.v), take(Input::g, t.log_decay), take(Input::beta, t.beta);
  if (!t.state.empty()) take(Input::initial_state, t.state);
  return inputs;
}

/// [rows, columns] out of padded rows.
std::vector<float> dense(const float* padded_rows, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  std::vector<float> result;
  for (std::int64_t i = 0; i < rows; ++i) result.insert(result.end(), padded_rows + i * stride, padded_rows + i * stride + columns);
  return result;
}

/// The part of a score matrix that the kernel writes: columns up to i + reach.
std::vector<float> lower(const float* matrix, std::int64_t n, std::int64_t stride, std::int64_t reach) {
  std::vector<float> result(static_cast<std::size_t>(n * n), 0.0f);
  for (std::int64_t i = 0; i < n; ++i) std::copy_n(matrix + i * stride, i + reach, result.begin() + i * n);
  return result;
}

} // namespace

CoreResult chunkwise_kda(std::int64_t C, const CoreTokens& tokens) {
  const Kernel& kernel = chunk_kernel(C);
  check_decay(tokens);
  return core_forward(kernel, tokens);
}

CoreGradients chunkwise_kda_backward(std::int64_t C, const CoreTokens& tokens, std::span<const float> d_o, std::span<const float> d_state) {
  const Kernel& kernel = chunk_kernel(C);
  check_decay(tokens);
  return core_backward(kernel, tokens, d_o, d_state);
}

std::vector<ChunkParts> chunk_parts(std::int64_t C, const CoreTokens& t, std::int64_t sequence, std::int64_t head) {
  const cpu::ChunkPlan plan = cpu::plan_of(chunk_kernel(C).contract);
  check_decay(t);
  if (t.normalise) throw std::invalid_argument("chunkwise: parts are those of q and k as they are: normalise must be false");
  if (sequence < 0 || sequence >= t.sequences() || head < 0 || head >= t.HV)
    throw std::out_of_range(fmt::format("chunkwise: there is no sequence {} with head {}", sequence, head));
  const Inputs inputs = inputs_of(t);
  const std::int64_t K = cpu::padded(t.K), V = cpu::padded(t.V);
  const auto take = [&](cpu::Arena& arena) {
    struct Slice {
      cpu::Chunk chunk;
      cpu::ChunkRecord record;
      float *rows, *scratch;
    } slice{cpu::take_chunk(arena, plan, inputs), cpu::take_record(arena, plan, inputs), arena.floats(C * std::max(K, V)),
            arena.floats(C * std::max(K, V))};
    return slice;
  };
  cpu::Arena measure;
  take(measure);
  std::vector<std::byte> memory(measure.used + cpu::Arena::alignment);
  void* start = memory.data();
  std::size_t space = memory.size();
  cpu::Arena arena{static_cast<std::byte*>(std::align(cpu::Arena::alignment, measure.used, start, space))};
  auto [chunk, record, rows, scratch] = take(arena);

  const Sequence tokens = cpu::sequence_of(inputs, sequence);
  cpu::read_state(inputs[Input::initial_state], false, sequence, head, t.K, t.V, record.state);
  std::vector<ChunkParts> parts;
  for (std::int64_t first = 0; first < tokens.length; first += C) {
    const std::int64_t n = std::min(C, tokens.length - first);
    cpu::read_chunk(plan, inputs, tokens.first + first, head, n, chunk);
    cpu::solve_chunk(plan, chunk, record, scratch);
    ChunkParts part;
    part.first = first, part.n = n;
    part.G = dense(chunk.G, n, t.K, K);
    part.Akk = lower(record.Akk, n, chunk.matrix, 0);
    part.Aqk = lower(record.Aqk, n, chunk.matrix, 1);
    part.U = dense(record.U, n, t.V, V);
    part.start = dense(record.state, t.K, t.V, V);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) rows[i * K + c] = chunk.beta[i] * chunk.kd[i * K + c];
    cpu::apply_inverse(plan.operands, n, K, record.L, record.T, chunk.matrix, rows, scratch);
    part.W = dense(rows, n, t.K, K);
    cpu::product(n, V, K, {chunk.qd, K, 1}, record.state, V, cpu::Into::assign, rows, V);
    part.inter = dense(rows, n, t.V, V);
    cpu::product(n, V, n, {record.Aqk, chunk.matrix, 1}, record.U, V, cpu::Into::assign, rows, V, cpu::Part::lower);
    part.intra = dense(rows, n, t.V, V);
    cpu::next_state(plan, chunk, record, record.state);
    part.end = dense(record.state, t.K, t.V, V);
    parts.push_back(std::move(part));
  }
  return parts;
}

} // namespace kdacheck::modules
