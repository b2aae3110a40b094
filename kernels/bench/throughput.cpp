// Tokens times heads per second of every built-in kernel, forward and backward, and what the backward costs in forwards.
//
//   kernel_throughput [tokens] [part of a kernel's name]          K = V = 128, one head per thread
//
// Time is processor time of this process divided by its threads, so that other programs on the machine do not count.

#include "../cpu/tests/call.hpp"
#include "../cpu/tests/problems.hpp"
#include "../kernel.hpp"

#include <cstdlib>
#include <ctime>
#include <fmt/core.h>
#include <omp.h>

namespace {

using namespace kdacheck;
using namespace kdacheck::tests;

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Least time of some calls.
template <class Work> double least_seconds(int repetitions, Work work) {
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repetitions; ++i) {
    const double start = processor_seconds();
    work();
    least = std::min(least, processor_seconds() - start);
  }
  return least;
}

void measure(const Kernel& kernel, std::int64_t T, std::int64_t heads) {
  const Problem problem = draw({.shape = {.B = 1, .T = T, .H = heads, .HV = heads, .K = 128, .V = 128},
                                .options = {.rule = kernel.contract.rules.front()},
                                .decay = 0.1});
  Call call(kernel, problem);
  const Outputs outputs{call.empty(kernel.contract.output, shape_of(Output::o, problem.shape, 1)),
                        call.empty(Format::fp32, call.shape(Input::initial_state))};
  const Workspace memory(kernel, call.inputs, false);
  const double forward = least_seconds(5, [&] { kernel.forward(call.inputs, outputs, memory.part); });
  const double work = static_cast<double>(T * heads);
  fmt::print("{:<32} {:>10.0f} {:>8.2f}", kernel.name, work / forward * static_cast<double>(heads), forward / work * 1e6);
  if (kernel.backward) {
    const Cotangents cotangents{call.add(false, kernel.contract.output, shape_of(Output::o, problem.shape, 1), problem.d_o),
                                call.add(true, Format::fp32, call.shape(Input::initial_state), problem.d_final_state)};
    GradientOutputs gradients;
    for (Input input : all_inputs)
      if (!problem[input].empty())
        gradients[input] = call.empty(input == Input::initial_state ? Format::fp32 : kernel.contract.gradient, call.shape(input));
    const Workspace room(kernel, call.inputs, true);
    const double backward = least_seconds(3, [&] { kernel.backward(call.inputs, cotangents, gradients, room.part); });
    fmt::print(" {:>10.0f} {:>8.2f} {:>6.2f}", work / backward * static_cast<double>(heads), backward / work * 1e6, backward / forward);
  }
  fmt::print("\n");
}

} // namespace

int main(int count, char** arguments) {
  const std::int64_t T = count > 1 ? std::atoll(arguments[1]) : 2048;
  const std::string part = count > 2 ? arguments[2] : "";
  if (T < 1) {
    fmt::print(stderr, "kernel_throughput: the number of tokens must be at least 1\n");
    return 2;
  }
  const std::int64_t threads = omp_get_max_threads();
  fmt::print("{} tokens, K = V = 128, {} heads on {} threads\n", T, threads, threads);
  fmt::print("{:<32} {:>10} {:>8} {:>10} {:>8} {:>6}\n", "kernel", "forward/s", "us", "backward/s", "us", "ratio");
  bool any = false;
  for (const Kernel& kernel : built_in_kernels())
    if (kernel.name.find(part) != std::string::npos) {
      measure(kernel, T, threads);
      any = true;
    }
  if (!any) fmt::print(stderr, "kernel_throughput: no kernel has {} in its name\n", part);
  return any ? 0 : 5;
}
