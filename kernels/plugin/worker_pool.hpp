#pragma once
// Idle worker processes; a call borrows one or starts one.

#include "plugin_kernels.hpp"

#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace kdacheck::plugin {

/// `Worker` has members `process` (ChildProcess), `introduction` (text) and a flag `dirty`: not to be used again.
template <class Worker> class WorkerPool {
public:
  /// `start` returns a worker that has introduced itself, or throws PluginTrouble.
  WorkerPool(std::function<std::unique_ptr<Worker>()> start, PluginOptions options) : start_(std::move(start)), options_(options) {}

  /// Starts the first worker and returns how it introduced itself. Throws PluginTrouble.
  std::string introduction() {
    std::unique_ptr<Worker> worker = start_();
    const std::lock_guard lock(access_);
    introduction_ = worker->introduction;
    idle_.push_back(std::move(worker));
    return introduction_;
  }

  /// Calls `use(worker)`. If that throws, the worker goes with it: whatever state the child is in is not trusted again.
  template <class Use> auto borrow(const Use& use) {
    std::unique_ptr<Worker> worker = idle();
    if (!worker) worker = fresh();
    struct Return {
      WorkerPool& pool;
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

  const PluginOptions& options() const { return options_; }

private:
  /// One that is still alive, if there is any.
  std::unique_ptr<Worker> idle() {
    const std::lock_guard lock(access_);
    while (!idle_.empty()) {
      auto worker = std::move(idle_.back());
      idle_.pop_back();
      if (worker->process.alive() && worker->process.silent()) return worker;
    }
    return nullptr;
  }

  /// A worker that takes the place of one that is gone. That there is none is then the kernel's own doing.
  std::unique_ptr<Worker> fresh() try {
    auto worker = start_();
    if (worker->introduction != introduction_) // a library that was built anew: another kernel may stand at an index now
      throw KernelCrashed("a fresh process introduces itself otherwise than the first");
    return worker;
  } catch (const PluginTrouble& trouble) {
    const std::string sentence = std::string("no fresh process could be started: ") + trouble.what();
    if (trouble.fault == PluginTrouble::Fault::slow) throw KernelTimedOut(sentence);
    throw KernelCrashed(sentence);
  }

  std::function<std::unique_ptr<Worker>()> start_;
  PluginOptions options_;
  std::string introduction_; ///< of the first worker
  std::mutex access_;
  std::vector<std::unique_ptr<Worker>> idle_;
};

} // namespace kdacheck::plugin
