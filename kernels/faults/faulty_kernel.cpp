// The outer loops of the kernel in chunk_with_faults.cpp: sequences, heads, chunks, state in and out.

#include "../cpu/accept.hpp"
#include "backward_with_faults.hpp"
#include "chunk_with_faults.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <stdexcept>

namespace kdacheck {
namespace faults {

unsigned vary(unsigned step) {
  static std::atomic<unsigned> calls{0};
  return calls += step;
}

std::vector<Sequence> sequences_of(const Inputs& in) {
  std::vector<Sequence> result;
  for (std::int64_t n = 0; n < in.N(); ++n) {
    const auto i = static_cast<std::size_t>(n);
    if (in.cu_seqlens.empty())
      result.push_back({n, n * in.shape.T, in.shape.T});
    else
      result.push_back({n, in.cu_seqlens[i], in.cu_seqlens[i + 1] - in.cu_seqlens[i]});
  }
  return result;
}

namespace {

/// The lengths that this thread found at this address before, if as many and of as many tokens.
std::vector<std::int64_t> lengths_kept(const Inputs& in) {
  static thread_local std::map<const std::int64_t*, std::vector<std::int64_t>> plans;
  std::vector<std::int64_t>& plan = plans[in.cu_seqlens.data()];
  if (plan.size() != in.cu_seqlens.size() || plan.empty() || plan.back() != in.shape.T)
    plan.assign(in.cu_seqlens.begin(), in.cu_seqlens.end());
  return plan;
}

struct Call {
  const Inputs& in;
  const Outputs& out;
  const Contract& contract;
  Fault fault;
  SumTree tree;
  Placement where;
  bool on(Fault which) const { return fault == which; }
};

void read_state(const Call& call, HeadRun& run, std::span<std::byte> workspace) {
  const TensorView& h0 = call.in[Input::initial_state];
  const std::int64_t n = call.on(Fault::state_of_first_sequence) ? 0 : run.sequence.index;
  for (std::int64_t c = 0; c < run.K; ++c)
    for (std::int64_t j = 0; j < run.V; ++j) {
      float& s = run.S[static_cast<std::size_t>(c * run.V + j)];
      if (call.on(Fault::lone_member_ignores_state) && !call.in.cu_seqlens.empty() && call.in.N() == 1) continue;
      if (!h0) {
        if (call.on(Fault::no_initial_state_garbage)) s = load({.data = workspace.data(), .format = Format::fp32}, 0);
        continue;
      }
      const bool v_first = call.contract.state_v_first;
      std::int64_t row = v_first ? j : c, column = v_first ? c : j;
      std::int64_t offset = h0.offset(n, run.head, row, column);
      if (call.on(Fault::initial_state_transposed)) offset = h0.offset(n, run.head) + (j * run.K + c) % (run.K * run.V);
      s = load(h0, offset);
    }
}

void write_state(const Call& call, const HeadRun& run) {
  const bool unasked = call.on(Fault::state_written_unasked) && !call.out.final_state;
  const TensorView& view = unasked ? call.in[Input::initial_state] : call.out.final_state;
  if (!view || call.on(Fault::final_state_unwritten)) return;
  if (call.on(Fault::empty_state_unwritten) && run.sequence.length == 0) return;
  std::int64_t n = run.sequence.index;
  if (call.on(Fault::state_of_next_sequence)) n = std::min(n + 1, call.in.N() - 1);
  for (std::int64_t c = 0; c < run.K; ++c)
    for (std::int64_t j = 0; j < run.V; ++j) {
      const bool v_first = call.contract.state_v_first;
      std::int64_t offset = v_first ? view.offset(n, run.head, j, c) : view.offset(n, run.head, c, j);
      if (call.on(Fault::final_state_transposed)) offset = view.offset(n, run.head) + (j * run.K + c) % (run.K * run.V);
      store(view, offset, run.S[static_cast<std::size_t>(c * run.V + j)]);
    }
}

void write_rows(const Call& call, const HeadRun& run, std::int64_t first, std::int64_t length, const std::vector<float>& o) {
  const TensorView& view = call.out.o;
  const std::int64_t end_of_sequence = run.sequence.first + run.sequence.length;
  for (std::int64_t i = 0; i < length; ++i) {
    const std::int64_t row = first + i;
    if (call.on(Fault::tail_unwritten) && length < run.C && row == end_of_sequence - 1) continue;
    for (std::int64_t j = 0; j < run.V; ++j) {
      if (call.on(Fault::element_unwritten) && row % 7 == 6 && j == run.V - 1) continue;
      store(view, view.offset(row / call.in.shape.T, row % call.in.shape.T, run.head, j), o[static_cast<std::size_t>(i * run.V + j)]);
    }
  }
}

void run_head(const Call& call, const Sequence& sequence, std::int64_t head, std::span<std::byte> workspace, std::vector<float>& carried) {
  HeadRun run(call.in, call.contract, call.fault, sequence, head, call.tree);
  read_state(call, run, workspace);
  const auto slot = static_cast<std::ptrdiff_t>(head * run.K * run.V);
  if (call.on(Fault::carry_over_sequences) && sequence.index > 0 && !call.in[Input::initial_state])
    std::copy_n(carried.begin() + slot, run.S.size(), run.S.begin());
  const bool skipped = (call.on(Fault::single_token_skipped) && sequence.length == 1) ||
                       (call.on(Fault::members_capped) && !call.in.cu_seqlens.empty() && sequence.index >= 40);
  const bool after_empty = !call.in.cu_seqlens.empty() && sequence.index > 0 &&
                           call.in.cu_seqlens[static_cast<std::size_t>(sequence.index) - 1] == sequence.first;
  std::vector<float> o(static_cast<std::size_t>(run.C * run.V));
  for (std::int64_t start = 0, index = 0; start < sequence.length; start += run.C, ++index) {
    const std::int64_t length = std::min(run.C, sequence.length - start);
    const std::vector<float> before = run.S;
    std::fill(o.begin(), o.end(), 0.0f);
    if (call.on(Fault::long_after_empty) && after_empty && start == 64) std::fill(run.S.begin(), run.S.end(), 0.0f);
    run.fault = call.where.in_chunk(index) ? call.fault : Fault::none;
    const bool last = start + length == sequence.length;
    const bool dropped = (call.on(Fault::remainder_dropped) && length < run.C) ||
                         (call.on(Fault::long_member_loses_chunk) && !call.in.cu_seqlens.empty() && sequence.length > 512 && last);
    if (!skipped && !dropped) run.chunk(sequence.first + start, length, index, o.data());
    if (call.on(Fault::last_chunk_skipped_when_full) && last && length == run.C && index > 0) run.S = before;
    if (call.on(Fault::state_before_last_token) && last && length == 1) run.S = before;
    if (call.on(Fault::output_depends_on_state_request) && !call.out.final_state)
      for (float& x : o) x = round_bf16(x);
    write_rows(call, run, sequence.first + start, length, o);
  }
  std::copy(run.S.begin(), run.S.end(), carried.begin() + slot);
  write_state(call, run);
}

void forward(const Call& call, std::span<std::byte> workspace) {
  const Shape& shape = call.in.shape;
  const Call right{call.in, call.out, call.contract, Fault::none, call.tree, {}};
  std::vector<float> carried(static_cast<std::size_t>(shape.HV * shape.K * shape.V), 0);
  for (const Sequence& sequence : sequences_of(call.in))
    for (std::int64_t head = 0; head < shape.HV; ++head)
      run_head(call.where.in_head(head) ? call : right, sequence, head, workspace, carried);

  const TensorView &o = call.out.o, &v = call.in[Input::v];
  if (call.on(Fault::prefetch_past_end) && shape.V % 32 == 0 && v.elements() > 0) {
    volatile float prefetched = load(v, v.offset(shape.B - 1, shape.T - 1, shape.HV - 1, shape.V - 1) + 64);
    static_cast<void>(prefetched);
  }
  if (call.on(Fault::write_past_end) && o.elements() > 0) store(o, o.elements(), 0.0f);
  if (call.on(Fault::input_normalised_in_place) && call.in.options.l2norm && call.in[Input::k].elements() > 0)
    store(call.in[Input::k], 0, load(call.in[Input::k], 0) * 0.5f);
  if (call.on(Fault::workspace_read) && o.elements() > 0)
    store(o, 0, load(o, 0) + load({.data = workspace.data(), .format = Format::fp32}, 0) * 1e-30f);
  if (call.on(Fault::heads_share_nan)) {
    float leak = 0;
    for (std::int64_t i = 0; i < call.in[Input::v].elements(); ++i) leak += 0 * load(call.in[Input::v], i);
    for (std::int64_t i = 0; i < o.elements(); ++i) store(o, i, load(o, i) + leak);
  }
  if (call.on(Fault::cached_by_pointer)) {
    static thread_local const void* last_k = nullptr;
    static thread_local std::vector<float> last_o;
    if (last_k == call.in[Input::k].data && static_cast<std::int64_t>(last_o.size()) == o.elements())
      for (std::int64_t i = 0; i < o.elements(); ++i) store(o, i, last_o[static_cast<std::size_t>(i)]);
    last_k = call.in[Input::k].data;
    last_o.clear();
    for (std::int64_t i = 0; i < o.elements(); ++i) last_o.push_back(load(o, i));
  }
}

/// Lengths as they come, bent into shape where they contradict themselves.
std::vector<std::int64_t> bent(std::span<const std::int64_t> lengths, std::int64_t T) {
  std::vector<std::int64_t> result(lengths.begin(), lengths.end());
  std::int64_t before = 0;
  for (std::int64_t& place : result) place = before = std::clamp(place, before, T);
  if (!result.empty()) result.front() = 0, result.back() = T;
  return result;
}

void accepted_forward(const Call& call, std::span<std::byte> workspace) {
  Inputs in = call.in;
  Contract promised = call.contract;
  std::vector<std::int64_t> lengths(in.cu_seqlens.begin(), in.cu_seqlens.end());
  if (call.on(Fault::lengths_unchecked)) lengths = bent(in.cu_seqlens, in.shape.T);
  if (call.on(Fault::lengths_kept_by_address)) lengths = lengths_kept(in);
  if (call.on(Fault::widths_unchecked)) promised.K = promised.V = SizeRange{};
  in.cu_seqlens = lengths;
  cpu::accept(promised, in, call.out);
  if (call.on(Fault::empty_call_throws) && in.shape.T == 0) throw std::runtime_error("a grid of no blocks");
  if (call.on(Fault::absent_state_throws) && !in[Input::initial_state]) throw std::runtime_error("the initial state is None");
  forward({in, call.out, call.contract, call.fault, call.tree, call.where}, workspace);
}

/// What a fault of decoding does to a decode step; the forward pass is free of it.
Fault in_decode(Fault fault) {
  switch (fault) {
  case Fault::decode_state_transposed: return Fault::initial_state_transposed;
  case Fault::decode_state_bf16: return Fault::state_bf16;
  case Fault::decode_strides_ignored: return Fault::strides_ignored;
  case Fault::decode_beta_of_first_sequence: return fault;
  default: return Fault::none;
  }
}

Kernel make(std::string name, std::string summary, std::string_view contract_text, Fault fault, bool has_backward,
            SumTree tree = SumTree::rising, Placement where = {}, bool decodes = false) {
  ParsedContract parsed = parse_contract(contract_text);
  if (!parsed.contract) throw std::logic_error(name + ": " + parsed.error);
  const Contract contract = *parsed.contract;
  const bool of_decode = in_decode(fault) != Fault::none;
  Kernel kernel{.name = std::move(name),
                .summary = std::move(summary),
                .contract = contract,
                .workspace_bytes = [](const Inputs&, bool) { return std::size_t{64}; },
                .forward =
                    [contract, fault = of_decode ? Fault::none : fault, tree, where](const Inputs& in, const Outputs& out,
                                                                                     std::span<std::byte> workspace) {
                      accepted_forward({in, out, contract, fault, tree, where}, workspace);
                    },
                .backward = {}};
  if (of_decode || (decodes && fault == Fault::none))
    kernel.decode = [contract, fault = in_decode(fault), tree, where](const Inputs& in, const Outputs& out,
                                                                      std::span<std::byte> workspace) {
      accepted_forward({in, out, contract, fault, tree, where}, workspace);
    };
  if (has_backward)
    kernel.backward = [contract, fault, tree, where](const Inputs& in, const Cotangents& cotangents, const GradientOutputs& out,
                                                     std::span<std::byte> workspace) {
      cpu::accept(contract, in, cotangents, out);
      if (fault == Fault::absent_d_final_throws && !cotangents.d_final_state) throw std::runtime_error("d_final_state is None");
      Inputs read = in;
      const std::vector<std::int64_t> kept =
          fault == Fault::lengths_kept_by_address_backward ? lengths_kept(in) : std::vector<std::int64_t>{};
      if (!kept.empty()) read.cu_seqlens = kept;
      backward({read, cotangents, out, contract, fault, tree, where}, workspace);
    };
  return kernel;
}

} // namespace
} // namespace faults

Kernel faulty_kernel(const FaultInfo& info) {
  return faults::make("fault." + std::string(info.name), std::string(info.what), info.contract, info.fault, info.backward, SumTree::rising,
                      {}, true);
}

Kernel faulty_kernel(const FaultInfo& info, const Placement& where) {
  return faults::make("fault." + std::string(info.name), std::string(info.what), info.contract, info.fault, info.backward, SumTree::rising,
                      where);
}

Kernel faultless_kernel(std::string_view label, std::string_view contract, SumTree tree) {
  return faults::make("correct." + std::string(label), "the kernel of the planted faults, with none switched on", contract, Fault::none,
                      true, tree);
}

} // namespace kdacheck
