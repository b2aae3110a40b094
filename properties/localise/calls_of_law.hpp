#pragma once
// A law that is broken, tried once more with every call of the kernel watched: which of the calls is wrong by itself, and what can be said
// where none is.

#include "../observed_calls.hpp"
#include "localise.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace kdacheck {

struct LawSeen {
  Finding finding;
  std::vector<ObservedCall> calls;
};

/// The law on a recipe that is fitted to the kernel; what ends the kernel's process is let through.
LawSeen seen_again(const Kernel&, const Property&, const Recipe&, Judge&);

/// A kernel whose forward pass is the kernel's decode step, under what a chain of them promises.
Kernel decode_as_forward(const Kernel&);

/// The kernel that a call is judged as: itself, or its decode step.
Kernel called_kernel(const Kernel&, Pass);

struct WrongCall {
  std::size_t index;
  Finding finding; ///< against the oracle of the call's own problem
};

/// The first of the calls whose result the oracle of its own problem refuses. Calls that no oracle judges are passed over: refused ones,
/// those outside the domain, inputs that are not finite.
std::optional<WrongCall> first_wrong_call(const Kernel&, const LawSeen&, Judge&);

/// Calls of the same problem that came back different, other than by what their outputs held before.
std::optional<Localisation> of_repeated_calls(const Kernel&, const LawSeen&);

/// Which of the law's calls it is, and that those before it are right; empty for a law of one call.
std::string about_call(const LawSeen&, std::size_t index);

/// Where every call that can be judged is right: by what the law compared, trespasses, refusals, what is not
/// finite. The grounds say which of these it is; no stage where nothing of it tells one.
Localisation of_right_calls(const Kernel&, const LawSeen&);

/// Does the law hold a single call to a bound of its own, which is sharper than the oracle's?
bool is_sharper_than_the_oracle(const LawSeen&);

} // namespace kdacheck
