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
  faint_decay_flushed,
  // precision
  neumann_fp32,
  neumann_bf16,
  neumann_fp16,
  first_order_inverse,
  second_order_inverse,
  residual_bf16,
  residual_bf16_of_bf16,
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
  short_keys_flushed,
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
  long_after_empty,
  members_capped,
  equal_length_rereads,
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
  full_tile_short,
  lone_value_channel_dropped,
  batch_wraps_at_four,
  heads_wrap_at_eight,
  group_by_shift,
  scale_twice_at_odd_width,
  last_batch_of_whole_chunks,
  wide_values_lose_beta,
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
  // from here on the forward pass is right and the backward pass is wrong: exponentials and masks
  backward_mask_by_multiplication,
  exp_before_mask,
  key_tail_unmasked,
  shared_anchor,
  slope_overflows,
  rate_vanishes,
  eps_missing_backward,
  // precision of the backward pass
  dU_bf16,
  dA_bf16,
  dS_bf16,
  dZ_bf16,
  beta_bf16_backward,
  inverse_bf16_backward,
  saved_states_bf16,
  dg_bf16,
  dg_sum_bf16,
  dg_sum_by_subtraction,
  dg_diagonal_cancelled,
  gradient_bf16,
  beta_slope_bf16,
  gate_slope_bf16,
  rate_sum_bf16,
  // algebra inside a chunk
  dU_without_state,
  dU_without_scores,
  dZ_not_solved,
  dZ_solved_forward,
  dv_not_times_beta,
  dbeta_by_division,
  dbeta_without_scores,
  dbeta_without_state,
  dA_from_residual,
  dA_missing,
  dA_with_diagonal,
  dA_without_beta,
  dA_beta_of_column,
  dA_wrong_sign,
  reads_without_diagonal,
  reads_diagonal_twice,
  dq_unscaled,
  dq_scaled_twice,
  dq_without_state,
  dq_without_scores,
  dk_without_reads,
  dk_without_erase,
  dk_without_carry,
  // gradient of the decay
  dg_diagonal_left_in,
  dg_without_end,
  dg_end_in_first_row,
  dg_end_of_all_heads,
  dg_end_not_decayed,
  dg_without_carried_keys,
  dg_without_queries,
  dg_sum_exclusive,
  dg_sum_from_start,
  dg_not_summed,
  dg_sum_over_chunks,
  dg_clamped,
  dg_in_base_two,
  // gradient of the decay as a running sum over the tokens of a sequence
  sums_forget_final_state,
  sums_forget_carry,
  sums_start_late,
  sums_over_heads,
  sums_carry_bf16,
  // gradient of the state
  dS_without_erase,
  dS_without_queries,
  dS_queries_unscaled,
  dS_not_decayed,
  first_dS_not_decayed,
  dS_leaks_over_sequences,
  dS_dropped,
  d_initial_transposed,
  d_initial_of_empty_unwritten,
  d_initial_without_first_chunk,
  d_final_ignored,
  d_final_in_every_chunk,
  d_final_transposed,
  d_final_of_first_sequence,
  state_of_previous_chunk,
  state_after_chunk,
  // groups, parameters, options
  group_overwritten,
  group_averaged,
  group_by_modulo_backward,
  dA_log_of_head_zero,
  dA_log_over_heads,
  dA_log_without_rate,
  ddt_bias_over_heads,
  ddt_bias_without_slope,
  parameters_of_last_sequence,
  gate_slope_missing,
  lower_bound_missing_backward,
  bias_missing_backward,
  sigmoid_slope_missing,
  twice_sigmoid_as_sigmoid_backward,
  norm_without_projection,
  norm_projects_raw,
  norm_factor_missing,
  query_norm_missing,
  ungated_dk_skipped,
  ungated_dbeta_short,
  // contracts and determinism of the backward pass
  accumulates_into_output,
  parameters_into_output,
  backward_order_varies,
  backward_rarely_nan,
  backward_write_past_end,
  backward_tail_unwritten,
  backward_element_unwritten,
  backward_input_changed,
  backward_workspace_read,
  backward_strides_ignored,
  backward_heads_share_nan,
  backward_last_channel_dropped,
  backward_single_token_skipped,
  small_gradients_flushed,
  count
};

/// A fault with what a report says about it.
struct FaultInfo {
  Fault fault = Fault::none;
  std::string_view name;     ///< "neumann-fp16"
  std::string_view origin;   ///< "cudnn-frontend #1124"
  std::string_view what;     ///< one line
  std::string_view contract; ///< text form; what the kernel claims
  bool backward = false;     ///< the forward pass is right, the backward pass is not
};

/// Every planted fault, `none` not among them: those of the forward pass, then those of the backward pass.
std::span<const FaultInfo> planted_faults();

/// The kernel with one fault switched on; its name is "fault." + info.name. One with a fault of the forward pass has no
/// backward pass.
Kernel faulty_kernel(const FaultInfo&);

/// How the kernel adds up products: one after the other from the first or from the last, by halves, or in eight interleaved
/// sums. pairs: as rising, but what pairs of tokens give to dg is not summed by rows and columns first: each pair adds to one running
/// number of both its tokens, as automatic differentiation through e^{G_i - G_j} does.
enum class SumTree : std::uint8_t { rising, falling, pairwise, lanes, pairs };

/// The same kernel without a fault, under a contract: "correct.CONTRACT-LABEL". It rounds wherever the contract lets it.
Kernel faultless_kernel(std::string_view label, std::string_view contract, SumTree = SumTree::rising);

} // namespace kdacheck
