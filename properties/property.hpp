#pragma once
// A law that every kernel must keep. One file per law under laws/, named by its claim.

#include "cases/recipe.hpp"
#include "judge.hpp"
#include "run.hpp"
#include "verdict.hpp"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

enum class Direction : std::uint8_t { forward, backward };

/// A kernel together with what is needed to judge it.
struct Subject {
  const Kernel& kernel;
  Judge& judge;
};

/// The recipe given to `check` is already fitted to the kernel's contract; the problem made from it lies inside the
/// domain (the campaign reports the others as not_supported before calling). Whatever the law builds from the problem
/// (longer, shorter, other seeds) must be tested with `outside_domain` again by the law itself.
struct Property {
  std::string name;  ///< "future-tokens-change-nothing": the file is laws/future_tokens_change_nothing.cpp
  std::string claim; ///< one sentence that can be false
  Direction direction = Direction::forward;
  /// Why the law does not apply to a kernel (then counted as not_supported), or empty. nullptr: applies to all.
  std::string (*excluded)(const Contract&) = nullptr;
  /// Regimes on which the law says something; empty: all.
  std::vector<std::string> regimes = {};
  /// Checked in every cell even of the quick tier; the other laws without regimes of their own are sampled there.
  bool everywhere = false;
  /// Checked in the rounds beyond the tier's as well, which some regimes have (Regime::rounds).
  bool in_every_round = false;
  Finding (*check)(const Subject&, const Recipe&) = nullptr;
};

/// Every property, in the order of reports.
std::span<const Property> properties();

} // namespace kdacheck
