#include "../case_log.hpp"
#include "../../reference/atomic_file.hpp"
#include "sample_results.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <fstream>
#include <iterator>
#include <sys/resource.h>
#include <unistd.h>

using namespace kdacheck;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("kdacheck-case-log-" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Makes every write beyond `bytes` fail, as a full disk does.
struct SmallDisk {
  rlimit before{};
  explicit SmallDisk(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    rlimit limit = before;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SmallDisk() { setrlimit(RLIMIT_FSIZE, &before); }
};

CaseResult full_case() {
  CaseResult result = sample_case("cpu.wrong", Verdict::failed_proved, std::numeric_limits<double>::infinity());
  result.shrunk = "SHORT";
  result.finding.place->token = 17;
  result.finding.place->chunk_position = 1;
  result.finding.metrics = {.max_abs_err = 0.1, .rms_rel_err = 1e-300, .token_rel_err_max = -1, .ulp_max = 3};
  result.finding.oracle = "226 bits";
  result.finding.detail = "a \"quoted\" line\nand another";
  return result;
}

void check_same(const CaseResult& left, const CaseResult& right) {
  CHECK(left.kernel == right.kernel);
  CHECK(left.property == right.property);
  CHECK(left.regime == right.regime);
  CHECK(left.replay == right.replay);
  CHECK(left.shrunk == right.shrunk);
  CHECK(left.seconds == right.seconds);
  CHECK(left.finding.verdict == right.finding.verdict);
  CHECK(left.finding.bound_util == right.finding.bound_util);
  CHECK(left.finding.place == right.finding.place);
  CHECK(left.finding.detail == right.finding.detail);
  CHECK(left.finding.metrics == right.finding.metrics);
  CHECK(left.finding.oracle == right.finding.oracle);
}

} // namespace

TEST_CASE("every case comes back from its line as it was") {
  const Folder folder;
  const CaseResult plain = sample_case("cpu.right", Verdict::passed, 0.1), full = full_case();
  {
    CaseLog log(folder.path / "cases.jsonl", "program", false);
    log.append(plain);
    log.append(full);
    log.sync();
  }
  const RecordedCases recorded = read_case_log(folder.path / "cases.jsonl", "program");
  REQUIRE(recorded.cases.size() == 2);
  CHECK_FALSE(recorded.torn);
  check_same(recorded.cases[0], plain);
  check_same(recorded.cases[1], full);
}

TEST_CASE("a line is on file before the next case starts") {
  const Folder folder;
  CaseLog log(folder.path / "cases.jsonl", "program", false);
  log.append(full_case());
  CHECK(read_case_log(folder.path / "cases.jsonl", "program").cases.size() == 1);
}

TEST_CASE("a log cut off at any byte keeps every whole line, and goes on from there") {
  const Folder folder;
  const fs::path path = folder.path / "cases.jsonl";
  const std::string first = to_json_line(sample_case("a", Verdict::passed, 0.5), "program") + "\n";
  const std::string second = to_json_line(full_case(), "program") + "\n";
  for (std::size_t kept = 0; kept < second.size(); ++kept) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << first << second.substr(0, kept);
    const RecordedCases recorded = read_case_log(path, "program");
    REQUIRE(recorded.cases.size() == 1);
    REQUIRE(recorded.torn == (kept > 0));
    CaseLog(path, "program", true).append(full_case());
    REQUIRE(contents(path) == first + second);
  }
}

TEST_CASE("a log that does not go on starts empty") {
  const Folder folder;
  const fs::path path = folder.path / "cases.jsonl";
  CaseLog(path, "program", false).append(full_case());
  CaseLog(path, "program", false).append(full_case());
  CHECK(read_case_log(path, "program").cases.size() == 1);
}

TEST_CASE("cases of another program do not count but are counted") {
  const Folder folder;
  const fs::path path = folder.path / "cases.jsonl";
  CaseLog(path, "old", false).append(full_case());
  CaseLog(path, "new", true).append(full_case());
  const RecordedCases recorded = read_case_log(path, "new");
  CHECK(recorded.cases.size() == 1);
  CHECK(recorded.other_programs == 1);
}

TEST_CASE("a missing log holds nothing") { CHECK(read_case_log("/nowhere/cases.jsonl", "program").cases.empty()); }

TEST_CASE("a whole line that is no case is refused with its number") {
  const Folder folder;
  const fs::path path = folder.path / "cases.jsonl";
  const std::string good = to_json_line(full_case(), "program") + "\n";
  std::ofstream(path) << good << "{\"kernel\": 3}\n" << good;
  CHECK_THROWS_WITH(read_case_log(path, "program"), path.string() + ": line 2 is not a case of this suite");
  std::string odd = good;
  odd.replace(odd.find("failed_proved"), 13, "failed_melted");
  std::ofstream(path, std::ios::trunc) << odd;
  CHECK_THROWS_WITH(read_case_log(path, "program"), path.string() + ": line 1 has the unknown verdict \"failed_melted\"");
}

TEST_CASE("a log that cannot be written is one sentence") {
  const Folder folder;
  std::ofstream(folder.path / "file") << "x";
  CHECK_THROWS_AS(CaseLog(folder.path / "file" / "cases.jsonl", "program", false), FileTrouble);
}

TEST_CASE("a full disk is one sentence, and what was written before can be read") {
  const Folder folder;
  const fs::path path = folder.path / "cases.jsonl";
  const std::size_t line = to_json_line(full_case(), "program").size() + 1;
  {
    CaseLog log(path, "program", false);
    const SmallDisk disk(2 * line + line / 2);
    log.append(full_case());
    log.append(full_case());
    CHECK_THROWS_WITH(log.append(full_case()), Catch::StartsWith("cannot write " + path.string() + ": "));
  }
  const RecordedCases recorded = read_case_log(path, "program");
  CHECK(recorded.cases.size() == 2);
  CHECK_FALSE(recorded.torn); // what did not fit is taken back
  CHECK(fs::file_size(path) == 2 * line);
}
