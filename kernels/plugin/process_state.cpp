#include "process_state.hpp"

#include <fcntl.h>
#include <locale.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace kdacheck::plugin {
namespace {

mode_t file_mask() {
  const mode_t mask = umask(0);
  umask(mask);
  return mask;
}

bool is_environment(const std::vector<std::string>& words) {
  char** at = environ;
  for (const std::string& word : words)
    if (!at || !*at || word != *at++) return false;
  return !at || !*at;
}

} // namespace

ProcessState::ProcessState(const std::fenv_t& mode)
    : mode_(mode), folder_(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC)), file_mask_(file_mask()) {
  pthread_sigmask(SIG_BLOCK, nullptr, &signals_);
  for (char** at = environ; at && *at; ++at) environment_.emplace_back(*at);
  if (const char* now = setlocale(LC_ALL, nullptr)) locale_ = now;
  for (int i = 0; i < static_cast<int>(limits_.size()); ++i)
    getrlimit(static_cast<__rlimit_resource_t>(i), &limits_[static_cast<std::size_t>(i)]);
}

ProcessState::~ProcessState() {
  if (folder_ >= 0) close(folder_);
}

void ProcessState::restore() const {
  std::fesetenv(&mode_);
  pthread_sigmask(SIG_SETMASK, &signals_, nullptr);
  alarm(0);
  umask(static_cast<mode_t>(file_mask_));
  if (folder_ >= 0 && fchdir(folder_) != 0) { // it is gone: so it was for the process as it began
  }
  uselocale(LC_GLOBAL_LOCALE);
  if (const char* now = setlocale(LC_ALL, nullptr); now && locale_ != now) setlocale(LC_ALL, locale_.c_str());
  if (!is_environment(environment_)) {
    clearenv();
    for (const std::string& word : environment_)
      if (const auto equals = word.find('='); equals != word.npos) setenv(word.substr(0, equals).c_str(), word.c_str() + equals + 1, 1);
  }
  for (int i = 0; i < static_cast<int>(limits_.size()); ++i) {
    const rlimit& due = limits_[static_cast<std::size_t>(i)];
    rlimit now{};
    const auto which = static_cast<__rlimit_resource_t>(i);
    if (getrlimit(which, &now) == 0 && (now.rlim_cur != due.rlim_cur || now.rlim_max != due.rlim_max) && setrlimit(which, &due) != 0) {
      now.rlim_cur = std::min(due.rlim_cur, now.rlim_max);
      setrlimit(which, &now);
    }
  }
}

} // namespace kdacheck::plugin
