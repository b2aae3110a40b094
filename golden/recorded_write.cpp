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

std::size_t rank_of(Input input) {
  switch (input) {
  case Input::A_log: return 1;
  case Input::dt_bias: return 2;
  case Input::beta: return 3;
  default: return 4;
  }
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

void save_problem(const std::filesystem::path& path, const Problem& problem, const Metadata& about) {
  Metadata metadata = about;
  for (const auto& [key, value] : about)
    if (!is_remark(key)) throw std::invalid_argument("a remark is named about or about_*, not " + key);
  metadata["gate"] = name(problem.options.gate);
  metadata["lower_bound"] = number_text(problem.options.lower_bound);
  metadata["beta"] = name(problem.options.beta);
  metadata["l2norm"] = problem.options.l2norm ? "yes" : "no";
  metadata["scale"] = number_text(problem.options.scale);
  const std::int64_t N = sequence_count(problem);
  std::vector<std::vector<std::byte>> bytes; // stay in place: room for every tensor is made first
  bytes.reserve(all_inputs.size() + 2);
  std::vector<StoredTensor> tensors;
  const auto append = [&](std::string_view tensor_name, const std::vector<float>& values, Format format,
                          std::array<std::int64_t, 4> extents, std::size_t rank) {
    const ElementType type = element_type_of(format);
    bytes.push_back(encoded(values, type));
    tensors.push_back(
        {std::string(tensor_name), type, Extents(extents.begin(), extents.begin() + static_cast<std::ptrdiff_t>(rank)), bytes.back()});
  };
  for (Input input : all_inputs)
    if (present(input, problem))
      append(name(input), problem[input], format_of(input, problem.formats), shape_of(input, problem.shape, N), rank_of(input));
  if (!problem.d_o.empty()) append("do", problem.d_o, Format::fp32, shape_of(Output::o, problem.shape, N), 4);
  if (!problem.d_final_state.empty())
    append("dht", problem.d_final_state, Format::fp32, shape_of(Output::final_state, problem.shape, N), 4);
  if (!problem.cu_seqlens.empty())
    tensors.push_back({"cu_seqlens",
                       ElementType::I64,
                       {static_cast<std::int64_t>(problem.cu_seqlens.size())},
                       std::as_bytes(std::span(problem.cu_seqlens))});
  write_safetensors(path, tensors, metadata);
}

Problem rounded_to(Problem problem, const InputFormats& formats) {
  for (Input input : all_inputs)
    for (float& value : problem[input]) value = round_to(format_of(input, formats), value);
  problem.formats = formats;
  return problem;
}

} // namespace kdacheck
