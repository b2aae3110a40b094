#include "../recorded.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <functional>
#include <unistd.h>

using namespace kdacheck;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("kdacheck-recorded-" + std::to_string(::getpid()));
  fs::path file = path / "dump.safetensors";
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

std::vector<float> ramp(std::int64_t count, Format format, float scale = 0.01f) {
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(round_to(format, scale * static_cast<float>(i % 97 - 48)));
  return values;
}

/// B 1, T 5 in three sequences (one empty), H 2, HV 4, K 3, V 2.
Problem full_problem(const Options& options, const InputFormats& formats = {Format::bf16, Format::fp16, Format::fp32}) {
  Problem problem;
  problem.shape = {.B = 1, .T = 5, .H = 2, .HV = 4, .K = 3, .V = 2};
  problem.options = options;
  problem.formats = formats;
  problem.cu_seqlens = {0, 2, 2, 5};
  const std::int64_t N = sequence_count(problem);
  const auto fill = [&](Input input) {
    const auto shape = shape_of(input, problem.shape, N);
    problem[input] = ramp(shape[0] * shape[1] * shape[2] * shape[3], format_of(input, formats));
  };
  for (Input input : {Input::q, Input::k, Input::v, Input::initial_state}) fill(input);
  if (options.gate == GateForm::absent)
    problem.formats.gate = Format::fp32; // the format of a tensor that is not there is not kept
  else
    fill(Input::g);
  if (options.gate == GateForm::softplus || options.gate == GateForm::bounded) fill(Input::A_log), fill(Input::dt_bias);
  if (options.rule == Rule::dplr)
    fill(Input::a), fill(Input::b);
  else
    fill(Input::beta);
  problem.d_o = ramp(5 * 4 * 2, Format::fp32);
  problem.d_final_state = ramp(N * 4 * 3 * 2, Format::fp32);
  return problem;
}

void check_same(const Problem& left, const Problem& right) {
  CHECK(left.shape == right.shape);
  CHECK(left.options == right.options);
  CHECK(left.formats == right.formats);
  for (Input input : all_inputs) {
    INFO(name(input));
    CHECK(left[input] == right[input]);
  }
  CHECK(left.cu_seqlens == right.cu_seqlens);
  CHECK(left.d_o == right.d_o);
  CHECK(left.d_final_state == right.d_final_state);
}

/// A dump of B 1, T 2, H = HV = 1, K = V = 2, to be spoilt.
struct Dump {
  std::vector<float> numbers = std::vector<float>(64, 0.5f);
  std::vector<std::int64_t> offsets{0, 1, 2};
  std::map<std::string, StoredTensor> tensors;
  Metadata metadata;
  Dump() {
    for (const char* tensor : {"q", "k", "v"}) put(tensor, {1, 2, 1, 2});
    put("beta", {1, 2, 1});
  }
  void put(const std::string& tensor, std::vector<std::int64_t> shape, ElementType type = ElementType::F32) {
    std::size_t count = element_bytes(type);
    for (auto extent : shape) count *= static_cast<std::size_t>(extent);
    tensors[tensor] = {tensor, type, shape, std::as_bytes(std::span(numbers)).first(count)};
  }
  void put_offsets(ElementType type = ElementType::I64) {
    tensors["cu_seqlens"] = {"cu_seqlens", type, {3}, std::as_bytes(std::span(offsets))};
  }
  Problem read() const {
    const Folder folder;
    std::vector<StoredTensor> all;
    for (const auto& [tensor_name, tensor] : tensors) all.push_back(tensor);
    write_safetensors(folder.file, all, metadata);
    try {
      return problem_from(folder.file);
    } catch (const BadFile& error) { // the file's name stands before every sentence
      const std::string text = error.what(), source = folder.file.string() + ": ";
      if (!text.starts_with(source)) throw;
      throw BadFile(text.substr(source.size()));
    }
  }
};

} // namespace

TEST_CASE("a saved problem comes back bit for bit, whatever its rule, gate and beta") {
  const Folder folder;
  for (GateForm gate : {GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent})
    for (BetaForm beta : {BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid})
      for (Rule rule : {Rule::kda, Rule::dplr}) {
        const Problem problem =
            full_problem({.rule = rule, .gate = gate, .lower_bound = -1.0f / 3, .beta = beta, .l2norm = true, .scale = 0.1f});
        save_problem(folder.file, problem);
        check_same(problem_from(folder.file), problem);
      }
}

TEST_CASE("every format of the inputs comes back") {
  const Folder folder;
  for (Format format : {Format::fp32, Format::bf16, Format::fp16}) {
    const Problem problem = full_problem({}, {format, format, format});
    save_problem(folder.file, problem);
    check_same(problem_from(folder.file), problem);
  }
}

TEST_CASE("a problem without a token comes back") {
  const Folder folder;
  for (Rule rule : {Rule::kda, Rule::dplr}) {
    Problem problem;
    problem.shape = {.B = 2, .T = 0, .H = 1, .HV = 1, .K = 2, .V = 2};
    problem.options.rule = rule;
    save_problem(folder.file, problem);
    check_same(problem_from(folder.file), problem);
  }
}

