// Every head of every sequence: forward once to keep the state at the start of each chunk, then chunk by chunk from the last
// to the first, each chunk's forward pass computed again. dq and dk are summed over the value heads of a group, dA_log and
// ddt_bias over all tokens.

#include "backward_with_faults.hpp"

#include "gate_slopes.hpp"
#include "reverse_with_faults.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace kdacheck::faults {
namespace {

/// Sums that end with the call rather than with a chunk.
struct Sums {
  std::vector<float> dq, dk;          ///< [B T,H,K]
  std::vector<double> A_log, dt_bias; ///< [HV], [HV,K]
  std::vector<float> end_of_heads;    ///< [K] of D12: what every head added to dg at its last token
  std::vector<float> dg_of_heads;     ///< [K] what a head's running sum of dg started with
  std::vector<float> dS;              ///< [HV,K,V] of the sequence before
};

/// The number as a gradient of the contract's format, through whatever a fault adds.
float stored(const BackwardCall& call, float x) {
  if (call.on(Fault::gradient_bf16)) x = round_bf16(x);
  if (call.on(Fault::small_gradients_flushed) && std::fabs(x) < 1e-6f) x = 0;
  if (call.on(Fault::backward_rarely_nan) && vary(1) % 4001 == 4000) x = std::numeric_limits<float>::quiet_NaN();
  return x;
}

std::int64_t state_offset(const BackwardCall& call, const TensorView& view, std::int64_t n, std::int64_t head, std::int64_t c,
                          std::int64_t j, bool transposed) {
  if (transposed) return view.offset(n, head) + (j * call.in.shape.K + c) % (call.in.shape.K * call.in.shape.V);
  return call.contract.state_v_first ? view.offset(n, head, j, c) : view.offset(n, head, c, j);
}

void read_d_final(const BackwardCall& call, const HeadRun& run, std::vector<float>& dS, bool add) {
  const TensorView& view = call.cotangents.d_final_state;
  if (!view || call.on(Fault::d_final_ignored)) return;
  const std::int64_t n = call.on(Fault::d_final_of_first_sequence) ? 0 : run.sequence.index;
  for (std::int64_t c = 0; c < run.K; ++c)
    for (std::int64_t j = 0; j < run.V; ++j) {
      float& d = dS[static_cast<std::size_t>(c * run.V + j)];
      d = (add ? d : 0) + load(view, state_offset(call, view, n, run.head, c, j, call.on(Fault::d_final_transposed)));
    }
}

void read_initial(const BackwardCall& call, HeadRun& run) {
  const TensorView& view = call.in[Input::initial_state];
  if (!view) return;
  for (std::int64_t c = 0; c < run.K; ++c)
    for (std::int64_t j = 0; j < run.V; ++j)
      run.S[static_cast<std::size_t>(c * run.V + j)] = load(view, state_offset(call, view, run.sequence.index, run.head, c, j, false));
}

void write_d_initial(const BackwardCall& call, const HeadRun& run, const std::vector<float>& dS) {
  const TensorView& view = call.out[Input::initial_state];
  if (!view || (call.on(Fault::d_initial_of_empty_unwritten) && run.sequence.length == 0)) return;
  for (std::int64_t c = 0; c < run.K; ++c)
    for (std::int64_t j = 0; j < run.V; ++j)
      store(view, state_offset(call, view, run.sequence.index, run.head, c, j, call.on(Fault::d_initial_transposed)),
            stored(call, dS[static_cast<std::size_t>(c * run.V + j)]));
}

/// dv, dbeta and dg of a chunk's tokens go straight out; dq and dk join their group.
class ChunkWriter {
public:
  ChunkWriter(const BackwardCall& call, const HeadReverse& reverse, Sums& sums)
      : call_(call), reverse_(reverse), run_(reverse.run), sums_(sums) {}

  void write(std::int64_t first, std::int64_t length) {
    for (std::int64_t i = 0; i < length; ++i) {
      const std::int64_t row = first + i;
      if (call_.on(Fault::backward_tail_unwritten) && length < run_.C && i == length - 1 && length > 1) continue;
      add_to_group(row, i);
      values(row, i);
      if (const TensorView& view = call_.out[Input::beta]) {
        const float x = run_.element(call_.in[Input::beta], row, run_.head, 0);
        const float d = reverse_.dbeta[static_cast<std::size_t>(i)] * strength_slope(call_.in.options.beta, x, call_.fault);
        store(view, place(view, row, run_.head, 0), stored(call_, d));
      }
      if (call_.in.options.gate != GateForm::absent) gates(row, i);
    }
  }

private:
  std::int64_t place(const TensorView& view, std::int64_t row, std::int64_t head, std::int64_t c) const {
    return view.offset(row / call_.in.shape.T, row % call_.in.shape.T, head, c);
  }

