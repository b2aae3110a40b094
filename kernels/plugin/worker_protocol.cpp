#include "worker_protocol.hpp"

#include "../kernel.hpp"
#include "plain_words.hpp"
#include "plugin_kernels.hpp"

#include <nlohmann/json.hpp>

namespace kdacheck::plugin {
namespace {

using nlohmann::json;
std::string text_at(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? plain_words(found->get<std::string>()) : std::string();
}

json object_of(std::string_view line) {
  json parsed = json::parse(line, nullptr, false);
  if (!parsed.is_object()) throw KernelCrashed("wrong answer: a line that is no JSON object: " + plain_words(line, 80));
  return parsed;
}

} // namespace

std::vector<DescribedKernel> read_hello(std::string_view line, const std::string& label) {
  const auto trouble = [&](const std::string& what) { return PluginTrouble(label + what); };
  json hello;
  try {
    hello = object_of(line);
  } catch (const KernelCrashed& wrong) {
    throw trouble(std::string(" does not answer hello: ") + wrong.what());
  }
  if (const std::string error = text_at(hello, "error"); !error.empty())
    throw PluginTrouble(label + ": " + error, hello.contains("missing") ? PluginTrouble::Fault::machine : PluginTrouble::Fault::source);
  if (hello.value("protocol", json()) != json(1)) throw trouble(" does not speak protocol 1");
  const json described = hello.value("kernels", json());
  if (!described.is_array() || described.empty()) throw trouble(" offers no kernel");
  std::vector<DescribedKernel> kernels;
  for (const json& one : described) {
    if (!one.is_object()) throw trouble(": a kernel is no JSON object");
    DescribedKernel& kernel = kernels.emplace_back();
    kernel.name = text_at(one, "name");
    if (const std::string why = why_no_name(kernel.name); !why.empty()) throw trouble(": " + why);
    kernel.summary = text_at(one, "summary");
    ParsedContract parsed = parse_contract(text_at(one, "contract"));
    if (!parsed.contract) throw trouble(": kernel '" + kernel.name + "': " + parsed.error);
    kernel.contract = *parsed.contract;
    kernel.backward = one.value("backward", json(false)) == json(true);
  }
  return kernels;
}

WorkerAnswer read_answer(std::string_view line) {
  const json answer = object_of(line);
  WorkerAnswer read{.refusal = text_at(answer, "refused"), .trespass = text_at(answer, "trespass")};
  if (!read.refusal.empty()) return read;
  if (const std::string error = text_at(answer, "error"); !error.empty()) throw KernelCrashed(error);
  if (read.trespass.empty() && answer.value("done", json(false)) != json(true))
    throw KernelCrashed("wrong answer: none of done, refused, error");
  return read;
}

} // namespace kdacheck::plugin
