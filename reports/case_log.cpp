#include "case_log.hpp"

#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"
#include "json_numbers.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <unistd.h>
#include <utility>

namespace kdacheck {
namespace {

using Json = nlohmann::ordered_json;
constexpr int schema_version = 1;

constexpr std::array<std::pair<const char*, std::int64_t Place::*>, 6> place_fields{{{"sequence", &Place::sequence},
                                                                                     {"head", &Place::head},
                                                                                     {"token", &Place::token},
                                                                                     {"channel", &Place::channel},
                                                                                     {"row", &Place::row},
                                                                                     {"chunk_position", &Place::chunk_position}}};
constexpr std::array<std::pair<const char*, double Metrics::*>, 4> metric_fields{{{"max_abs_err", &Metrics::max_abs_err},
                                                                                  {"rms_rel_err", &Metrics::rms_rel_err},
                                                                                  {"token_rel_err_max", &Metrics::token_rel_err_max},
                                                                                  {"ulp_max", &Metrics::ulp_max}}};

CaseResult case_of(const Json& line) {
  CaseResult result;
  if (line.at("schema_version") != schema_version) throw std::invalid_argument("has schema version " + line.at("schema_version").dump());
  result.kernel = line.at("kernel");
  result.property = line.at("property");
  result.regime = line.at("regime");
  result.replay = line.at("replay");
  result.shrunk = line.value("shrunk", "");
  result.localised = line.value("localised", "");
  result.seconds = number_of(line.at("seconds"));
  const auto verdict = verdict_named(line.at("verdict").get<std::string>());
  if (!verdict) throw std::invalid_argument("has the unknown verdict " + line.at("verdict").dump());
  result.finding.verdict = *verdict;
  result.finding.bound_util = number_of(line.at("bound_util"));
  result.finding.detail = line.value("detail", "");
  result.finding.oracle = line.value("oracle", "");
  if (line.contains("place")) {
    const Json& place = line["place"];
    result.finding.place = Place{.tensor = place.at("tensor")};
    for (const auto& [key, field] : place_fields) (*result.finding.place).*field = place.value(key, std::int64_t{-1});
  }
  if (line.contains("metrics"))
    for (const auto& [key, field] : metric_fields)
      if (line["metrics"].contains(key)) result.finding.metrics.*field = number_of(line["metrics"][key]);
  return result;
}

} // namespace

std::string to_json_line(const CaseResult& result, std::string_view program) {
  const Finding& finding = result.finding;
  Json line{{"schema_version", schema_version},
            {"program", program},
            {"kernel", result.kernel},
            {"property", result.property},
            {"regime", result.regime},
            {"verdict", name(finding.verdict)},
            {"bound_util", json_number(finding.bound_util)},
            {"seconds", json_number(result.seconds)}};
  if (!finding.detail.empty()) line["detail"] = finding.detail;
  if (!finding.oracle.empty()) line["oracle"] = finding.oracle;
  if (finding.place) {
    Json place{{"tensor", finding.place->tensor}};
    for (const auto& [key, field] : place_fields)
      if ((*finding.place).*field != -1) place[key] = (*finding.place).*field;
    line["place"] = std::move(place);
  }
  Json metrics = Json::object();
  for (const auto& [key, field] : metric_fields)
    if (finding.metrics.*field != -1) metrics[key] = json_number(finding.metrics.*field);
  if (!metrics.empty()) line["metrics"] = std::move(metrics);
  line["replay"] = result.replay;
  if (!result.shrunk.empty()) line["shrunk"] = result.shrunk;
  if (!result.localised.empty()) line["localised"] = result.localised;
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

RecordedCases read_case_log(const std::filesystem::path& path, std::string_view program) {
  RecordedCases recorded;
  if (!std::filesystem::exists(path)) return recorded;
  demand_file(path);
  std::ifstream file(path, std::ios::binary);
  std::string line;
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    if (file.eof()) { // no newline behind it: the write was cut off
      recorded.torn = !line.empty();
      break;
    }
    try {
      const Json json = Json::parse(line);
      CaseResult result = case_of(json);
      if (json.at("program") == program)
        recorded.cases.push_back(std::move(result));
      else
        ++recorded.other_programs;
    } catch (const Json::exception&) {
      throw std::invalid_argument(path.string() + ": line " + std::to_string(number) + " is not a case of this suite");
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(path.string() + ": line " + std::to_string(number) + " " + error.what());
    }
  }
  return recorded;
}

CaseLog::CaseLog(std::filesystem::path path, std::string program, bool go_on) : path_(std::move(path)), program_(std::move(program)) {
  std::uintmax_t keep = 0;
  if (go_on && std::filesystem::is_regular_file(path_)) {
    std::ifstream file(path_, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    keep = text.rfind('\n') + 1; // npos + 1 is 0: nothing whole
  }
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw cannot_write(path_, errno);
  if (::ftruncate(descriptor_, static_cast<off_t>(keep)) != 0) {
    const int error_number = errno;
    ::close(descriptor_);
    throw cannot_write(path_, error_number);
  }
}

CaseLog::~CaseLog() { ::close(descriptor_); }

void CaseLog::append(const CaseResult& result) {
  const std::string line = to_json_line(result, program_) + "\n";
  std::string_view rest = line;
  const off_t before = ::lseek(descriptor_, 0, SEEK_END);
  while (!rest.empty()) {
    const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int error_number = errno;
      // a full disk may have taken half of the line
      if (before >= 0 && ::ftruncate(descriptor_, before) != 0) throw cannot_write(path_, errno);
      throw cannot_write(path_, error_number);
    }
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
}

void CaseLog::sync() {
  if (::fsync(descriptor_) != 0 && errno != EINVAL) throw cannot_write(path_, errno);
}

} // namespace kdacheck
