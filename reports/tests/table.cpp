#include "../table.hpp"
#include "../progress_line.hpp"
#include "../summary_markdown.hpp"
#include "../words.hpp"
#include "sample_results.hpp"

#include <catch2/catch.hpp>

#include <limits>
#include <sstream>

using namespace kdacheck;
using Catch::Contains;

namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string line_with(const std::string& text, const std::string& words) {
  for (const auto& line : lines_of(text))
    if (line.find(words) != std::string::npos) return line;
  return {};
}

} // namespace

TEST_CASE("each kernel's line says contract, verdict, cases, worst error over bound, and where") {
  const std::string table = console_table(sample_results());
  CHECK_THAT(line_with(table, "cpu.right"), Contains("fp32 throughout, C=16") && Contains("passed") && Contains("  3    1  ") &&
                                                Contains("0.75") && Contains("slow-decay") && Contains("750 ms"));
  CHECK_THAT(line_with(table, "cpu.wrong"), Contains("bf16 in") && Contains("CRASHED") && Contains("empty-sequences"));
  CHECK_THAT(line_with(table, "cpu.idle"), Contains("not run") && Contains(" 0 "));
}

TEST_CASE("each failing group is listed with its place, its detail and its replay command, the gravest first") {
  const std::string table = console_table(sample_results());
  CHECK_THAT(line_with(table, "[slow-decay]"), Contains("FAILED (proved)") && Contains("13.2") && Contains("1 of 2 cases"));
  CHECK_THAT(table, Contains("final_state: sequence 0, head 1, row 3, channel 5"));
  CHECK_THAT(table, Contains("./kdacheck replay TOKEN-cpu.wrong-slow-decay\n"));
  CHECK(table.find("[empty-sequences]") < table.find("[long]"));
  CHECK(table.find("[long]") < table.find("[slow-decay]"));
  CHECK(table.find("[nan-keys]") < table.find("[fast-decay]"));
}

TEST_CASE("a crash has no error over bound, and an inconclusive case is listed with its replay command") {
  const std::string table = console_table(sample_results());
  CHECK_THAT(line_with(table, "[empty-sequences]"), Contains("error/bound -,"));
  CHECK_THAT(table, Contains("inconclusive: 1 cases") && Contains("./kdacheck replay TOKEN-cpu.wrong-no-decay"));
}

TEST_CASE("the table begins with where and with what the run was made") {
  CHECK(lines_of(console_table(sample_results())).front() == "tier quick, seed 18446744073709551615, commit 0123456789ab, cpu, 2 threads");
}

TEST_CASE("failures that are not shown are counted") {
  const std::string table = console_table(sample_results(), {.failures_shown = 2});
  CHECK_THAT(table, Contains("and 3 more failing"));
  CHECK_THAT(table, !Contains("[fast-decay]  error"));
}

TEST_CASE("what was not supported is counted with its reason, also what is not listed") {
  Results results = sample_results();
  for (int i = 0; i < 3; ++i) add(results, sample_case("cpu.wrong", Verdict::not_supported, 0));
  CaseResult other = sample_case("cpu.wrong", Verdict::not_supported, 0);
  other.finding.detail = "T=0";
  add(results, other);
  CHECK_THAT(console_table(results),
             Contains("not supported (n/s): 5 cases") && Contains("4  K=60 is not in 16..256/16") && Contains("1  T=0"));
  CHECK_THAT(console_table(results, {.reasons_shown = 1}), Contains("1  for 1 other reasons") && !Contains("T=0"));
}

TEST_CASE("the last line says passed only if something passed, nothing failed and the run was not stopped") {
  const auto last = [](const Results& results) { return lines_of(console_table(results)).back(); };
  CHECK(last(sample_results()) == "FAILED: 1 of 3 kernels");
  Results results;
  CHECK(last(results) == "NOTHING PASSED: no case ran that a kernel supports");
  add(results, sample_case("k", Verdict::not_supported, 0));
  CHECK(last(results) == "NOTHING PASSED: no case ran that a kernel supports");
  add(results, sample_case("k", Verdict::passed, 0));
  CHECK(last(results) == "PASSED: 1 of 1 kernels");
  Results idle = results;
  idle.kernels.push_back({.name = "idle"});
  CHECK(last(idle) == "PASSED: 1 of 2 kernels");
  results.outcome = {.planned = 9, .ran = 1, .skipped = 2, .stopped = true};
  CHECK(last(results) == "no failure so far");
  CHECK_THAT(console_table(results), Contains("stopped before the end: 3 of 9 planned cases ran"));
}

