#include "confidence.hpp"

#include <algorithm>
#include <boost/math/distributions/chi_squared.hpp>
#include <boost/math/distributions/fisher_f.hpp>
#include <cmath>

namespace kdacheck {

std::string_view name(Group group) {
  constexpr std::array<std::string_view, all_groups.size()> names{"token",   "state row", "state column",
                                                                  "channel", "gradient",  "gradient channel"};
  return names[static_cast<std::size_t>(group)];
}

namespace {

double factor_from(Group group, double d, double t_squared) {
  const double common = 1 / std::sqrt(std::max(d, 1.0));
  const double square = 1 - common + common * t_squared;
  return std::max(least_factor(group), std::sqrt(square));
}

double known_sigma_quantile(double tail) { return boost::math::quantile(boost::math::complement(boost::math::chi_squared(1), tail)); }

} // namespace

double confidence_factor(Group group, std::int64_t groups, double d, int draws) {
  const double tail = false_refusal / static_cast<double>(std::max<std::int64_t>(groups, 1));
  return factor_from(group, d,
                     draws == 0 ? known_sigma_quantile(tail)
                                : boost::math::quantile(boost::math::complement(boost::math::fisher_f(1, draws), tail)));
}

double reach(Group group, double sigma, double d) {
  static const double t_squared = known_sigma_quantile(false_refusal / 1000);
  return sigma * factor_from(group, d, t_squared);
}

double degrees_of_freedom(double sum_of_squares, double sum_of_fourth_powers, int draws) {
  if (!(sum_of_squares > 0) || !std::isfinite(sum_of_fourth_powers)) return 1;
  // R = m4 / m2^2; E m4 = 1 + 2/d, E m2^2 = 1 + 2/(d draws) in units of sigma^4, solved for d
  const double R = draws * (sum_of_fourth_powers / sum_of_squares) / sum_of_squares;
  const double d = 2 * (1 - R / draws) / std::max(R - 1, 1e-6);
  return std::clamp(d / 2, 1.0, 64.0);
}

} // namespace kdacheck
