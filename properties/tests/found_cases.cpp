#include "../cases/found_cases.hpp"
#include "../campaign.hpp"

#include "../../kernels/faults/faults.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <unistd.h>

using namespace kdacheck;

namespace {

const std::string law = "agrees-with-the-oracle";

std::string line_of(const char* regime, std::uint64_t seed) { return law + " " + to_token(regime_named(regime)->draw(seed, Tier::quick)); }

std::string refusal_of(const std::string& text) {
  try {
    parse_found_cases(text);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

} // namespace

TEST_CASE("the committed cases can be read, each with a law and a reason") {
  REQUIRE(found_cases().size() >= 20);
  for (const FoundCase& found : found_cases()) {
    CHECK_FALSE(found.why.empty());
    CHECK_FALSE(malformed(found.recipe));
  }
}

TEST_CASE("what is not a found case is refused with its line") {
  const std::string good = line_of("gaussian-keys", 1);
  CHECK(refusal_of("# why\n" + good + "\n") == "");
  CHECK(refusal_of(good + "\n").find("line 1") != std::string::npos);
  CHECK(refusal_of("# why\n\n" + good + "\n").find("line 3") != std::string::npos);
  CHECK(refusal_of("# why\nno-such-law " + good.substr(law.size() + 1)).find("no-such-law") != std::string::npos);
  CHECK(refusal_of("# why\n" + law + " k1,broken,0").find("checksum") != std::string::npos);
  CHECK(refusal_of("# why\n" + good + "\n# why\n" + good).find("twice") != std::string::npos);
}

TEST_CASE("a case is kept once, with every reason") {
  const auto path = std::filesystem::temp_directory_path() / ("found_cases." + std::to_string(getpid()));
  std::filesystem::remove(path);
  const Recipe one = regime_named("gaussian-keys")->draw(1, Tier::quick), two = regime_named("tiny-keys")->draw(1, Tier::quick);
  CHECK(keep_found_case(path, {law, one, {"first"}}));
  CHECK(keep_found_case(path, {law, two, {"of two\nlines"}}));
  CHECK_FALSE(keep_found_case(path, {law, one, {"second"}}));
  CHECK_FALSE(keep_found_case(path, {law, one, {"second"}}));
  std::ifstream stream(path);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  const auto kept = parse_found_cases(text);
  REQUIRE(kept.size() == 2);
  CHECK(kept[0].why == std::vector<std::string>{"first", "second"});
  CHECK(kept[1].why == std::vector<std::string>{"of two lines"});
  CHECK(kept[1].recipe == two);
  CHECK_THROWS_AS(keep_found_case(path, {law, two, {}}), std::invalid_argument);
  std::filesystem::remove(path);
}

TEST_CASE("a campaign runs every found case by its own law on every kernel, and refuses a kernel by it") {
  const FaultInfo& fault = planted_faults().front();
  const Kernel wrong = faulty_kernel(fault);
  const Kernel right = faultless_kernel("right", fault.contract);
  Plan plan;
  plan.kernels = {&right, &wrong};
  for (const Property& property : properties()) plan.properties.push_back(&property);
  for (const FoundCase& found : found_cases())
    if (!found.property.starts_with("gradients")) plan.found.push_back(&found);
  plan.shrink_seconds = 0;
  std::set<std::string> seen;
  int refused_wrong = 0, refused_right = 0;
  const Outcome outcome = run_campaign(plan, [&](const CaseResult& result) {
    CHECK(result.regime == found_cases_name);
    seen.insert(result.property);
    (result.kernel == wrong.name ? refused_wrong : refused_right) += is_failure(result.finding.verdict);
  });
  CHECK(outcome.ran == 2 * plan.found.size());
  CHECK(seen.contains(law));
  CHECK(refused_wrong > 0);
  CHECK(refused_right == 0);
}
