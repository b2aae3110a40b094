#pragma once
// Idle worker processes; a call borrows one or starts one.

#include "plugin_kernels.hpp"

#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace kdacheck::plugin {

/// `Worker` has members `introduction` (text), `serves` (the kernel that it was called for last, empty before any) and
/// `said_unasked()`, what it did since its last answer: ended, or said something; in a sentence, or empty.
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

  /// Calls `use(worker)` for a kernel. If that throws, the worker goes with it: whatever state the child is in is not trusted again.
  /// Throws KernelCrashed for what a worker did after it had answered for this kernel.
  template <class Use> auto borrow(const std::string& kernel, const Use& use) {
    std::unique_ptr<Worker> worker = idle(kernel);
    if (!worker) worker = fresh();
    worker->serves = kernel;
    struct Return {
      WorkerPool& pool;
      std::unique_ptr<Worker>& worker;
      int exceptions = std::uncaught_exceptions();
      ~Return() {
        if (std::uncaught_exceptions() > exceptions) return;
        const std::lock_guard lock(pool.access_);
        pool.idle_.push_back(std::move(worker));
      }
    } give_back{*this, worker};
    return use(*worker);
  }

  const PluginOptions& options() const { return options_; }

private:
  /// One that is alive and waits, if there is any. What others did unasked is held against the kernel that they had answered for,
  /// at its next call; before any answer, against this one.
  std::unique_ptr<Worker> idle(const std::string& kernel) {
    const std::lock_guard lock(access_);
    std::unique_ptr<Worker> found;
    while (!idle_.empty() && !found) {
      auto worker = std::move(idle_.back());
      idle_.pop_back();
      if (std::string sentence = worker->said_unasked(); sentence.empty())
        found = std::move(worker);
      else
        held_against_[worker->serves.empty() ? kernel : worker->serves] = std::move(sentence);
    }
    const auto held = held_against_.extract(kernel);
    if (held.empty()) return found;
    if (found) idle_.push_back(std::move(found));
    throw KernelCrashed(held.mapped());
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
  std::map<std::string, std::string> held_against_; ///< sentences by kernel
};

} // namespace kdacheck::plugin
