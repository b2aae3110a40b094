#include "progress_line.hpp"

#include "words.hpp"

#include <cstdio>
#include <fmt/format.h>
#include <unistd.h>

namespace kdacheck {
namespace {
constexpr std::chrono::milliseconds between_two(100);
}

std::string progress_text(const Progress& progress, double seconds, std::string_view failed) {
  std::string text = fmt::format("{}/{} cases", progress.done, progress.planned);
  if (progress.failed > 0) text += fmt::format(", {} {}", progress.failed, failed);
  text += ", " + short_duration(seconds);
  if (progress.done > 0 && progress.done < progress.planned && seconds > 1)
    text += ", about " +
            short_duration(seconds * static_cast<double>(progress.planned - progress.done) / static_cast<double>(progress.done)) + " left";
  return text;
}

ProgressLine::ProgressLine() : terminal_(::isatty(STDERR_FILENO) != 0), start_(std::chrono::steady_clock::now()) {}

void ProgressLine::show(const Progress& progress, const std::string& before, std::string_view failed) {
  const auto now = std::chrono::steady_clock::now();
  if (before != before_) before_ = before, start_ = now;
  if (!terminal_ || (drawn_ && now - last_ < between_two)) return;
  last_ = now;
  drawn_ = true;
  const std::string text = before + progress_text(progress, std::chrono::duration<double>(now - start_).count(), failed);
  fmt::print(stderr, "\r\x1b[K{}", text);
  std::fflush(stderr);
}

void ProgressLine::clear() {
  if (drawn_) fmt::print(stderr, "\r\x1b[K");
  drawn_ = false;
}

} // namespace kdacheck
