#pragma once
// A law on a kernel and a recipe, as the campaign does it: cases outside the domain are not supported.

#include "../property.hpp"

namespace kdacheck::tests {

inline Finding checked(const Kernel& kernel, const Property& property, const Recipe& recipe, Judge& judge) {
  Finding not_supported{.verdict = Verdict::not_supported, .bound_util = 0, .place = {}, .detail = {}, .metrics = {}};
  if (property.excluded && !property.excluded(kernel.contract).empty()) return not_supported;
  if (outside_domain(kernel.contract, make_problem(recipe, input_formats(kernel.contract)))) return not_supported;
  return property.check({kernel, judge}, recipe);
}

inline const Property& property_named(std::string_view name) {
  for (const Property& property : properties())
    if (property.name == name) return property;
  throw std::invalid_argument("no law is called " + std::string(name));
}

} // namespace kdacheck::tests
