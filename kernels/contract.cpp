#include "contract.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>

namespace kdacheck {
namespace {

using Read = bool (*)(Contract&, std::string_view);
using Write = std::string (*)(const Contract&);

/// One key of the text form: how it is read (false: not a value of this key) and how it is written.
struct Key {
  std::string_view name, values;
  Read read;
  Write write;
};

std::string number_text(double value) {
  std::array<char, 40> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  return {buffer.data(), end};
}

bool read_number(double& value, std::string_view text) {
  double parsed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
  if (error != std::errc{} || end != text.data() + text.size() || std::isnan(parsed)) return false;
  value = parsed;
  return true;
}

bool read_size(std::int64_t& value, std::string_view text) {
  std::int64_t parsed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
  if (error != std::errc{} || end != text.data() + text.size() || parsed < 0) return false;
  value = parsed;
  return true;
}

/// `64`, `1..256`, `16..256/16`, and `16..` without an upper end.
bool read_range(SizeRange& range, std::string_view text) {
  SizeRange parsed;
  if (const auto slash = text.find('/'); slash != text.npos) {
    if (!read_size(parsed.multiple, text.substr(slash + 1)) || parsed.multiple == 0) return false;
    text = text.substr(0, slash);
  }
  const auto dots = text.find("..");
  if (!read_size(parsed.least, text.substr(0, dots))) return false;
  if (dots == text.npos)
    parsed.most = parsed.least;
  else if (dots + 2 < text.size() && !read_size(parsed.most, text.substr(dots + 2)))
    return false;
  if (parsed.most < parsed.least) return false;
  range = parsed;
  return true;
}

std::string range_text(const SizeRange& range) {
  std::string text = std::to_string(range.least);
  if (range.most != range.least) {
    text += "..";
    if (range.most != SizeRange{}.most) text += std::to_string(range.most);
  }
  if (range.multiple != 1) text += "/" + std::to_string(range.multiple);
  return text;
}

bool read_switch(bool& value, std::string_view text, std::string_view off, std::string_view on) {
  if (text != off && text != on) return false;
  value = text == on;
  return true;
}

template <class Enum> bool read_list(std::vector<Enum>& list, std::string_view text, std::optional<Enum> (*named)(std::string_view)) {
  std::vector<Enum> parsed;
  while (true) {
    const auto comma = text.find(',');
    const auto value = named(text.substr(0, comma));
    if (!value || std::find(parsed.begin(), parsed.end(), *value) != parsed.end()) return false;
    parsed.push_back(*value);
    if (comma == text.npos) break;
    text = text.substr(comma + 1);
  }
  list = std::move(parsed);
  return true;
}

template <class Enum> std::string list_text(const std::vector<Enum>& list) {
  std::string text;
  for (Enum value : list) text += (text.empty() ? "" : ",") + std::string(name(value));
  return text;
}

template <Format Contract::*field> constexpr Key format_key(std::string_view key) {
  return {key, "fp64, fp32, tf32, bf16 or fp16",
          [](Contract& c, std::string_view text) {
            const auto format = format_named(text);
            if (format) c.*field = *format;
            return format.has_value();
          },
          [](const Contract& c) { return std::string(name(c.*field)); }};
}

template <bool Contract::*field> constexpr Key yes_no_key(std::string_view key) {
  return {key, "yes or no", [](Contract& c, std::string_view text) { return read_switch(c.*field, text, "no", "yes"); },
          [](const Contract& c) { return std::string(c.*field ? "yes" : "no"); }};
}

template <double Contract::*field> constexpr Key number_key(std::string_view key) {
  return {key, "a number", [](Contract& c, std::string_view text) { return read_number(c.*field, text); },
          [](const Contract& c) { return number_text(c.*field); }};
}

template <SizeRange Contract::*field> constexpr Key range_key(std::string_view key) {
  return {key, "a size, or a range like 1..256 or 16..256/16",
          [](Contract& c, std::string_view text) { return read_range(c.*field, text); },
          [](const Contract& c) { return range_text(c.*field); }};
}

template <Sameness Contract::*field> constexpr Key sameness_key(std::string_view key) {
  return {key, "bitwise or none",
          [](Contract& c, std::string_view text) {
            if (text != "bitwise" && text != "none") return false;
            c.*field = text == "bitwise" ? Sameness::bitwise : Sameness::none;
            return true;
          },
          [](const Contract& c) { return std::string(c.*field == Sameness::bitwise ? "bitwise" : "none"); }};
}

constexpr std::array<std::string_view, 4> order_names{"undeclared", "residual_first", "wy", "recurrence"};

bool read_order(Contract& c, std::string_view text) {
  const auto found = std::find(order_names.begin(), order_names.end(), text);
  if (found == order_names.end()) return false;
  c.order = static_cast<Order>(found - order_names.begin());
  return true;
}

bool read_l2norm(Contract& c, std::string_view text) {
  if (text != "inside" && text != "outside" && text != "both") return false;
  c.l2norm_inside = text != "outside";
  c.l2norm_outside = text != "inside";
  return true;
}

std::string l2norm_text(const Contract& c) { return c.l2norm_inside ? (c.l2norm_outside ? "both" : "inside") : "outside"; }

bool read_scale(Contract& c, std::string_view text) {
  double number = 0;
  if (text == "any")
    c.scale_form = ScaleForm::any;
  else if (text == "rsqrt_K")
    c.scale_form = ScaleForm::rsqrt_K;
  else if (read_number(number, text) && std::isfinite(number) && static_cast<float>(number) == number)
    c.scale_form = ScaleForm::fixed, c.scale = static_cast<float>(number);
  else
    return false;
  return true;
}

std::string scale_text(const Contract& c) {
  if (c.scale_form == ScaleForm::fixed) return number_text(c.scale);
  return c.scale_form == ScaleForm::any ? "any" : "rsqrt_K";
}

bool read_chunk(Contract& c, std::string_view text) { return read_size(c.chunk, text) && c.chunk >= 1; }

constexpr std::array keys{
    format_key<&Contract::input>("input"),
    format_key<&Contract::gate_input>("gate_input"),
    format_key<&Contract::beta_input>("beta_input"),
    format_key<&Contract::output>("output"),
    format_key<&Contract::operands>("operands"),
    format_key<&Contract::scores>("scores"),
    format_key<&Contract::accumulate>("accumulate"),
    format_key<&Contract::cumsum>("cumsum"),
    format_key<&Contract::solve>("solve"),
    format_key<&Contract::state>("state"),
    format_key<&Contract::gradient>("gradient"),
    format_key<&Contract::gradient_state>("gradient_state"),
    Key{"tf32", "round or truncate", [](Contract& c, std::string_view text) { return read_switch(c.truncate, text, "round", "truncate"); },
        [](const Contract& c) { return std::string(c.truncate ? "truncate" : "round"); }},
    number_key<&Contract::exp_ulp>("exp_ulp"),
    Key{"order", "undeclared, residual_first, wy or recurrence", read_order,
        [](const Contract& c) { return std::string(order_names[static_cast<std::size_t>(c.order)]); }},
    Key{"chunk", "a number of tokens, at least 1", read_chunk, [](const Contract& c) { return std::to_string(c.chunk); }},
    Key{"decay_gradient", "products or sums",
        [](Contract& c, std::string_view text) {
          bool sums = false;
          if (!read_switch(sums, text, "products", "sums")) return false;
          c.decay_gradient = sums ? DecayGradient::sums : DecayGradient::products;
          return true;
        },
        [](const Contract& c) { return std::string(c.decay_gradient == DecayGradient::sums ? "sums" : "products"); }},
    sameness_key<&Contract::repeat>("repeat"),
    sameness_key<&Contract::batch>("batch"),
    sameness_key<&Contract::prefix>("prefix"),
    Key{"rule", "kda, dplr or kda,dplr", [](Contract& c, std::string_view text) { return read_list(c.rules, text, rule_named); },
        [](const Contract& c) { return list_text(c.rules); }},
    Key{"gates", "a list of log_decay, softplus, bounded, sigmoid and absent",
        [](Contract& c, std::string_view text) { return read_list(c.gates, text, gate_form_named); },
        [](const Contract& c) { return list_text(c.gates); }},
    Key{"betas", "a list of value, sigmoid and twice_sigmoid",
        [](Contract& c, std::string_view text) { return read_list(c.betas, text, beta_form_named); },
        [](const Contract& c) { return list_text(c.betas); }},
    Key{"decay", "channel or head",
        [](Contract& c, std::string_view text) { return read_switch(c.decay_per_head, text, "channel", "head"); },
        [](const Contract& c) { return std::string(c.decay_per_head ? "head" : "channel"); }},
    Key{"scale", "any, rsqrt_K or a number of fp32", read_scale, scale_text},
    Key{"l2norm", "outside, inside or both", read_l2norm, l2norm_text},
    range_key<&Contract::K>("K"),
    range_key<&Contract::V>("V"),
    range_key<&Contract::T>("T"),
    yes_no_key<&Contract::grouped>("grouped"),
    yes_no_key<&Contract::packed>("packed"),
    yes_no_key<&Contract::initial_state>("initial_state"),
    range_key<&Contract::decode>("decode"),
    Key{"memory", "host or device", [](Contract& c, std::string_view text) { return read_switch(c.on_device, text, "host", "device"); },
        [](const Contract& c) { return std::string(c.on_device ? "device" : "host"); }},
    Key{"state_layout", "k_first or v_first",
        [](Contract& c, std::string_view text) { return read_switch(c.state_v_first, text, "k_first", "v_first"); },
        [](const Contract& c) { return std::string(c.state_v_first ? "v_first" : "k_first"); }},
    yes_no_key<&Contract::strided>("strided"),
    yes_no_key<&Contract::validates>("validates"),
    number_key<&Contract::g_min>("g_min"),
    number_key<&Contract::beta_min>("beta_min"),
    number_key<&Contract::beta_max>("beta_max"),
    number_key<&Contract::k_norm_max>("k_norm_max"),
    number_key<&Contract::value_max>("value_max"),
};

ParsedContract failure(std::string sentence) { return {std::nullopt, std::move(sentence)}; }

/// A word of the text as a sentence can hold it, whatever its bytes are.
std::string quoted(std::string_view text) {
  std::string word(text.substr(0, 80));
  for (char& c : word)
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
  return "'" + word + (text.size() > 80 ? "..'" : "'");
}

} // namespace

ParsedContract parse_contract(std::string_view text) {
  Contract contract;
  std::array<bool, keys.size()> seen{};
  constexpr std::string_view blanks = " \t\n\r";
  for (auto start = text.find_first_not_of(blanks); start != text.npos; start = text.find_first_not_of(blanks)) {
    text = text.substr(start);
    const std::string_view word = text.substr(0, text.find_first_of(blanks));
    text = text.substr(word.size());
    const auto equals = word.find('=');
    if (equals == word.npos) return failure("contract: " + quoted(word) + " is not of the form key=value");
    const std::string_view label = word.substr(0, equals), value = word.substr(equals + 1);
    const auto key = std::find_if(keys.begin(), keys.end(), [&](const Key& candidate) { return candidate.name == label; });
    if (key == keys.end()) return failure("contract: " + quoted(label) + " is not a key");
    const auto index = static_cast<std::size_t>(key - keys.begin());
    if (seen[index]) return failure("contract: " + quoted(label) + " is given twice");
    seen[index] = true;
    if (!key->read(contract, value))
      return failure("contract: " + std::string(label) + " must be " + std::string(key->values) + ", not " + quoted(value));
  }
  const bool scores_given = seen[static_cast<std::size_t>(
      std::find_if(keys.begin(), keys.end(), [](const Key& key) { return key.name == "scores"; }) - keys.begin())];
  if (!scores_given) contract.scores = contract.operands;
  if (!(contract.beta_min <= contract.beta_max)) return failure("contract: beta_min must not exceed beta_max");
  if (!(contract.g_min <= 0)) return failure("contract: g_min must not be positive");
  if (contract.decode.least < 1) return failure("contract: decode must be at least 1");
  if (!(contract.exp_ulp >= 0)) return failure("contract: exp_ulp must not be negative");
  return {contract, {}};
}

std::string to_text(const Contract& contract) {
  Contract usual;
  usual.scores = contract.operands;
  std::string text;
  for (const Key& key : keys) {
    const std::string value = key.write(contract);
    if (value != key.write(usual)) text += (text.empty() ? "" : " ") + std::string(key.name) + "=" + value;
  }
  return text;
}

} // namespace kdacheck
