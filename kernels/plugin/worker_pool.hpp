#pragma once
// Idle worker processes; a call borrows one or starts one.

#include "plugin_kernels.hpp"

#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace kdacheck::plugin {

/// `Worker` has a member `process` (ChildProcess) and a flag `dirty`: not to be used again.
template <class Worker> class WorkerPool {
public:
  WorkerPool(std::function<std::unique_ptr<Worker>()> start, PluginOptions options) : start_(std::move(start)), options_(options) {}

  /// Calls `use(worker)`. If that throws, the worker goes with it: whatever state the child is in is not trusted again.
  template <class Use> auto borrow(const Use& use) {
    std::unique_ptr<Worker> worker = idle();
    if (!worker) worker = start_();
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
      if (worker->process.alive()) return worker;
    }
    return nullptr;
  }

  std::function<std::unique_ptr<Worker>()> start_;
  PluginOptions options_;
  std::mutex access_;
  std::vector<std::unique_ptr<Worker>> idle_;
};

} // namespace kdacheck::plugin
