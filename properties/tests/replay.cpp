#include "../campaign.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;

TEST_CASE("a replay token is one word and gives back kernel, property and recipe") {
  Recipe recipe;
  recipe.regime = "gaussian-keys";
  recipe.shape = {.B = 1, .T = 65, .H = 2, .HV = 4, .K = 24, .V = 7};
  recipe.seed = 0xfedcba9876543210ull;
  const Replay replay{"my plugin:odd%name", "agrees-with-the-oracle", recipe};
  const std::string token = replay_token(replay);
  CHECK(token.find_first_of(" \t\n'\"$") == std::string::npos);
  const Replay back = replay_from_token(token);
  CHECK(back.kernel == replay.kernel);
  CHECK(back.property == replay.property);
  CHECK(back.recipe == recipe);
}

TEST_CASE("a word that is not a replay token is refused") {
  for (const char* text : {"", "a", "a:b", "a:b:", "%zz:b:c", "a%4:b:c", "a:b:c:d"})
    CHECK_THROWS_AS(replay_from_token(text), std::invalid_argument);
}
