#include "subprocess_kernels.hpp"

#include "broken_law.hpp"
#include "child_process.hpp"
#include "plain_words.hpp"
#include "shell_word.hpp"
#include "tensor_files.hpp"
#include "worker_pool.hpp"
#include "worker_protocol.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <sys/wait.h>
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

/// A command as the shell is to run it: one program in the shell's place, so that its end is seen as it is; lists of commands,
/// redirections and assignments as they are.
std::string for_the_shell(const std::string& command) {
  const auto first = command.find_first_not_of(" \t\n");
  const std::string word = first == command.npos ? "" : command.substr(first, command.find_first_of(" \t\n", first) - first);
  const bool simple = command.find_first_of("&|;<>()\n") == command.npos && word.find('=') == word.npos && word != "exec";
  return simple ? "exec " + command : command;
}

/// Where kernels come from: a command for the shell, and what to call it in a sentence.
struct Source {
  std::string command, label;
  PluginTrouble::Fault missing = PluginTrouble::Fault::source; ///< whose fault it is that the command does not exist
};

std::string unasked(const std::string& line) { return "wrong answer: a line that nobody asked for: " + plain_words(line, 80); }

struct Worker {
  Folder folder;
  ChildProcess process;
  std::string introduction; ///< the answer to hello
  std::string serves;       ///< the kernel of the last call

  /// Starts the process and says hello. Throws PluginTrouble.
  Worker(const Source& source, const PluginOptions& options)
      : process({"/bin/sh", "-c", for_the_shell(source.command)}, Channel::standard, {}, options.keep_standard_error,
                folder.path.string()) {
    try {
      introduction = ask({{"op", "hello"}, {"protocol", 1}}, options.start_patience);
    } catch (const KernelCrashed& crash) {
      const int status = process.finish().status; // the shell's: 126 cannot be run, 127 not found
      const bool missing = WIFEXITED(status) && (WEXITSTATUS(status) == 126 || WEXITSTATUS(status) == 127);
      throw PluginTrouble(source.label + " does not answer hello: " + crash.what(),
                          missing ? source.missing : PluginTrouble::Fault::source);
    } catch (const KernelTimedOut&) {
      const std::string words = process.last_words();
      throw PluginTrouble(fmt::format("{} did not start within {} s (--start-timeout){}", source.label,
                                      std::chrono::duration<double>(options.start_patience).count(),
                                      words.empty() ? "" : "; it said: " + words),
                          PluginTrouble::Fault::slow);
    }
  }

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

  /// What it did since its last answer, within `patience`: wrote a line, or ended. Empty: nothing, as it should.
  std::string said_unasked(std::chrono::milliseconds patience = {}) {
    if (patience.count() == 0 && process.silent()) return {};
    std::string line;
    const int got = process.read_line(line, patience);
    if (got == 1) return unasked(line);
    if (got == -1) return "after its answer the process " + process.finish().how;
    return process.silent() ? "" : "wrong answer: half a line that nobody asked for";
  }
};

using Pool = WorkerPool<Worker>;

/// Whether a path names what another name reaches too.
bool is_a_link(const std::filesystem::path& path) {
  std::error_code trouble;
  const auto status = symlink_status(path, trouble);
  return is_symlink(status) || (is_regular_file(status) && std::filesystem::hard_link_count(path, trouble) > 1);
}

/// Sends one call; `collect` reads the result file.
template <class Collect>
void call(Pool& pool, const Kernel& kernel, const char* operation, const Inputs& in, const Cotangents& cotangents, json request,
          const Collect& collect) {
  std::string refusal;
  pool.borrow(kernel.name, [&](Worker& worker) {
    const auto problem = worker.folder.path / "problem.safetensors", result = worker.folder.path / "result.safetensors";
    write_call(problem, in, cotangents, kernel.contract.state_v_first);
    const auto written = bytes_of_file(problem);
    if (!written) throw std::runtime_error("cannot read what was written to " + problem.string());
    std::error_code ignored;
    std::filesystem::remove(result, ignored); // an answer of an earlier call must not count
    request["op"] = operation;
    request["kernel"] = kernel.name;
    request["problem"] = problem.string();
    request["result"] = result.string();
    WorkerAnswer answer = read_answer(worker.ask(request, pool.options().patience));
    if (std::string more; worker.process.read_line(more, {}) == 1) throw KernelCrashed(unasked(more));
    if (answer.trespass.empty() && bytes_of_file(problem, written->size()) != written) answer.trespass = "changed its problem file";
    if (answer.trespass.empty() && is_a_link(result)) answer.trespass = "gave a link to another file as its result";
    if (!answer.trespass.empty()) {
      if (!answer.refusal.empty()) throw KernelBrokeLaw(answer.trespass);
      try { // what it computed all the same is for the other laws
        collect(result);
      } catch (const KernelCrashed&) {
        throw KernelBrokeLaw(answer.trespass);
      }
      throw KernelTrespassed(answer.trespass);
    }
    refusal = answer.refusal;
    if (!refusal.empty()) return;
    try {
      collect(result);
    } catch (const KernelCrashed&) { // an answer to another request, perhaps, whose own is still to come
      if (const std::string sentence = worker.said_unasked(std::chrono::milliseconds(500)); !sentence.empty())
        throw KernelCrashed(sentence);
      throw;
    }
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

std::string python() {
  const char* chosen = std::getenv("KDACHECK_PYTHON");
  return chosen && *chosen ? chosen : "python3";
}

std::vector<Kernel> kernels_of(const Source& source, const PluginOptions& options) {
  const auto pool = std::make_shared<Pool>([source, options] { return std::make_unique<Worker>(source, options); }, options);
  std::vector<Kernel> kernels;
  for (const DescribedKernel& described : read_hello(pool->introduction(), source.label)) kernels.push_back(proxy(pool, described));
  return kernels;
}

} // namespace

std::vector<Kernel> subprocess_kernels(const std::string& command, const PluginOptions& options) {
  if (command.find_first_not_of(" \t\n") == command.npos) throw PluginTrouble("a worker program needs a command");
  return kernels_of({.command = command, .label = "worker '" + command + "'"}, options);
}

std::vector<Kernel> python_kernels(const std::string& module_and_function, const PluginOptions& options) {
  return kernels_of({.command = python_worker_command(module_and_function),
                     .label = "Python function '" + module_and_function + "' (by " + python() + ")",
                     .missing = PluginTrouble::Fault::machine},
                    options);
}

std::string python_worker_command(const std::string& module_and_function) {
  const char* package = std::getenv("KDACHECK_PYTHON_PACKAGE"); // of a program that was carried to another machine
  return std::string("env PYTHONPATH=\"") + (package ? "$KDACHECK_PYTHON_PACKAGE" : KDACHECK_PYTHON_PACKAGE) + ":$PWD:$PYTHONPATH\" " +
         python() + " -m kdacheck.worker " + shell_word(module_and_function);
}

} // namespace kdacheck
