#include "../case_log.hpp"
#include "../commands.hpp"
#include "../result_files.hpp"
#include "sample_results.hpp"

#include "../../reference/atomic_file.hpp"
#include "../../reference/safetensors.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <fstream>
#include <iterator>

using namespace kdacheck;

namespace {

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A result folder of two cases with a page from before; gone with the object.
struct ResultFolder {
  std::filesystem::path folder;
  std::filesystem::path report = "report.json", cases = "cases.jsonl", page = "report.html";

  explicit ResultFolder(bool empty = false) {
    std::string pattern = (std::filesystem::temp_directory_path() / "kdacheck-test-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    folder = pattern;
    for (auto* path : {&report, &cases, &page}) *path = folder / *path;
    Results results;
    results.context.program = "abcdef";
    CaseLog log(cases, results.context.program, false);
    for (const Verdict verdict : {Verdict::passed, Verdict::failed_proved}) {
      if (empty) continue;
      const CaseResult result = sample_case("cpu.wrong", verdict, 2);
      log.append(result);
      add(results, result);
    }
    write_result_files(results, folder);
    write_atomically(page, "page from before");
  }
  ResultFolder(const ResultFolder&) = delete;
  ResultFolder& operator=(const ResultFolder&) = delete;
  ~ResultFolder() { std::filesystem::remove_all(folder); }

  void replace(const std::filesystem::path& path, const std::string& part, const std::string& by) const {
    std::string text = text_of(path);
    const auto at = text.find(part);
    REQUIRE(at != std::string::npos);
    write_atomically(path, text.replace(at, part.size(), by));
  }

  /// The sentence with which the report is refused; the page from before must still stand.
  std::string refusal() const {
    std::string sentence;
    try {
      report_command({.folders = {folder.string()}});
    } catch (const std::invalid_argument& error) { // status 2
      sentence = error.what();
    } catch (const BadFile& error) { // 2 as well
      sentence = error.what();
    }
    CHECK(text_of(page) == "page from before");
    CHECK(sentence.find('\n') == std::string::npos);
    return sentence;
  }
};

} // namespace

TEST_CASE("a report is written into the folder of its run, or where it is told to") {
  const ResultFolder run;
  CHECK(report_command({.folders = {run.folder.string()}, .out = (run.folder / "other.html").string()}) == 0);
  CHECK(text_of(run.page) == "page from before");
  CHECK(text_of(run.folder / "other.html").find("error 1e-3 where 1e-4 is the bound") != std::string::npos);
  CHECK(report_command({.folders = {run.folder.string()}}) == 0);
  CHECK(text_of(run.page) == text_of(run.folder / "other.html"));
}

TEST_CASE("a folder without results is refused") {
  const ResultFolder no_report, no_cases;
  std::filesystem::remove(no_report.report);
  CHECK_THAT(no_report.refusal(), Catch::Contains("cannot read " + no_report.report.string()));
  std::filesystem::remove(no_cases.cases);
  CHECK_THAT(no_cases.refusal(), Catch::Contains("cannot read " + no_cases.cases.string()));
}

TEST_CASE("results of another schema version are refused") {
  const ResultFolder other_report, other_case;
  other_report.replace(other_report.report, "\"schema_version\": 1", "\"schema_version\": 2");
  CHECK_THAT(other_report.refusal(), Catch::Contains("schema version 2"));
  other_case.replace(other_case.cases, "\"schema_version\":1", "\"schema_version\":2");
  CHECK_THAT(other_case.refusal(), Catch::Contains("line 1"));
}

TEST_CASE("an empty run is refused") { CHECK_THAT(ResultFolder(true).refusal(), Catch::Contains("empty run")); }

TEST_CASE("torn files are refused") {
  const ResultFolder torn_report, torn_cases;
  std::filesystem::resize_file(torn_report.report, std::filesystem::file_size(torn_report.report) / 2);
  CHECK_THAT(torn_report.refusal(), Catch::Contains("not a report"));
  std::filesystem::resize_file(torn_cases.cases, std::filesystem::file_size(torn_cases.cases) - 5);
  CHECK_THAT(torn_cases.refusal(), Catch::Contains("cut off"));
}

TEST_CASE("cases that the report does not count are refused") {
  const ResultFolder run;
  run.replace(run.cases, "\"verdict\":\"failed_proved\"", "\"verdict\":\"passed\"");
  CHECK_THAT(run.refusal(), Catch::Contains("holds other cases"));
}

TEST_CASE("without the charting library nothing is written") {
  const ResultFolder run;
  setenv("KDACHECK_CHART_JS", "/nonexistent/chart.js", 1);
  CHECK_THROWS_AS(report_command({.folders = {run.folder.string()}}), FileTrouble); // status 3
  unsetenv("KDACHECK_CHART_JS");
  CHECK(text_of(run.page) == "page from before");
}
