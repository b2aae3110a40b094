#include "../series.hpp"
#include "../../properties/tests/planted.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <unistd.h>

using namespace kdacheck;
using tests::built_in;

namespace {

/// A kernel that is right up to a token and off by a share of its output from there on.
Kernel drifting(std::int64_t from, float share) {
  Kernel kernel = built_in("cpu.chunk64.fp32");
  kernel.name = "drifting";
  kernel.forward = [whole = kernel.forward, from, share](const Inputs& inputs, const Outputs& outputs, std::span<std::byte> workspace) {
    whole(inputs, outputs, workspace);
    for (std::int64_t i = from * inputs.shape.HV * inputs.shape.V; i < outputs.o.elements(); ++i)
      store(outputs.o, i, load(outputs.o, i) * (1 + share));
  };
  return kernel;
}

Drift drift_of(const Kernel& kernel, std::int64_t longest = 1024) { return measure_drift(kernel, *regime_named("no-decay"), 1, longest); }

double largest_between(const Drift& drift, std::int64_t from, std::int64_t to) {
  double most = 0;
  for (const DriftWindow& window : drift.windows)
    if (window.token >= from && window.token < to) most = std::max(most, window.largest);
  return most;
}

} // namespace

TEST_CASE("a kernel that is right is within its bound at every length and token") {
  const Drift drift = drift_of(built_in("cpu.chunk64.fp32"));
  REQUIRE(drift.lengths.size() == 3);
  for (const DriftLength& length : drift.lengths) CHECK(length.finding.verdict == Verdict::passed);
  CHECK(drift.lengths.back().T == 1024);
  CHECK(largest_between(drift, 0, 1024) > 0);
  CHECK(largest_between(drift, 0, 1024) <= 1);
}

TEST_CASE("an error that sets in late is seen where it sets in, and at the lengths that reach it") {
  const Drift drift = drift_of(drifting(600, 1e-3f));
  CHECK(drift.lengths.front().finding.verdict == Verdict::passed);
  CHECK(is_failure(drift.lengths.back().finding.verdict));
  CHECK(largest_between(drift, 0, 600) <= 1);
  CHECK(largest_between(drift, 600, 1024) > 1);
  CHECK(exit_status(Series{.context = {}, .longest = 1024, .drift = {drift}, .spectra = {}}) == 1);
}

TEST_CASE("windows cover every token, four to an octave, and a length is the prefix of the longest") {
  const Kernel& kernel = built_in("cpu.chunk64.fp32");
  const Regime& regime = *regime_named("slow-decay");
  const Problem longer = make_problem(drift_recipe(kernel, regime, 1, 300), {}),
                shorter = make_problem(drift_recipe(kernel, regime, 1, 70), {});
  REQUIRE(shorter.v.size() < longer.v.size());
  for (const Input input : {Input::q, Input::k, Input::v, Input::g, Input::beta})
    CHECK(std::equal(shorter[input].begin(), shorter[input].end(), longer[input].begin()));
  CHECK(shorter.initial_state == longer.initial_state);
  const Drift drift = drift_of(kernel, 256);
  CHECK(drift.windows.size() >= 4 * 5); // the octaves below 8 tokens have fewer than four
  CHECK(drift.windows.size() <= 4 * 8 + 1);
}

TEST_CASE("spectra lie within what is proved of them, and the heuristic warns falsely of unit keys") {
  std::size_t samples = 0, warned = 0, false_alarms = 0;
  for (const char* name : {"gaussian-keys", "reflections", "dplr-benign", "zero-keys"}) {
    const RegimeSpectra spectra = measure_spectra(*regime_named(name), 1, 8);
    for (const SpectrumSample& sample : spectra.samples) {
      INFO(name << " " << sample.tau);
      CHECK_FALSE(sample.outside);
      CHECK(sample.norm <= sample.norm_bound * (1 + 1e-12));
      CHECK_FALSE((sample.within && sample.grows));
      ++samples, warned += sample.heuristic > 1, false_alarms += sample.false_alarm;
    }
  }
  CHECK(samples > 16);
  CHECK(warned > 0);
  CHECK(false_alarms > 0);
}

TEST_CASE("a spectrum that leaves its bounds makes the series fail") {
  RegimeSpectra spectra{.rule = Rule::kda, .regime = "x", .recipe = "", .samples = {SpectrumSample{}}};
  CHECK(exit_status(Series{.context = {}, .longest = 1, .drift = {}, .spectra = {spectra}}) == 0);
  spectra.samples[0].outside = true;
  CHECK(exit_status(Series{.context = {}, .longest = 1, .drift = {}, .spectra = {spectra}}) == 1);
}

TEST_CASE("a series comes back from its file; another schema version and another file are refused") {
  const auto folder = std::filesystem::temp_directory_path() / ("kdacheck-series-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  CHECK(read_series(folder).is_null());
  const auto write = [&](const std::string& text) { std::ofstream(folder / "series.json") << text; };
  const std::string text =
      to_series_json(Series{.context = {}, .longest = 64, .drift = {drift_of(built_in("cpu.chunk16.fp32"), 64)}, .spectra = {}});
  write(text);
  const auto series = read_series(folder);
  CHECK(series["longest"] == 64);
  CHECK(series["drift"][0]["lengths"][0][1] == "passed");
  write("{\"schema_version\":2,\"drift\":[],\"spectra\":[]}");
  CHECK_THROWS_WITH(read_series(folder), Catch::Contains("schema version 2"));
  write(text.substr(0, text.size() / 2));
  CHECK_THROWS_WITH(read_series(folder), Catch::Contains("not a series"));
  std::filesystem::remove_all(folder);
}
