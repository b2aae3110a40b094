// Recipe tokens: `k1,REGIME,field=value,...,CHECKSUM`. Fields at their default are left out, floats are hexadecimal
// and therefore exact, packed lengths are run-length coded (1x40+0+65), the checksum is the CRC-32 of what precedes it.
// A word is accepted only if the recipe read from it is written as the very same word.

#include "recipe_fields.hpp"

#include <boost/crc.hpp>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <stdexcept>

namespace kdacheck {
namespace {

constexpr std::string_view version = "k1";

[[noreturn]] void reject(const std::string& why) { throw std::invalid_argument("recipe token: " + why); }

bool regime_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

std::string checksum(std::string_view text) {
  boost::crc_32_type crc;
  crc.process_bytes(text.data(), text.size());
  std::string hex(8, '0');
  char digits[8];
  const auto end = std::to_chars(digits, digits + 8, crc.checksum(), 16).ptr;
  std::copy(digits, end, hex.end() - (end - digits));
  return hex;
}

/// Writes and reads one value of each type of field. A read says whether the whole text was such a value.
template <class Integer> requires(std::integral<Integer> && !std::same_as<Integer, bool>)
std::string text_of(Integer x) {
  return std::to_string(x);
}
template <class Integer> requires(std::integral<Integer> && !std::same_as<Integer, bool>)
bool read(std::string_view text, Integer& x) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
  return error == std::errc{} && end == text.data() + text.size();
}

std::string text_of(bool x) { return x ? "yes" : "no"; }
bool read(std::string_view text, bool& x) {
  x = text == "yes";
  return x || text == "no";
}

std::string text_of(float x) {
  char digits[32];
  return {digits, std::to_chars(digits, digits + sizeof digits, x, std::chars_format::hex).ptr};
}
bool read(std::string_view text, float& x) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x, std::chars_format::hex);
  return error == std::errc{} && end == text.data() + text.size() && std::isfinite(x);
}

template <class Enum> requires std::is_enum_v<Enum>
std::string text_of(Enum x) {
  return std::string(names_of<Enum>.at(static_cast<std::size_t>(x)));
}
template <class Enum> requires std::is_enum_v<Enum>
bool read(std::string_view text, Enum& x) {
  const auto at = std::find(names_of<Enum>.begin(), names_of<Enum>.end(), text) - names_of<Enum>.begin();
  x = static_cast<Enum>(at);
  return at < std::ssize(names_of<Enum>);
}

std::string text_of(const std::vector<std::int64_t>& lengths) {
  std::string text;
  for (std::size_t i = 0; i < lengths.size();) {
    std::size_t end = i;
    while (end < lengths.size() && lengths[end] == lengths[i]) ++end;
    text += (i > 0 ? "+" : "") + std::to_string(lengths[i]);
    if (end - i > 1) text += "x" + std::to_string(end - i);
    i = end;
  }
  return text;
}
bool read(std::string_view text, std::vector<std::int64_t>& lengths) {
  constexpr std::size_t most = std::size_t{1} << 20;
  lengths.clear();
  while (true) {
    const auto plus = text.find('+');
    const auto run = text.substr(0, plus);
    const auto times = run.find('x');
    std::int64_t length = 0;
    std::size_t count = 1;
    if (!read(run.substr(0, times), length) || (times != std::string_view::npos && !read(run.substr(times + 1), count))) return false;
    if (count < 1 || count > most - lengths.size()) return false;
    lengths.insert(lengths.end(), count, length);
    if (plus == std::string_view::npos) return true;
    text.remove_prefix(plus + 1);
  }
}

template <class Value> bool same(const Value& left, const Value& right) { return left == right; }
bool same(float left, float right) { return std::bit_cast<std::uint32_t>(left) == std::bit_cast<std::uint32_t>(right); }

std::string body_of(const Recipe& recipe) {
  std::string text = std::string(version) + "," + recipe.regime;
  const Recipe plain;
  each_field(
      [&](std::string_view field, const auto& value, const auto& usual) {
        if (!same(value, usual)) text += "," + std::string(field) + "=" + text_of(value);
      },
      recipe, plain);
  return text + ",";
}

void read_field(Recipe& recipe, std::string_view text) {
  const auto equals = text.find('=');
  const auto field = text.substr(0, equals);
  if (equals == std::string_view::npos) reject("'" + std::string(text) + "' is not field=value");
  bool known = false;
  each_field(
      [&](std::string_view name, auto& value) {
        if (name != field) return;
        known = true;
        if (!read(text.substr(equals + 1), value)) reject("'" + std::string(text) + "' has no valid value");
      },
      recipe);
  if (!known) reject("unknown field '" + std::string(field) + "'");
}

} // namespace

std::string to_token(const Recipe& recipe) {
  if (!std::all_of(recipe.regime.begin(), recipe.regime.end(), regime_character))
    throw std::invalid_argument("recipe token: the regime's name '" + recipe.regime + "' may hold only letters, digits, '-', '_' and '.'");
  each_field(
      [](std::string_view field, const auto& value) {
        if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, float>)
          if (!std::isfinite(value)) reject(std::string(field) + " is not finite");
      },
      recipe);
  const std::string body = body_of(recipe);
  return body + checksum(body);
}

Recipe from_token(std::string_view token) {
  const auto printable = [](char c) { return c > ' ' && c < 0x7f; };
  if (token.empty()) reject("empty");
  if (!std::all_of(token.begin(), token.end(), printable)) reject("holds a character that no token has");
  if (!token.starts_with(std::string(version) + ",")) reject("does not start with '" + std::string(version) + ",'");
  const auto last = token.rfind(',');
  if (checksum(token.substr(0, last + 1)) != token.substr(last + 1)) reject("checksum does not fit: a character was lost or changed");
  Recipe recipe;
  auto rest = token.substr(version.size() + 1, last < version.size() + 1 ? 0 : last - version.size() - 1);
  bool first = true;
  for (bool more = true; more; first = false) {
    const auto comma = rest.find(',');
    const auto part = rest.substr(0, comma);
    if (first)
      recipe.regime = part;
    else
      read_field(recipe, part);
    more = comma != std::string_view::npos;
    if (more) rest.remove_prefix(comma + 1);
  }
  if (const auto why = malformed(recipe)) reject(*why);
  if (!std::all_of(recipe.regime.begin(), recipe.regime.end(), regime_character))
    reject("the regime's name holds a character that none has");
  if (to_token(recipe) != token) reject("fields are out of order, repeated or not in their shortest form");
  return recipe;
}

} // namespace kdacheck
