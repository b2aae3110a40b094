#pragma once
// How each ingredient of a recipe becomes numbers, one token of one head at a time. Internal to make_problem.

#include "random.hpp"
#include "recipe.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace kdacheck {

/// Place of a token: value (or key) head, sequence, token inside its sequence.
struct TokenPlace {
  std::uint32_t head = 0, sequence = 0, token = 0;
};

/// Nearest number of the format, at most its largest finite one in size.
float stored(Format, double);

/// Row of k (or q) of a query/key head before rounding, normalised unless the kernel does it.
void make_key(const Recipe&, const TokenPlace&, std::span<double> row);
void make_query(const Recipe&, const TokenPlace&, std::span<double> row);

/// Which of the exact patterns' directions the key of a token has.
std::uint32_t key_index(const Recipe&, const TokenPlace&);

/// A head's gate parameters.
struct HeadGate {
  float A_log = 0;         ///< as stored: -inf where the head is dead and its gate is of the recipe's own form
  double model_gain = 1;   ///< exp(A_log) of the recipe's own form: 0 where the head is dead
  std::vector<float> bias; ///< [K], zero where not given
};
HeadGate head_gate(const Recipe&, std::uint32_t head);

/// Tensor g of a token: log decay or gate input, as options.gate wants it, rounded to the format.
void make_gate(const Recipe&, const HeadGate&, const TokenPlace&, Format, std::span<float> row);

/// ln alpha that a stored gate element means.
double log_decay(const Options&, float x, double gain, double bias);

/// beta of every token of one head of one sequence, before it is turned into options.beta's form.
std::vector<double> make_betas(const Recipe&, std::uint32_t head, std::uint32_t sequence, std::int64_t length);

/// Stored element of the beta tensor, and the beta that it means.
float stored_beta(const Options&, Format, double beta);
double beta_of(const Options&, float x);

/// Row of v; zero for ValuePattern::converged, whose values follow from the others.
void make_value(const Recipe&, const TokenPlace&, std::span<double> row);

/// a and b of DPLR from the rounded key, beta and ln alpha.
void make_dplr(const Recipe&, const TokenPlace&, std::span<const float> key, std::span<const double> log_alpha, std::span<double> a,
               std::span<double> b);

/// State S [K,V] of one sequence and head, row-major; not for StatePattern::warm.
void make_state(const Recipe&, std::uint32_t head, std::uint32_t sequence, std::span<float> state);

/// Walks the token recurrence in fp64 over a problem whose other tensors are complete. Fills converged values on the
/// way (rounded, with the recipe's residual) where the recipe says so; returns the final states [N,HV,K,V].
std::vector<float> walk(const Recipe&, Problem&, std::uint32_t first_sequence);

/// Fills d_o and d_final_state.
void make_loss(const Recipe&, Problem&);

} // namespace kdacheck
