#pragma once
// The vocabulary that every folder shares: what a problem of Kimi Delta Attention is made of.
//
// Source: Kimi Linear technical report (arXiv 2510.26692), eq. 1; layout and names of flash-linear-attention.
//   S_t = (I - beta_t k_t k_t^T) Diag(alpha_t) S_{t-1} + beta_t k_t v_t^T,    o_t = S_t^T (scale q_t)
//   DPLR:  S_t = (Diag(alpha_t) - a_t b_t^T) S_{t-1} + k_t v_t^T

#include "number_format.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

/// B sequences of T tokens (packed: B = 1 and T is the total); H query/key heads; HV value heads, a multiple of H:
/// value head j reads q/k head j / (HV/H); K channels per key, V per value.
struct Shape {
  std::int64_t B = 1, T = 0, H = 1, HV = 1, K = 1, V = 1;
  bool operator==(const Shape&) const = default;
};

enum class Rule : std::uint8_t { kda, dplr };

/// How the decay is given.  x is the tensor g.
enum class GateForm : std::uint8_t {
  log_decay, ///< alpha = exp(x), x <= 0
  softplus,  ///< ln alpha = -exp(A_log) softplus(x + dt_bias)
  bounded,   ///< ln alpha = lower_bound sigmoid(exp(A_log) (x + dt_bias))
  sigmoid,   ///< alpha = sigmoid(x)
  absent,    ///< alpha = 1; no tensor
};

enum class BetaForm : std::uint8_t {
  value,         ///< beta = x
  sigmoid,       ///< beta = sigmoid(x)
  twice_sigmoid, ///< beta = 2 sigmoid(x): negative eigenvalues allowed
};

struct Options {
  Rule rule = Rule::kda;
  GateForm gate = GateForm::log_decay;
  float lower_bound = -5.0f; ///< of GateForm::bounded
  BetaForm beta = BetaForm::value;
  bool l2norm = false; ///< the kernel normalises q and k: x / sqrt(sum x^2 + 1e-6)
  float scale = 1.0f;  ///< exactly this number; the customary default is K^{-1/2}
  bool operator==(const Options&) const = default;
};

/// Tensors a kernel reads. A gradient carries the name of its primal.
enum class Input : std::uint8_t { q, k, v, g, beta, a, b, A_log, dt_bias, initial_state };
inline constexpr std::array all_inputs{Input::q, Input::k, Input::v,     Input::g,       Input::beta,
                                       Input::a, Input::b, Input::A_log, Input::dt_bias, Input::initial_state};

/// Tensors a kernel writes.
enum class Output : std::uint8_t { o, final_state };
inline constexpr std::array all_outputs{Output::o, Output::final_state};

std::string_view name(Rule);
std::string_view name(GateForm);
std::string_view name(BetaForm);
std::string_view name(Input);  ///< "q", ..., "A_log", "initial_state"
std::string_view name(Output); ///< "o", "final_state"
std::optional<Rule> rule_named(std::string_view);
std::optional<GateForm> gate_form_named(std::string_view);
std::optional<BetaForm> beta_form_named(std::string_view);

/// One sequence inside a problem: its rows of [B,T,...] tensors and its state.
struct Sequence {
  std::int64_t index = 0; ///< n: which initial_state / final_state
  std::int64_t first = 0; ///< row (b T + t) of its first token
  std::int64_t length = 0;
};

/// Stored formats of the tensors that a kernel reads. Everything else is fp32.
struct InputFormats {
  Format qkv = Format::fp32;  ///< q, k, v, and a, b of DPLR
  Format gate = Format::fp32; ///< g
  Format beta = Format::fp32; ///< beta
  bool operator==(const InputFormats&) const = default;
};

/// Inputs of one forward pass, and what its loss sends back. All tensors are dense and row-major in the shape that
/// `shape_of` names, held as fp32 numbers that are exact in `formats`. An empty vector is an absent tensor.
struct Problem {
  Shape shape;
  Options options;
  InputFormats formats;
  std::vector<float> q, k;              ///< [B,T,H,K]
  std::vector<float> v;                 ///< [B,T,HV,V]
  std::vector<float> g;                 ///< [B,T,HV,K]: log decay or raw gate input
  std::vector<float> beta;              ///< [B,T,HV]; absent for DPLR
  std::vector<float> a, b;              ///< [B,T,HV,K], DPLR only
  std::vector<float> A_log;             ///< [HV]
  std::vector<float> dt_bias;           ///< [HV,K]
  std::vector<float> initial_state;     ///< [N,HV,K,V]; absent: zero
  std::vector<std::int64_t> cu_seqlens; ///< [N+1], 0 = first <= ... <= last = T; absent: B sequences of T
  std::vector<float> d_o;               ///< [B,T,HV,V] cotangent of o; absent: zero
  std::vector<float> d_final_state;     ///< [N,HV,K,V] cotangent of the final state; absent: zero

  const std::vector<float>& operator[](Input) const;
  std::vector<float>& operator[](Input);
};

/// Number of sequences N: B, or the members of cu_seqlens.
std::int64_t sequence_count(const Problem&);

/// The sequences in order of their state index; empty ones included.
std::vector<Sequence> sequences(const Problem&);

/// Extents of a tensor; unused trailing ones are 1. N is the number of sequences.
std::array<std::int64_t, 4> shape_of(Input, const Shape&, std::int64_t N);
std::array<std::int64_t, 4> shape_of(Output, const Shape&, std::int64_t N);

/// How many of these extents count. Every output has 4.
std::size_t rank_of(Input);

/// Format in which a tensor is handed to a kernel.
Format format_of(Input, const InputFormats&);

/// One sentence saying what is wrong with sizes, head ratio, cu_seqlens, missing or superfluous tensors or values that
/// are not finite (A_log may be -inf); nothing if the problem is well formed.
std::optional<std::string> malformed(const Problem&);

} // namespace kdacheck
