#include "observed_calls.hpp"

namespace kdacheck {
namespace {

thread_local ObservedCalls* watching = nullptr;

} // namespace

ObservedCalls::ObservedCalls() : outer_(watching) { watching = this; }
ObservedCalls::~ObservedCalls() { watching = outer_; }

void observe(Pass pass, const Problem& problem, const RunOptions& options, const Run& run) {
  if (watching) watching->calls.push_back({pass, problem, options, run});
}

} // namespace kdacheck
