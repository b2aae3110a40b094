#include "recorded.hpp"

#include <array>
#include <charconv>

namespace kdacheck {
namespace {

using Extents = std::vector<std::int64_t>;

std::string number_text(float value) {
  std::array<char, 32> text{};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

/// Whether a tensor is written. Tensors without a token are: reading tells the options by what is there.
bool present(Input input, const Problem& problem) {
  switch (input) {
  case Input::q:
  case Input::k:
  case Input::v: return true;
  case Input::g: return problem.options.gate != GateForm::absent;
  case Input::beta: return problem.options.rule == Rule::kda;
  case Input::a:
  case Input::b: return problem.options.rule == Rule::dplr;
  default: return !problem[input].empty();
  }
}

} // namespace

std::vector<OwnedTensor> tensors_of(const Problem& problem) {
  const std::int64_t N = sequence_count(problem);
  std::vector<OwnedTensor> tensors;
  const auto append = [&](std::string_view tensor_name, const std::vector<float>& values, Format format,
                          std::array<std::int64_t, 4> extents, std::size_t rank) {
    const ElementType type = element_type_of(format);
    tensors.push_back({std::string(tensor_name), type, Extents(extents.begin(), extents.begin() + static_cast<std::ptrdiff_t>(rank)),
                       encoded(values, type)});
  };
  for (Input input : all_inputs)
    if (present(input, problem))
      append(name(input), problem[input], format_of(input, problem.formats), shape_of(input, problem.shape, N), rank_of(input));
  if (!problem.d_o.empty()) append("do", problem.d_o, Format::fp32, shape_of(Output::o, problem.shape, N), 4);
  if (!problem.d_final_state.empty())
    append("dht", problem.d_final_state, Format::fp32, shape_of(Output::final_state, problem.shape, N), 4);
  if (!problem.cu_seqlens.empty()) {
    const auto bytes = std::as_bytes(std::span(problem.cu_seqlens));
    tensors.push_back(
        {"cu_seqlens", ElementType::I64, {static_cast<std::int64_t>(problem.cu_seqlens.size())}, {bytes.begin(), bytes.end()}});
  }
  return tensors;
}

Metadata metadata_of(const Problem& problem) {
  return {{"gate", std::string(name(problem.options.gate))},
          {"lower_bound", number_text(problem.options.lower_bound)},
          {"beta", std::string(name(problem.options.beta))},
          {"l2norm", problem.options.l2norm ? "yes" : "no"},
          {"scale", number_text(problem.options.scale)}};
}

void write_tensors(const std::filesystem::path& path, const std::vector<OwnedTensor>& tensors, const Metadata& metadata) {
  std::vector<StoredTensor> stored;
  for (const OwnedTensor& tensor : tensors) stored.push_back({tensor.name, tensor.type, tensor.shape, tensor.bytes});
  write_safetensors(path, stored, metadata);
}

void save_problem(const std::filesystem::path& path, const Problem& problem, const Metadata& about) {
  for (const auto& [key, value] : about)
    if (!is_remark(key)) throw std::invalid_argument("a remark is named about or about_*, not " + key);
  Metadata metadata = metadata_of(problem);
  metadata.insert(about.begin(), about.end());
  write_tensors(path, tensors_of(problem), metadata);
}

Problem rounded_to(Problem problem, const InputFormats& formats) {
  for (Input input : all_inputs)
    for (float& value : problem[input]) value = round_to(format_of(input, formats), value);
  problem.formats = formats;
  return problem;
}

} // namespace kdacheck
