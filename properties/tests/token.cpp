#include "../cases/generate.hpp"

#include <rapidcheck/catch.h>

#include <boost/crc.hpp>

#include <iomanip>

using namespace kdacheck;

namespace rc {
template <> struct Arbitrary<Recipe> {
  static Gen<Recipe> arbitrary() { return any_recipe(Tier::nightly); }
};
} // namespace rc
namespace kdacheck {
void showValue(const Recipe& recipe, std::ostream& out) { out << to_token(recipe); }
} // namespace kdacheck

namespace {

bool rejected(const std::string& token) {
  try {
    from_token(token);
    return false;
  } catch (const std::invalid_argument& error) {
    return std::string(error.what()).starts_with("recipe token: ");
  }
}

/// A token whose checksum fits whatever its fields say.
std::string sealed(const std::string& body) {
  boost::crc_32_type crc;
  crc.process_bytes(body.data(), body.size());
  std::ostringstream text;
  text << body << std::hex << std::setw(8) << std::setfill('0') << crc.checksum();
  return text.str();
}

} // namespace

TEST_CASE("a token is one printable word that gives the recipe back") {
  rc::prop("for any recipe", [](const Recipe& recipe) {
    const std::string token = to_token(recipe);
    for (char c : token) RC_ASSERT(c > ' ' && c < 0x7f && c != ':' && c != '\'' && c != '"' && c != '\\' && c != '$');
    RC_ASSERT(from_token(token) == recipe);
    RC_ASSERT(to_token(from_token(token)) == token);
  });
}

TEST_CASE("a changed token is rejected with a sentence, never read as another recipe") {
  rc::prop("characters changed, lost, added, doubled or swapped", [](const Recipe& recipe) {
    std::string token = to_token(recipe);
    const std::string before = token;
    const auto at = *rc::gen::inRange<std::size_t>(0, token.size());
    const auto other = *rc::gen::inRange<std::size_t>(0, token.size());
    const char c = *rc::gen::arbitrary<char>();
    switch (*rc::gen::inRange(0, 6)) {
    case 0: token[at] = c; break;
    case 1: token.erase(at, 1 + other % 7); break;
    case 2: token.insert(at, 1, c); break;
    case 3: std::swap(token[at], token[other]); break;
    case 4: token.resize(at); break;
    default: token.insert(at, token.substr(other, 9)); break;
    }
    if (token != before) RC_ASSERT(rejected(token));
  });
}

TEST_CASE("a token whose checksum was made to fit is read only if it is the one way to write its recipe") {
  rc::prop("a field changed and sealed again", [](const Recipe& recipe) {
    std::string body = to_token(recipe);
    body.resize(body.size() - 8);
    const auto at = *rc::gen::inRange<std::size_t>(0, body.size());
    body[at] = *rc::gen::elementOf(std::string("0123456789abcdefpx+-.,=kTHVyesnohalf"));
    const std::string token = sealed(body);
    try {
      const Recipe read = from_token(token);
      RC_ASSERT(to_token(read) == token);
      RC_ASSERT(!malformed(read));
    } catch (const std::invalid_argument&) {
      RC_SUCCEED();
    }
  });
}

TEST_CASE("malformed tokens are rejected, each for its own reason") {
  const auto reason = [](const std::string& token) {
    try {
      from_token(token);
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  CHECK(reason(sealed("k1,gaussian-keys,T=65,")) == "accepted");
  CHECK(reason(sealed("k1,,")) == "accepted");
  CHECK(reason("") == "recipe token: empty");
  CHECK(reason("k1 x") == "recipe token: holds a character that no token has");
  CHECK(reason(sealed("k2,gaussian-keys,T=65,")) == "recipe token: does not start with 'k1,'");
  CHECK(reason("k1,gaussian-keys,T=65,00000000") == "recipe token: checksum does not fit: a character was lost or changed");
  CHECK(reason(sealed("k1,")) == "recipe token: fields are out of order, repeated or not in their shortest form");
  CHECK(reason(sealed("k1,r,T,")) == "recipe token: 'T' is not field=value");
  CHECK(reason(sealed("k1,r,T=,")) == "recipe token: 'T=' has no valid value");
  CHECK(reason(sealed("k1,r,T=1.5,")) == "recipe token: 'T=1.5' has no valid value");
  CHECK(reason(sealed("k1,r,T=99999999999999999999,")) == "recipe token: 'T=99999999999999999999' has no valid value");
  CHECK(reason(sealed("k1,r,tokens=3,")) == "recipe token: unknown field 'tokens'");
  CHECK(reason(sealed("k1,r,keys=square,")) == "recipe token: 'keys=square' has no valid value");
  CHECK(reason(sealed("k1,r,decay=inf,")) == "recipe token: 'decay=inf' has no valid value");
  CHECK(reason(sealed("k1,r,decay=nan,")) == "recipe token: 'decay=nan' has no valid value");
  CHECK(reason(sealed("k1,r,decay=-1p+0,")) == "recipe token: decay must not be negative");
  CHECK(reason(sealed("k1,r,l2norm=1,")) == "recipe token: 'l2norm=1' has no valid value");
  CHECK(reason(sealed("k1,r,T=065,")) == "recipe token: fields are out of order, repeated or not in their shortest form");
  CHECK(reason(sealed("k1,r,T=2,T=2,")) == "recipe token: fields are out of order, repeated or not in their shortest form");
  CHECK(reason(sealed("k1,r,K=2,T=2,")) == "recipe token: fields are out of order, repeated or not in their shortest form");
  CHECK(reason(sealed("k1,r,T=0,")) == "recipe token: fields are out of order, repeated or not in their shortest form");
  CHECK(reason(sealed("k1,r,H=2,HV=3,")) == "recipe token: shape: HV (3) must be a multiple of H (2)");
  CHECK(reason(sealed("k1,r,T=3,lengths=1+1,")) == "recipe token: lengths: their sum (2) must equal T (3)");
  CHECK(reason(sealed("k1,r,T=3,lengths=4+-1,")) == "recipe token: lengths: each must be at least 0 and none above 2^31");
  CHECK(reason(sealed("k1,r,T=4,lengths=2x2+,")) == "recipe token: 'lengths=2x2+' has no valid value");
  CHECK(reason(sealed("k1,r,T=4,lengths=0x9999999999,")) == "recipe token: 'lengths=0x9999999999' has no valid value");
  CHECK(reason(sealed("k1,r,T=2000000000,K=2000000000,")) == "recipe token: shape: a tensor would have more than 2^36 elements");
  CHECK(reason(sealed("k1,a:b,")) == "recipe token: the regime's name holds a character that none has");
}

TEST_CASE("a recipe that no token can hold is refused, not written wrongly") {
  Recipe recipe;
  recipe.decay = NAN;
  CHECK_THROWS_AS(to_token(recipe), std::invalid_argument);
  recipe = {};
  recipe.regime = "two words";
  CHECK_THROWS_AS(to_token(recipe), std::invalid_argument);
}

TEST_CASE("minus zero and the smallest number survive a token") {
  Recipe recipe;
  recipe.decay_center = -0.0f;
  recipe.value_scale = 0x1p-149f;
  const Recipe read = from_token(to_token(recipe));
  CHECK(std::signbit(read.decay_center));
  CHECK(read.value_scale == 0x1p-149f);
}
