#include "recorded.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace kdacheck {
namespace {

using Extents = std::vector<std::int64_t>;

std::string shape_text(const Extents& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? "," : "") + std::to_string(shape[i]);
  return text + "]";
}

Extents without_ones(Extents shape) {
  std::erase(shape, 1);
  return shape;
}

/// Reads one file's tensors and metadata, naming the file in every complaint.
struct Reader {
  const TensorTable& table;
  std::string source;

  [[noreturn]] void complain(const std::string& sentence) const { throw BadFile(source + ": " + sentence); }

  const StoredTensor& required(std::string_view tensor_name) const {
    const StoredTensor* tensor = table.find(tensor_name);
    if (!tensor) complain("tensor " + std::string(tensor_name) + " is missing");
    return *tensor;
  }

  Format format(const StoredTensor& tensor) const {
    const auto format = format_of(tensor.type);
    if (!format || *format == Format::fp64)
      complain("tensor " + tensor.name + " holds " + std::string(name(tensor.type)) + " where BF16, F16 or F32 is due");
    return *format;
  }

  void require_rank(const StoredTensor& tensor, const char* names, std::size_t rank) const {
    if (tensor.shape.size() != rank)
      complain("tensor " + tensor.name + " has shape " + shape_text(tensor.shape) + " where " + names + " is due");
  }

  std::vector<float> numbers(const StoredTensor& tensor, const Extents& shape) const {
    if (tensor.shape != shape)
      complain("tensor " + tensor.name + " has shape " + shape_text(tensor.shape) + " where " + shape_text(shape) + " is due");
    format(tensor);
    return floats(tensor);
  }

  const std::string* text(const char* key) const {
    const auto found = table.metadata.find(key);
    return found == table.metadata.end() ? nullptr : &found->second;
  }

  float number(const char* key, float otherwise) const {
    const std::string* written = text(key);
    if (!written) return otherwise;
    float value = 0;
    const auto [end, error] = std::from_chars(written->data(), written->data() + written->size(), value);
    if (error != std::errc{} || end != written->data() + written->size() || !std::isfinite(value))
      complain("metadata " + std::string(key) + " is \"" + *written + "\", not a finite number");
    return value;
  }

  template <class Enum>
  Enum choice(const char* key, std::optional<Enum> (*named)(std::string_view), Enum otherwise, const char* known) const {
    const std::string* written = text(key);
    if (!written) return otherwise;
    if (const auto value = named(*written)) return *value;
    complain("metadata " + std::string(key) + " is \"" + *written + "\"; known are " + known);
  }
};

constexpr std::array<std::string_view, 15> tensor_names{
    "q", "k", "v", "g", "beta", "a", "b", "A_log", "dt_bias", "initial_state", "cu_seqlens", "do", "dht", "o", "final_state"};
constexpr std::array<std::string_view, 5> option_names{"gate", "lower_bound", "beta", "l2norm", "scale"};

void check_names(const Reader& file) {
  for (const StoredTensor& tensor : file.table.tensors)
    if (std::ranges::find(tensor_names, tensor.name) == tensor_names.end()) file.complain("unknown tensor " + tensor.name);
  for (const auto& [key, value] : file.table.metadata)
    if (!is_remark(key) && std::ranges::find(option_names, key) == option_names.end())
      file.complain("unknown metadata " + key +
                    "; known are gate, lower_bound, beta, l2norm and scale, and remarks under about or about_*");
}

std::optional<bool> yes_or_no(std::string_view text) {
  if (text == "yes") return true;
  if (text == "no") return false;
  return std::nullopt;
}

Options read_options(const Reader& file, std::int64_t K) {
  Options options;
  if (file.table.find("a") || file.table.find("b")) options.rule = Rule::dplr;
  GateForm gate = GateForm::log_decay;
  if (!file.table.find("g")) gate = GateForm::absent;
  if (file.table.find("A_log")) gate = file.text("lower_bound") ? GateForm::bounded : GateForm::softplus;
  options.gate = file.choice("gate", &gate_form_named, gate, "log_decay, softplus, bounded, sigmoid and absent");
  options.lower_bound = file.number("lower_bound", options.lower_bound);
  options.beta = file.choice("beta", &beta_form_named, BetaForm::value, "value, sigmoid and twice_sigmoid");
  options.l2norm = file.choice("l2norm", &yes_or_no, false, "yes and no");
  options.scale = file.number("scale", static_cast<float>(1.0 / std::sqrt(static_cast<double>(K))));
  return options;
}