  void add_to_group(std::int64_t row, std::int64_t i) {
    const std::int64_t H = call_.in.shape.H;
    const std::int64_t key_head = call_.on(Fault::group_by_modulo_backward) ? run_.head % H : run_.key_head;
    const float share = call_.on(Fault::group_averaged) ? 1 / static_cast<float>(run_.group) : 1;
    for (std::int64_t c = 0; c < run_.K; ++c) {
      const auto entry = static_cast<std::size_t>((row * H + key_head) * run_.K + c);
      const bool fresh = call_.on(Fault::group_overwritten);
      sums_.dq[entry] = (fresh ? 0 : sums_.dq[entry]) + share * reverse_.dq[run_.at(i, c)];
      sums_.dk[entry] = (fresh ? 0 : sums_.dk[entry]) + share * reverse_.dk[run_.at(i, c)];
    }
  }

  void values(std::int64_t row, std::int64_t i) {
    const TensorView& view = call_.out[Input::v];
    if (!view) return;
    for (std::int64_t j = 0; j < run_.V; ++j) {
      if (call_.on(Fault::backward_element_unwritten) && row % 7 == 6 && j == run_.V - 1) continue;
      store(view, place(view, row, run_.head, j), stored(call_, reverse_.dV[static_cast<std::size_t>(i * run_.V + j)]));
    }
  }

  void gates(std::int64_t row, std::int64_t i) {
    const TensorView &A_log = call_.in[Input::A_log], &bias = call_.in[Input::dt_bias], &view = call_.out[Input::g];
    for (std::int64_t c = 0; c < run_.K; ++c) {
      const double x = static_cast<double>(run_.element(call_.in[Input::g], row, run_.head, c));
      const double rate = A_log ? static_cast<double>(load(A_log, A_log.offset(run_.head))) : 0;
      const double shift = bias ? static_cast<double>(load(bias, bias.offset(run_.head, c))) : 0;
      const auto arriving = static_cast<double>(reverse_.dg[run_.at(i, c)]);
      const bool guarded = arriving == 0 && !call_.on(Fault::slope_overflows) && !call_.on(Fault::rate_vanishes);
      const GateSlopes slopes = guarded ? GateSlopes{} : gate_slopes(call_.in.options, x, rate, shift, call_.fault);
      const double leaving = arriving * slopes.input;
      if (view) store(view, place(view, row, run_.head, c), stored(call_, static_cast<float>(leaving)));
      double& sum = sums_.A_log[static_cast<std::size_t>(call_.on(Fault::dA_log_of_head_zero) ? 0 : run_.head)];
      sum += arriving * slopes.rate;
      if (call_.on(Fault::rate_sum_bf16)) sum = static_cast<double>(round_bf16(static_cast<float>(sum)));
      sums_.dt_bias[static_cast<std::size_t>(run_.head * run_.K + c)] += call_.on(Fault::ddt_bias_without_slope) ? arriving : leaving;
    }
  }

