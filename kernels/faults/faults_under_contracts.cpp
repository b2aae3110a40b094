#include "faults_under_contracts.hpp"

#include <algorithm>
#include <array>
#include <deque>
#include <stdexcept>
#include <string>
#include <vector>

namespace kdacheck::faults {
namespace {

struct Named {
  std::string_view label, contract;
};

constexpr Named bf16{"bf16", "input=bf16 output=bf16 operands=bf16 chunk=64 order=residual_first gates=log_decay,softplus,bounded,sigmoid,"
                             "absent betas=value,sigmoid,twice_sigmoid beta_max=2 l2norm=both strided=yes"};
constexpr Named fp16{"fp16", "input=fp16 output=fp16 operands=fp16 value_max=1000 chunk=32 order=residual_first gates=log_decay,softplus,"
                             "bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid beta_max=2 l2norm=both strided=yes"};
constexpr Named tf32{"tf32", "operands=tf32 chunk=32 gates=log_decay,softplus,bounded,sigmoid,absent "
                             "betas=value,sigmoid,twice_sigmoid beta_max=2 l2norm=both strided=yes"};
constexpr Named v_first{"v-first", "state_layout=v_first chunk=64 order=residual_first gates=log_decay,softplus,bounded,sigmoid,absent "
                                   "betas=value,sigmoid,twice_sigmoid beta_max=2 l2norm=both strided=yes"};
constexpr Named each_token{"recurrence", "chunk=1 order=recurrence gates=log_decay,softplus,bounded,sigmoid,absent "
                                         "betas=value,sigmoid,twice_sigmoid beta_max=2 l2norm=both strided=yes"};
constexpr Named bf16_16{"bf16-chunk16", "input=bf16 output=bf16 operands=bf16 chunk=16 order=residual_first "
                                        "betas=value,sigmoid,twice_sigmoid beta_max=2 l2norm=both"};

struct Variant {
  Fault fault;
  const Named& under;
};

using enum Fault;
// Left out: d_initial_transposed, initial_state_transposed and final_state_transposed with V-first states, where the offsets of those
// faults are the right ones.
constexpr std::array variants{
    // ollama #15865, TensorRT-Model-Connect #725: the state stored at every token; FlashKDA: doubling in fp16 at beta = 2
    Variant{state_bf16, each_token},
    Variant{neumann_fp16, bf16_16},
    // sequences, chunks and tails
    Variant{carry_dropped, bf16},
    Variant{carry_dropped, tf32},
    Variant{carry_not_decayed, fp16},
    Variant{carry_not_decayed, v_first},
    Variant{last_decay_of_full_chunk, bf16},
    Variant{last_decay_of_full_chunk, tf32},
    Variant{tail_reads_next_sequence, fp16},
    Variant{cumsum_over_boundaries, v_first},
    Variant{cumsum_over_boundaries, bf16},
    Variant{stale_tail_rows, tf32},
    Variant{state_before_last_token, fp16},
    Variant{carry_over_sequences, v_first},
    Variant{last_chunk_skipped_when_full, bf16},
    Variant{remainder_dropped, tf32},
    Variant{state_of_next_sequence, fp16},
    // heads, layouts and widths
    Variant{decay_of_head_zero, bf16},
    Variant{decay_of_head_zero, v_first},
    Variant{state_transposed, bf16},
    Variant{state_transposed, v_first},
    Variant{initial_state_transposed, tf32},
    Variant{final_state_transposed, fp16},
    Variant{group_by_modulo, tf32},
    Variant{beta_of_query_head, bf16},
    Variant{value_tail_dropped, v_first},
    Variant{key_tail_dropped, fp16},
    Variant{previous_beta, bf16},
    Variant{strides_ignored, fp16},
    // algebra
    Variant{no_delta_term, bf16},
    Variant{no_decay, fp16},
    Variant{erase_before_decay, bf16},
    Variant{erase_before_decay, tf32},
    Variant{exclusive_query_decay, fp16},
    Variant{inclusive_key_decay, v_first},
    Variant{diagonal_missing, bf16},
    Variant{read_before_write, tf32},
    Variant{beta_not_on_value, fp16},
    Variant{beta_on_erase_twice, bf16},
    Variant{first_order_inverse, bf16},
    Variant{second_order_inverse, tf32},
    Variant{scale_twice, v_first},
    Variant{delta_twice, fp16},
    // gradients: what misses a term or has it in the wrong place
    Variant{dU_without_state, bf16},
    Variant{dU_without_scores, tf32},
    Variant{dZ_not_solved, fp16},
    Variant{dZ_solved_forward, bf16},
    Variant{dv_not_times_beta, v_first},
    Variant{dbeta_without_scores, tf32},
    Variant{dbeta_without_state, bf16},
    Variant{dA_missing, fp16},
    Variant{dA_wrong_sign, bf16},
    Variant{reads_without_diagonal, v_first},
    Variant{dq_without_state, bf16},
    Variant{dk_without_reads, tf32},
    Variant{dk_without_erase, fp16},
    Variant{dk_without_carry, bf16},
    Variant{dg_without_end, tf32},
    Variant{dg_without_end, bf16},
    Variant{dg_sum_exclusive, fp16},
    Variant{dg_not_summed, v_first},
    Variant{dg_end_of_all_heads, bf16},
    Variant{dS_without_erase, tf32},
    Variant{dS_without_queries, bf16},
    Variant{dS_not_decayed, fp16},
    Variant{dS_leaks_over_sequences, v_first},
    Variant{d_final_transposed, bf16},
    Variant{d_final_in_every_chunk, tf32},
    Variant{state_of_previous_chunk, fp16},
    Variant{group_overwritten, bf16},
    Variant{norm_without_projection, tf32},
    Variant{gate_slope_missing, fp16},
    Variant{chunk_end_of_head_zero, bf16},
};

} // namespace

std::span<const FaultInfo> faults_under_contracts() {
  static std::deque<std::string> names;
  static const std::vector<FaultInfo> all = [] {
    std::vector<FaultInfo> list;
    for (const Variant& variant : variants) {
      const auto info = std::ranges::find(planted_faults(), variant.fault, &FaultInfo::fault);
      if (info == planted_faults().end()) throw std::logic_error("a variant of a fault that is not planted");
      FaultInfo& under = list.emplace_back(*info);
      under.name = names.emplace_back(std::string(info->name) + ".of-" + std::string(variant.under.label));
      under.contract = variant.under.contract;
    }
    return list;
  }();
  return all;
}

} // namespace kdacheck::faults
