#include "backward_catalogue.hpp"
#include "faults_under_contracts.hpp"

#include <array>
#include <vector>

namespace kdacheck {
namespace {

// What the faulty kernel claims. fp32 throughout, every option:
constexpr std::string_view exact =
    "chunk=16 order=residual_first gates=log_decay,softplus,bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid beta_max=2 "
    "l2norm=both strided=yes";
constexpr std::string_view exact_64 = "chunk=64 order=residual_first gates=log_decay,softplus,bounded,sigmoid,absent "
                                      "betas=value,sigmoid,twice_sigmoid beta_max=2 l2norm=both";
// bf16 in, out and in every product, fp32 sums, state and solve:
constexpr std::string_view bf16 = "input=bf16 output=bf16 operands=bf16 chunk=16 order=residual_first l2norm=both";
constexpr std::string_view bf16_64 = "input=bf16 output=bf16 operands=bf16 chunk=64 order=residual_first l2norm=both";
constexpr std::string_view whole_heads =
    "chunk=16 order=residual_first gates=log_decay,softplus,bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid beta_max=2 "
    "l2norm=both";
constexpr std::string_view multiples_of_8 =
    "chunk=16 order=residual_first gates=log_decay,softplus,bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid beta_max=2 "
    "l2norm=both K=8..256/8 V=8..256/8";
constexpr std::string_view v_first =
    "chunk=16 order=residual_first gates=log_decay,softplus,bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid beta_max=2 "
    "l2norm=both strided=yes state_layout=v_first";

constexpr std::array catalogue{
    // exponentials and masks
    FaultInfo{Fault::anchor_after_rows, "anchor-after-rows", "flash-linear-attention cf63ac28, 0c1c0b65",
              "the anchor of a sub-block lies after its rows: exponents > 0", exact},
    FaultInfo{Fault::mask_by_multiplication, "mask-by-multiplication", "flash-linear-attention #99, #104",
              "e^(G_i-G_j) formed for every pair, masked by a product: 0 times infinity", exact_64},
    FaultInfo{Fault::unmasked_tail_decay, "unmasked-tail-decay", "flash-linear-attention #792",
              "rows past the tail hold G = 0 and stay unmasked", exact},
    FaultInfo{Fault::decay_from_chunk_end, "decay-from-chunk-end", "SGLang #27488",
              "decay folded as k e^(G-G_C): exponents grow without bound", exact},
    FaultInfo{Fault::one_anchor_per_chunk, "one-anchor-per-chunk", "cudnn-frontend #1017", "one anchor in the middle of a chunk of 64",
              exact_64},
    FaultInfo{Fault::clamped_exponent, "clamped-exponent", "class", "exponents clamped at -20", exact},
    FaultInfo{Fault::split_exponent, "split-exponent", "design: never split", "e^(G_i) e^(-G_j) in two factors", exact_64},
    FaultInfo{Fault::gate_clamped, "gate-clamped", "flash-linear-attention test_kda", "log decay clamped at -8", exact},
    FaultInfo{Fault::exp2_for_exp, "exp2-for-exp", "FlashInfer #3680", "natural logarithms read as base 2", exact},
    FaultInfo{Fault::approximate_exp, "approximate-exp", "class", "exponential with an absolute error of 2e-4", exact},
    FaultInfo{Fault::output_through_fp16, "output-through-fp16", "vLLM #54146", "the output passes through fp16", exact},
    FaultInfo{Fault::a_log_minus_infinity, "a-log-minus-infinity", "transformers #47831", "A_log = -inf gives NaN instead of no decay",
              exact},
    FaultInfo{Fault::gate_times_zero, "gate-times-zero", "flash-linear-attention 6cc3736b",
              "a decay that underflows is formed as infinity times 0", exact},
    FaultInfo{Fault::faint_decay_flushed, "faint-decay-flushed", "class", "decays below e^-20 are taken as 0", exact},
    // precision
    FaultInfo{Fault::neumann_fp32, "neumann-fp32", "tt-metal #54813", "inverse by repeated squaring in fp32, chunk 64", exact_64},
    FaultInfo{Fault::neumann_bf16, "neumann-bf16", "cudnn-frontend #1124", "inverse by repeated squaring, stored in bf16", bf16},
    FaultInfo{Fault::neumann_fp16, "neumann-fp16", "megagdn-pto #74", "inverse by repeated squaring, stored in fp16", bf16_64},
    FaultInfo{Fault::first_order_inverse, "first-order-inverse", "class", "(I + L)^-1 taken as I - L", exact},
    FaultInfo{Fault::second_order_inverse, "second-order-inverse", "class", "(I + L)^-1 taken as I - L + L^2", exact},
    FaultInfo{Fault::residual_bf16, "residual-bf16", "attention-gym #465", "V - kd S formed in bf16", exact},
    FaultInfo{Fault::residual_bf16_of_bf16, "residual-bf16-of-bf16", "attention-gym #465",
              "V - kd S formed in bf16 by a kernel of bf16 operands, which no tolerance sees", bf16},
    FaultInfo{Fault::future_anchor, "future-anchor", "attention-gym #337",
              "the anchor is a later row: rounding lets the future change the past", exact},
    FaultInfo{Fault::beta_bf16, "beta-bf16", "vLLM #53877", "beta rounded to bf16", exact},
    FaultInfo{Fault::beta_fp16, "beta-fp16", "class", "beta rounded to fp16", exact},
    FaultInfo{Fault::alpha_bf16, "alpha-bf16", "attention-gym #447", "every exponential rounded to bf16", exact},
    FaultInfo{Fault::gate_bf16, "gate-bf16", "vLLM #42076", "gate input rounded to bf16", exact},
    FaultInfo{Fault::cumsum_bf16, "cumsum-bf16", "vLLM #42076", "in-chunk sums of log decay in bf16", exact},
    FaultInfo{Fault::state_bf16, "state-bf16", "ollama #15865", "state stored in bf16 at every chunk", exact},
    FaultInfo{Fault::state_fp16, "state-fp16", "ollama #15865", "state stored in fp16 at every chunk", exact},
    FaultInfo{Fault::truncated_state, "state-truncated", "class", "state loses its low 13 bits at every chunk", exact},
    FaultInfo{Fault::carry_decay_bf16, "carry-decay-bf16", "flash-linear-attention #740", "decay over a chunk rounded to bf16", exact},
    FaultInfo{Fault::scores_bf16, "scores-bf16", "class", "operands of the scores in bf16", exact},
    FaultInfo{Fault::scores_tf32, "scores-tf32", "class", "operands of the scores in tf32", exact},
    FaultInfo{Fault::split_decay_bf16, "split-decay-bf16", "attention-gym #447", "e^G and e^-G rounded to bf16 before their product", bf16},
    FaultInfo{Fault::output_bf16, "output-bf16", "class", "output rounded to bf16 though fp32 is declared", exact},
    FaultInfo{Fault::query_bf16, "query-bf16", "class", "queries rounded to bf16", exact},
    FaultInfo{Fault::value_bf16, "value-bf16", "class", "values rounded to bf16", exact},
    FaultInfo{Fault::eps_of_mean, "eps-of-mean", "mlx-lm #1624", "l2norm adds eps to the mean of squares", exact},
    FaultInfo{Fault::eps_missing, "eps-missing", "maxtext #5294", "l2norm without eps: NaN for a zero key", exact},
    FaultInfo{Fault::norm_squared, "norm-squared", "class", "l2norm divides by the square of the norm", exact},
    FaultInfo{Fault::short_keys_flushed, "short-keys-flushed", "class", "keys shorter than 1e-4 are taken for 0", exact},
    FaultInfo{Fault::transition_product_bf16, "transition-product-bf16", "flash-linear-attention 99db89bf (#740)",
              "a state passes four chunks through the product of their transitions, kept in bf16", exact},
    FaultInfo{Fault::keys_renormalised, "keys-renormalised", "class", "keys of almost length 1 are brought to length 1 again", exact},
    // tails and sequences
    FaultInfo{Fault::last_decay_of_full_chunk, "last-decay-of-full-chunk", "sparkinfer #604",
              "decay at the end of a tail read from zero padding", exact},
    FaultInfo{Fault::tail_reads_next_sequence, "tail-reads-next-sequence", "flash-linear-attention bb1f9b9c",
              "a tail computes with the rows that follow it", exact},
    FaultInfo{Fault::cumsum_over_boundaries, "cumsum-over-boundaries", "flash-linear-attention ddee66d9",
              "the sum of log decay does not start anew with a sequence", exact},
    FaultInfo{Fault::stale_tail_rows, "stale-tail-rows", "flash-linear-attention-npu #544", "rows past the tail keep the chunk before",
              exact},
    FaultInfo{Fault::tail_mask_only_when_packed, "tail-mask-only-when-packed", "cuLA #43",
              "rows past the tail are cleared for packed sequences only", exact},
    FaultInfo{Fault::upper_triangle_unwritten, "upper-triangle-unwritten", "flash-linear-attention 0f0f0c97",
              "upper triangle of the scores keeps old numbers", exact},
    FaultInfo{Fault::empty_state_unwritten, "empty-state-unwritten", "FlashKDA #32", "an empty sequence leaves its final state unwritten",
              exact},
    FaultInfo{Fault::tail_unwritten, "tail-unwritten", "flash-linear-attention-npu #266", "the last token of a tail is not written", exact},
    FaultInfo{Fault::state_before_last_token, "state-before-last-token", "class", "a tail of one token is missing from the final state",
              exact},
    FaultInfo{Fault::state_of_first_sequence, "state-of-first-sequence", "class", "every sequence starts from the first one's state",
              exact},
    FaultInfo{Fault::state_of_next_sequence, "state-of-next-sequence", "class", "final states are written one slot too far", exact},
    FaultInfo{Fault::carry_over_sequences, "carry-over-sequences", "class",
              "without initial states a sequence starts from its predecessor's end", exact},
    FaultInfo{Fault::single_token_skipped, "single-token-skipped", "vLLM #50649", "sequences of one token are skipped", exact},
    FaultInfo{Fault::last_chunk_skipped_when_full, "full-last-chunk-dropped", "class", "a full last chunk does not reach the final state",
              exact},
    FaultInfo{Fault::long_after_empty, "long-after-empty", "class",
              "a sequence of more than 64 tokens that follows an empty one loses its state after 64", exact},
    FaultInfo{Fault::members_capped, "members-capped", "flash-linear-attention b9afc14a",
              "packed members from the 41st on are not computed (stands for the 65536th)", exact},
    FaultInfo{Fault::equal_length_rereads, "equal-length-rereads", "class",
              "a packed member as long as the one before it reads that one's keys", exact},
    FaultInfo{Fault::remainder_dropped, "remainder-dropped", "flash-linear-attention f36947a5 (#1093)",
              "tokens past a multiple of the chunk are left out: the number of chunks is rounded down", exact},
    FaultInfo{Fault::long_member_loses_chunk, "long-member-loses-chunk", "class",
              "a packed member of more than 512 tokens loses its last chunk", exact},
    FaultInfo{Fault::lone_member_ignores_state, "lone-member-ignores-state", "class",
              "a packed call with one member ignores its initial state", exact},
    FaultInfo{Fault::odd_start_rounded_down, "odd-start-rounded-down", "flash-linear-attention fc2df017 (#142)",
              "beta of a packed member that begins at an odd row is loaded from the even row before", exact},
    // indexing
    FaultInfo{Fault::decay_of_head_zero, "decay-of-head-zero", "flash-linear-attention #781, #1115", "every head decays like head 0",
              exact},
    FaultInfo{Fault::state_transposed, "state-transposed", "vLLM #41292", "the carried state is read transposed", exact},
    FaultInfo{Fault::initial_state_transposed, "initial-state-transposed", "sparkinfer #615", "the initial state is read transposed",
              exact},
    FaultInfo{Fault::final_state_transposed, "final-state-transposed", "sparkinfer #615", "the final state is written transposed", exact},
    FaultInfo{Fault::group_by_modulo, "group-by-modulo", "flash-linear-attention 59f3f67e", "value head j reads key head j mod H", exact},
    FaultInfo{Fault::bias_per_head, "bias-per-head", "mlx-lm #1792", "dt_bias read as one number per head", exact},
    FaultInfo{Fault::a_log_of_head_zero, "a-log-of-head-zero", "class", "A_log of head 0 for all", exact},
    FaultInfo{Fault::strides_ignored, "strides-ignored", "flash-linear-attention 71ebc498", "inputs read as if they were contiguous",
              exact},
    FaultInfo{Fault::value_tail_dropped, "value-tail-dropped", "flash-linear-attention da1970a6",
              "value channels past a multiple of 16 are zero", exact},
    FaultInfo{Fault::key_tail_dropped, "key-tail-dropped", "flash-linear-attention da1970a6", "key channels past a multiple of 8 are zero",
              exact},
    FaultInfo{Fault::key_bound_is_value_bound, "key-bound-is-value-bound", "flash-linear-attention eb7c8baa",
              "the mask of key channels ends at V", exact},
    FaultInfo{Fault::sixteen_bit_offsets, "sixteen-bit-offsets", "flash-linear-attention 7e0a9728",
              "element offsets wrap at 2^16 (stands for 2^31)", exact},
    FaultInfo{Fault::beta_of_query_head, "beta-of-query-head", "flash-linear-attention #624", "beta indexed by the key head", exact},
    FaultInfo{Fault::last_channel_duplicated, "last-channel-duplicated", "class", "an odd last key channel repeats its neighbour", exact},
    FaultInfo{Fault::previous_beta, "previous-beta", "class", "beta of the token before", exact},
    FaultInfo{Fault::full_tile_short, "full-tile-short", "flash-linear-attention b7673648",
              "the last key channel is dropped where K = V = 128, the size of the tile", exact},
    FaultInfo{Fault::lone_value_channel_dropped, "lone-value-channel-dropped", "class",
              "a last value channel alone in its tile of 16 is zero", exact},
    FaultInfo{Fault::batch_wraps_at_four, "batch-wraps-at-four", "class", "batch entry b decays like entry b mod 4", exact},
    FaultInfo{Fault::heads_wrap_at_eight, "heads-wrap-at-eight", "vllm-ascend #11598", "value head j has the beta of head j mod 8", exact},
    FaultInfo{Fault::group_by_shift, "group-by-shift", "class", "the group of a value head is found by a shift: wrong for three", exact},
    FaultInfo{Fault::scale_twice_at_odd_width, "scale-twice-at-odd-width", "class",
              "scale applied twice where K is 96, 160 or 224: a dispatch by width", exact},
    FaultInfo{Fault::last_batch_of_whole_chunks, "last-batch-of-whole-chunks", "class",
              "the last of several sequences, if T is a multiple of 64, decays by 0.1 % too much in its middle token", exact},
    FaultInfo{Fault::wide_values_lose_beta, "wide-values-lose-beta", "class",
              "value channels from the 128th on are written with half their beta", exact},
    FaultInfo{Fault::gate_read_past_width, "gate-read-past-width", "flash-linear-attention b67113b4 (#1135)",
              "g is read past K where K is no power of two, and what lies there is only multiplied by 0", exact},
    FaultInfo{Fault::wide_values_share_beta, "wide-values-share-beta", "class",
              "more than 128 value channels and more than one value head: beta of head 0 for all", exact},
    FaultInfo{Fault::seventh_channel_dropped, "seventh-channel-dropped", "class",
              "several sequences without a state, K = 7 modulo 8: the last key channel is dropped", exact},
    // algebra and options
    FaultInfo{Fault::no_initial_state_garbage, "absent-state-is-garbage", "flash-linear-attention #210",
              "an absent initial state is not zeroed", exact},
    FaultInfo{Fault::delta_only_when_gated, "delta-only-when-gated", "flash-linear-attention #623", "no delta term without a gate", exact},
    FaultInfo{Fault::clamped_softplus, "clamped-softplus", "tokenspeed #847", "the bounded gate is a clamped softplus gate", exact},
    FaultInfo{Fault::no_delta_term, "no-delta-term", "AiDotNet.Tensors #895", "nothing is erased before writing", exact},
    FaultInfo{Fault::no_decay, "no-decay", "cuLA test_kda_decode", "no decay at all", exact},
    FaultInfo{Fault::erase_before_decay, "erase-before-decay", "cuLA test_kda_decode", "erases from the state before its decay", exact},
    FaultInfo{Fault::bias_ignored, "bias-ignored", "cuLA test_kda_decode", "dt_bias has no effect", exact},
    FaultInfo{Fault::a_log_ignored, "a-log-ignored", "cuLA test_kda_decode", "A_log has no effect", exact},
    FaultInfo{Fault::bias_after_scaling, "bias-after-softplus", "class", "dt_bias added outside the softplus", exact},
    FaultInfo{Fault::lower_bound_fixed, "lower-bound-fixed", "class", "lower_bound is always -5", exact},
    FaultInfo{Fault::scale_ignored, "scale-ignored", "class", "scale is 1", exact},
    FaultInfo{Fault::scale_twice, "scale-twice", "class", "scale applied twice", exact},
    FaultInfo{Fault::scale_of_value_dim, "scale-of-value-dim", "class", "scale is V^-1/2 whatever is asked", exact},
    FaultInfo{Fault::beta_not_on_value, "beta-not-on-value", "class", "beta scales what is erased, not what is written", exact},
    FaultInfo{Fault::beta_on_erase_twice, "beta-on-erase-twice", "class", "beta squared on what is erased", exact},
    FaultInfo{Fault::twice_sigmoid_as_sigmoid, "twice-sigmoid-as-sigmoid", "class", "2 sigmoid taken as sigmoid", exact},
    FaultInfo{Fault::sigmoid_missing, "sigmoid-missing", "class", "beta logits taken as values", exact},
    FaultInfo{Fault::query_not_normalised, "query-not-normalised", "class", "l2norm leaves q alone", exact},
    FaultInfo{Fault::exclusive_query_decay, "exclusive-query-decay", "flash-linear-attention cf63ac28",
              "the output misses its own token's decay", exact},
    FaultInfo{Fault::inclusive_key_decay, "inclusive-key-decay", "class", "what a token writes is decayed once too often", exact},
    FaultInfo{Fault::diagonal_missing, "diagonal-missing", "class", "a token does not see what it writes", exact},
    FaultInfo{Fault::diagonal_twice, "diagonal-twice", "class", "a token sees twice what it writes", exact},
    FaultInfo{Fault::read_before_write, "read-before-write", "class", "the output is read before the update", exact},
    FaultInfo{Fault::carry_dropped, "carry-dropped", "class", "the state is dropped after the second chunk", exact},
    FaultInfo{Fault::carry_not_decayed, "carry-not-decayed", "class", "the carried state is not decayed from the second chunk on", exact},
    FaultInfo{Fault::delta_twice, "delta-twice", "flash-linear-attention f636f5a1", "with a gate the delta term is applied twice", exact},
    FaultInfo{Fault::delta_transposed, "delta-transposed", "flash-linear-attention 3ddba2a0",
              "what is erased is read from the carried state transposed; the output is not", exact},
    FaultInfo{Fault::scale_clamped, "scale-clamped", "class", "a scale above 2 is taken as 2", exact},
    // contracts and determinism
    FaultInfo{Fault::final_state_unwritten, "final-state-unwritten", "cuLA #66", "the final state is never written", exact},
    FaultInfo{Fault::input_normalised_in_place, "input-changed", "class", "l2norm writes into its input", exact},
    FaultInfo{Fault::write_past_end, "write-past-end", "class", "one element is written past the end of o", exact},
    FaultInfo{Fault::element_unwritten, "element-unwritten", "class", "the last channel of every seventh row is not written", exact},
    FaultInfo{Fault::order_varies, "order-varies", "flash-linear-attention-npu #440", "the order of sums changes from call to call", exact},
    FaultInfo{Fault::rarely_nan, "rarely-nan", "flash-linear-attention-npu #236", "one output in four thousand is NaN", exact},
    FaultInfo{Fault::aliased_buffers, "aliased-buffers", "tt-metal #54937", "two buffers share memory at K >= 64", exact},
    FaultInfo{Fault::heads_share_nan, "heads-share-nan", "class", "a NaN in one value poisons every head", whole_heads},
    FaultInfo{Fault::workspace_read, "workspace-read", "flash-linear-attention 0f0f0c97", "the workspace is read before it is written",
              exact},
    FaultInfo{Fault::subnormals_flushed, "small-outputs-flushed", "class", "outputs below 1e-6 become 0", exact},
    FaultInfo{Fault::output_depends_on_state_request, "output-depends-on-state-request", "cuLA #66",
              "without a final state the output passes through bf16", exact},
    FaultInfo{Fault::cached_by_pointer, "cached-by-pointer", "class", "the same storage gives the result of the call before", exact},
    FaultInfo{Fault::state_written_unasked, "state-written-unasked", "cuLA #66",
              "a final state that nobody asked for goes to where the initial state lies", exact},
    FaultInfo{Fault::absent_state_throws, "absent-state-throws", "flash-linear-attention cdbd3ac6",
              "a call without an initial state ends in an exception", exact},
    FaultInfo{Fault::empty_call_throws, "empty-call-throws", "FlashKDA #32, FlashInfer #3536", "a call of no tokens ends in an exception",
              exact},
    FaultInfo{Fault::lengths_unchecked, "lengths-unchecked", "flash-linear-attention-npu #266",
              "cu_seqlens that contradict themselves or T are computed with", exact},
    FaultInfo{Fault::widths_unchecked, "widths-unchecked", "cuLA #41", "widths that the contract does not offer are computed",
              multiples_of_8},
    FaultInfo{Fault::lengths_kept_by_address, "lengths-kept-by-address", "class",
              "cu_seqlens at an address seen before, as many and of as many tokens, are taken for what they were then", exact},
    FaultInfo{Fault::prefetch_past_end, "prefetch-past-end", "flash-linear-attention b7673648 (#989)",
              "where V is a multiple of 32 one more tile of v is read, past its end, and not used", exact},
    FaultInfo{Fault::state_operand_destroyed, "state-operand-destroyed", "flash-linear-attention a341a193 (#1113)",
              "V-first states, K > 64: a product writes over the state that it reads, which is read again", v_first},
    // decode steps
    FaultInfo{Fault::decode_state_transposed, "decode-state-transposed", "sparkinfer #615, SGLang #21203",
              "a decode step reads the state transposed", exact},
    FaultInfo{Fault::decode_state_bf16, "decode-state-bf16", "ollama #15865, sparkinfer #998",
              "a decode step writes the state back in bf16", exact},
    FaultInfo{Fault::decode_strides_ignored, "decode-strides-ignored", "flash-linear-attention 71ebc498",
              "a decode step reads inputs as if they were contiguous", exact},
    FaultInfo{Fault::decode_beta_of_first_sequence, "decode-beta-of-first-sequence", "class",
              "a decode step of several sequences takes the first one's beta for all", exact},
};

} // namespace

std::span<const FaultInfo> planted_faults() {
  static const std::vector<FaultInfo> all = [] {
    std::vector<FaultInfo> list(catalogue.begin(), catalogue.end());
    list.insert(list.end(), faults::backward_faults().begin(), faults::backward_faults().end());
    return list;
  }();
  return all;
}

std::span<const FaultInfo> planted_kernels() {
  static const std::vector<FaultInfo> all = [] {
    std::vector<FaultInfo> list(planted_faults().begin(), planted_faults().end());
    list.insert(list.end(), faults::faults_under_contracts().begin(), faults::faults_under_contracts().end());
    return list;
  }();
  return all;
}

} // namespace kdacheck
