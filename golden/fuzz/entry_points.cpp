#include "entry_points.hpp"

#include "../../kernels/plugin/plugin_kernels.hpp"
#include "../../kernels/plugin/tensor_files.hpp"
#include "../../kernels/plugin/worker_protocol.hpp"
#include "../../properties/campaign.hpp"
#include "../golden_case.hpp"

#include <boost/crc.hpp>
#include <nlohmann/json.hpp>

#include <array>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace kdacheck {
namespace {

std::string_view text_of(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

void require(bool holds, const char* promise) {
  if (!holds) throw std::logic_error(promise);
}

/// A refusal that a person can read: not empty, one line.
bool refused(std::string_view sentence) {
  require(!sentence.empty(), "a refusal says nothing");
  require(sentence.size() < 10000, "a refusal is longer than a page");
  require(sentence.find('\n') == sentence.npos && sentence.find('\0') == sentence.npos, "a refusal is more than one line");
  return false;
}

bool feed_contract(std::span<const std::byte> bytes) {
  const ParsedContract parsed = parse_contract(text_of(bytes));
  if (!parsed.contract) return refused(parsed.error);
  const ParsedContract again = parse_contract(to_text(*parsed.contract));
  require(again.contract == parsed.contract, "a contract changes when it is written and read");
  return true;
}

/// Recipe tokens, and replay tokens around them. The checksum, which no mutation hits, is put right first.
bool feed_token(std::span<const std::byte> bytes) {
  std::string token(text_of(bytes));
  boost::crc_32_type crc;
  const auto recipe = token.rfind(':') == token.npos ? 0 : token.rfind(':') + 1, last = token.rfind(',');
  if (last != token.npos && last >= recipe) {
    token.resize(last + 1);
    crc.process_bytes(token.data() + recipe, token.size() - recipe);
    std::array<char, 9> checksum{};
    std::snprintf(checksum.data(), checksum.size(), "%08x", crc.checksum());
    token += checksum.data();
  }
  try {
    if (recipe == 0)
      require(to_token(from_token(token)) == token, "a recipe token changes when it is read and written");
    else
      require(replay_token(replay_from_token(token)) != "", "a replay token is empty");
    return true;
  } catch (const std::invalid_argument& wrong) {
    return refused(wrong.what());
  }
}

bool feed_safetensors(std::span<const std::byte> bytes) {
  try {
    const TensorTable table = parse_safetensors(bytes, "fuzzed");
    for (const StoredTensor& tensor : table.tensors) {
      require(tensor.bytes.data() >= bytes.data() && tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + bytes.size(),
              "a tensor lies outside its file");
      if (format_of(tensor.type)) require(floats(tensor).size() * element_bytes(tensor.type) == tensor.bytes.size(), "numbers are lost");
    }
    return true;
  } catch (const BadFile& bad) {
    return refused(bad.what());
  }
}

/// A recorded dump: a safetensors file that must be a problem.
bool feed_recorded(std::span<const std::byte> bytes) {
  try {
    const Problem problem = problem_of(parse_safetensors(bytes, "fuzzed"), "fuzzed");
    require(!malformed(problem), "a malformed problem is accepted");
    return true;
  } catch (const BadFile& bad) {
    return refused(bad.what());
  }
}

TensorView dense(float* data, const std::array<std::int64_t, 4>& shape) { return {data, Format::fp32, shape, contiguous_strides(shape)}; }

/// A worker's result file for a call of B 1, T 3, HV 2, K 2, V 3.
bool feed_result(std::span<const std::byte> bytes) {
  std::array<float, 18> o{};
  std::array<float, 12> state{};
  const Outputs out{.o = dense(o.data(), {1, 3, 2, 3}), .final_state = dense(state.data(), {1, 2, 2, 3})};
  try {
    plugin::read_outputs(parse_safetensors(bytes, "fuzzed"), out, false);
    return true;
  } catch (const BadFile& bad) {
    return refused(bad.what());
  } catch (const KernelCrashed& wrong) {
    return refused(wrong.what());
  }
}

/// A worker's lines: its answer to hello, and to a call.
bool feed_protocol(std::span<const std::byte> bytes) {
  bool accepted = false;
  try {
    require(!plugin::read_hello(text_of(bytes), "worker 'fuzzed'").empty(), "a worker without kernels is accepted");
    accepted = true;
  } catch (const PluginTrouble& trouble) {
    refused(trouble.what());
  }
  try {
    const plugin::WorkerAnswer answer = plugin::read_answer(text_of(bytes));
    if (!answer.refusal.empty()) refused(answer.refusal);
    if (!answer.trespass.empty()) refused(answer.trespass);
    accepted = true;
  } catch (const KernelCrashed& wrong) {
    refused(wrong.what());
  }
  return accepted;
}

bool feed_manifest(std::span<const std::byte> bytes) {
  const auto manifest = nlohmann::json::parse(text_of(bytes), nullptr, false);
  if (manifest.is_discarded()) return false;
  if (const auto breach = manifest_breach(manifest)) return refused(*breach);
  try {
    blueprint_of(manifest, "fuzzed");
    return true;
  } catch (const BadFile& bad) {
    return refused(bad.what());
  }
}

constexpr std::array targets{FuzzTarget{"contract", feed_contract},       FuzzTarget{"token", feed_token},
                             FuzzTarget{"safetensors", feed_safetensors}, FuzzTarget{"recorded", feed_recorded},
                             FuzzTarget{"result", feed_result},           FuzzTarget{"protocol", feed_protocol},
                             FuzzTarget{"manifest", feed_manifest}};

} // namespace

std::span<const FuzzTarget> fuzz_targets() { return targets; }

} // namespace kdacheck
