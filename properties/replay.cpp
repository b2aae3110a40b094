// A replay token: KERNEL:PROPERTY:RECIPE, one word. Characters of kernel names that would break the word are written
// as %XX.

#include "campaign.hpp"

#include <stdexcept>

namespace kdacheck {
namespace {

constexpr std::string_view hex_digits = "0123456789abcdef";

std::string escaped(std::string_view text) {
  std::string result;
  for (const unsigned char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    if (plain)
      result += static_cast<char>(c);
    else
      result += {'%', hex_digits[c >> 4], hex_digits[c & 15]};
  }
  return result;
}

std::string unescaped(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      result += text[i];
      continue;
    }
    const auto digit = [&](std::size_t at) {
      const auto value = at < text.size() ? hex_digits.find(text[at]) : std::string_view::npos;
      if (value == std::string_view::npos) throw std::invalid_argument("replay token: '%' must be followed by two hexadecimal digits");
      return static_cast<int>(value);
    };
    result += static_cast<char>(digit(i + 1) * 16 + digit(i + 2));
    i += 2;
  }
  return result;
}

} // namespace

std::string replay_token(const Replay& replay) {
  return escaped(replay.kernel) + ":" + escaped(replay.property) + ":" + to_token(replay.recipe);
}

Replay replay_from_token(std::string_view token) {
  const auto first = token.find(':');
  const auto second = first == std::string_view::npos ? first : token.find(':', first + 1);
  if (second == std::string_view::npos) throw std::invalid_argument("replay token: expected KERNEL:PROPERTY:RECIPE");
  return {unescaped(token.substr(0, first)), unescaped(token.substr(first + 1, second - first - 1)), from_token(token.substr(second + 1))};
}

} // namespace kdacheck
