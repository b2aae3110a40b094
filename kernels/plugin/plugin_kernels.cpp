#include "plugin_kernels.hpp"

#include "call_memory.hpp"
#include "child_process.hpp"
#include "plain_words.hpp"
#include "worker_pool.hpp"

#include <fmt/format.h>

#include <unistd.h>

#include <filesystem>
#include <sstream>

namespace kdacheck {
namespace {

using namespace plugin;

std::string text_of(const CallRecord& record) { return {record.text.data(), strnlen(record.text.data(), record.text.size())}; }

/// Whether the library or the machine is to blame that the loader cannot load it.
PluginTrouble::Fault fault_of(std::string_view loader) {
  const bool lacking = loader.find("cannot open shared object file") != loader.npos || loader.find("annot allocate memory") != loader.npos;
  return lacking ? PluginTrouble::Fault::machine : PluginTrouble::Fault::source;
}

constexpr const char* too_many_answers = "the process answered more often than it was asked";

struct Worker {
  SharedMemory memory;
  ChildProcess process;
  std::string introduction; ///< one line for each kernel
  std::string serves;       ///< the kernel of the last call

  /// Starts the process and asks which kernels the library has. Throws PluginTrouble.
  Worker(const std::string& path, const PluginOptions& options)
      : process({worker_program(), path}, Channel::control, {memory.descriptor()}, options.keep_standard_error) {
    const auto trouble = [&](const std::string& what, PluginTrouble::Fault fault = PluginTrouble::Fault::source) {
      return PluginTrouble("plug-in '" + path + "' " + what, fault);
    };
    try {
      memory.record().operation = Operation::describe;
      exchange(options.start_patience);
    } catch (const KernelCrashed& crash) {
      throw trouble(std::string("cannot be loaded: ") + crash.what());
    } catch (const KernelTimedOut&) {
      throw trouble(
          fmt::format("was not loaded within {} s (--start-timeout)", std::chrono::duration<double>(options.start_patience).count()),
          PluginTrouble::Fault::slow);
    }
    introduction = text_of(memory.record());
    if (memory.record().answer == Answer::failed) throw trouble(plain_words(introduction), fault_of(introduction));
    if (memory.record().answer != Answer::done) throw trouble("gave no valid answer");
  }

  /// Hands over what the record holds and waits for the answer.
  void exchange(std::chrono::milliseconds patience) {
    char answer = 0;
    const int got = process.signal_child('c') ? process.wait_for_child(answer, patience) : -1;
    if (got == 1) {
      const bool too_early = memory.record().answer == Answer::none; // it says what it answers before it answers
      if (too_early || process.wait_for_child(answer, std::chrono::milliseconds(0)) == 1) throw KernelCrashed(too_many_answers);
      return;
    }
    if (got == 0) {
      process.kill_child();
      throw KernelTimedOut("no answer within " + std::to_string(patience.count()) + " ms");
    }
    throw KernelCrashed("the process " + process.finish().how);
  }

