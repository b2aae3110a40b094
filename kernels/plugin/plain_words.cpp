#include "plain_words.hpp"

#include <algorithm>
#include <cstdint>

namespace kdacheck::plugin {
namespace {

/// Bytes of the well-formed character that a text begins with, 0 if it begins with none.
std::size_t character(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const std::size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  if (length == 0 || text.size() < length) return 0;
  std::uint32_t code = length == 1 ? lead : lead & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte & 0x3fu);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  return overlong || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff ? 0 : length;
}

} // namespace

std::string plain_words(std::string_view text, std::size_t longest) {
  std::string words;
  while (!text.empty()) {
    const std::size_t length = character(text);
    if (words.size() + (length ? length : 1) > longest) break;
    const auto byte = static_cast<unsigned char>(text[0]);
    if (length == 1)
      words += byte < 32 || byte == 127 ? ' ' : text[0];
    else
      words += length == 0 ? std::string_view("?") : text.substr(0, length);
    text.remove_prefix(length ? length : 1);
  }
  return words;
}

std::string why_no_name(std::string_view name) {
  if (name.empty() || name[0] == '-') return "a kernel's name is missing, empty or begins with a dash";
  const bool broken = std::ranges::any_of(name, [](char c) { return c == ':' || static_cast<unsigned char>(c) <= 32 || c == 127; });
  return broken ? "a kernel's name has a colon, a blank or a control character" : "";
}

} // namespace kdacheck::plugin
