#pragma once
// Kernels that are wrong on purpose: one readable chunkwise kernel in which every known fault is a switch. They measure
// the gate (`./kdacheck gate-power`); `none` is right and must never be refused.
//
// Origins name the public project and commit, pull request or issue where the fault was found; "class" marks a fault of
// the same kind as those that nobody has reported yet.

#include "../kernel.hpp"

#include <span>
#include <string_view>

namespace kdacheck {

enum class Fault : std::uint16_t {
  none,
  // exponentials and masks
  anchor_after_rows,
  mask_by_multiplication,
  unmasked_tail_decay,
  decay_from_chunk_end,
  one_anchor_per_chunk,
  clamped_exponent,
  split_exponent,
  gate_clamped,
  exp2_for_exp,
  approximate_exp,
  output_through_fp16,
  a_log_minus_infinity,
  gate_times_zero,
  // precision
  neumann_fp32,
  neumann_bf16,
  neumann_fp16,
  first_order_inverse,
  second_order_inverse,
  residual_bf16,
  future_anchor,
  beta_bf16,
  alpha_bf16,
  gate_bf16,
  cumsum_bf16,
  state_bf16,
  state_fp16,
  carry_decay_bf16,
  scores_bf16,
  split_decay_bf16,
  output_bf16,
  query_bf16,
  value_bf16,
  scores_tf32,
  truncated_state,
  beta_fp16,
  eps_of_mean,
  eps_missing,
  norm_squared,
  // tails, sequences
  last_decay_of_full_chunk,
  tail_reads_next_sequence,
  cumsum_over_boundaries,
  stale_tail_rows,
  upper_triangle_unwritten,
  empty_state_unwritten,
  tail_unwritten,
  state_before_last_token,
  state_of_first_sequence,
  state_of_next_sequence,
  carry_over_sequences,
  single_token_skipped,
  tail_mask_only_when_packed,
  last_chunk_skipped_when_full,
  // indexing
  decay_of_head_zero,
  state_transposed,
  initial_state_transposed,
  final_state_transposed,
  group_by_modulo,
  bias_per_head,
  a_log_of_head_zero,
  strides_ignored,
  value_tail_dropped,
  key_tail_dropped,
  key_bound_is_value_bound,
  sixteen_bit_offsets,
  beta_of_query_head,
  last_channel_duplicated,
  previous_beta,
  // algebra and options
  no_initial_state_garbage,
  delta_only_when_gated,
  clamped_softplus,
  no_delta_term,
  no_decay,
  erase_before_decay,
  bias_ignored,
  a_log_ignored,
  scale_ignored,
  scale_twice,
  scale_of_value_dim,
  beta_not_on_value,
  twice_sigmoid_as_sigmoid,
  sigmoid_missing,
  query_not_normalised,
  exclusive_query_decay,
  inclusive_key_decay,
  diagonal_missing,
  diagonal_twice,
  carry_dropped,
  carry_not_decayed,
  beta_on_erase_twice,
  read_before_write,
  lower_bound_fixed,
  bias_after_scaling,
  // contracts, determinism
  final_state_unwritten,
  input_normalised_in_place,
  write_past_end,
  element_unwritten,
  order_varies,
  rarely_nan,
  aliased_buffers,
  heads_share_nan,
  workspace_read,
  subnormals_flushed,
  output_depends_on_state_request,
  cached_by_pointer,
  count
};

/// A fault with what a report says about it.
struct FaultInfo {
  Fault fault = Fault::none;
  std::string_view name;     ///< "neumann-fp16"
  std::string_view origin;   ///< "cudnn-frontend #1124"
  std::string_view what;     ///< one line
  std::string_view contract; ///< text form; what the kernel claims
};

/// Every planted fault, `none` not among them.
std::span<const FaultInfo> planted_faults();

/// The kernel with one fault switched on; its name is "fault." + info.name.
Kernel faulty_kernel(const FaultInfo&);

/// The same kernel without a fault, under a contract: "correct.CONTRACT-LABEL".
Kernel faultless_kernel(std::string_view label, std::string_view contract);

} // namespace kdacheck
