#include "../plain_words.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck::plugin;

TEST_CASE("what a program said is kept where it is text") {
  CHECK(plain_words("no K of 7") == "no K of 7");
  CHECK(plain_words("K \u2264 64, \u00fcber 64: \U0001f600") == "K \u2264 64, \u00fcber 64: \U0001f600");
}

TEST_CASE("lines and control characters become blanks, what is no UTF-8 question marks") {
  CHECK(plain_words("a\nb\tc\x7f") == "a b c ");
  CHECK(plain_words(std::string_view("a\0b", 3)) == "a b");
  CHECK(plain_words("\xff\xfe") == "??");
  CHECK(plain_words("\xc0\x80") == "??");           // overlong
  CHECK(plain_words("\xed\xa0\x80") == "???");      // half of a pair
  CHECK(plain_words("\xf4\x90\x80\x80") == "????"); // beyond the last character
  CHECK(plain_words("\xe2\x82") == "??");
}

TEST_CASE("a text that is too long is cut between characters") {
  CHECK(plain_words("abc", 2) == "ab");
  CHECK(plain_words("\u20ac\u20ac", 5) == "\u20ac");
  CHECK(plain_words("", 5).empty());
}
