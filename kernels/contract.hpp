#pragma once
// What a kernel promises: precision, order of evaluation, repeatability, and the domain it accepts. Contracts are data:
// tolerances are derived from them (properties/budget.hpp), and they read the same in C++, C, Python and reports.
//
// Text form: `key=value` separated by spaces; a missing key has the default written here, an unknown key is an error.

#include "../reference/problem.hpp"

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

/// How the chunk algebra is ordered. `recurrence`: token by token. `residual_first`: U = T beta (V - kd S).
/// `wy`: U = T beta V - (T beta kd) S. `undeclared`: any of them.
enum class Order : std::uint8_t { undeclared, residual_first, wy, recurrence };

/// How a pass that goes back token by token forms dg. `products`: each token's from its own state and cotangent. `sums`: as a running
/// sum of q dq + k (dk as a row - dk as a column) on top of S dS of the last state, whose terms may be far larger than what is left of
/// them. Chunks sum inside each chunk, whatever this says.
enum class DecayGradient : std::uint8_t { products, sums };

/// Whether two runs that should agree do so bit for bit.
enum class Sameness : std::uint8_t { none, bitwise };

/// Which scales of the query a kernel takes. `rsqrt_K`: K^{-1/2} alone. `fixed`: one number alone.
enum class ScaleForm : std::uint8_t { any, rsqrt_K, fixed };

/// A closed range of sizes with a step: `16..256/16`, `64`, `1..256`.
struct SizeRange {
  std::int64_t least = 1, most = std::numeric_limits<std::int64_t>::max(), multiple = 1;
  bool contains(std::int64_t size) const { return size >= least && size <= most && size % multiple == 0; }
  bool operator==(const SizeRange&) const = default;
};

struct Contract {
  // Formats.                          key              default
  Format input = Format::fp32;          // input            fp32    q, k, v
  Format gate_input = Format::fp32;     // gate_input       fp32    g
  Format beta_input = Format::fp32;     // beta_input       fp32    beta
  Format output = Format::fp32;         // output           fp32    o
  Format operands = Format::fp32;       // operands         fp32    all matrix-product inputs but the scores'
  Format scores = Format::fp32;         // scores           = operands   operands of Akk and Aqk
  Format accumulate = Format::fp32;     // accumulate       fp32    sums of products
  Format cumsum = Format::fp32;         // cumsum           fp32    in-chunk sums of log decay
  Format solve = Format::fp32;          // solve            fp32    the triangular solve (I + L) T = I
  Format state = Format::fp32;          // state            fp32    the state as it is carried from chunk to chunk (token to token)
  Format gradient = Format::fp32;       // gradient         fp32    dq dk dv dg dbeta as stored; d initial_state is fp32
  Format gradient_state = Format::fp32; // gradient_state  fp32  stored states and their cotangents, as gradients read them
  bool truncate = false;                // tf32             round | truncate: how tf32 operands are made
  double exp_ulp = 2;                   // exp_ulp          2       largest error of exp in fp32 units in the last place
  // Algorithm.
  Order order = Order::undeclared;                        // order            undeclared | residual_first | wy | recurrence
  std::int64_t chunk = 64;                                // chunk            64      tokens between two stored states; 1 for a recurrence
  DecayGradient decay_gradient = DecayGradient::products; // decay_gradient  products | sums   how dg is formed token by token
  // Repeatability.
  Sameness repeat = Sameness::bitwise; // repeat        bitwise | none   the same call again
  Sameness batch = Sameness::bitwise;  // batch         bitwise | none   alone or with others, packed or not, any head order
  Sameness prefix = Sameness::bitwise; // prefix        bitwise | none   later tokens changed or appended
  // Domain.
  std::vector<Rule> rules{Rule::kda};                         // rule     kda | dplr | kda,dplr
  std::vector<GateForm> gates{GateForm::log_decay};           // gates    comma-separated forms
  std::vector<BetaForm> betas{BetaForm::value};               // betas    comma-separated forms
  bool decay_per_head = false;                                // decay    channel | head   head: all channels of a head share g
  ScaleForm scale_form = ScaleForm::any;                      // scale    any | rsqrt_K | a number
  float scale = 1;                                            //          the number
  bool l2norm_inside = false, l2norm_outside = true;          // l2norm   outside | inside | both
  SizeRange K, V, T{0};                                       // K V T    sizes; T >= 0
  bool grouped = true;                                        // grouped  yes | no   HV > H
  bool packed = true;                                         // packed   yes | no   cu_seqlens
  bool initial_state = true;                                  // initial_state yes | no
  SizeRange decode{1, 1};                                     // decode   1   tokens of one decode step, if the kernel has one
  bool on_device = false;                                     // memory   host | device   where its tensors lie
  bool state_v_first = false;                                 // state_layout  k_first | v_first
  bool strided = false;                                       // strided  yes | no   inputs and d_o with gaps between rows
  bool validates = true;                                      // validates yes | no   calls that contradict themselves are refused
  double g_min = -std::numeric_limits<double>::infinity();    // g_min    -inf    least log decay per token
  double beta_min = 0, beta_max = 1;                          // beta_min 0, beta_max 1 (2 sigmoid needs 2)
  double k_norm_max = 1.01;                                   // k_norm_max 1.01 largest |k| after any l2norm
  double value_max = std::numeric_limits<double>::infinity(); // value_max inf largest |v| and |initial state| (fp16 operands overflow)

  bool operator==(const Contract&) const = default;
};

/// Reads the text form. On failure the contract is empty and `error` is one sentence that names the key.
struct ParsedContract {
  std::optional<Contract> contract;
  std::string error;
};
ParsedContract parse_contract(std::string_view text);

/// Text form with every key that differs from its default; parse_contract(to_text(c)) == c.
std::string to_text(const Contract&);

/// Why a problem is outside the declared domain (in a few words: "K=60 is not in 16..256/16"), or nothing if inside.
/// Looks at values too: |g|, beta, |k|.
std::optional<std::string> outside_domain(const Contract&, const Problem&);

/// The formats in which this kernel wants its inputs.
inline InputFormats input_formats(const Contract& c) { return {c.input, c.gate_input, c.beta_input}; }

} // namespace kdacheck
