#include "verdict.hpp"

#include <cmath>
#include <utility>

namespace kdacheck {

std::string_view name(Verdict verdict) {
  switch (verdict) {
  case Verdict::passed: return "passed";
  case Verdict::failed_proved: return "failed_proved";
  case Verdict::failed_statistical: return "failed_statistical";
  case Verdict::failed_property: return "failed_property";
  case Verdict::inconclusive: return "inconclusive";
  case Verdict::not_supported: return "not_supported";
  case Verdict::crashed: return "crashed";
  default: return "timed_out";
  }
}

std::optional<Verdict> verdict_named(std::string_view text) {
  for (Verdict verdict : all_verdicts)
    if (name(verdict) == text) return verdict;
  return std::nullopt;
}

std::string to_text(const Place& place) {
  std::string text = place.tensor + ":";
  const char* separator = " ";
  const auto add = [&](const char* what, std::int64_t index) {
    if (index < 0) return;
    text += separator + std::string(what) + " " + std::to_string(index);
    separator = ", ";
  };
  add("sequence", place.sequence);
  add("head", place.head);
  add("token", place.token);
  add("position in chunk", place.chunk_position);
  add("row", place.row);
  add("channel", place.channel);
  return text;
}

namespace {

int gravity(Verdict verdict) {
  switch (verdict) {
  case Verdict::not_supported: return 0;
  case Verdict::passed: return 1;
  case Verdict::inconclusive: return 2;
  case Verdict::failed_statistical: return 3;
  case Verdict::failed_property: return 4;
  case Verdict::failed_proved: return 5;
  case Verdict::timed_out: return 6;
  default: return 7;
  }
}

} // namespace

bool is_graver(const Finding& left, const Finding& right) {
  const int difference = gravity(left.verdict) - gravity(right.verdict);
  if (difference != 0) return difference > 0;
  if (std::isnan(right.bound_util)) return false;
  return !(left.bound_util <= right.bound_util);
}

Finding graver(Finding left, Finding right) {
  Finding& result = is_graver(right, left) ? right : left;
  if (result.oracle.empty()) result.oracle = std::move((&result == &left ? right : left).oracle);
  return std::move(result);
}

} // namespace kdacheck
