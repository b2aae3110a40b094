#pragma once
// Problems on which the CUDA kernels are checked against the recurrence in double.

#include "../../kernel.hpp"

#include <vector>

namespace kdacheck::cuda {

enum class Keys { gaussian, near_identical, alternating, converged };

struct Regime {
  const char* name;
  Shape shape{.B = 1, .T = 300, .H = 2, .HV = 2, .K = 128, .V = 128};
  Options options{.gate = GateForm::log_decay, .l2norm = true, .scale = 0.08838834764831845f};
  Keys keys = Keys::gaussian;
  float gate_center = 0, gate_spread = 1; ///< of g; its absolute value is negated for log_decay
  float beta_least = 0, beta_most = 1;    ///< or the range of the logit
  std::vector<std::int64_t> cu_seqlens{};
  bool initial_state = true;
};

/// A tensor with its own storage.
struct Owned {
  std::vector<unsigned char> bytes;
  TensorView view;
  Owned() = default;
  Owned(Format format, std::array<std::int64_t, 4> shape) : view{nullptr, format, shape, contiguous_strides(shape)} {
    bytes.assign(static_cast<std::size_t>(view.elements()) * storage_bytes(format), 0xff);
    view.data = bytes.data();
  }
  template <class Draw> void fill(Draw draw) {
    for (std::int64_t i = 0; i < view.elements(); ++i) store(view, i, draw());
  }
};

struct Case {
  std::array<Owned, all_inputs.size()> owned;
  Inputs in;
  Owned o, final_state;
  Owned& operator[](Input input) { return owned[static_cast<std::size_t>(input)]; }
};

/// Inputs in the contract's formats, the state in its layout; outputs unwritten.
Case make_case(const Regime&, const Contract&, unsigned seed);

std::vector<Regime> regimes();

/// Seeds of one of these: the same for every kernel, so that kernels with the same formats get the same numbers.
unsigned case_seed(const Regime&);
unsigned cotangent_seed(const Regime&);

/// The part of the declared domain that depends on sizes and options.
bool accepts(const Contract&, const Regime&);

} // namespace kdacheck::cuda
