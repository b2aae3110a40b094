#pragma once
// What a number on the command line may be, with a sentence of one line for what it may not.

#include <CLI/CLI.hpp>

#include <charconv>
#include <cmath>
#include <string>

namespace kdacheck {

/// CLI11 lets "-1" wrap around to a huge seed.
inline const CLI::Validator whole_number(
    [](const std::string& text) {
      const bool digits = !text.empty() && text.size() <= 19 && text.find_first_not_of("0123456789") == std::string::npos;
      return digits ? std::string() : "'" + text + "' is not a whole number from 0 to 9999999999999999999";
    },
    "0..");

/// CLI11's own take what is no number (nan) for one, and name the largest double in full where they refuse.
inline CLI::Validator number(bool zero_too) {
  return {[zero_too](const std::string& text) {
            double value = 0;
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
            const bool whole = error == std::errc{} && end == text.data() + text.size();
            if (whole && std::isfinite(value) && (zero_too ? value >= 0 : value > 0)) return std::string();
            return "'" + text + "' is not a finite number " + (zero_too ? ">= 0" : "> 0");
          },
          zero_too ? "NONNEGATIVE" : "POSITIVE"};
}
inline const CLI::Validator positive = number(false), not_negative = number(true);

} // namespace kdacheck
