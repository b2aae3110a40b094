#pragma once
// The line on standard error that shows how far a run is: only on a terminal, a few times a second.

#include "../properties/campaign.hpp"

#include <chrono>
#include <string>

namespace kdacheck {

/// "1203/2120 cases, 2 failed, 31.0 s, about 24.0 s left"
std::string progress_text(const Progress&, double seconds);

class ProgressLine {
public:
  ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() { clear(); }
  void show(const Progress&);
  void clear(); ///< before anything else is printed

private:
  bool terminal_, drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

} // namespace kdacheck