TEST_CASE("without metadata the options follow from the tensors") {
  Dump dump;
  CHECK(dump.read().options == Options{.gate = GateForm::absent, .scale = static_cast<float>(1 / std::sqrt(2.0))});
  dump.put("g", {1, 2, 1, 2});
  std::ranges::fill(dump.numbers, -0.5f);
  CHECK(dump.read().options.gate == GateForm::log_decay);
  dump.put("A_log", {1});
  dump.put("dt_bias", {2});
  CHECK(dump.read().options.gate == GateForm::softplus);
  dump.metadata["lower_bound"] = "-2.5";
  CHECK(dump.read().options.gate == GateForm::bounded);
  CHECK(dump.read().options.lower_bound == -2.5f);
}

TEST_CASE("remarks are let pass, A_log may stand between extents of 1, and recorded outputs are not read") {
  Dump dump;
  dump.metadata = {{"format", "pt"}, {"about", "x"}, {"about_text", "y"}};
  dump.put("g", {1, 2, 1, 2});
  dump.put("A_log", {1, 1, 1, 1});
  dump.put("dt_bias", {1, 2});
  dump.put("o", {3}, ElementType::U8);
  CHECK(dump.read().A_log == std::vector<float>{0.5f});
}

TEST_CASE("packed sequences are read from 64-bit and 32-bit offsets") {
  Dump dump;
  dump.put_offsets();
  CHECK(sequence_count(dump.read()) == 2);
  const std::vector<std::int32_t> narrow{0, 0, 2};
  dump.tensors["cu_seqlens"] = {"cu_seqlens", ElementType::I32, {3}, std::as_bytes(std::span(narrow))};
  CHECK(dump.read().cu_seqlens == std::vector<std::int64_t>{0, 0, 2});
}

