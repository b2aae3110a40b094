#pragma once
// Words for commands that a person pastes or /bin/sh runs.

#include <string>
#include <string_view>

namespace kdacheck {

/// `text` as one word of a POSIX shell: as it is where every character is plain there, otherwise in single quotes.
inline std::string shell_word(std::string_view text) {
  constexpr std::string_view plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:=,+@%-";
  if (!text.empty() && text.find_first_not_of(plain) == text.npos) return std::string(text);
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

} // namespace kdacheck
