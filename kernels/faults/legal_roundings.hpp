#pragma once
// What no test can tell from a right kernel: departures from the plain algorithm that are faults under one contract and a
// legal rounding, or a legal freedom, under another. The gate must let them pass there; `gate-power` shows that it does.

#include "faults.hpp"

namespace kdacheck {

/// A fault under a contract that allows it.
struct LegalRounding {
  Fault fault = Fault::none;
  std::string_view label;    ///< of the contract: "bf16 state"
  std::string_view contract; ///< text form
  std::string_view reason;   ///< which clause of the contract covers it, one sentence
};

std::span<const LegalRounding> legal_roundings();

/// The fault's kernel under that contract: "legal.FAULT.LABEL".
Kernel legal_kernel(const LegalRounding&);

} // namespace kdacheck