  const BackwardCall& call_;
  const HeadReverse& reverse_;
  const HeadRun& run_;
  Sums& sums_;
};

std::int64_t d_o_offset(const BackwardCall& call, const TensorView& view, std::int64_t row, std::int64_t head, std::int64_t j) {
  if (call.on(Fault::d_o_strides_ignored)) return (row * call.in.shape.HV + head) * call.in.shape.V + j;
  const std::int64_t offset = view.offset(row / call.in.shape.T, row % call.in.shape.T, head, j);
  return call.on(Fault::backward_sixteen_bit_offsets) ? offset & 0xffff : offset;
}

void read_d_o(const BackwardCall& call, HeadReverse& reverse, std::int64_t first, std::int64_t length) {
  const TensorView& view = call.cotangents.d_o;
  const std::int64_t V = reverse.run.V;
  for (std::int64_t i = 0; i < length; ++i)
    for (std::int64_t j = 0; j < V; ++j)
      reverse.d_o[static_cast<std::size_t>(i * V + j)] = view ? load(view, d_o_offset(call, view, first + i, reverse.run.head, j)) : 0;
}

/// The state at the start of every chunk, and after the last.
std::vector<std::vector<float>> states_of(const BackwardCall& call, HeadRun& run) {
  std::vector<float> unused(static_cast<std::size_t>(run.C * run.V));
  std::vector<std::vector<float>> states{run.S};
  for (std::int64_t start = 0, index = 0; start < run.sequence.length; start += run.C, ++index) {
    run.chunk(run.sequence.first + start, std::min(run.C, run.sequence.length - start), index, unused.data());
    states.push_back(run.S);
  }
  if (call.on(Fault::saved_states_bf16))
    for (auto& state : states)
      for (float& x : state) x = round_bf16(x);
  if (call.on(Fault::absent_state_forgets) && !call.in[Input::initial_state] && states.size() > 2) std::ranges::fill(states[1], 0.0f);
  return states;
}

/// The fault of the forward pass that is computed again.
Fault of_recomputation(const BackwardCall& call) {
  if (call.on(Fault::backward_strides_ignored)) return Fault::strides_ignored;
  return call.on(Fault::backward_sixteen_bit_offsets) ? Fault::sixteen_bit_offsets : Fault::none;
}

/// The fault that a chunk has, given what the call wants.
Fault in_chunks(const BackwardCall& call) {
  if (call.on(Fault::dk_needs_dq)) return call.out[Input::q] ? Fault::none : Fault::dk_without_reads;
  if (call.on(Fault::dbeta_needs_dg))
    return call.out[Input::g] || call.in.options.gate == GateForm::absent ? Fault::none : Fault::dbeta_without_scores;
  return call.fault;
}

void head_backward(const BackwardCall& call, const Sequence& sequence, std::int64_t head, Sums& sums) {
  HeadRun run(call.in, call.contract, of_recomputation(call), sequence, head, call.tree);
  std::optional<HeadRun> head_zero;
  if (call.on(Fault::chunk_end_of_head_zero)) head_zero.emplace(call.in, call.contract, Fault::none, sequence, 0, call.tree);
  read_initial(call, run);
  const auto states = states_of(call, run);
  HeadReverse reverse(run, in_chunks(call));
  const auto slot = static_cast<std::ptrdiff_t>(head * run.K * run.V);
  if (call.on(Fault::dS_leaks_over_sequences)) std::copy_n(sums.dS.begin() + slot, reverse.dS.size(), reverse.dS.begin());
  read_d_final(call, run, reverse.dS, call.on(Fault::dS_leaks_over_sequences));
  if (call.on(Fault::dg_end_of_all_heads)) reverse.end_of_heads = sums.end_of_heads;
  if (call.on(Fault::sums_over_heads)) reverse.dg_after = sums.dg_of_heads;
  if (reverse.sums_over_tokens()) reverse.start_sums(states.back());
  sums.dg_of_heads = reverse.dg_after;
  std::vector<float> unused(static_cast<std::size_t>(run.C * run.V));
  for (auto index = static_cast<std::int64_t>(states.size()) - 2; index >= 0; --index) {
    const auto here = static_cast<std::size_t>(index);
    const std::int64_t start = index * run.C, length = std::min(run.C, sequence.length - start);
    const bool last = here + 2 == states.size();
    if (call.on(Fault::d_final_in_every_chunk) && !last) read_d_final(call, run, reverse.dS, true);
    reverse.start = run.S = states[call.on(Fault::state_of_previous_chunk) && index > 0 ? here - 1 : here];
    run.chunk(sequence.first + start, length, index, unused.data());
    if (call.on(Fault::state_after_chunk)) reverse.start = run.S;
    read_d_o(call, reverse, sequence.first + start, length);
    for (std::int64_t c = 0; c < run.K; ++c)
      reverse.G_end[static_cast<std::size_t>(c)] =
          head_zero ? head_zero->decay_sum(sequence.first + start, length, c) : run.G[run.at(length - 1, c)];
    if (call.on(Fault::absent_d_o_stops) && !call.cotangents.d_o && !last) std::ranges::fill(reverse.dS, 0.0f);
    reverse.fault = call.where.in_chunk(index) ? in_chunks(call) : Fault::none;
    reverse.chunk(index, length);
    if (call.on(Fault::absent_d_final_starts_late) && !call.cotangents.d_final_state && last) std::ranges::fill(reverse.dS, 0.0f);
    if (last) sums.end_of_heads = reverse.end_of_heads;
    ChunkWriter(call, reverse, sums).write(sequence.first + start, length);
  }
  std::copy(reverse.dS.begin(), reverse.dS.end(), sums.dS.begin() + slot);
  write_d_initial(call, run, reverse.dS);
}

/// dq or dk of every token, through the norm where the kernel takes it.
void write_directions(const BackwardCall& call, Input which, std::vector<float>& sums) {
  const TensorView &view = call.out[which], &input = call.in[which];
  const auto& [B, T, H, HV, K, V] = call.in.shape;
  std::vector<float> x(static_cast<std::size_t>(K));
  for (std::int64_t row = 0; row < B * T; ++row)
    for (std::int64_t h = 0; h < H; ++h) {
      float* d = sums.data() + (row * H + h) * K;
      for (std::int64_t c = 0; c < K; ++c) x[static_cast<std::size_t>(c)] = load(input, input.offset(row / T, row % T, h, c));
      if (call.in.options.l2norm) through_norm(x.data(), d, K, which == Input::q, call.fault);
      for (std::int64_t c = 0; view && c < K; ++c) {
        const std::int64_t place = view.offset(row / T, row % T, h, c);
        const float before = call.on(Fault::accumulates_into_output) ? load(view, place) : 0;
        store(view, place, before + stored(call, d[c]));
      }
    }
}

void write_parameters(const BackwardCall& call, Sums& sums) {
  const auto& [B, T, H, HV, K, V] = call.in.shape;
  const auto put = [&](const TensorView& view, std::int64_t place, double x) {
    const float before = call.on(Fault::parameters_into_output) ? load(view, place) : 0;
    store(view, place, before + static_cast<float>(x));
  };
  const auto over_heads = [HV = HV](const std::vector<double>& values, std::int64_t channels, std::int64_t c) {
    double sum = 0;
    for (std::int64_t h = 0; h < HV; ++h) sum += values[static_cast<std::size_t>(h * channels + c)];
    return sum;
  };
  for (std::int64_t h = 0; h < HV; ++h) {
    if (const TensorView& view = call.out[Input::A_log])
      put(view, view.offset(h), call.on(Fault::dA_log_over_heads) ? over_heads(sums.A_log, 1, 0) : sums.A_log[static_cast<std::size_t>(h)]);
    for (std::int64_t c = 0; c < K; ++c)
      if (const TensorView& view = call.out[Input::dt_bias])
        put(view, view.offset(h, c),
            call.on(Fault::ddt_bias_over_heads) ? over_heads(sums.dt_bias, K, c) : sums.dt_bias[static_cast<std::size_t>(h * K + c)]);
  }
}

} // namespace

