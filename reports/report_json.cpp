#include "report_json.hpp"

#include "json_numbers.hpp"

#include "../properties/modules/module_campaign.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

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
  for (const ModuleLaw& law : suite->laws) line("laws", law.name, law.claim, &GroupKey::property);
  for (const ModuleRegime& regime : suite->regimes) line("regimes", regime.name, regime.why, &GroupKey::regime);
  return entry;
}

std::string text_or_empty(const Json& json) { return json.is_null() ? std::string() : json.get<std::string>(); }

Tally tally_from(const Json& json) {
  Tally tally;
  for (Verdict verdict : all_verdicts) tally.counts[verdict] = json.at("counts").at(std::string(name(verdict)));
  tally.seconds = number_of(json.at("seconds"));
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
  if (json.at("schema_version").get<int>() != schema_version)
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
    Tally& tally = results.groups[{entry.at("kernel"), entry.at("property"), entry.at("regime")}];
    tally = tally_from(entry);
    if (tally.worst) tally.worst->kernel = entry.at("kernel");
  }
  for (const Json& entry : json.at("not_supported")) results.not_supported[{entry.at("kernel"), entry.at("reason")}] = entry.at("cases");
  return results;
}

} // namespace

std::string to_report_json(const Results& results) {
  Json json{{"schema_version", schema_version},
            {"complete", !results.outcome.stopped},
            {"wall_seconds", json_number(results.wall_seconds)},
            {"context", json_of(results.context)},
            {"summary", json_of(total(results))},
            {"kernels", Json::array()},
            {"modules", Json::array()},
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
  for (const auto& [key, tally] : results.groups) {
    Json entry{{"kernel", key.kernel}, {"property", key.property}, {"regime", key.regime}};
    append(entry, tally);
    json["groups"].push_back(std::move(entry));
  }
  for (const auto& [reason, cases] : results.not_supported)
    json["not_supported"].push_back({{"kernel", reason.kernel}, {"reason", reason.text}, {"cases", cases}});
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
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
