#pragma once
// Numbers that JSON cannot hold: infinities and NaN stand as the strings "Infinity", "-Infinity" and "NaN" in every
// JSON file of this folder; Python's float(), JavaScript's Number() and C's strtod read them.

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

namespace kdacheck {

inline nlohmann::ordered_json json_number(double x) {
  if (std::isnan(x)) return "NaN";
  if (std::isinf(x)) return x > 0 ? "Infinity" : "-Infinity";
  return x;
}

/// Throws nlohmann::json::exception for anything but a number or one of those strings.
inline double number_of(const nlohmann::ordered_json& json) {
  if (!json.is_string()) return json.get<double>();
  const auto text = json.get<std::string>();
  if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  throw nlohmann::json::other_error::create(501, "\"" + text + "\" is not a number", nullptr);
}

} // namespace kdacheck
