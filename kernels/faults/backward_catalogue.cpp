#include "backward_catalogue.hpp"

#include <array>

namespace kdacheck::faults {
namespace {

// fp32 throughout, every option:
constexpr std::string_view exact =
    "chunk=16 order=residual_first gates=log_decay,softplus,bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid beta_max=2 "
    "l2norm=both strided=yes";
constexpr std::string_view exact_64 = "chunk=64 order=residual_first gates=log_decay,softplus,bounded,sigmoid,absent "
                                      "betas=value,sigmoid,twice_sigmoid beta_max=2 l2norm=both";

// bf16 in, out and in every product:
constexpr std::string_view bf16 = "input=bf16 output=bf16 operands=bf16 chunk=16 order=residual_first l2norm=both";

// token by token, dg as a running sum:
constexpr std::string_view running_sums =
    "chunk=1 order=recurrence decay_gradient=sums gates=log_decay,softplus,bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid "
    "beta_max=2 l2norm=both strided=yes";

constexpr FaultInfo planted(Fault fault, std::string_view name, std::string_view origin, std::string_view what,
                            std::string_view contract = exact) {
  return {fault, name, origin, what, contract, true};
}

constexpr std::array catalogue{
    // exponentials and masks
    planted(Fault::backward_mask_by_multiplication, "backward-mask-by-multiplication", "flash-linear-attention 6cc3736b",
            "pairs above the diagonal are masked by a product: 0 times infinity", exact_64),
    planted(Fault::exp_before_mask, "backward-exp-before-mask", "transformers #48455",
            "exponentials of pairs above the diagonal reach dg as 0 times infinity"),
    planted(Fault::key_tail_unmasked, "dk-tail-unmasked", "flash-linear-attention #652",
            "dk of a tail is scaled by e^(0-G) instead of e^(G_C-G)"),
    planted(Fault::shared_anchor, "backward-shared-anchor", "flash-linear-attention-npu #448",
            "gradients of scores rescaled with one anchor per chunk", exact_64),
    planted(Fault::slope_overflows, "gate-slope-overflows", "flash-linear-attention #1007",
            "softplus' and sigmoid' as quotients of fp16 exponentials: infinity over infinity"),
    planted(Fault::rate_vanishes, "rate-divided-by", "flash-linear-attention #1007",
            "dA_log divides by e^A_log what was multiplied by it: 0 over 0 for A_log = -inf"),
    planted(Fault::eps_missing_backward, "eps-missing-in-backward", "maxtext #5294, #5295",
            "l2norm differentiated without eps: NaN for a zero key"),
    // precision
    planted(Fault::dU_bf16, "du-bf16", "attention-gym #461", "dU rounded to bf16"),
    planted(Fault::dA_bf16, "da-bf16", "attention-gym #447", "dAkk and dAqk rounded to bf16"),
    planted(Fault::dS_bf16, "ds-bf16", "class", "the gradient of the state is stored in bf16 at every chunk"),
    planted(Fault::dZ_bf16, "dz-bf16", "class", "dZ rounded to bf16"),
    planted(Fault::beta_bf16_backward, "beta-bf16-in-backward", "vLLM #53877", "beta rounded to bf16 in the backward pass"),
    planted(Fault::inverse_bf16_backward, "inverse-bf16-in-backward", "class", "(I + L)^-1 rounded to bf16 for the backward pass"),
    planted(Fault::saved_states_bf16, "saved-states-bf16", "ollama #15865", "states saved for the backward pass in bf16"),
    planted(Fault::dg_bf16, "dg-bf16", "class", "dg rounded to bf16"),
    planted(Fault::dg_sum_bf16, "dg-sum-bf16", "vLLM #42076", "the reverse cumulative sum of dg in bf16"),
    planted(Fault::dg_sum_by_subtraction, "dg-sum-by-subtraction", "class", "the reverse cumulative sum as total minus prefix"),
    planted(Fault::dg_diagonal_cancelled, "dg-diagonal-cancelled", "attention-gym #461",
            "pairs i = j are added to dg and taken away again"),
    planted(Fault::gradient_bf16, "gradients-bf16", "class", "every gradient rounded to bf16 though fp32 is declared"),
    planted(Fault::beta_slope_bf16, "beta-slope-bf16", "vLLM #53877", "sigmoid' as s (1 - s) of an s rounded to bf16"),
    planted(Fault::gate_slope_bf16, "gate-slope-bf16", "class", "the gate's slope from 1 - s of an s rounded to bf16"),
    planted(Fault::rate_sum_bf16, "da-log-sum-bf16", "class", "dA_log summed in bf16"),
    planted(Fault::alpha_bf16_backward, "alpha-bf16-in-backward", "attention-gym #447",
            "every exponential of the backward pass rounded to bf16"),
    planted(Fault::split_decay_bf16_backward, "split-decay-bf16-in-backward", "attention-gym #447",
            "the backward pass forms e^G and e^-G in bf16 before their product", bf16),
    // algebra inside a chunk
    planted(Fault::dU_without_state, "du-without-state", "TileOPs #632", "dU misses kr dS'"),
    planted(Fault::dU_without_scores, "du-without-scores", "class", "dU misses Aqk^T dO"),
    planted(Fault::dZ_not_solved, "dz-not-solved", "TileOPs #632", "dZ is dU: the solve is not differentiated"),
    planted(Fault::dZ_solved_forward, "dz-solved-forward", "class", "dZ = T dU instead of T^T dU"),
    planted(Fault::dv_not_times_beta, "dv-not-times-beta", "class", "dv misses beta"),
    planted(Fault::dbeta_by_division, "dbeta-by-division", "class", "dbeta from a product that holds beta, divided by beta + 1e-10"),
    planted(Fault::dbeta_without_scores, "dbeta-without-scores", "class", "dbeta misses sum_j dL_ij Akk_ij"),
    planted(Fault::dbeta_without_state, "dbeta-without-state", "class", "dbeta takes v for v - kd S"),
    planted(Fault::dA_from_residual, "da-from-residual", "flash-linear-attention 2675c107", "dAkk from V - kd S instead of U"),
    planted(Fault::dA_missing, "da-missing", "TileOPs #632", "the scores of keys are taken as constants"),
    planted(Fault::dA_with_diagonal, "da-with-diagonal", "class", "dAkk keeps its diagonal"),
    planted(Fault::dA_without_beta, "da-without-beta", "class", "dAkk misses beta"),
    planted(Fault::dA_beta_of_column, "da-beta-of-column", "class", "dAkk scaled by beta of the column"),
    planted(Fault::dA_wrong_sign, "da-wrong-sign", "class", "dAkk has the wrong sign"),
    planted(Fault::reads_without_diagonal, "reads-without-diagonal", "attention-gym #461",
            "dAqk is strictly lower: no token reads its own write"),
    planted(Fault::reads_diagonal_twice, "reads-diagonal-twice", "class", "the diagonal of dAqk counts twice"),
    planted(Fault::dq_unscaled, "dq-unscaled", "class", "dq misses scale"),
    planted(Fault::dq_scaled_twice, "dq-scaled-twice", "class", "dq has scale twice"),
    planted(Fault::dq_without_state, "dq-without-state", "class", "dq misses dO S^T"),
    planted(Fault::dq_without_scores, "dq-without-scores", "class", "dq misses the pairs i > j"),
    planted(Fault::dk_without_reads, "dk-without-reads", "class", "dk misses what later queries read"),
    planted(Fault::dk_without_erase, "dk-without-erase", "TileOPs #632", "dk misses -(beta dZ) S^T"),
    planted(Fault::dk_without_carry, "dk-without-carry", "class", "dk misses U dS'^T"),
    // gradient of the decay
    planted(Fault::dg_diagonal_left_in, "dg-diagonal-left-in", "attention-gym #461", "pairs i = j are added to dg and not taken away"),
    planted(Fault::dg_without_end, "dg-without-end", "class", "dg misses e^(G_C) S . dS'"),
    planted(Fault::dg_end_in_first_row, "dg-end-in-first-row", "class", "what the chunk's end adds to dg stands in its first row"),
    planted(Fault::dg_end_of_all_heads, "dg-end-of-all-heads", "flash-linear-attention 31293264",
            "the chunk's end adds to dg what earlier heads' final states give"),
    planted(Fault::dg_end_not_decayed, "dg-end-not-decayed", "class", "S . dS' enters dg without e^(G_C)"),
    planted(Fault::dg_without_carried_keys, "dg-without-carried-keys", "class", "dg misses what keys carried to the chunk's end give"),
    planted(Fault::dg_without_queries, "dg-without-queries", "class", "dg misses q . dq"),
    planted(Fault::dg_sum_exclusive, "dg-sum-exclusive", "flash-linear-attention cf63ac28",
            "the reverse cumulative sum leaves out its own token"),
    planted(Fault::dg_sum_from_start, "dg-sum-from-start", "class", "dg summed from the chunk's start"),
    planted(Fault::dg_not_summed, "dg-not-summed", "class", "dG given out as dg"),
    planted(Fault::dg_sum_over_chunks, "dg-sum-over-chunks", "flash-linear-attention ddee66d9",
            "the reverse cumulative sum does not start anew with a chunk"),
    planted(Fault::dg_clamped, "dg-clamped", "class", "dg clamped to [-1, 1]"),
    planted(Fault::dg_in_base_two, "dg-in-base-two", "FlashInfer #3680", "dg with respect to the base-2 logarithm"),
    planted(Fault::sums_forget_final_state, "dg-sums-forget-final-state", "class",
            "a running sum of dg starts at 0 instead of the rows of S_T . dS_T", running_sums),
    planted(Fault::sums_forget_carry, "dg-sums-forget-carry", "class", "a running sum of dg starts anew every 64 tokens", running_sums),
    planted(Fault::sums_start_late, "dg-sums-start-late", "class", "a running sum of dg leaves out the last token's terms", running_sums),
    planted(Fault::sums_over_heads, "dg-sums-over-heads", "class", "a running sum of dg starts with what the head before started with, too",
            running_sums),
    planted(Fault::sums_carry_bf16, "dg-sums-carry-bf16", "class", "a running sum of dg is handed over in bf16 every 64 tokens",
            running_sums),
    // gradient of the state
    planted(Fault::dS_without_erase, "ds-without-erase", "TileOPs #632", "dS misses -W^T dv"),
    planted(Fault::dS_without_queries, "ds-without-queries", "class", "dS misses qd^T dO"),
    planted(Fault::dS_queries_unscaled, "ds-queries-unscaled", "class", "qd^T dO enters dS without scale"),
    planted(Fault::dS_not_decayed, "ds-not-decayed", "class", "dS passes a chunk without decay"),
    planted(Fault::first_dS_not_decayed, "dh0-not-decayed", "class", "dS passes the first chunk without decay"),
    planted(Fault::dS_leaks_over_sequences, "ds-leaks-over-sequences", "flash-linear-attention ddee66d9",
            "dS of one sequence goes on into the next"),
    planted(Fault::dS_dropped, "ds-dropped", "class", "dS is dropped at the second chunk"),
    planted(Fault::d_initial_transposed, "dh0-transposed", "sparkinfer #615", "d initial_state is written transposed"),
    planted(Fault::d_initial_of_empty_unwritten, "dh0-of-empty-unwritten", "FlashKDA #32",
            "an empty sequence leaves its d initial_state unwritten"),
    planted(Fault::d_initial_without_first_chunk, "dh0-without-first-chunk", "class", "d initial_state misses what the first chunk reads"),
    planted(Fault::d_final_ignored, "dht-ignored", "class", "the cotangent of the final state is ignored"),
    planted(Fault::d_final_in_every_chunk, "dht-in-every-chunk", "flash-linear-attention 17d1bc4e",
            "the cotangent of the final state enters at every chunk"),
    planted(Fault::d_final_transposed, "dht-transposed", "sparkinfer #615", "the cotangent of the final state is read transposed"),
    planted(Fault::d_final_of_first_sequence, "dht-of-first-sequence", "class",
            "every sequence takes the first one's cotangent of the final state"),
    planted(Fault::state_of_previous_chunk, "state-of-previous-chunk", "class",
            "a chunk's backward pass starts from the state one chunk before"),
    planted(Fault::state_after_chunk, "state-after-chunk", "class", "gradients read the state after the chunk"),
    planted(Fault::chunk_end_of_head_zero, "chunk-end-of-head-zero", "flash-linear-attention d38ed8b5 (#781)",
            "the gradient of the state passes a chunk with the decay of head 0"),
    // groups, parameters, options
    planted(Fault::group_overwritten, "group-overwritten", "class", "dq and dk of the last head of a group instead of their sum"),
    planted(Fault::group_averaged, "group-averaged", "class", "dq and dk averaged over a group"),
    planted(Fault::group_by_modulo_backward, "group-by-modulo-in-backward", "flash-linear-attention 59f3f67e",
            "value head j adds to key head j mod H"),
    planted(Fault::dA_log_of_head_zero, "da-log-of-head-zero", "class", "dA_log of every head adds to head 0"),
    planted(Fault::dA_log_over_heads, "da-log-over-heads", "flash-linear-attention 31293264", "dA_log summed over heads"),
    planted(Fault::dA_log_without_rate, "da-log-without-rate", "class", "dA_log misses e^A_log"),
    planted(Fault::ddt_bias_over_heads, "ddt-bias-over-heads", "mlx-lm #1792", "ddt_bias summed over heads"),
    planted(Fault::ddt_bias_without_slope, "ddt-bias-without-slope", "class", "ddt_bias misses the gate's slope"),
    planted(Fault::parameters_of_last_sequence, "parameters-of-last-sequence", "flash-linear-attention 31290d15",
            "dA_log and ddt_bias of the last sequence instead of their sum"),
    planted(Fault::gate_slope_missing, "gate-slope-missing", "class", "dg is that of the log decay, not of the gate input"),
    planted(Fault::lower_bound_missing_backward, "lower-bound-missing-in-backward", "tokenspeed #847",
            "the bounded gate's slope misses lower_bound"),
    planted(Fault::bias_missing_backward, "bias-missing-in-backward", "cuLA test_kda_decode", "the gate's slope is taken without dt_bias"),
    planted(Fault::sigmoid_slope_missing, "sigmoid-slope-missing", "class", "dbeta misses sigmoid'"),
    planted(Fault::twice_sigmoid_as_sigmoid_backward, "twice-sigmoid-as-sigmoid-in-backward", "class",
            "dbeta of 2 sigmoid taken as of sigmoid"),
    planted(Fault::norm_without_projection, "norm-without-projection", "class", "l2norm differentiated as a constant factor"),
    planted(Fault::norm_projects_raw, "norm-projects-raw", "class", "l2norm's projection takes x for x / |x|"),
    planted(Fault::norm_factor_missing, "norm-factor-missing", "class", "l2norm's derivative misses 1 / |x|"),
    planted(Fault::query_norm_missing, "query-norm-missing", "class", "dq is not taken through l2norm"),
    planted(Fault::ungated_dk_skipped, "ungated-dk-skipped", "flash-linear-attention #862", "without a gate dk misses what is erased"),
    planted(Fault::ungated_dbeta_short, "ungated-dbeta-short", "flash-linear-attention #863", "without a gate dbeta misses a term"),
    // what a call leaves out or does not want
    planted(Fault::absent_d_o_stops, "absent-do-stops", "flash-linear-attention deec73e1",
            "without d_o the gradient of the state ends at the last chunk"),
    planted(Fault::absent_d_final_starts_late, "absent-dht-starts-late", "flash-linear-attention deec73e1",
            "without d_final_state the last chunk gives the state no gradient"),
    planted(Fault::absent_d_final_throws, "absent-dht-throws", "flash-linear-attention cdbd3ac6",
            "a call without d_final_state ends in an exception"),
    planted(Fault::absent_state_forgets, "absent-state-forgets", "flash-linear-attention cdbd3ac6",
            "without an initial state the backward pass takes the second chunk's for zero too"),
    planted(Fault::dk_needs_dq, "dk-needs-dq", "class", "where dq is not wanted dk misses what later queries read"),
    planted(Fault::dbeta_needs_dg, "dbeta-needs-dg", "class", "where dg is not wanted dbeta misses sum_j dL_ij Akk_ij"),
    // contracts and determinism
    planted(Fault::accumulates_into_output, "accumulates-into-output", "flash-linear-attention #862",
            "dq and dk are added to what the memory held"),
    planted(Fault::parameters_into_output, "parameters-into-output", "class", "dA_log and ddt_bias are added to what the memory held"),
    planted(Fault::backward_order_varies, "backward-order-varies", "flash-linear-attention-npu #440",
            "the order of sums changes from call to call"),
    planted(Fault::backward_rarely_nan, "backward-rarely-nan", "flash-linear-attention-npu #236", "one gradient in four thousand is NaN"),
    planted(Fault::backward_write_past_end, "backward-write-past-end", "state-spaces/mamba #537",
            "one element is written past the end of dv"),
    planted(Fault::backward_tail_unwritten, "backward-tail-unwritten", "flash-linear-attention-npu #266",
            "the last token of a tail gets no gradient"),
    planted(Fault::backward_element_unwritten, "backward-element-unwritten", "class",
            "the last channel of every seventh row of dv is not written"),
    planted(Fault::backward_input_changed, "backward-input-changed", "class", "the backward pass writes into k"),
    planted(Fault::backward_workspace_read, "backward-workspace-read", "flash-linear-attention 0f0f0c97",
            "the workspace is read before it is written"),
    planted(Fault::backward_strides_ignored, "backward-strides-ignored", "flash-linear-attention 71ebc498",
            "the backward pass reads inputs as if they were contiguous"),
    planted(Fault::backward_heads_share_nan, "backward-heads-share-nan", "class", "a NaN in one cotangent poisons every head"),
    planted(Fault::backward_last_channel_dropped, "dk-last-channel-dropped", "flash-linear-attention da1970a6",
            "dk of the last channel is 0 where K is no multiple of 8"),
    planted(Fault::backward_single_token_skipped, "backward-single-token-skipped", "vLLM #50649",
            "sequences of one token get no dq and dk"),
    planted(Fault::small_gradients_flushed, "small-gradients-flushed", "class", "gradients below 1e-6 become 0"),
    planted(Fault::d_o_strides_ignored, "do-strides-ignored", "flash-linear-attention 6d80721f",
            "the cotangent of o is read as if it were contiguous"),
    planted(Fault::backward_sixteen_bit_offsets, "backward-sixteen-bit-offsets", "flash-linear-attention 854c4ce9",
            "element offsets of the backward pass wrap at 2^16 (stands for 2^31)"),
    planted(Fault::backward_aliased_buffers, "backward-aliased-buffers", "tt-metal #55626",
            "two buffers of the backward pass share memory at K >= 64"),
    planted(Fault::lengths_kept_by_address_backward, "lengths-kept-by-address-in-backward", "class",
            "the backward pass takes cu_seqlens at an address seen before for what they were then"),
};

} // namespace

std::span<const FaultInfo> backward_faults() { return catalogue; }

} // namespace kdacheck::faults
