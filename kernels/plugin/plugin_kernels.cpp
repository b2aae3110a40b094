#include "plugin_kernels.hpp"

#include "call_memory.hpp"
#include "child_process.hpp"

#include <unistd.h>

#include <filesystem>
#include <memory>
#include <mutex>
#include <sstream>

namespace kdacheck {
namespace {

using namespace plugin;

struct Worker {
  SharedMemory memory;
  ChildProcess process;
  bool dirty = false; ///< not to be used again

  Worker(const std::string& path, bool keep_standard_error)
      : process({KDACHECK_PLUGIN_WORKER, path}, {memory.descriptor()}, keep_standard_error) {}

  /// Hands over what the record holds and waits for the answer.
  void exchange(std::chrono::milliseconds patience) {
    char answer = 0;
    const int got = process.signal_child('c') ? process.wait_for_child(answer, patience) : -1;
    if (got == 1) {
      if (process.wait_for_child(answer, std::chrono::milliseconds(0)) != 0) dirty = true; // it said more than was asked
      return;
    }
    if (got == 0) {
      process.kill_child();
      throw KernelTimedOut("no answer within " + std::to_string(patience.count()) + " ms");
    }
    throw KernelCrashed("the process " + process.finish().how);
  }
};

/// Idle workers of one library; a call borrows one or starts one.
class Pool {
public:
  Pool(std::string path, PluginOptions options) : path_(std::move(path)), options_(options) {}

  template <class Use> auto borrow(const Use& use) {
    std::unique_ptr<Worker> worker = idle();
    if (!worker) worker = std::make_unique<Worker>(path_, options_.keep_standard_error);
    // If `use` throws, the worker goes with it: whatever state the child is in is not trusted again.
    struct Return {
      Pool& pool;
      std::unique_ptr<Worker>& worker;
      int exceptions = std::uncaught_exceptions();
      ~Return() {
        if (std::uncaught_exceptions() > exceptions || worker->dirty) return;
        const std::lock_guard lock(pool.access_);
        pool.idle_.push_back(std::move(worker));
      }
    } give_back{*this, worker};
    return use(*worker);
  }

  std::chrono::milliseconds patience() const { return options_.patience; }

private:
  std::unique_ptr<Worker> idle() {
    const std::lock_guard lock(access_);
    if (idle_.empty()) return nullptr;
    auto worker = std::move(idle_.back());
    idle_.pop_back();
    return worker;
  }

  std::string path_;
  PluginOptions options_;
  std::mutex access_;
  std::vector<std::unique_ptr<Worker>> idle_;
};

std::string text_of(const CallRecord& record) { return {record.text.data(), strnlen(record.text.data(), record.text.size())}; }

void call(Pool& pool, Operation operation, std::uint32_t kernel, const CallViews& views) {
  std::string refusal;
  pool.borrow([&](Worker& worker) {
    place_call(worker.memory, operation, kernel, views);
    worker.exchange(pool.patience());
    const auto trespasses = fetch_call(worker.memory, views);
    const Answer answer = worker.memory.record().answer;
    if (!trespasses.empty()) throw KernelTrespassed(trespasses.front());
    if (answer == Answer::refused)
      refusal = text_of(worker.memory.record());
    else if (answer != Answer::done)
      throw KernelCrashed("the process gave no valid answer");
  });
  if (!refusal.empty()) throw Refused(refusal);
}

std::size_t ask_workspace(Pool& pool, std::uint32_t kernel, const Inputs& in, bool backward) {
  return pool.borrow([&](Worker& worker) {
    place_call(worker.memory, Operation::workspace, kernel,
               {.inputs = &in, .outputs = {}, .cotangents = {}, .gradients = {}, .workspace = {}});
    worker.memory.record().want_backward = backward ? 1 : 0;
    worker.exchange(pool.patience());
    const std::int64_t bytes = worker.memory.record().workspace_bytes;
    if (bytes < 0 || bytes > memory_limit / 2) throw Refused("asks for a workspace of " + std::to_string(bytes) + " bytes");
    return static_cast<std::size_t>(bytes);
  });
}

Kernel proxy(const std::shared_ptr<Pool>& pool, std::uint32_t index, const std::string& line, const std::string& path) {
  std::istringstream fields(line);
  std::string label, backward, contract, summary;
  std::getline(fields, label, '\t');
  std::getline(fields, backward, '\t');
  std::getline(fields, contract, '\t');
  std::getline(fields, summary, '\t');
  ParsedContract parsed = parse_contract(contract);
  if (!parsed.contract) throw PluginTrouble(path + ": kernel '" + label + "': " + parsed.error);
  Kernel kernel{.name = label, .summary = summary, .contract = *parsed.contract, .workspace_bytes = {}, .forward = {}, .backward = {}};
  kernel.workspace_bytes = [pool, index](const Inputs& in, bool reverse) { return ask_workspace(*pool, index, in, reverse); };
  kernel.forward = [pool, index](const Inputs& in, const Outputs& out, std::span<std::byte> workspace) {
    call(*pool, Operation::forward, index, {.inputs = &in, .outputs = out, .cotangents = {}, .gradients = {}, .workspace = workspace});
  };
  if (backward == "1")
    kernel.backward = [pool, index](const Inputs& in, const Cotangents& cotangents, const GradientOutputs& gradients,
                                    std::span<std::byte> workspace) {
      call(*pool, Operation::backward, index,
           {.inputs = &in, .outputs = {}, .cotangents = cotangents, .gradients = gradients, .workspace = workspace});
    };
  return kernel;
}

} // namespace

std::vector<Kernel> plugin_kernels(const std::string& path, const PluginOptions& options) {
  std::error_code error;
  const std::string absolute = std::filesystem::absolute(path, error).string();
  if (error || access(absolute.c_str(), R_OK) != 0) throw PluginTrouble("plug-in '" + path + "' cannot be read");
  const auto pool = std::make_shared<Pool>(absolute, options);
  std::string descriptions;
  try {
    descriptions = pool->borrow([&](Worker& worker) {
      worker.memory.record().operation = Operation::describe;
      worker.exchange(options.patience);
      const CallRecord& record = worker.memory.record();
      if (record.answer != Answer::done) throw PluginTrouble("plug-in '" + path + "': " + text_of(record));
      return text_of(record);
    });
  } catch (const KernelCrashed& crash) {
    throw PluginTrouble("plug-in '" + path + "' cannot be loaded: " + crash.what());
  } catch (const KernelTimedOut& late) {
    throw PluginTrouble("plug-in '" + path + "' cannot be loaded: " + late.what());
  }
  std::vector<Kernel> kernels;
  std::istringstream lines(descriptions);
  std::uint32_t index = 0;
  for (std::string line; std::getline(lines, line);) kernels.push_back(proxy(pool, index++, line, path));
  if (kernels.empty()) throw PluginTrouble("plug-in '" + path + "' exports no kernel");
  return kernels;
}

} // namespace kdacheck
