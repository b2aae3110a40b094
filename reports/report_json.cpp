#include "report_json.hpp"

#include "json_numbers.hpp"

#include "../properties/modules/module_campaign.hpp"
#include "module_figures.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

namespace kdacheck {
namespace {

using Json = nlohmann::ordered_json;
constexpr int schema_version = 1;

constexpr std::array<std::pair<const char*, std::string Context::*>, 11> context_texts{{{"host", &Context::host},
                                                                                        {"cpu", &Context::cpu},
                                                                                        {"gpu", &Context::gpu},
                                                                                        {"driver", &Context::driver},
                                                                                        {"commit", &Context::commit},
                                                                                        {"compiler", &Context::compiler},
                                                                                        {"build", &Context::build},
                                                                                        {"program", &Context::program},
                                                                                        {"started", &Context::started},
                                                                                        {"command", &Context::command},
                                                                                        {"tier", &Context::tier}}};

Json json_of(const Context& context) {
  Json json = Json::object();
  for (const auto& [key, field] : context_texts) json[key] = (context.*field).empty() ? Json() : Json(context.*field);
  json["replay"] = context.replay;
  json["threads"] = context.threads;
  json["seed"] = context.seed;
  return json;
}

Json json_of(const Counts& counts) {
  Json json{{"cases", counts.cases()}};
  for (Verdict verdict : all_verdicts) json[std::string(name(verdict))] = counts[verdict];
  return json;
}

Json json_of(const std::optional<CaseResult>& worst) {
  if (!worst) return nullptr;
  const Finding& finding = worst->finding;
  return {{"bound_util", json_number(finding.bound_util)},
          {"output", finding.place ? Json(finding.place->tensor) : Json()},
          {"regime", worst->regime},
          {"property", worst->property},
          {"replay", worst->replay},
          {"shrunk", worst->shrunk.empty() ? Json() : Json(worst->shrunk)},
          {"verdict", name(finding.verdict)},
          {"place", finding.place ? Json(to_text(*finding.place)) : Json()},
          {"detail", finding.detail}};
}

void append(Json& json, const Tally& tally) {
  json["verdict"] = name(tally.verdict());
  json["cases"] = tally.counts.cases();
  json["counts"] = json_of(tally.counts);
  json["seconds"] = json_number(tally.seconds);
  json["worst"] = json_of(tally.worst);
  if (!tally.localised.empty()) json["localised"] = tally.localised;
}

/// What modules[] says besides what every tally says: the module's source, and one line per law and per regime.
Json json_of_module(const KernelTally& module, const Results& results) {
  Json entry{{"name", module.name}, {"summary", module.contract}, {"source", nullptr}};
  append(entry, module.tally);
  const auto suite = std::ranges::find(module_suites(), module.name, name_in_reports);
  if (suite != module_suites().end()) entry["source"] = suite->source;
  const auto line = [&](const char* key, const std::string& named, const std::string& about, auto member) {
    Counts counts;
    double largest = 0;
    for (const auto& [group, tally] : results.groups) {
      if (group.kernel != module.name || group.*member != named) continue;
      for (Verdict verdict : all_verdicts) counts[verdict] += tally.counts[verdict];
      if (tally.worst) largest = std::max(largest, tally.worst->finding.bound_util);
    }
    if (counts.cases() == 0) return;
    entry[key].push_back({{"name", named},
                          {"about", about},
                          {"cases", counts.cases()},
                          {"passed", counts[Verdict::passed]},
                          {"failed", counts.failures()},
                          {"largest_bound_util", json_number(largest)}});
  };
  entry["laws"] = entry["regimes"] = Json::array();
  if (suite == module_suites().end()) return entry;
  for (const FiguresOfRegime& regime : module_figures(module.name, results)) {
    Json line{{"regime", regime.regime}};
    for (const ModuleFigure& figure : regime.figures) line[figure.name] = json_number(figure.value);
    entry["figures"].push_back(std::move(line));
  }
  for (const ModuleLaw& law : suite->laws) line("laws", law.name, law.claim, &GroupKey::property);
  for (const ModuleRegime& regime : suite->regimes) line("regimes", regime.name, regime.why, &GroupKey::regime);
  return entry;
}

/// The recipes of groups' worst cases, each once: most groups share theirs with a hundred others.
class RecipeTable {
public:
  /// Index of the recipe in a token of this kernel and property, or nothing where the token has another form.
  std::optional<std::size_t> index(const GroupKey& key, const std::string& token) {
    const std::string before = key.kernel + ":" + key.property + ":";
    if (!token.starts_with(before)) return std::nullopt;
    const auto [entry, added] = index_.try_emplace(token.substr(before.size()), recipes_.size());
    if (added) recipes_.push_back(entry->first);
    return entry->second;
  }
  const std::vector<std::string>& recipes() const { return recipes_; }

private:
  std::map<std::string, std::size_t> index_;
  std::vector<std::string> recipes_;
};

/// One group in few words: there are ten thousand. Counts where all are of one kind or that are 0 and texts that are empty are left out,
/// and a token is given by its recipe's index, but for failures, which stand in full.
Json json_of(const GroupKey& key, const Tally& tally, RecipeTable& recipes) {
  Json json{{"kernel", key.kernel}, {"property", key.property}, {"regime", key.regime}, {"verdict", name(tally.verdict())}};
  json["cases"] = tally.counts.cases();
  for (Verdict verdict : all_verdicts)
    if (tally.counts[verdict] > 0 && tally.counts[tally.verdict()] != tally.counts.cases())
      json["counts"][std::string(name(verdict))] = tally.counts[verdict];
  json["seconds"] = json_number(std::nearbyint(tally.seconds * 1e6) * 1e-6);
  if (!tally.worst) return json;
  const Finding& finding = tally.worst->finding;
  Json worst{{"bound_util", json_number(finding.bound_util)}};
  if (finding.place) worst["output"] = finding.place->tensor;
  const auto index = is_failure(finding.verdict) ? std::nullopt : recipes.index(key, tally.worst->replay);
  if (index)
    worst["recipe"] = *index;
  else
    worst["replay"] = tally.worst->replay;
  if (!tally.worst->shrunk.empty()) worst["shrunk"] = tally.worst->shrunk;
  if (is_failure(finding.verdict) && finding.place) worst["place"] = to_text(*finding.place);
  if (!finding.detail.empty()) worst["detail"] = finding.detail;
  json["worst"] = std::move(worst);
  return json;
}

std::string text_or_empty(const Json& json) { return json.is_null() ? std::string() : json.get<std::string>(); }

/// What `json_of` wrote of a group, or an earlier release, in full.
Tally group_from(const Json& json, const GroupKey& key, const Json& recipes) {
  Tally tally;
  const auto gravest = verdict_named(json.at("verdict").get<std::string>());
  if (!gravest) throw std::invalid_argument("has the unknown verdict " + json.at("verdict").dump());
  if (!json.contains("counts"))
    tally.counts[*gravest] = json.at("cases"); // all of one kind
  else
    for (Verdict verdict : all_verdicts) tally.counts[verdict] = json["counts"].value(std::string(name(verdict)), std::size_t{0});
  tally.seconds = number_of(json.at("seconds"));
  if (!json.contains("worst")) return tally;
  const Json& worst = json["worst"];
  CaseResult& result = tally.worst.emplace();
  result.kernel = key.kernel, result.property = key.property, result.regime = key.regime;
  result.replay = worst.contains("recipe")
                      ? key.kernel + ":" + key.property + ":" + recipes.at(worst["recipe"].get<std::size_t>()).get<std::string>()
                      : worst.at("replay").get<std::string>();
  result.shrunk = text_or_empty(worst.value("shrunk", Json()));
  result.finding.bound_util = number_of(worst.at("bound_util"));
  result.finding.detail = worst.value("detail", "");
  if (const Json output = worst.value("output", Json()); !output.is_null()) result.finding.place = Place{.tensor = output};
  result.finding.verdict = *gravest;
  return tally;
}

/// A list as text with an entry a line.
std::string one_a_line(const std::vector<std::string>& entries) {
  std::string text = "[";
  for (std::size_t i = 0; i < entries.size(); ++i) text += (i ? ",\n  " : "\n  ") + entries[i];
  return text + (entries.empty() ? "]" : "\n ]");
}

Tally tally_from(const Json& json) {
  Tally tally;
  for (Verdict verdict : all_verdicts) tally.counts[verdict] = json.at("counts").at(std::string(name(verdict)));
  tally.seconds = number_of(json.at("seconds"));
  tally.localised = json.value("localised", std::string());
  const Json& worst = json.at("worst");
  if (worst.is_null()) return tally;
  CaseResult& result = tally.worst.emplace();
  result.property = worst.at("property");
  result.regime = worst.at("regime");
  result.replay = worst.at("replay");
  result.shrunk = text_or_empty(worst.at("shrunk"));
  result.finding.bound_util = number_of(worst.at("bound_util"));
  result.finding.detail = worst.at("detail");
  if (!worst.at("output").is_null()) result.finding.place = Place{.tensor = worst.at("output")};
  const auto verdict = verdict_named(worst.at("verdict").get<std::string>());
  if (!verdict) throw std::invalid_argument("has the unknown verdict " + worst.at("verdict").dump());
  result.finding.verdict = *verdict;
  return tally;
}

Results results_of(const Json& json) {
  if (json.at("schema_version") != schema_version)
    throw std::invalid_argument("has schema version " + json.at("schema_version").dump() + "; this program reads version 1");
  Results results;
  const Json& context = json.at("context");
  for (const auto& [key, field] : context_texts) results.context.*field = text_or_empty(context.at(key));
  results.context.replay = context.value("replay", Context{}.replay); // reports of before it was kept judged built-in kernels
  results.context.threads = context.at("threads");
  results.context.seed = context.at("seed");
  results.outcome.stopped = !json.at("complete").get<bool>();
  results.wall_seconds = number_of(json.at("wall_seconds"));
  for (const Json& entry : json.at("kernels")) {
    KernelTally& kernel = results.kernels.emplace_back();
    kernel.name = entry.at("name");
    kernel.contract = entry.at("contract");
    kernel.in_short = entry.at("in_short");
    kernel.tally = tally_from(entry);
    if (kernel.tally.worst) kernel.tally.worst->kernel = kernel.name;
  }
  for (const Json& entry : json.value("modules", Json::array())) { // reports of earlier programs have none
    KernelTally& module = results.kernels.emplace_back();
    module.name = entry.at("name");
    module.contract = entry.at("summary");
    module.in_short = "module";
    module.tally = tally_from(entry);
    module.module = true;
    if (module.tally.worst) module.tally.worst->kernel = module.name;
  }
  for (const Json& entry : json.at("groups")) {
    const GroupKey key{entry.at("kernel"), entry.at("property"), entry.at("regime")};
    results.groups[key] = group_from(entry, key, json.value("recipes", Json::array()));
  }
  const Json escalated = json.value("escalated", Json::object()); // reports of earlier programs have none
  for (const auto& [oracle, cases] : escalated.items()) results.escalated[oracle] = cases;
  for (const Json& entry : json.at("not_supported")) results.not_supported[{entry.at("kernel"), entry.at("reason")}] = entry.at("cases");
  return results;
}

/// Whether two numbers are sums of the same seconds.
bool same_seconds(const Json& left, const Json& right) {
  const double x = number_of(left), y = number_of(right);
  return std::fabs(x - y) <= 1e-9 * std::fabs(x) || left == right;
}

/// The first of the keys that `told` has and says otherwise than `due`; or nothing.
std::string key_that_departs(const Json& told, const Json& due, std::initializer_list<const char*> keys) {
  for (const char* key : keys)
    if (told.contains(key) && (!due.contains(key) || told[key] != due[key])) return key;
  return "";
}

/// Of laws[] or regimes[]: the name of the first line with other figures than those due.
std::string line_that_departs(const Json& told, const Json& due) {
  for (const Json& line : told)
    for (const Json& other : due)
      if (line["name"] == other["name"] && !key_that_departs(line, other, {"cases", "passed", "failed", "largest_bound_util"}).empty())
        return line["name"].get<std::string>();
  return "";
}

/// What an entry of kernels[] or modules[] says otherwise than the cases, or nothing.
std::string departure_of_entry(const Json& told, const char* list, const Results& cases) {
  const std::string label = told.at("name").get<std::string>();
  const auto found = std::ranges::find(cases.kernels, label, &KernelTally::name);
  const KernelTally kernel = found == cases.kernels.end() ? KernelTally{.name = label} : *found;
  const bool module = std::string_view(list) == "modules";
  Json due{{"name", label}};
  if (module)
    due = json_of_module(kernel, cases);
  else
    append(due, kernel.tally);
  const std::string where = std::string(list) + "[" + label + "].";
  if (const std::string key = key_that_departs(told, due, {"verdict", "cases", "localised"}); !key.empty()) return where + key;
  if (told["worst"].is_null() != due["worst"].is_null()) return where + "worst";
  for (const auto& [part, of] : {std::pair{"counts", &told["counts"]}, {"worst", &told["worst"]}})
    for (const auto& [key, value] : of->items())
      if (!due[part].contains(key) || due[part][key] != value) return where + part + "." + key;
  if (!same_seconds(told.at("seconds"), due.at("seconds"))) return where + "seconds";
  if (!module) return "";
  for (const char* key : {"laws", "regimes"})
    if (const std::string line = line_that_departs(told.value(key, Json::array()), due[key]); !line.empty())
      return where + key + "[" + line + "]";
  return "";
}

} // namespace

std::optional<std::string> departure_from_cases(std::string_view report, const Results& cases) {
  const Json told = Json::parse(report);
  Json due{{"summary", json_of(total(cases))}, {"escalated", Json(cases.escalated)}, {"not_supported", Json::array()}};
  for (const auto& [reason, count] : cases.not_supported)
    due["not_supported"].push_back({{"kernel", reason.kernel}, {"reason", reason.text}, {"cases", count}});
  if (!told.contains("summary")) return "summary";
  if (const std::string key = key_that_departs(told, due, {"summary", "escalated", "not_supported"}); !key.empty()) return key;
  std::set<std::string> listed;
  for (const char* list : {"kernels", "modules"})
    for (const Json& entry : told.value(list, Json::array())) {
      if (!listed.insert(entry.at("name").get<std::string>()).second)
        return std::string(list) + "[" + entry["name"].get<std::string>() + "]";
      if (std::string departure = departure_of_entry(entry, list, cases); !departure.empty()) return departure;
    }
  for (const KernelTally& kernel : cases.kernels)
    if (!listed.contains(kernel.name)) return std::string(kernel.module ? "modules" : "kernels");
  return std::nullopt;
}

std::string to_report_json(const Results& results) {
  Json json{{"schema_version", schema_version},
            {"complete", !results.outcome.stopped},
            {"wall_seconds", json_number(results.wall_seconds)},
            {"context", json_of(results.context)},
            {"summary", json_of(total(results))},
            {"escalated", Json(results.escalated)},
            {"kernels", Json::array()},
            {"modules", Json::array()},
            {"recipes", Json::array()},
            {"groups", Json::array()},
            {"not_supported", Json::array()}};
  for (const KernelTally& kernel : results.kernels) {
    if (kernel.module) {
      json["modules"].push_back(json_of_module(kernel, results));
      continue;
    }
    Json entry{{"name", kernel.name}, {"contract", kernel.contract}, {"in_short", kernel.in_short}};
    append(entry, kernel.tally);
    json["kernels"].push_back(std::move(entry));
  }
  for (const auto& [reason, cases] : results.not_supported)
    json["not_supported"].push_back({{"kernel", reason.kernel}, {"reason", reason.text}, {"cases", cases}});
  RecipeTable recipes;
  std::vector<std::string> groups;
  for (const auto& [key, tally] : results.groups)
    groups.push_back(json_of(key, tally, recipes).dump(-1, ' ', false, Json::error_handler_t::replace));
  json["recipes"] = recipes.recipes();
  std::string text = json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
  const std::string_view empty = "\n \"groups\": []"; // a line of its own: strings hold no line ends
  text.replace(text.find(empty) + empty.size() - 2, 2, one_a_line(groups));
  return text;
}

Results results_from_report_json(std::string_view text, std::string_view source) {
  try {
    return results_of(Json::parse(text));
  } catch (const Json::exception&) {
    throw std::invalid_argument(std::string(source) + " is not a report of this suite");
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string(source) + " " + error.what());
  }
}

} // namespace kdacheck
