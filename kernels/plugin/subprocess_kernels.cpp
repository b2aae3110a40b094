#include "subprocess_kernels.hpp"

#include "child_process.hpp"
#include "shell_word.hpp"
#include "tensor_files.hpp"
#include "worker_pool.hpp"
#include "worker_protocol.hpp"

#include <nlohmann/json.hpp>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

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

  std::string ask(const json& request, std::chrono::milliseconds patience) {
    std::string line;
    const int got = process.send_line(request.dump()) ? process.read_line(line, patience) : -1;
    if (got == 0) {
      process.kill_child();
      throw KernelTimedOut("no answer within " + std::to_string(patience.count()) + " ms");
    }
    if (got == -1) throw KernelCrashed("the process " + process.finish().how);
    if (got == -2) throw KernelCrashed("wrong answer: a line of more than 1 MiB");
    return line;
  }
};

using Pool = WorkerPool<Worker>;

/// All bytes of a file, empty if it cannot be read.
std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Whether a path names a file that no other name reaches.
bool a_file_of_its_own(const std::filesystem::path& path) {
  std::error_code trouble;
  return std::filesystem::is_regular_file(std::filesystem::symlink_status(path, trouble)) &&
         std::filesystem::hard_link_count(path, trouble) == 1;
}

/// Sends one call; `collect` reads the result file.
template <class Collect>
void call(Pool& pool, const Kernel& kernel, const char* operation, const Inputs& in, const Cotangents& cotangents, json request,
          const Collect& collect) {
  std::string refusal;
  pool.borrow([&](Worker& worker) {
    const auto problem = worker.folder.path / "problem.safetensors", result = worker.folder.path / "result.safetensors";
    write_call(problem, in, cotangents, kernel.contract.state_v_first);
    const std::string written = contents(problem);
    std::error_code ignored;
    std::filesystem::remove(result, ignored); // an answer of an earlier call must not count
    request["op"] = operation;
    request["kernel"] = kernel.name;
    request["problem"] = problem.string();
    request["result"] = result.string();
    WorkerAnswer answer = read_answer(worker.ask(request, pool.options().patience));
    if (answer.trespass.empty() && contents(problem) != written) answer.trespass = "changed its problem file";
    refusal = answer.trespass.empty() ? answer.refusal : "";
    if (!refusal.empty()) return;
    if (answer.refusal.empty()) {
      if (answer.trespass.empty() && std::filesystem::exists(result, ignored) && !a_file_of_its_own(result))
        answer.trespass = "gave a link to another file as its result";
      collect(result);
    }
    if (!answer.trespass.empty()) throw KernelTrespassed(answer.trespass);
  });
  if (!refusal.empty()) throw Refused(refusal);
}

Kernel proxy(const std::shared_ptr<Pool>& pool, const DescribedKernel& described) {
  Kernel kernel{.name = described.name,
                .summary = described.summary,
                .contract = described.contract,
                .workspace_bytes = {},
                .forward = {},
                .backward = {}};
  const Kernel identity = kernel;
  const bool v_first = kernel.contract.state_v_first;
  kernel.forward = [pool, identity, v_first](const Inputs& in, const Outputs& out, std::span<std::byte>) {
    call(*pool, identity, "forward", in, {}, {{"final_state", static_cast<bool>(out.final_state)}},
         [&](const std::filesystem::path& result) { read_outputs(result, out, v_first); });
  };
  if (described.backward)
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
  std::string hello;
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
  std::vector<Kernel> kernels;
  for (const DescribedKernel& described : read_hello(hello, command)) kernels.push_back(proxy(pool, described));
  return kernels;
}

std::string python_worker_command(const std::string& module_and_function) {
  const char* chosen = std::getenv("KDACHECK_PYTHON");
  const char* package = std::getenv("KDACHECK_PYTHON_PACKAGE"); // of a program that was carried to another machine
  return std::string("env PYTHONPATH=\"") + (package ? "$KDACHECK_PYTHON_PACKAGE" : KDACHECK_PYTHON_PACKAGE) + ":$PWD:$PYTHONPATH\" " +
         (chosen ? chosen : "python3") + " -m kdacheck.worker " + shell_word(module_and_function);
}

} // namespace kdacheck