TEST_CASE("the kernels' lines keep within the width and under their headings") {
  Results results = sample_results();
  KernelTally longest{.name = "cuda.chunk64.bf16.split.accurate",
                      .in_short = "bf16 in, bf16 mma, tf32 scores, fp64 sums, bf16 state, C=128"};
  results.kernels.push_back(longest);
  CaseResult wide = sample_case(longest.name, Verdict::failed_statistical, 12345, "near-identical-keys-with-slow-decay");
  add(results, wide);
  for (const std::size_t width : {100u, 118u, 140u}) {
    const auto lines = lines_of(console_table(results, {.width = width}));
    for (std::size_t i = 2; i < 8; ++i) { // below the line that says where and with what
      INFO(lines[i]);
      CHECK(lines[i].size() <= width);
      CHECK(lines[i].size() == lines[2].size());
    }
  }
}

TEST_CASE("escape sequences appear only when colour is asked for") {
  CHECK_THAT(console_table(sample_results()), !Contains("\x1b"));
  CHECK_THAT(console_table(sample_results(), {.colour = true}), Contains("\x1b[1;31mCRASHED") && Contains("\x1b[32mpassed"));
}

TEST_CASE("figures are short and never hide that they are not zero, finite or a number") {
  CHECK(short_figure(0) == "0");
  CHECK(short_figure(1e-30) == "<0.01");
  CHECK(short_figure(0.994) == "0.99");
  CHECK(short_figure(9.996) == "10.0");
  CHECK(short_figure(99.96) == "100");
  CHECK(short_figure(12345) == "1.2e+04");
  CHECK(short_figure(std::numeric_limits<double>::infinity()) == "inf");
  CHECK(short_figure(std::numeric_limits<double>::quiet_NaN()) == "nan");
  CHECK(short_duration(0.0123) == "12 ms");
  CHECK(short_duration(99.9) == "99.9 s");
  CHECK(short_duration(119.7) == "2 min 00 s");
}

TEST_CASE("progress says how far, how many failed, and how long it will take") {
  CHECK(progress_text({.planned = 100, .done = 25, .failed = 2}, 10) == "25/100 cases, 2 failed, 10.0 s, about 30.0 s left");
  CHECK(progress_text({.planned = 100, .done = 0, .failed = 0}, 10) == "0/100 cases, 10.0 s");
  CHECK(progress_text({.planned = 4, .done = 4, .failed = 0}, 10) == "4/4 cases, 10.0 s");
}

TEST_CASE("the Markdown summary holds a row per kernel, every failure with its command, and the reasons") {
  const std::string text = to_summary_markdown(sample_results());
  CHECK(lines_of(text).front() == "## kdacheck: FAILED");
  CHECK_THAT(line_with(text, "| cpu.right"), Contains("| fp32 throughout, C=16 | passed | 3 | 0.75 |"));
  CHECK_THAT(line_with(text, "| cpu.wrong"), Contains("**CRASHED**"));
  CHECK_THAT(text, Contains("`./kdacheck replay TOKEN-cpu.wrong-slow-decay`"));
  CHECK_THAT(text, Contains("| cpu.right | K=60 is not in 16..256/16 | 1 |"));
}

TEST_CASE("a bar, a line break or markup in a name does not break the Markdown table") {
  Results results;
  CaseResult odd = sample_case("a|b\n<b>*_", Verdict::passed, 0.5);
  add(results, odd);
  const std::string row = line_with(to_summary_markdown(results), "a\\|b");
  CHECK_THAT(row, Contains("| a\\|b &lt;b&gt;\\*\\_ |"));
}
