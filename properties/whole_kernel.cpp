#include "whole_kernel.hpp"

#include "campaign.hpp"

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace kdacheck {
namespace {

const Property& law(std::string_view name) {
  for (const Property& property : properties())
    if (property.name == name) return property;
  throw std::logic_error("no law is called " + std::string(name));
}

} // namespace

Finding expect_right(const Kernel& kernel, const Recipe& recipe, Judge& judge) {
  const Recipe here = fitted(recipe, kernel.contract);
  Finding gravest{.verdict = Verdict::not_supported, .bound_util = 0, .place = {}, .detail = "no law applies to the case", .metrics = {}};
  for (const std::string_view name : {"agrees-with-the-oracle", "outputs-are-finite", "a-nan-stays-in-its-place",
                                      "gradients-agree-with-the-oracle", "gradients-are-finite", "what-cannot-matter-gets-no-gradient",
                                      "the-backward-runs-the-same-forward", "a-nan-loss-stays-in-its-place"}) {
    Finding finding = run_case(kernel, law(name), here, judge).finding;
    if (finding.verdict == Verdict::not_supported) {
      if (gravest.verdict == Verdict::not_supported) gravest.detail = std::move(finding.detail);
      continue;
    }
    if (is_failure(finding.verdict)) finding.detail = std::string(name) + ": " + finding.detail;
    gravest = gravest.verdict == Verdict::not_supported ? std::move(finding) : graver(std::move(gravest), std::move(finding));
  }
  return gravest;
}

} // namespace kdacheck