  /// What it did since its last answer. Empty: nothing, as it should.
  std::string said_unasked() {
    if (process.silent()) return {};
    char answer = 0;
    if (process.wait_for_child(answer, std::chrono::milliseconds(0)) == 1) return too_many_answers;
    return "after its answer the process " + process.finish().how;
  }
};

using Pool = WorkerPool<Worker>;

void call(Pool& pool, const std::string& name, Operation operation, std::uint32_t kernel, const CallViews& views) {
  std::string refusal;
  pool.borrow(name, [&](Worker& worker) {
    place_call(worker.memory, operation, kernel, views);
    worker.exchange(pool.options().patience);
    const auto trespasses = fetch_call(worker.memory, views);
    const Answer answer = worker.memory.record().answer;
    if (!trespasses.empty()) throw KernelTrespassed(trespasses.front());
    if (answer == Answer::refused)
      refusal = plain_words(text_of(worker.memory.record()));
    else if (answer == Answer::failed)
      throw KernelCrashed(plain_words(text_of(worker.memory.record())));
    else if (answer != Answer::done)
      throw KernelCrashed("the process gave no valid answer");
  });
  if (!refusal.empty()) throw Refused(refusal);
}

std::size_t ask_workspace(Pool& pool, const std::string& name, std::uint32_t kernel, const Inputs& in, bool backward) {
  return pool.borrow(name, [&](Worker& worker) {
    place_call(worker.memory, Operation::workspace, kernel,
               {.inputs = &in, .outputs = {}, .cotangents = {}, .gradients = {}, .workspace = {}});
    worker.memory.record().want_backward = backward ? 1 : 0;
    worker.exchange(pool.options().patience);
    if (worker.memory.record().answer != Answer::done)
      throw KernelCrashed("workspace_bytes: " + plain_words(text_of(worker.memory.record())));
    const std::int64_t bytes = worker.memory.record().workspace_bytes;
    if (bytes < 0 || bytes > memory_limit / 2) throw Refused("asks for a workspace of " + std::to_string(bytes) + " bytes");
    return static_cast<std::size_t>(bytes);
  });
}

Kernel proxy(const std::shared_ptr<Pool>& pool, std::uint32_t index, const std::string& line, const std::string& path) {
  std::istringstream fields(line);
  std::string label, passes, contract, summary, unavailable;
  std::getline(fields, label, '\t');
  std::getline(fields, passes, '\t');
  std::getline(fields, contract, '\t');
  std::getline(fields, summary, '\t');
  std::getline(fields, unavailable, '\t');
  for (std::string* words : {&label, &contract, &summary, &unavailable}) *words = plain_words(*words);
  if (const std::string why = why_no_name(label); !why.empty()) throw PluginTrouble("plug-in '" + path + "': " + why);
  ParsedContract parsed = parse_contract(contract);
  if (!parsed.contract) throw PluginTrouble(path + ": kernel '" + label + "': " + parsed.error);
  Kernel kernel{.name = label, .summary = summary, .contract = *parsed.contract, .workspace_bytes = {}, .forward = {}, .backward = {}};
  kernel.unavailable = unavailable;
  kernel.workspace_bytes = [pool, index, label](const Inputs& in, bool reverse) { return ask_workspace(*pool, label, index, in, reverse); };
  kernel.forward = [pool, index, label](const Inputs& in, const Outputs& out, std::span<std::byte> workspace) {
    call(*pool, label, Operation::forward, index,
         {.inputs = &in, .outputs = out, .cotangents = {}, .gradients = {}, .workspace = workspace});
  };
  if (passes.find('d') != passes.npos)
    kernel.decode = [pool, index, label](const Inputs& in, const Outputs& out, std::span<std::byte> workspace) {
      // the state is one tensor, which the inputs name
      call(*pool, label, Operation::decode, index,
           {.inputs = &in, .outputs = {.o = out.o, .final_state = {}}, .cotangents = {}, .gradients = {}, .workspace = workspace});
    };
  if (passes.find('b') != passes.npos)
    kernel.backward = [pool, index, label](const Inputs& in, const Cotangents& cotangents, const GradientOutputs& gradients,
                                           std::span<std::byte> workspace) {
      call(*pool, label, Operation::backward, index,
           {.inputs = &in, .outputs = {}, .cotangents = cotangents, .gradients = gradients, .workspace = workspace});
    };
  return kernel;
}

} // namespace

std::vector<Kernel> plugin_kernels(const std::string& path, const PluginOptions& options) {
  std::error_code error;
  const std::string absolute = std::filesystem::absolute(path, error).string();
  if (!std::filesystem::exists(path, error)) throw PluginTrouble("there is no plug-in '" + path + "'");
  if (!std::filesystem::is_regular_file(path, error)) throw PluginTrouble("plug-in '" + path + "' is no file");
  if (access(absolute.c_str(), R_OK) != 0) throw PluginTrouble("plug-in '" + path + "' cannot be read");
  const auto pool = std::make_shared<Pool>([absolute, options] { return std::make_unique<Worker>(absolute, options); }, options);
  std::vector<Kernel> kernels;
  std::istringstream lines(pool->introduction());
  std::uint32_t index = 0;
  for (std::string line; std::getline(lines, line);) kernels.push_back(proxy(pool, index++, line, path));
  if (kernels.empty()) throw PluginTrouble("plug-in '" + path + "' exports no kernel");
  return kernels;
}

} // namespace kdacheck
