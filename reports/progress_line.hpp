#pragma once
// The line on standard error that shows how far a run is: only on a terminal, a few times a second.

#include "../properties/campaign.hpp"

#include <chrono>
#include <string>
#include <string_view>

namespace kdacheck {

/// "1203/2120 cases, 2 failed, 31.0 s, about 24.0 s left"
std::string progress_text(const Progress&, double seconds, std::string_view failed = "failed");

class ProgressLine {
public:
  ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() { clear(); }
  /// `before`: what stands before the count; a new one starts a count of its own. `failed`: what a failure is called.
  void show(const Progress&, const std::string& before = {}, std::string_view failed = "failed");
  void clear(); ///< before anything else is printed

private:
  bool terminal_, drawn_ = false;
  std::string before_;
  std::chrono::steady_clock::time_point start_, last_;
};

} // namespace kdacheck
