#include "junit.hpp"

#include "words.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <pugixml.hpp>
#include <sstream>

namespace kdacheck {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD"; // U+FFFD

struct CodePoint {
  char32_t value = 0;
  std::size_t bytes = 0; ///< 0: not UTF-8
};

/// Decodes one character; overlong forms and surrogates are not UTF-8.
CodePoint decode(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return {first, 1};
  const std::size_t bytes = first >= 0xF0 && first < 0xF5 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
  if (bytes == 0 || first >= 0xF5 || text.size() < bytes) return {};
  char32_t value = first & (0x7Fu >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xC0u) != 0x80u) return {};
    value = (value << 6) | (byte(i) & 0x3Fu);
  }
  const bool overlong = (bytes == 3 && value < 0x800) || (bytes == 4 && value < 0x10000);
  if (overlong || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return {};
  return {value, bytes};
}

bool allowed(char32_t c) {
  if (c < 0x20) return c == '\t' || c == '\n'; // readers turn a carriage return into a line feed
  return c != 0x7F && c != 0xFFFE && c != 0xFFFF;
}

void set(pugi::xml_node node, const char* attribute, std::string_view value) {
  node.append_attribute(attribute).set_value(xml_characters(value).c_str());
}

void describe(pugi::xml_node testcase, const Context& context, const Tally& tally) {
  const Verdict verdict = tally.verdict();
  const CaseResult& worst = *tally.worst;
  if (verdict == Verdict::passed) return;
  const bool skipped = !is_failure(verdict);
  const bool error = verdict == Verdict::crashed || verdict == Verdict::timed_out;
  auto node = testcase.append_child(skipped ? "skipped" : error ? "error" : "failure");
  const std::string place = worst.finding.place ? to_text(*worst.finding.place) : "";
  std::string message = fmt::format("{}: error/bound {}", spoken(verdict), short_figure(worst.finding.bound_util));
  if (skipped) message = fmt::format("{}: {}", spoken(verdict), worst.finding.detail);
  if (!place.empty()) message += "; " + place;
  set(node, "message", message);
  if (!skipped) set(node, "type", name(verdict));
  if (skipped) return;
  std::string text = spoken(tally.counts) + "\n";
  if (!worst.finding.detail.empty()) text += worst.finding.detail + "\n";
  if (!place.empty()) text += place + "\n";
  if (!tally.localised.empty()) text += tally.localised + "\n";
  text += replay_command(context, worst) + "\n";
  if (const std::string seen = first_seen(context, worst); !seen.empty()) text += seen + "\n";
  node.text().set(xml_characters(text).c_str());
}

struct Sums {
  std::size_t tests = 0, failures = 0, errors = 0, skipped = 0;
  double seconds = 0;
  void count(const Tally& tally) {
    const Verdict verdict = tally.verdict();
    const bool error = verdict == Verdict::crashed || verdict == Verdict::timed_out;
    ++tests;
    errors += error;
    failures += is_failure(verdict) && !error;
    skipped += verdict == Verdict::inconclusive || verdict == Verdict::not_supported;
    seconds += tally.seconds;
  }
  void write(pugi::xml_node node) const {
    set(node, "tests", std::to_string(tests));
    set(node, "failures", std::to_string(failures));
    set(node, "errors", std::to_string(errors));
    set(node, "skipped", std::to_string(skipped));
    set(node, "time", fmt::format("{:.3f}", seconds));
  }
};

} // namespace

std::string xml_characters(std::string_view text) {
  std::string clean;
  while (!text.empty()) {
    const CodePoint c = decode(text);
    const std::size_t bytes = std::max<std::size_t>(c.bytes, 1);
    clean += c.bytes > 0 && allowed(c.value) ? text.substr(0, bytes) : replacement;
    text.remove_prefix(bytes);
  }
  return clean;
}

std::string to_junit_xml(const Results& results) {
  pugi::xml_document document;
  auto root = document.append_child("testsuites");
  set(root, "name", "kdacheck");
  Sums all;
  for (const auto& [key, tally] : results.groups) all.count(tally);
  all.write(root);
  for (const KernelTally& kernel : results.kernels) {
    auto suite = root.append_child("testsuite");
    set(suite, "name", kernel.name);
    Sums sums;
    for (const auto& [key, tally] : results.groups)
      if (key.kernel == kernel.name) sums.count(tally);
    sums.write(suite);
    if (!results.context.started.empty()) set(suite, "timestamp", results.context.started.substr(0, 19));
    if (!results.context.host.empty()) set(suite, "hostname", results.context.host);
    auto properties = suite.append_child("properties");
    const auto property = [&](const char* key, std::string_view value) {
      auto node = properties.append_child("property");
      set(node, "name", key);
      set(node, "value", value);
    };
    property("contract", kernel.contract);
    property("tier", results.context.tier);
    property("seed", std::to_string(results.context.seed));
    property("commit", results.context.commit);
    for (const auto& [key, tally] : results.groups) {
      if (key.kernel != kernel.name) continue;
      auto testcase = suite.append_child("testcase");
      set(testcase, "classname", key.kernel + "." + key.property);
      set(testcase, "name", key.property + " [" + key.regime + "]");
      set(testcase, "time", fmt::format("{:.3f}", tally.seconds));
      describe(testcase, results.context, tally);
    }
  }
  std::ostringstream stream;
  document.save(stream, "  ", pugi::format_default, pugi::encoding_utf8);
  return stream.str();
}

} // namespace kdacheck