InputFormats read_formats(const Reader& file) {
  InputFormats formats{.qkv = file.format(file.required("q"))};
  for (const char* tensor_name : {"k", "v", "a", "b"})
    if (const StoredTensor* tensor = file.table.find(tensor_name); tensor && file.format(*tensor) != formats.qkv)
      file.complain("q is " + std::string(name(file.required("q").type)) + " and " + tensor_name + " is " +
                    std::string(name(tensor->type)) + ": they must have one dtype");
  if (const StoredTensor* g = file.table.find("g")) formats.gate = file.format(*g);
  if (const StoredTensor* beta = file.table.find("beta")) formats.beta = file.format(*beta);
  return formats;
}

Problem read_problem(const Reader& file) {
  check_names(file);
  const StoredTensor &q = file.required("q"), &k = file.required("k"), &v = file.required("v");
  file.require_rank(q, "[B,T,H,K]", 4);
  file.require_rank(v, "[B,T,HV,V]", 4);
  Problem problem;
  problem.shape = {.B = q.shape[0], .T = q.shape[1], .H = q.shape[2], .HV = v.shape[2], .K = q.shape[3], .V = v.shape[3]};
  const auto [B, T, H, HV, K, V] = problem.shape;
  problem.options = read_options(file, K);
  problem.formats = read_formats(file);
  if (const StoredTensor* cu_seqlens = file.table.find("cu_seqlens")) {
    file.require_rank(*cu_seqlens, "[N+1]", 1);
    if (cu_seqlens->type != ElementType::I64 && cu_seqlens->type != ElementType::I32)
      file.complain("tensor cu_seqlens holds " + std::string(name(cu_seqlens->type)) + " where I64 or I32 is due");
    problem.cu_seqlens = integers(*cu_seqlens);
    if (problem.cu_seqlens.size() < 2) file.complain("cu_seqlens: needs at least two entries");
  }
  const std::int64_t N = sequence_count(problem);
  problem.q = file.numbers(q, {B, T, H, K});
  problem.k = file.numbers(k, {B, T, H, K});
  problem.v = file.numbers(v, {B, T, HV, V});
  const auto read_if_there = [&](const char* tensor_name, std::vector<float>& into, const Extents& shape) {
    if (const StoredTensor* tensor = file.table.find(tensor_name)) into = file.numbers(*tensor, shape);
  };
  read_if_there("g", problem.g, {B, T, HV, K});
  read_if_there("beta", problem.beta, {B, T, HV});
  read_if_there("a", problem.a, {B, T, HV, K});
  read_if_there("b", problem.b, {B, T, HV, K});
  read_if_there("initial_state", problem.initial_state, {N, HV, K, V});
  read_if_there("do", problem.d_o, {B, T, HV, V});
  read_if_there("dht", problem.d_final_state, {N, HV, K, V});
  if (const StoredTensor* A_log = file.table.find("A_log")) {
    if (without_ones(A_log->shape) != without_ones({HV})) file.numbers(*A_log, {HV}); // complains
    problem.A_log = file.numbers(*A_log, A_log->shape);
  }
  if (const StoredTensor* dt_bias = file.table.find("dt_bias"))
    problem.dt_bias = file.numbers(*dt_bias, dt_bias->shape == Extents{HV * K} ? Extents{HV * K} : Extents{HV, K});
  if (const auto wrong = malformed(problem)) file.complain(*wrong);
  for (const auto& [tensor_name, values] : {std::pair{"do", &problem.d_o}, {"dht", &problem.d_final_state}})
    if (!std::ranges::all_of(*values, [](float x) { return std::isfinite(x); }))
      file.complain(std::string(tensor_name) + ": has a value that is not finite");
  return problem;
}

} // namespace

bool is_remark(std::string_view key) { return key == "format" || key == "about" || key.starts_with("about_"); }

Problem problem_of(const TensorTable& table, const std::string& source) { return read_problem({table, source}); }

Problem problem_from(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  return problem_of(file.table(), path.string());
}

} // namespace kdacheck
