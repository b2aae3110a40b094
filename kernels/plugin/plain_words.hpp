#pragma once
// What a foreign program said, as any report can hold it.

#include <string>
#include <string_view>

namespace kdacheck::plugin {

/// At most `longest` bytes of a text as one line of UTF-8: control characters become blanks, what is no UTF-8 question marks.
std::string plain_words(std::string_view text, std::size_t longest = 2000);

/// Why a kernel cannot have that name: it stands in tokens KERNEL:PROPERTY:RECIPE and on command lines. Empty: it can.
std::string why_no_name(std::string_view name);

} // namespace kdacheck::plugin
