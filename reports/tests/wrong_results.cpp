#include "../case_log.hpp"
#include "../commands.hpp"
#include "../compare.hpp"
#include "../result_files.hpp"
#include "sample_results.hpp"

#include "../../reference/atomic_file.hpp"
#include "../../reference/safetensors.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <sys/stat.h>
#include <vector>

using namespace kdacheck;
namespace fs = std::filesystem;

namespace {

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A good run in `good`, another in `other` to be spoilt, pages of before in both; gone with the object.
struct TwoRuns {
  fs::path place, good, other;

  TwoRuns() {
    std::string pattern = (fs::temp_directory_path() / "kdacheck-test-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    place = pattern, good = place / "good", other = place / "other";
    for (const fs::path& folder : {good, other}) {
      make_folder(folder);
      write(folder, true);
      for (const char* page : {"report.html", "history.html"}) write_atomically(folder / page, "page from before");
    }
  }
  TwoRuns(const TwoRuns&) = delete;
  TwoRuns& operator=(const TwoRuns&) = delete;
  ~TwoRuns() { fs::remove_all(place); }

  static void write(const fs::path& folder, bool with_case) {
    fs::remove(folder / "cases.jsonl");
    Results results;
    results.context.program = "abcdef";
    CaseLog log(folder / "cases.jsonl", results.context.program, false);
    if (with_case) {
      const CaseResult result = sample_case("k", Verdict::passed, 0.5);
      log.append(result);
      add(results, result);
    }
    write_result_files(results, folder);
  }

  void replace(const char* file, const std::string& part, const std::string& by) const {
    std::string text = text_of(other / file);
    const auto at = text.find(part);
    REQUIRE(at != std::string::npos);
    write_atomically(other / file, text.replace(at, part.size(), by));
  }
};

/// How a command refuses: every way in which it can be given the spoilt run says the same sentence (status 2), and writes nothing.
void refused(const TwoRuns& runs, const std::function<int()>& command, const std::string& sentence) {
  INFO(sentence);
  const auto listing = [&] {
    std::ostringstream names;
    for (const auto& entry : fs::recursive_directory_iterator(runs.place)) names << entry.path() << "\n";
    return names.str();
  };
  const std::string before = listing();
  std::string said;
  try {
    command();
  } catch (const std::invalid_argument& error) { // status 2
    said = error.what();
  } catch (const BadFile& error) { // 2 as well
    said = error.what();
  }
  CHECK_THAT(said, Catch::Contains(sentence));
  CHECK(said.find('\n') == std::string::npos);
  CHECK(listing() == before);
  for (const fs::path& folder : {runs.good, runs.other})
    for (const char* page : {"report.html", "history.html"}) CHECK(text_of(folder / page) == "page from before");
}

void refused_by_all(const TwoRuns& runs, const std::string& sentence) {
  const std::string good = runs.good.string(), other = runs.other.string();
  refused(
      runs, [&] { return report_command({.folders = {other}}); }, sentence);
  refused(
      runs,
      [&] {
        return history_command({.folders = {good, other}, .history = true});
      },
      sentence);
  refused(
      runs,
      [&] {
        return history_command({.folders = {other, good}, .history = true});
      },
      sentence);
  refused(
      runs, [&] { return compare_command(good, other); }, sentence);
  refused(
      runs, [&] { return compare_command(other, good); }, sentence);
}

} // namespace

TEST_CASE("two good runs are reported, compared and put in a row") {
  const TwoRuns runs;
  CHECK(report_command({.folders = {runs.other.string()}}) == 0);
  CHECK(compare_command(runs.good.string(), runs.other.string()) == 0);
  CHECK(history_command({.folders = {runs.good.string(), runs.other.string()}, .history = true}) == 0);
}

TEST_CASE("a page is not written over a file that is none, and over a page it is") {
  const TwoRuns runs;
  const std::string good = runs.good.string(), other = runs.other.string(), log = (runs.good / "cases.jsonl").string();
  const std::string before = text_of(log);
  refused(
      runs, [&] { return report_command({.folders = {good}, .out = log}); }, "is no page of a report: it is left as it is");
  refused(
      runs,
      [&] {
        return history_command({.folders = {good, other}, .out = (runs.other / "report.json").string(), .history = true});
      },
      "is no page of a report: it is left as it is");
  CHECK(text_of(log) == before);
  const std::string foreign = "<!doctype html>\n<html lang=\"en\">\n<title>mine</title>\n", index = (runs.place / "index.html").string();
  write_atomically(index, foreign);
  refused(
      runs, [&] { return report_command({.folders = {good}, .out = index}); }, "is no page of a report: it is left as it is");
  CHECK(text_of(index) == foreign);
  const std::string page = (runs.place / "page.html").string();
  for (int time = 0; time < 2; ++time) {
    CHECK(report_command({.folders = {good}, .out = page}) == 0);
    CHECK(history_command({.folders = {good, other}, .out = page, .history = true}) == 0);
  }
}

TEST_CASE("an empty run is refused by report, history and compare") {
  const TwoRuns runs;
  TwoRuns::write(runs.other, false);
  refused_by_all(runs, "holds an empty run");
}

TEST_CASE("results of another schema version are refused by report, history and compare") {
  const TwoRuns runs;
  runs.replace("report.json", "\"schema_version\": 1", "\"schema_version\": 7");
  refused_by_all(runs, "report.json has schema version 7; this program reads version 1");
}

TEST_CASE("a schema version that is none, a report that is another program's and one that is cut off are refused by all") {
  for (const char* version : {"\"one\"", "null", "1.5"}) {
    const TwoRuns runs;
    runs.replace("report.json", "\"schema_version\": 1", std::string("\"schema_version\": ") + version);
    refused_by_all(runs, "report.json");
  }
  const TwoRuns runs;
  write_atomically(runs.other / "report.json", R"({"version": 1, "tests": []})");
  refused_by_all(runs, "report.json is not a report of this suite");
  write_atomically(runs.other / "report.json", text_of(runs.good / "report.json").substr(0, 300));
  refused_by_all(runs, "report.json is not a report of this suite");
  write_atomically(runs.other / "report.json", "");
  refused_by_all(runs, "report.json is not a report of this suite");
  fs::remove(runs.other / "report.json");
  refused_by_all(runs, "cannot read " + (runs.other / "report.json").string());
}

TEST_CASE("a case log that was cut, at a line or inside one, is refused by report, history and compare") {
  const TwoRuns runs;
  std::string log = text_of(runs.other / "cases.jsonl");
  const auto cut = [&](const std::string& text, const std::string& sentence) {
    write_atomically(runs.other / "cases.jsonl", text);
    refused_by_all(runs, sentence);
  };
  cut("", "holds other cases than");
  cut(log + log, "holds other cases than");
  cut(log.substr(0, log.size() - 2), "is cut off in its last line");
  fs::remove(runs.other / "cases.jsonl");
  refused_by_all(runs, "cannot read " + (runs.other / "cases.jsonl").string());
}

TEST_CASE("a report whose groups are not those of its cases is refused by report, history and compare") {
  const TwoRuns figure, regime;
  figure.replace("report.json", R"("worst":{"bound_util":0.5)", R"("worst":{"bound_util":0.25)");
  refused_by_all(figure, "holds other cases than");
  regime.replace("report.json", R"("regime":"slow-decay","verdict")", R"("regime":"fast-decay","verdict")");
  refused_by_all(regime, "holds other cases than");
}

TEST_CASE(
    "a report that says otherwise than its cases in summary, escalated, worst, verdict or time is refused by report, history and compare") {
  struct Edit {
    const char *part, *by, *key;
  };
  const std::string kernel = "kernels[k].";
  for (const auto& [part, by, key] : std::vector<Edit>{
           {"\"summary\": {\n  \"cases\": 1", "\"summary\": {\n  \"cases\": 2", "'summary'"},
           {"\"summary\"", "\"sum\"", "'summary'"},
           {"\"escalated\": {}", "\"escalated\": {\"226 bits\": 1}", "'escalated'"},
           {"\"not_supported\": []", R"("not_supported": [{"kernel": "k", "reason": "x", "cases": 1}])", "'not_supported'"},
           {"\"bound_util\": 0.5", "\"bound_util\": 0.25", "'kernels[k].worst.bound_util'"},
           {"\"regime\": \"slow-decay\"", "\"regime\": \"fast-decay\"", "'kernels[k].worst.regime'"},
           {"\"output\": null", "\"output\": \"dq\"", "'kernels[k].worst.output'"},
           {"\"place\": null", "\"place\": \"elsewhere\"", "'kernels[k].worst.place'"},
           {"\"seconds\": 0.25", "\"seconds\": 0.125", "'kernels[k].seconds'"},
           {"\"verdict\": \"passed\",\n   \"cases\": 1", "\"verdict\": \"crashed\",\n   \"cases\": 1", "'kernels[k].verdict'"}}) {
    INFO(part);
    const TwoRuns runs;
    runs.replace("report.json", part, by);
    refused_by_all(runs, std::string("report.json: ") + key + " is not what the cases in cases.jsonl give");
  }
}

TEST_CASE("a report that does not list a kernel of its cases, or lists one twice, is refused by report, history and compare") {
  const TwoRuns renamed, twice;
  renamed.replace("report.json", "\"name\": \"k\"", "\"name\": \"l\"");
  refused_by_all(renamed, "report.json: 'kernels[l].");
  const std::string text = text_of(twice.good / "report.json");
  const auto start = text.find("\"kernels\": [") + 12, end = text.find("\n ],\n \"modules\"");
  REQUIRE(end != std::string::npos);
  const std::string entry = text.substr(start, end - start);
  std::string none = entry; // the second counts no case, so that the sums are right
  for (auto at = none.find(": 1,"); at != std::string::npos; at = none.find(": 1,", at + 1)) none.replace(at, 4, ": 0,");
  twice.replace("report.json", entry, entry + "," + none);
  refused_by_all(twice, "report.json: 'kernels[k]' is not what the cases in cases.jsonl give");
}

TEST_CASE("a folder or a pipe in the place of a run's file, and a file in that of its folder, are refused by report, history and compare") {
  const auto spoilt = [](const std::string& name, bool pipe) {
    const TwoRuns runs;
    const fs::path path = runs.other / name;
    fs::remove(path);
    if (pipe)
      REQUIRE(mkfifo(path.c_str(), 0600) == 0);
    else
      fs::create_directory(path);
    const std::string sentence =
        path.string() + (pipe ? " is a pipe or a device, where a file is due" : " is a folder, where a file is due");
    if (name == "report.json" || name == "cases.jsonl") return refused_by_all(runs, sentence);
    refused(
        runs, [&] { return report_command({.folders = {runs.other.string()}}); }, sentence);
  };
  for (const char* name : {"report.json", "cases.jsonl", "series.json", "bench.json", "power.json"})
    for (const bool pipe : {false, true}) spoilt(name, pipe);
  const TwoRuns runs;
  fs::remove_all(runs.other);
  write_atomically(runs.other, "a file");
  const std::string sentence = runs.other.string() + " is a file, where a folder is due";
  for (const auto& command : std::vector<std::function<int()>>{[&] { return report_command({.folders = {runs.other.string()}}); },
                                                               [&] { return compare_command(runs.good.string(), runs.other.string()); }})
    CHECK_THROWS_WITH(command(), sentence);
  CHECK_THROWS_WITH(report_command({.folders = {runs.good.string()}, .out = runs.place.string()}),
                    runs.place.string() + " is a folder, where a file is due");
  CHECK_THROWS_WITH(report_command({.folders = {runs.good.string()}, .figures = runs.other.string()}), Catch::Contains("is a file"));
}

TEST_CASE("cases that another build of the program wrote are not taken for the report's") {
  const TwoRuns runs;
  runs.replace("cases.jsonl", "\"program\":\"abcdef\"", "\"program\":\"fedcba\"");
  refused(
      runs, [&] { return report_command({.folders = {runs.other.string()}}); }, "holds other cases than");
}

TEST_CASE("what lies beside a run is refused if it is of another version or of another kind") {
  for (const char* name : {"series.json", "bench.json", "power.json"}) {
    const TwoRuns runs;
    for (const char* text :
         {R"({"schema_version": 7, "rows": [], "faults": [], "drift": [], "spectra": []})", "{", "[]", R"({"schema_version": 1})"}) {
      write_atomically(runs.other / name, text);
      refused(
          runs, [&] { return report_command({.folders = {runs.other.string()}}); }, name);
    }
  }
  const TwoRuns runs;
  write_atomically(runs.good / "bench.json", R"({"schema_version": 1, "rows": []})");
  for (const char* text : {R"({"schema_version": 7, "rows": []})", "{", "[]"}) {
    write_atomically(runs.other / "bench.json", text);
    refused(
        runs, [&] { return compare_command(runs.good.string(), runs.other.string()); }, "bench.json");
  }
}
