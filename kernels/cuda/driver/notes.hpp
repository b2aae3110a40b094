#pragma once

#include <nlohmann/json.hpp>

#include <cstdio>

namespace kdacheck::cuda {

/// Rows of `report["behaviour"]`, printed as they come.
class Notes {
public:
  explicit Notes(nlohmann::json& report) : report_(report) {}

  void operator()(const char* what, const char* kernel, bool good) {
    report_["behaviour"].push_back({{"what", what}, {"kernel", kernel}, {"good", good}});
    std::printf("%-55s %-12s %s\n", what, kernel, good ? "yes" : "NO");
    std::fflush(stdout);
    all_ = all_ && good;
  }

  /// A check that this machine cannot run: neither good nor bad, and written down as such.
  void not_run(const char* what, const char* kernel, const char* why) {
    report_["behaviour"].push_back({{"what", what}, {"kernel", kernel}, {"good", nullptr}, {"not_run", why}});
    std::printf("%-55s %-12s not run: %s\n", what, kernel, why);
  }

  bool all_good() const { return all_; }

private:
  nlohmann::json& report_;
  bool all_ = true;
};

} // namespace kdacheck::cuda
