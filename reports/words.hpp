#pragma once
// How verdicts and figures are worded for people.

#include "results.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

/// "passed", "FAILED (proved)", "not supported".
std::string_view spoken(Verdict);

/// Three figures: "0", "<0.01", "0.43", "13.2", "1.2e+04", "inf", "nan".
std::string short_figure(double);

/// "1.2 s", "340 ms", "2 min 05 s".
std::string short_duration(double seconds);

/// The command that runs one case again, as a shell takes it.
std::string replay_command(const Context&, const std::string& token);

/// The same for the simplest token known.
std::string replay_command(const Context&, const CaseResult&);

/// Where that is not the case that place and figures are of, the command that runs that one. Else empty.
std::string first_seen(const Context&, const CaseResult&);

/// "2120 cases: 2100 passed, 3 FAILED (proved), 17 not supported": verdicts without a case are left out.
std::string spoken(const Counts&);

/// "oracle beyond fp64: 350 cases in double_double, 20 in 226 bits", or nothing where fp64 was precise enough for all.
std::string spoken_escalation(const Results&);

/// A group with at least one failure.
struct FailedGroup {
  const GroupKey* key;
  const Tally* tally;
};

/// Failing groups, kernels in the order of the results, the gravest first.
std::vector<FailedGroup> failed_groups(const Results&);

/// Cuts a text to a width, ".." marking the cut.
std::string fitted_to(std::string text, std::size_t width);

} // namespace kdacheck
