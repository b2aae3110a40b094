#include "page_data.hpp"

#include "json_numbers.hpp"
#include "module_figures.hpp"
#include "recipe_coordinates.hpp"
#include "words.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <unordered_map>

namespace kdacheck {
namespace {

using Json = nlohmann::ordered_json;

/// Four figures: what a picture and its table show.
Json figure(double x) {
  if (!std::isfinite(x)) return json_number(x);
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.4g", x);
  return std::strtod(digits, nullptr);
}

/// Error / bound of a case, or nothing where the kernel gave no answer that has one.
Json figure_of(const Finding& finding) {
  const bool no_answer = finding.verdict == Verdict::crashed || finding.verdict == Verdict::timed_out;
  return no_answer ? Json() : figure(finding.bound_util);
}

/// Words that columns refer to by their index.
class Words {
public:
  std::size_t index(const std::string& word) {
    const auto [at, is_new] = index_.try_emplace(word, words_.size());
    if (is_new) words_.push_back(word);
    return at->second;
  }
  const std::vector<std::string>& words() const { return words_; }

private:
  std::unordered_map<std::string, std::size_t> index_;
  std::vector<std::string> words_;
};

/// KERNEL, PROPERTY and RECIPE of a replay token, as they stand there.
struct TokenParts {
  std::string kernel, property, recipe;
};
std::optional<TokenParts> parts_of(const std::string& token) {
  const auto first = token.find(':'), second = first == std::string::npos ? first : token.find(':', first + 1);
  if (second == std::string::npos || token.compare(second + 1, 3, "k1,") != 0) return std::nullopt;
  return TokenParts{token.substr(0, first), token.substr(first + 1, second - first - 1), token.substr(second + 1)};
}

bool has_picture(const CaseResult& result) {
  const Finding& finding = result.finding;
  if (finding.verdict == Verdict::not_supported || !parts_of(result.replay)) return false;
  return is_failure(finding.verdict) || finding.place;
}

/// The longest sequence of a recipe: what drift depends on.
std::int64_t longest(const Recipe& recipe) {
  return recipe.lengths.empty() ? recipe.shape.T : *std::max_element(recipe.lengths.begin(), recipe.lengths.end());
}

/// The cases to draw, at most so many (but one of every group), in their own order.
std::vector<const CaseResult*> drawn_of(const std::vector<const CaseResult*>& measured, std::size_t most) {
  if (measured.size() <= most) return measured;
  std::map<GroupKey, std::vector<const CaseResult*>> groups;
  for (const CaseResult* result : measured) groups[{result->kernel, result->property, result->regime}].push_back(result);
  const std::size_t each = std::max<std::size_t>(1, most / groups.size());
  std::vector<const CaseResult*> drawn;
  for (auto& [key, members] : groups) {
    std::stable_sort(members.begin(), members.end(),
                     [](const CaseResult* left, const CaseResult* right) { return is_graver(left->finding, right->finding); });
    members.resize(std::min(each, members.size()));
    drawn.insert(drawn.end(), members.begin(), members.end());
  }
  return drawn;
}

Json columns_of(const std::vector<const CaseResult*>& drawn, Words& kernels, Words& tensors, Json& page) {
  Words kernel_words, properties, property_words, regimes, tokens;
  Json recipes = Json::array(), columns = Json::object();
  for (const char* column : {"kernel", "property", "regime", "recipe", "tensor", "position", "util", "verdict"})
    columns[column] = Json::array();
  std::vector<std::string> words_of_kernels(kernels.words().size());
  for (const CaseResult* result : drawn) {
    const TokenParts parts = *parts_of(result->replay);
    const std::size_t kernel = kernels.index(result->kernel), recipe = tokens.index(parts.recipe);
    if (kernel >= words_of_kernels.size()) words_of_kernels.resize(kernel + 1);
    words_of_kernels[kernel] = parts.kernel;
    if (recipe == recipes.size()) {
      const Recipe drawn_with = from_token(parts.recipe);
      recipes.push_back({parts.recipe, longest(drawn_with), figure(typical_decay(drawn_with)), figure(key_correlation(drawn_with))});
    }
    const auto& place = result->finding.place;
    columns["kernel"].push_back(kernel);
    columns["property"].push_back(property_words.index(parts.property));
    columns["regime"].push_back(regimes.index(result->regime));
    columns["recipe"].push_back(recipe);
    columns["tensor"].push_back(place ? Json(tensors.index(place->tensor)) : Json(-1));
    columns["position"].push_back(place ? place->chunk_position : -1);
    const Json util = figure_of(result->finding);
    columns["util"].push_back(util.is_null() ? Json("NaN") : util); // drawn as what is not finite
    columns["verdict"].push_back(static_cast<int>(result->finding.verdict));
  }
  page["kernel_words"] = words_of_kernels;
  page["property_words"] = property_words.words();
  page["regimes"] = regimes.words();
  page["recipes"] = std::move(recipes);
  return columns;
}

/// Nearest rank of a sorted sequence that is not empty.
double quantile(const std::vector<double>& sorted, double share) {
  return sorted[static_cast<std::size_t>(std::lround(share * static_cast<double>(sorted.size() - 1)))];
}

Json spread_of(const std::vector<const CaseResult*>& measured, Words& kernels, Words& tensors) {
  std::map<std::pair<std::size_t, std::size_t>, std::vector<double>> figures;
  for (const CaseResult* result : measured) {
    if (!result->finding.place) continue;
    const double util = result->finding.bound_util;
    figures[{kernels.index(result->kernel), tensors.index(result->finding.place->tensor)}].push_back(std::isnan(util) ? INFINITY : util);
  }
  Json rows = Json::array();
  for (auto& [key, values] : figures) {
    std::sort(values.begin(), values.end());
    Json row{key.first, key.second, values.size()};
    for (const double share : {0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0}) row.push_back(figure(quantile(values, share)));
    rows.push_back(std::move(row));
  }
  return rows;
}

Json matrix_of(const Results& results, Words& kernels) {
  std::map<std::string, std::map<std::size_t, Tally>> cells;
  for (const auto& [key, group] : results.groups) {
    Tally& cell = cells[key.property][kernels.index(key.kernel)];
    for (Verdict verdict : all_verdicts) cell.counts[verdict] += group.counts[verdict];
    if (group.worst && (!cell.worst || is_graver(group.worst->finding, cell.worst->finding))) cell.worst = group.worst;
  }
  Json properties = Json::array(), rows = Json::array();
  for (const auto& [property, of_kernels] : cells) {
    Json row = Json::array();
    for (std::size_t kernel = 0; kernel < results.kernels.size(); ++kernel) {
      const auto cell = of_kernels.find(kernel);
      if (cell == of_kernels.end() || !cell->second.worst) {
        row.push_back(nullptr);
        continue;
      }
      const CaseResult& worst = *cell->second.worst;
      const Counts& counts = cell->second.counts;
      row.push_back({static_cast<int>(worst.finding.verdict), figure_of(worst.finding), counts.cases() - counts[Verdict::not_supported],
                     worst.regime, worst.replay});
    }
    properties.push_back(property);
    rows.push_back(std::move(row));
  }
  return {{"properties", std::move(properties)}, {"cells", std::move(rows)}};
}

Json kernels_of(const Results& results) {
  Json rows = Json::array();
  for (const KernelTally& kernel : results.kernels) {
    const auto& worst = kernel.tally.worst;
    const Counts& counts = kernel.tally.counts;
    Json row{{"name", kernel.name},
             {"contract", kernel.contract},
             {"in_short", kernel.in_short},
             {"verdict", spoken(kernel.tally.verdict())},
             {"failures", counts.failures()},
             {"passed", counts[Verdict::passed]},
             {"not_supported", counts[Verdict::not_supported]},
             {"cases", counts.cases()},
             {"seconds", figure(kernel.tally.seconds)},
             {"util", nullptr}};
    if (worst && worst->finding.verdict != Verdict::not_supported) {
      row["util"] = figure_of(worst->finding);
      row["where"] = (worst->finding.place ? worst->finding.place->tensor + ", " : "") + worst->regime + ", " + worst->property;
      row["replay"] = worst->replay;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

/// A module's section: rows of laws and of regimes, and of the regimes of which it has figures.
Json module_section(const KernelTally& module, const Results& results) {
  std::map<std::string, std::pair<Counts, double>> of_laws, of_regimes;
  for (const auto& [key, tally] : results.groups) {
    if (key.kernel != module.name) continue;
    for (auto* line : {&of_laws[key.property], &of_regimes[key.regime]}) {
      for (Verdict verdict : all_verdicts) line->first[verdict] += tally.counts[verdict];
      if (tally.worst) line->second = std::max(line->second, tally.worst->finding.bound_util);
    }
  }
  const auto rows = [](const auto& lines) {
    Json all = Json::array();
    for (const auto& [name, line] : lines)
      all.push_back({name, line.first.cases(), line.first[Verdict::passed], line.first.failures(), figure(line.second)});
    return all;
  };
  Json figures = Json::array();
  for (const FiguresOfRegime& regime : module_figures(module.name, results)) {
    Json row{{"regime", regime.regime}};
    for (const ModuleFigure& one : regime.figures) row["figures"].push_back({one.name, figure(one.value)});
    figures.push_back(std::move(row));
  }
  const AboutFigures about = about_figures(module.name);
  return {{"name", module.name},           {"laws", rows(of_laws)},    {"regimes", rows(of_regimes)},
          {"figures", std::move(figures)}, {"heading", about.heading}, {"sentence", about.sentence}};
}

Json modules_of(const Results& results) {
  Json modules = Json::array();
  for (const KernelTally& module : results.kernels)
    if (module.module) modules.push_back(module_section(module, results));
  return modules;
}

Json failures_of(const Results& results) {
  Json rows = Json::array();
  for (const FailedGroup& group : failed_groups(results)) {
    const CaseResult& worst = *group.tally->worst;
    rows.push_back({{"kernel", group.key->kernel},
                    {"property", group.key->property},
                    {"regime", group.key->regime},
                    {"verdict", spoken(worst.finding.verdict)},
                    {"util", figure_of(worst.finding)},
                    {"place", worst.finding.place ? to_text(*worst.finding.place) : ""},
                    {"detail", worst.finding.detail},
                    {"stage", group.tally->localised},
                    {"replay", worst.shrunk.empty() ? worst.replay : worst.shrunk},
                    {"seen", first_seen(results.context, worst)},
                    {"cases", group.tally->counts.failures()}});
  }
  return rows;
}

Json context_of(const Results& results) {
  const Context& context = results.context;
  Json rows = Json::array();
  const auto row = [&](const char* key, const std::string& value) { rows.push_back({key, value.empty() ? "none" : value}); };
  row("command", context.command);
  row("commit", context.commit);
  row("started", context.started);
  row("took", short_duration(results.wall_seconds));
  row("tier", context.tier);
  row("seed", std::to_string(context.seed));
  row("host", context.host);
  row("CPU", context.cpu);
  row("threads", std::to_string(context.threads));
  row("GPU", context.gpu);
  row("driver", context.driver);
  row("compiler", context.compiler);
  row("build", context.build);
  row("program (sha256)", context.program);
  return rows;
}

void escape_markup(std::string& json) {
  for (std::size_t at = 0; (at = json.find('<', at)) != std::string::npos; at += 6) json.replace(at, 1, "\\u003c");
}

} // namespace

std::string to_page_json(const Results& results, std::span<const CaseResult> cases, const Json& neighbours, std::size_t most_drawn) {
  Words kernels, tensors;
  for (const KernelTally& kernel : results.kernels) kernels.index(kernel.name);
  std::vector<const CaseResult*> measured;
  for (const CaseResult& result : cases)
    if (has_picture(result)) measured.push_back(&result);
  const auto drawn = drawn_of(measured, most_drawn);
  const int status = exit_status(results);
  Json page{{"title", status == 0   ? "passed"
                      : status == 1 ? "FAILED"
                      : status == 4 ? "stopped early, no failure so far"
                                    : "nothing passed"},
            {"status", status},
            {"complete", !results.outcome.stopped},
            {"summary", spoken(total(results))},
            {"escalation", spoken_escalation(results)},
            {"replay", results.context.replay},
            {"context", context_of(results)},
            {"kernels", kernels_of(results)},
            {"modules", modules_of(results)},
            {"matrix", matrix_of(results, kernels)},
            {"measured", measured.size()},
            {"drawn", drawn.size()}};
  page["cases"] = columns_of(drawn, kernels, tensors, page);
  page["spread"] = spread_of(measured, kernels, tensors);
  page["tensors"] = tensors.words();
  page["verdicts"] = Json::array();
  for (Verdict verdict : all_verdicts) page["verdicts"].push_back(spoken(verdict));
  page["failures"] = failures_of(results);
  page["not_supported"] = Json::array();
  for (const auto& [reason, count] : results.not_supported)
    page["not_supported"].push_back({{"kernel", reason.kernel}, {"reason", reason.text}, {"cases", count}});
  page.update(neighbours);
  std::string text = page.dump(-1, ' ', false, Json::error_handler_t::replace);
  escape_markup(text);
  return text;
}

} // namespace kdacheck
