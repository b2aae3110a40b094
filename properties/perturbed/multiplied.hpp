#pragma once
// Results multiplied by a power of two or robbed of a part, and when a kernel must follow that bit for bit.

#include "../../reference/effective.hpp"
#include "../run.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck {

inline Run multiplied(Run run, float factor) {
  for (auto* values : {&run.o, &run.final_state})
    for (float& value : *values) value *= factor;
  for (auto& gradient : run.gradient)
    for (float& value : gradient) value *= factor;
  return run;
}

/// The run without the gradients of parameters, which gather from every sequence.
inline Run without_parameters(Run run) {
  for (Input input : {Input::A_log, Input::dt_bias}) run.gradient[static_cast<std::size_t>(input)].clear();
  return run;
}

/// Rounding commutes with powers of two but for overflow and underflow; fp16's range of 2^-24 ... 2^16 is met in practice.
inline bool scales_exactly(const Contract& contract) {
  for (Format format : {contract.input, contract.output, contract.operands, contract.scores, contract.accumulate, contract.solve,
                        contract.state, contract.gradient})
    if (format == Format::fp16) return false;
  return true;
}

/// Whether some number inside a pass may underflow. Then even results far from underflow need not follow a power of two bit
/// for bit: in x y + z, rounded once, a z of 2^-140 decides which way a tie of x y goes, and a z that became 0 does not; the
/// sum, of any size, moves by its last bit. How far from fp32's least number (2^-149) a pass stays is not seen from outside.
/// What is small by intent is: the decay over a whole sequence, and the numbers of each tensor. Where all these together
/// reach 2^-96 at most, 2^-53 is left for sums whose terms cancel and for products of untypical elements. Below that,
/// results are judged by the contract.
inline bool may_underflow(const Problem& problem) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  struct Squares {
    double sum = 0, count = 0;
    void add(double x) {
      if (x != 0) sum += x * x, ++count;
    }
  };
  Squares query, key, strength;
  double least = 0; // of log decays over a sequence
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t head = 0; head < HV; ++head) {
      std::vector<double> sums(static_cast<std::size_t>(K), 0.0);
      for (std::int64_t t = 0; t < sequence.length; ++t) {
        const auto token = effective_token<double>(problem, Exactly<double>{problem}, sequence.first + t, head);
        for (std::size_t c = 0; c < sums.size(); ++c) sums[c] += token.log_decay[c];
        for (double x : token.q) query.add(x);
        for (double x : token.k) key.add(x);
        if (problem.options.rule == Rule::kda) strength.add(token.beta);
      }
      for (double sum : sums)
        if (!(sum >= least)) least = sum;
    }
  double exponent = least / std::log(2.0); // of the smallest number
  const auto lower = [&](const Squares& of) {
    if (of.count > 0) exponent += std::min(0.0, std::log2(of.sum / of.count) / 2);
  };
  for (const Squares& of : {query, key, strength}) lower(of);
  for (const auto* tensor : {&problem.v, &problem.a, &problem.b, &problem.initial_state, &problem.d_o, &problem.d_final_state}) {
    Squares of;
    for (float x : *tensor) of.add(x);
    lower(of);
  }
  return !(exponent >= -96);
}

/// The run with every number near fp32's underflow set to zero. One operation loses at most 2^-150 to underflow (bf16
/// operands 2^-134); 2^20 terms of size up to 2^10 lift that to less than 2^-100.
inline Run without_underflow(Run run, float factor) {
  const float least = 0x1p-100f * std::max(1.0f, factor);
  for (auto* values : {&run.o, &run.final_state})
    for (float& value : *values)
      if (std::abs(value) < least) value = 0;
  for (auto& gradient : run.gradient)
    for (float& value : gradient)
      if (std::abs(value) < least) value = 0;
  return run;
}

} // namespace kdacheck
