#include "stages.hpp"

#include <algorithm>
#include <array>
#include <vector>

namespace kdacheck {
namespace {

struct Declared {
  Stage stage;
  std::vector<Fault> faults;
};

const std::vector<Declared>& declared() {
  using enum Fault;
  static const std::vector<Declared> all{
      {Stage::inputs,
       {eps_of_mean, eps_missing, norm_squared, short_keys_flushed, keys_renormalised, tail_reads_next_sequence, stale_tail_rows,
        tail_mask_only_when_packed, group_by_modulo, strides_ignored, key_tail_dropped, key_bound_is_value_bound, sixteen_bit_offsets,
        last_channel_duplicated, single_token_skipped, members_capped, equal_length_rereads, full_tile_short, group_by_shift,
        seventh_channel_dropped,
        // reverse
        eps_missing_backward, gradient_bf16, group_overwritten, group_averaged, group_by_modulo_backward, norm_without_projection,
        norm_projects_raw, norm_factor_missing, backward_strides_ignored, backward_last_channel_dropped, backward_single_token_skipped,
        backward_sixteen_bit_offsets}},
      {Stage::gate_sum,
       {clamped_exponent, exp2_for_exp, approximate_exp, alpha_bf16, cumsum_bf16, cumsum_over_boundaries, no_decay, gate_times_zero,
        gate_bf16, decay_of_head_zero, bias_per_head, a_log_of_head_zero, clamped_softplus, bias_ignored, a_log_ignored, lower_bound_fixed,
        bias_after_scaling, a_log_minus_infinity, gate_clamped, faint_decay_flushed, gate_read_past_width, batch_wraps_at_four,
        last_batch_of_whole_chunks,
        // reverse
        dg_bf16, dg_sum_bf16, dg_sum_by_subtraction, dg_diagonal_cancelled, dg_diagonal_left_in, dg_without_end, dg_end_in_first_row,
        dg_end_of_all_heads, dg_end_not_decayed, dg_without_carried_keys, dg_without_queries, dg_sum_exclusive, dg_sum_from_start,
        dg_not_summed, dg_sum_over_chunks, dg_clamped, dg_in_base_two, sums_forget_final_state, sums_forget_carry, sums_start_late,
        sums_over_heads, sums_carry_bf16, exp_before_mask, slope_overflows, rate_vanishes, gate_slope_bf16, rate_sum_bf16,
        dA_log_of_head_zero, dA_log_over_heads, dA_log_without_rate, ddt_bias_over_heads, ddt_bias_without_slope,
        parameters_of_last_sequence, gate_slope_missing, lower_bound_missing_backward, bias_missing_backward}},
      {Stage::scores,
       {anchor_after_rows, mask_by_multiplication, unmasked_tail_decay, decay_from_chunk_end, one_anchor_per_chunk, split_exponent,
        future_anchor, scores_bf16, split_decay_bf16, scores_tf32, upper_triangle_unwritten, diagonal_missing, diagonal_twice,
        read_before_write,
        // reverse
        backward_mask_by_multiplication, shared_anchor, dA_bf16, dA_from_residual, dA_missing, dA_with_diagonal, dA_without_beta,
        dA_beta_of_column, dA_wrong_sign, split_decay_bf16_backward, alpha_bf16_backward, dk_needs_dq, dbeta_needs_dg,
        reads_without_diagonal, reads_diagonal_twice, dbeta_without_scores, dk_without_reads, dq_without_scores}},
      {Stage::inverse,
       {neumann_fp32, neumann_bf16, neumann_fp16, first_order_inverse, second_order_inverse,
        // reverse
        inverse_bf16_backward, dZ_not_solved, dZ_solved_forward}},
      {Stage::residual,
       {residual_bf16, delta_only_when_gated, no_delta_term, beta_not_on_value, beta_on_erase_twice, value_bf16, beta_bf16, beta_fp16,
        beta_of_query_head, previous_beta, twice_sigmoid_as_sigmoid, sigmoid_missing, value_tail_dropped, erase_before_decay,
        residual_bf16_of_bf16, lone_value_channel_dropped, heads_wrap_at_eight, wide_values_lose_beta, wide_values_share_beta,
        odd_start_rounded_down, delta_twice, delta_transposed, decode_beta_of_first_sequence,
        // reverse
        dZ_bf16, dv_not_times_beta, dbeta_by_division, dbeta_without_state, dk_without_erase, ungated_dk_skipped, ungated_dbeta_short,
        beta_bf16_backward, beta_slope_bf16, sigmoid_slope_missing, twice_sigmoid_as_sigmoid_backward}},
      {Stage::state_carry,
       {state_bf16, state_fp16, carry_decay_bf16, truncated_state, last_decay_of_full_chunk, empty_state_unwritten, state_before_last_token,
        state_of_first_sequence, state_of_next_sequence, carry_over_sequences, last_chunk_skipped_when_full, state_transposed,
        initial_state_transposed, final_state_transposed, no_initial_state_garbage, carry_dropped, carry_not_decayed, final_state_unwritten,
        aliased_buffers, transition_product_bf16, remainder_dropped, long_member_loses_chunk, lone_member_ignores_state,
        decode_state_transposed, decode_state_bf16, inclusive_key_decay, long_after_empty,
        // reverse
        key_tail_unmasked, dS_bf16, saved_states_bf16, dU_without_state, dk_without_carry, dS_without_erase, dS_without_queries,
        dS_queries_unscaled, dS_not_decayed, first_dS_not_decayed, dS_leaks_over_sequences, dS_dropped, d_initial_transposed,
        d_initial_of_empty_unwritten, d_initial_without_first_chunk, d_final_ignored, d_final_in_every_chunk, d_final_transposed,
        d_final_of_first_sequence, state_of_previous_chunk, state_after_chunk, chunk_end_of_head_zero, absent_d_o_stops,
        absent_d_final_starts_late, absent_state_forgets, backward_aliased_buffers}},
      {Stage::output,
       {output_through_fp16, output_bf16, scale_clamped, state_operand_destroyed, tail_unwritten, subnormals_flushed, scale_ignored,
        scale_twice, scale_twice_at_odd_width, scale_of_value_dim, query_bf16, query_not_normalised, exclusive_query_decay,
        // reverse
        dU_bf16, dU_without_scores, dq_unscaled, dq_scaled_twice, dq_without_state, d_o_strides_ignored, small_gradients_flushed,
        query_norm_missing}},
      {Stage::call,
       {input_normalised_in_place, write_past_end, element_unwritten, order_varies, rarely_nan, heads_share_nan, workspace_read,
        output_depends_on_state_request, cached_by_pointer, state_written_unasked, absent_state_throws, empty_call_throws,
        lengths_unchecked, widths_unchecked, lengths_kept_by_address, prefetch_past_end, decode_strides_ignored,
        // reverse
        absent_d_final_throws, lengths_kept_by_address_backward, accumulates_into_output, parameters_into_output, backward_order_varies,
        backward_rarely_nan, backward_write_past_end, backward_tail_unwritten, backward_element_unwritten, backward_input_changed,
        backward_workspace_read, backward_heads_share_nan}},
  };
  return all;
}

} // namespace

std::string_view name(Stage stage) {
  constexpr std::array<std::string_view, all_stages.size()> names{"inputs",   "gate sum",    "scores", "inverse",
                                                                  "residual", "state carry", "output", "call"};
  return names[static_cast<std::size_t>(stage)];
}

std::optional<Stage> stage_of(Fault fault) {
  for (const auto& [stage, faults] : declared())
    if (std::ranges::find(faults, fault) != faults.end()) return stage;
  return std::nullopt;
}

} // namespace kdacheck
