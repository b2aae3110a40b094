#pragma once
// The one place that turns the spread of perturbed runs into a bound: every constant of the statistical verdict.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace kdacheck {

/// Probability that a case whose kernel keeps its contract is refused, over all its groups together. Tens of thousands of
/// cases are judged in one run; none may be refused by chance.
inline constexpr double false_refusal = 1e-6;

/// Perturbed runs per submodel of the budget that every case is screened with, one batch of lanes; and of those that confirm or
/// clear a suspect, each with fresh noise. A suspect is refused only beyond z for the F distribution of so few draws. Over z of a known
/// sigma, at which it was suspected, that is (1,000 groups, 1 to 64 degrees of freedom): 4.8 to 5.2 with 8 draws, so that these
/// refuse nothing that is not plainly wrong; 1.34 to 1.39 with 32; 1.07 to 1.08 with 128, where most of what is left lies in the
/// choice of z itself: 512 would bring it to 1.02 for four times the work.
inline constexpr int screening_draws = 8;
inline constexpr std::array confirming_draws{32, 128};

/// The truth must be known this much better than the bound that it is compared within. The radius is added to the bound: it can
/// move a verdict by as little.
inline constexpr double precise_enough = 1e-2;
/// But where cancellation or a selection makes the bound all but vanish, a radius that lies 2^-53 below the tensor's largest element,
/// 29 bits under its last bit in fp32, is as good as none; so is one below any format's smallest number (fp32: 2^-149).
inline constexpr double negligible_share = 0x1p-53, negligible_radius = 0x1p-160;

/// Work (tokens x K x columns of one head) up to which every value column is followed by perturbed runs; beyond it only some are, but
/// never fewer than `least_columns`. A cost, not a tolerance: 2^19 is all 64 columns of 128 tokens at K = 64 (`proved --cost` prints what
/// eight draws under six submodels take there); the column of a row that is not followed errs by its size as the others do on average.
inline constexpr std::int64_t affordable_work = std::int64_t{1} << 19, least_columns = 16;

/// A gradient to beta is one number per token, and its spread over few draws is uncertain by that of a chi distribution (8 draws: a
/// quarter). It is not taken below that of the window of so many tokens around it, which is uncertain by a sixteenth.
inline constexpr std::int64_t beta_window = 16;

/// What a group's error is pooled over.
enum class Group : std::uint8_t { token, state_row, state_column, channel, gradient, gradient_channel };
inline constexpr std::array all_groups{Group::token,   Group::state_row, Group::state_column,
                                       Group::channel, Group::gradient,  Group::gradient_channel};

/// "token", "state row", ...
std::string_view name(Group);

/// z is never less than this. Set by an experiment on emulated kernels (12 regimes x 24 seeds x 16 correct variants, 4,560 runs),
/// which saw ratios of at most 2.8, 2.6, 2.2 and 1.9 for tokens, rows, columns and channels, and 2.8 for gradients. `./kdacheck
/// bench --margins` derives them anew from all kernels that are right, under every contract, forward and backward, on every regime, and
/// prints what these constants leave: none was above its bound; where the constant sets z it saw 1.5, 1.5, 1.2 and, of gradients, 2.8. Of
/// their channels it saw 1.24 in the 2,500 cases that it begins in 170 seconds. That of channels of o sets no z: up to 40 degrees of
/// freedom the quantile is larger (2.15 for a single group).
constexpr double least_factor(Group group) {
  constexpr std::array least{4.0, 3.5, 3.0, 2.0, 4.0, 3.0};
  return least[static_cast<std::size_t>(group)];
}

/// Factor z by which the root mean square error of a group of elements may exceed the root mean square sigma of
/// `draws` perturbed runs, when `groups` groups are tested at once.
///
/// The error of a group is a sum of many bounded independent terms, pooled over elements that may share them. Its square
/// is sigma^2 (1 - f + f chi^2_1), where f is the share of its variance that all elements have in common: f = 1 when they
/// share one combination (tails of a normal distribution), f near 0 when each has its own. Putting everything common into
/// one component is the heaviest tail with the same variance of the square, 2 f^2, so with d = 1 / f^2 "degrees of freedom"
///     z^2 = 1 - f + f t^2,  t^2 = quantile of F(1, draws) at 1 - false_refusal / groups,
/// F rather than chi^2_1 because sigma^2 itself is the mean of only `draws` such squares.
/// draws = 0 stands for a known sigma (chi^2_1): this z screens, the finite one decides.
/// A small f would make z approach 1, where not chance decides any more but how well the perturbed algorithm's sites match
/// those of another correct kernel: z is never less than least_factor.
double confidence_factor(Group, std::int64_t groups, double degrees_of_freedom, int draws);

/// Degrees of freedom are rounded down to one of these before z is looked up: z is then too large by at most 17 %.
inline constexpr std::array freedom_steps{1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 40.0};

/// Degrees of freedom d of a group from the second and fourth moments of its error over draws: E x^4 / (E x^2)^2 = 1 + 2/d
/// = 1 + 2 f^2, corrected for estimating both from the same few draws, halved because that estimate itself scatters, and within 1 (one
/// shared component) and 64 (where z is its least in every group but channels).
double degrees_of_freedom(double sum_of_squares, double sum_of_fourth_powers, int draws);

/// Largest error that a spread allows a group when about a thousand are tested at once. What any submodel of a contract allows is
/// allowed: the one that reaches farthest counts, and a rare large error may reach farther than a larger sigma.
double reach(Group, double sigma, double degrees_of_freedom);

} // namespace kdacheck
