#pragma once
// One law tried on one kernel and one recipe: the steps that laws are written in, and the finding that they add up to.

#include "../compare_bits.hpp"
#include "../property.hpp"
#include "../transform.hpp"

#include <string>
#include <string_view>

namespace kdacheck {

/// Steps that find the law broken, or not applicable, end the trial; a trial in which nothing was compared is
/// not_supported. `what` completes the sentence "...: WHAT".
class Trial {
public:
  Trial(const Subject&, const Recipe&);

  const Kernel& kernel;
  const Contract& contract;
  Judge& judge;
  const Recipe& recipe;
  const Problem problem; ///< of the recipe, cotangents exact in the kernel's formats

  /// The problem of a changed recipe, fitted to the kernel; ends the trial if the kernel's domain leaves it out.
  Problem make(const Recipe&) const;

  /// The recipe with the log decay, beta and keys themselves as inputs, so that a law can set them; ends the trial if the
  /// kernel does not take them so.
  Recipe plain() const;

  /// Index of the longest sequence of a problem.
  static std::int64_t longest(const Problem&);

  /// A number in [0, below) that depends on the recipe's seed and on how often this was asked before.
  std::int64_t pick(std::int64_t below);

  /// Whether the kernel's contract covers the problem.
  bool supports(const Problem&) const;

  /// Ends the trial as not supported.
  [[noreturn]] void does_not_apply(std::string why) const;
  void applies_if(bool condition, std::string_view why) const;

  /// The kernel's answer; ends the trial if the problem is outside its domain (not supported) or refused (broken).
  Run forward(const Problem&, const RunOptions& = {});
  Run backward(const Problem&, const RunOptions& = {});
  Run decode(const Problem&, const RunOptions& = {});

  /// Answers to problems that are handed over one after the other in the same memory.
  std::vector<Run> forward_in_turn(std::span<const Problem>);
  std::vector<Run> backward_in_turn(std::span<const Problem>);

  /// What a decode chain promises: the recurrence in the contract's formats, the state stored after every token.
  Contract contract_of_decode() const;

  /// The decode run answers the problem within what contract_of_decode allows.
  void expect_true_decode(const Problem&, const Run&, std::string_view what);

  /// The run answers the problem within what the contract allows.
  void expect_true(const Problem&, const Run&, std::string_view what);
  void expect_true_gradients(const Problem&, const Run&, std::string_view what);

  /// Both runs answer the problem with the same numbers. Not compared for a kernel with repeat=none, which promises that of no
  /// two calls.
  void expect_same(const Problem&, const Run& expected, const Run& got, std::string_view what, Equality = Equality::numbers);

  /// The same numbers (or bits) where the contract says so, else within what it allows; `got` answers the problem.
  void expect_same_or_true(Sameness, const Problem&, const Run& expected, const Run& got, std::string_view what,
                           Equality = Equality::numbers);

  void expect_same_or_true_gradients(Sameness, const Problem&, const Run& expected, const Run& got, std::string_view what,
                                     Equality = Equality::numbers);

  /// A claim that was checked in place; `place` says where it is broken.
  void expect(bool holds, std::string_view what, std::optional<Place> place = std::nullopt);

  /// |error| <= bound, NaN failing.
  void expect_within(double error, double bound, std::string_view what, std::optional<Place> place = std::nullopt);

  /// What all steps together say.
  Finding finding() const;

private:
  [[noreturn]] void broken(std::string detail, std::optional<Place>, double bound_util) const;
  void add(Finding, std::string_view what);
  Run answered(Run) const;
  std::vector<Run> answered(std::vector<Run>) const;
  void all_inside(std::span<const Problem>) const;

  Finding worst_;
  int compared_ = 0;
  bool unpromised_ = false; ///< something was left out for repeat=none
  std::uint64_t picks_ = 0;
};

/// Ends a trial early.
struct TrialEnded {
  Finding finding;
};

/// Turns the steps of a law into a Property's check.
template <void (*law)(Trial&)> Finding tried(const Subject& subject, const Recipe& recipe) {
  try {
    Trial trial(subject, recipe);
    law(trial);
    return trial.finding();
  } catch (const TrialEnded& ended) {
    return ended.finding;
  }
}

} // namespace kdacheck
