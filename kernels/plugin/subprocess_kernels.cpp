#include "subprocess_kernels.hpp"

#include "child_process.hpp"
#include "shell_word.hpp"
#include "tensor_files.hpp"
#include "worker_pool.hpp"

#include <nlohmann/json.hpp>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace kdacheck {
namespace {

using namespace plugin;
using nlohmann::json;

/// A folder of its own in shared memory where there is such a thing, gone with the object.
struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string pattern =
        (access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::filesystem::temp_directory_path().string()) + "/kdacheck-XXXXXX";
    if (!mkdtemp(pattern.data())) throw std::runtime_error("cannot make a temporary folder " + pattern);
    path = pattern;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

struct Worker {
  Folder folder;
  ChildProcess process;
  bool dirty = false;

  Worker(const std::string& command, bool keep_standard_error)
      : process({"/bin/sh", "-c", "exec " + command}, Channel::standard, {}, keep_standard_error, folder.path.string()) {}

  json ask(const json& request, std::chrono::milliseconds patience) {
    std::string line;
    const int got = process.send_line(request.dump()) ? process.read_line(line, patience) : -1;
    if (got == 0) {
      process.kill_child();
      throw KernelTimedOut("no answer within " + std::to_string(patience.count()) + " ms");
    }
    if (got == -1) throw KernelCrashed("the process " + process.finish().how);
    if (got == -2) throw KernelCrashed("wrong answer: a line of more than 1 MiB");
    json answer = json::parse(line, nullptr, false);
    if (!answer.is_object()) throw KernelCrashed("wrong answer: a line that is no JSON object: " + line.substr(0, 80));
    return answer;
  }
};

using Pool = WorkerPool<Worker>;

std::string text_at(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

/// Sends one call; `collect` reads the result file.
template <class Collect>
void call(Pool& pool, const Kernel& kernel, const char* operation, const Inputs& in, const Cotangents& cotangents, json request,
          const Collect& collect) {
  std::string refusal;
  pool.borrow([&](Worker& worker) {
    const auto problem = worker.folder.path / "problem.safetensors", result = worker.folder.path / "result.safetensors";
    write_call(problem, in, cotangents, kernel.contract.state_v_first);
    std::error_code ignored;
    std::filesystem::remove(result, ignored); // an answer of an earlier call must not count
    request["op"] = operation;
    request["kernel"] = kernel.name;
    request["problem"] = problem.string();
    request["result"] = result.string();
    const json answer = worker.ask(request, pool.options().patience);
    refusal = text_at(answer, "refused");
    if (!refusal.empty()) return;
    if (const std::string error = text_at(answer, "error"); !error.empty()) throw KernelCrashed(error.substr(0, 2000));
    if (!answer.contains("done")) throw KernelCrashed("wrong answer: none of done, refused, error");
    collect(result);
    if (const std::string trespass = text_at(answer, "trespass"); !trespass.empty()) throw KernelTrespassed(trespass);
  });
  if (!refusal.empty()) throw Refused(refusal);
}

Kernel proxy(const std::shared_ptr<Pool>& pool, const json& described, const std::string& command) {
  Kernel kernel{.name = text_at(described, "name"),
                .summary = text_at(described, "summary"),
                .contract = {},
                .workspace_bytes = {},
                .forward = {},
                .backward = {}};
  if (kernel.name.empty()) throw PluginTrouble("worker '" + command + "': a kernel has no name");
  ParsedContract parsed = parse_contract(text_at(described, "contract"));
  if (!parsed.contract) throw PluginTrouble("worker '" + command + "': kernel '" + kernel.name + "': " + parsed.error);
  kernel.contract = *parsed.contract;
  const Kernel identity = kernel;
  const bool v_first = kernel.contract.state_v_first;
  kernel.forward = [pool, identity, v_first](const Inputs& in, const Outputs& out, std::span<std::byte>) {
    call(*pool, identity, "forward", in, {}, {{"final_state", static_cast<bool>(out.final_state)}},
         [&](const std::filesystem::path& result) { read_outputs(result, out, v_first); });
  };
  if (described.value("backward", json(false)) == json(true))
    kernel.backward = [pool, identity, v_first](const Inputs& in, const Cotangents& cotangents, const GradientOutputs& gradients,
                                                std::span<std::byte>) {
      json wanted = json::array();
      for (Input input : all_inputs)
        if (gradients[input]) wanted.push_back("d" + std::string(name(input)));
      call(*pool, identity, "backward", in, cotangents, {{"gradients", wanted}},
           [&](const std::filesystem::path& result) { read_gradients(result, gradients, v_first); });
    };
  return kernel;
}

} // namespace

std::vector<Kernel> subprocess_kernels(const std::string& command, const PluginOptions& options) {
  const auto pool =
      std::make_shared<Pool>([command, options] { return std::make_unique<Worker>(command, options.keep_standard_error); }, options);
  json hello;
  try {
    hello = pool->borrow([&](Worker& worker) {
      return worker.ask({{"op", "hello"}, {"protocol", 1}},
                        std::max(options.patience, std::chrono::milliseconds(120000))); // imports may be slow
    });
  } catch (const KernelCrashed& crash) {
    throw PluginTrouble("worker '" + command + "' does not answer hello: " + crash.what());
  } catch (const KernelTimedOut& late) {
    throw PluginTrouble("worker '" + command + "' does not answer hello: " + late.what());
  }
  if (const std::string error = text_at(hello, "error"); !error.empty()) throw PluginTrouble("worker '" + command + "': " + error);
  if (hello.value("protocol", json()) != json(1)) throw PluginTrouble("worker '" + command + "' does not speak protocol 1");
  const json described = hello.value("kernels", json());
  if (!described.is_array() || described.empty()) throw PluginTrouble("worker '" + command + "' offers no kernel");
  std::vector<Kernel> kernels;
  for (const json& one : described) {
    if (!one.is_object()) throw PluginTrouble("worker '" + command + "': a kernel is no JSON object");
    kernels.push_back(proxy(pool, one, command));
  }
  return kernels;
}

std::string python_worker_command(const std::string& module_and_function) {
  const char* chosen = std::getenv("KDACHECK_PYTHON");
  const char* package = std::getenv("KDACHECK_PYTHON_PACKAGE"); // of a program that was carried to another machine
  return std::string("env PYTHONPATH=\"") + (package ? "$KDACHECK_PYTHON_PACKAGE" : KDACHECK_PYTHON_PACKAGE) + ":$PWD:$PYTHONPATH\" " +
         (chosen ? chosen : "python3") + " -m kdacheck.worker " + shell_word(module_and_function);
}

} // namespace kdacheck
