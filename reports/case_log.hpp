#pragma once
// cases.jsonl: one case a line, written as it finishes, so that an interrupted run keeps what it had.
//
// Keys of a line: schema_version, program, kernel, property, regime, verdict, bound_util, seconds, replay; where there is
// something to say: shrunk, detail, place{tensor, sequence, head, token, channel, row, chunk_position}, metrics{...}:
// max_abs_err; rms_rel_err, rms of the errors over rms of the exact numbers; token_rel_err_max, the same of the worst token
// (or row of a state); ulp_max, the largest error in ulps of the larger of the exact number and the rms of its token.

#include "../properties/campaign.hpp"

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

/// One line, without its end. Bytes that are not UTF-8 are replaced.
std::string to_json_line(const CaseResult&, std::string_view program);

/// What a case log holds for a given program.
struct RecordedCases {
  std::vector<CaseResult> cases;  ///< made by this program
  std::size_t other_programs = 0; ///< lines of another build: they do not count
  bool torn = false;              ///< the last line was cut off, as by a crash, and is left out
};

/// Reads a log. A missing file holds nothing. Throws std::invalid_argument with one sentence for a line (but a torn
/// last one) that is not a case.
RecordedCases read_case_log(const std::filesystem::path&, std::string_view program);

/// Appends cases to a log. Every function throws FileTrouble.
class CaseLog {
public:
  /// Starts an empty log, or goes on with one: then a torn last line is cut away first.
  CaseLog(std::filesystem::path, std::string program, bool go_on);
  CaseLog(const CaseLog&) = delete;
  CaseLog& operator=(const CaseLog&) = delete;
  ~CaseLog();

  /// Writes one line and hands it to the system at once.
  void append(const CaseResult&);
  /// Flushes to the disk.
  void sync();

private:
  std::filesystem::path path_;
  std::string program_;
  int descriptor_ = -1;
};

} // namespace kdacheck