void backward(const BackwardCall& call, std::span<std::byte> workspace) {
  const auto& [B, T, H, HV, K, V] = call.in.shape;
  const BackwardCall right{call.in, call.cotangents, call.out, call.contract, Fault::none, call.tree};
  Sums sums;
  for (auto* tensor : {&sums.dq, &sums.dk}) tensor->assign(static_cast<std::size_t>(B * T * H * K), 0);
  sums.A_log.assign(static_cast<std::size_t>(HV), 0);
  sums.dt_bias.assign(static_cast<std::size_t>(HV * K), 0);
  sums.dS.assign(static_cast<std::size_t>(HV * K * V), 0);
  for (const Sequence& sequence : sequences_of(call.in)) {
    if (call.on(Fault::parameters_of_last_sequence))
      for (auto* sum : {&sums.A_log, &sums.dt_bias}) std::fill(sum->begin(), sum->end(), 0.0);
    for (auto* of_heads : {&sums.end_of_heads, &sums.dg_of_heads}) of_heads->assign(static_cast<std::size_t>(K), 0);
    for (std::int64_t head = 0; head < HV; ++head) head_backward(call.where.in_head(head) ? call : right, sequence, head, sums);
  }
  write_directions(call, Input::q, sums.dq);
  write_directions(call, Input::k, sums.dk);
  write_parameters(call, sums);
  misbehave(call, workspace);
}

} // namespace kdacheck::faults