TEST_CASE("each thing that can be wrong with a dump has its own sentence") {
  using Spoil = std::function<void(Dump&)>;
  const std::vector<std::pair<std::string, Spoil>> spoilt{
      {"tensor v is missing", [](Dump& d) { d.tensors.erase("v"); }},
      {"unknown tensor keys", [](Dump& d) { d.put("keys", {1}); }},
      {"tensor q has shape [2,2] where [B,T,H,K] is due",
       [](Dump& d) {
         d.put("q", {2, 2});
       }},
      {"tensor v has shape [4] where [B,T,HV,V] is due", [](Dump& d) { d.put("v", {4}); }},
      {"tensor k has shape [1,2,1,3] where [1,2,1,2] is due",
       [](Dump& d) {
         d.put("k", {1, 2, 1, 3});
       }},
      {"tensor v has shape [1,3,1,2] where [1,2,1,2] is due",
       [](Dump& d) {
         d.put("v", {1, 3, 1, 2});
       }},
      {"tensor beta has shape [1,2] where [1,2,1] is due",
       [](Dump& d) {
         d.put("beta", {1, 2});
       }},
      {"tensor A_log has shape [2] where [1] is due",
       [](Dump& d) {
         d.put("g", {1, 2, 1, 2}), d.put("A_log", {2});
       }},
      {"tensor dt_bias has shape [1] where [1,2] is due",
       [](Dump& d) {
         d.put("g", {1, 2, 1, 2}), d.put("A_log", {1}), d.put("dt_bias", {1});
       }},
      {"tensor initial_state has shape [2,1,2,2] where [1,1,2,2] is due",
       [](Dump& d) {
         d.put("initial_state", {2, 1, 2, 2});
       }},
      {"tensor q holds I64 where BF16, F16 or F32 is due",
       [](Dump& d) {
         d.put("q", {1, 2, 1, 2}, ElementType::I64);
       }},
      {"tensor g holds F64 where BF16, F16 or F32 is due",
       [](Dump& d) {
         d.put("g", {1, 2, 1, 2}, ElementType::F64);
       }},
      {"q is F32 and k is BF16: they must have one dtype",
       [](Dump& d) {
         d.put("k", {1, 2, 1, 2}, ElementType::BF16);
       }},
      {"shape: HV (3) must be a multiple of H (2)",
       [](Dump& d) {
         d.put("q", {1, 2, 2, 2}), d.put("k", {1, 2, 2, 2}), d.put("v", {1, 2, 3, 2}), d.put("beta", {1, 2, 3});
       }},
      {"tensor cu_seqlens holds F64 where I64 or I32 is due", [](Dump& d) { d.put("cu_seqlens", {3}, ElementType::F64); }},
      {"tensor cu_seqlens has shape [3,1] where [N+1] is due",
       [](Dump& d) {
         d.put("cu_seqlens", {3, 1}, ElementType::I64);
       }},
      {"cu_seqlens: needs at least two entries", [](Dump& d) { d.put("cu_seqlens", {0}, ElementType::I64); }},
      {"cu_seqlens: the first entry must be 0, not 1",
       [](Dump& d) {
         d.offsets = {1, 1, 2}, d.put_offsets();
       }},
      {"cu_seqlens: entries must not decrease",
       [](Dump& d) {
         d.offsets = {0, 3, 2}, d.put_offsets();
       }},
      {"cu_seqlens: the last entry (1) must equal T (2)",
       [](Dump& d) {
         d.offsets = {0, 1, 1}, d.put_offsets();
       }},
      {"cu_seqlens: packed sequences need B = 1, not 2",
       [](Dump& d) {
         for (const char* tensor : {"q", "k", "v"}) d.put(tensor, {2, 2, 1, 2});
         d.put("beta", {2, 2, 1}), d.put_offsets();
       }},
      {"q: has a value that is not finite", [](Dump& d) { d.numbers[0] = NAN; }},
      {"k: has a value that is not finite",
       [](Dump& d) { // one BF16 infinity, in k alone
         d.put("q", {1, 2, 1, 2}, ElementType::BF16), d.put("v", {1, 2, 1, 2}, ElementType::BF16);
         static const std::vector<std::uint16_t> halves{0x3f80, 0x7f80, 0, 0};
         d.tensors["k"] = {"k", ElementType::BF16, {1, 2, 1, 2}, std::as_bytes(std::span(halves))};
       }},
      {"do: has a value that is not finite",
       [](Dump& d) {
         static const std::vector<float> cotangents{0, 0, 0, NAN};
         d.tensors["do"] = {"do", ElementType::F32, {1, 2, 1, 2}, std::as_bytes(std::span(cotangents))};
       }},
      {"metadata gate is \"soft\"; known are log_decay, softplus, bounded, sigmoid and absent",
       [](Dump& d) { d.metadata["gate"] = "soft"; }},
      {"metadata beta is \"\"; known are value, sigmoid and twice_sigmoid", [](Dump& d) { d.metadata["beta"] = ""; }},
      {"metadata l2norm is \"true\"; known are yes and no", [](Dump& d) { d.metadata["l2norm"] = "true"; }},
      {"metadata scale is \"0.1x\", not a finite number", [](Dump& d) { d.metadata["scale"] = "0.1x"; }},
      {"metadata scale is \"inf\", not a finite number", [](Dump& d) { d.metadata["scale"] = "inf"; }},
      {"lower_bound must be a number <= 0",
       [](Dump& d) {
         d.put("g", {1, 2, 1, 2}), d.put("A_log", {1}), d.put("dt_bias", {2}), d.metadata["lower_bound"] = "1";
       }},
      {"unknown metadata l2nrom; known are gate, lower_bound, beta, l2norm and scale, and remarks under about or about_*",
       [](Dump& d) { d.metadata["l2nrom"] = "yes"; }},
      {"g: has 4 elements where 0 are due",
       [](Dump& d) {
         d.put("g", {1, 2, 1, 2}), d.metadata["gate"] = "absent";
       }},
      {"beta: has 2 elements where 0 are due",
       [](Dump& d) {
         d.put("a", {1, 2, 1, 2}), d.put("b", {1, 2, 1, 2});
       }},
      {"b: has 0 elements where 4 are due", [](Dump& d) {
         d.put("a", {1, 2, 1, 2}), d.tensors.erase("beta");
       }}};
  for (const auto& [sentence, spoil] : spoilt) {
    INFO(sentence);
    Dump dump;
    spoil(dump);
    CHECK_THROWS_WITH(dump.read(), sentence);
  }
}

TEST_CASE("a remark that could be taken for an option is refused") {
  const Folder folder;
  CHECK_THROWS_WITH(save_problem(folder.file, full_problem({}), {{"gate", "x"}}), "a remark is named about or about_*, not gate");
}

TEST_CASE("the committed dump is a KDA layer's input with raw gate and normalisation inside") {
  const Problem problem = problem_from(fs::path(KDACHECK_GOLDEN) / "recorded" / "kda_layer0.safetensors");
  CHECK(problem.shape == Shape{.B = 1, .T = 256, .H = 2, .HV = 2, .K = 64, .V = 64});
  CHECK(problem.options == Options{.gate = GateForm::softplus, .l2norm = true, .scale = 0.125f});
  CHECK(problem.formats == InputFormats{Format::bf16, Format::bf16, Format::fp32});
  for (float beta : problem.beta) REQUIRE((beta > 0 && beta < 1));
  for (float A_log : problem.A_log) CHECK((A_log >= 0 && A_log <= std::log(16.0f)));
}

TEST_CASE("rounding to a kernel's formats leaves wider numbers as they are and rounds narrower ones") {
  const Problem problem = full_problem({}, {Format::fp32, Format::fp32, Format::fp32});
  const Problem narrow = rounded_to(problem, {Format::bf16, Format::fp32, Format::fp32});
  CHECK(narrow.formats.qkv == Format::bf16);
  CHECK(narrow.q[1] == round_bf16(problem.q[1]));
  CHECK(narrow.q != problem.q);
  CHECK(narrow.g == problem.g);
  CHECK(rounded_to(narrow, {Format::fp32, Format::fp32, Format::fp32}).q == narrow.q);
}
