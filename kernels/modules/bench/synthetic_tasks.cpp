// Two KDA layers of two heads learn MQAR, Palindrome or Stack at the technical report's sizes: heads of 128, 64 stacks, 256 tokens and
// more. Prints the accuracy as it goes.
//
//   synthetic_tasks mqar|palindrome|stack [tokens 256] [width of a head 128] [minutes 10] [sequences in a batch 8] [rate 1e-3] [kernel]

#include "../tests/trained_model.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fmt/core.h>
#include <string>
#include <string_view>

namespace {

using namespace kdacheck;
using namespace kdacheck::modules::tests;

/// Pairs take a quarter of the tokens three times over, an odd rest is blank; 64 stacks.
Task task_named(std::string_view name, std::int64_t tokens) {
  const std::int64_t pairs = tokens / 4;
  if (name == "mqar") return associative_recall(pairs, 2 * pairs, tokens - 3 * pairs);
  if (name == "palindrome") return palindrome(tokens / 2, 64);
  return stacks(64, 64, tokens / 2);
}

} // namespace

int main(int count, char** arguments) {
  const auto number = [&](int at, double otherwise) { return count > at ? std::atof(arguments[at]) : otherwise; };
  const std::string_view name = count > 1 ? arguments[1] : "";
  const auto tokens = static_cast<std::int64_t>(number(2, 256)), width = static_cast<std::int64_t>(number(3, 128)),
             sequences = static_cast<std::int64_t>(number(5, 8));
  const double minutes = number(4, 10), rate = number(6, 1e-3);
  const std::string wanted = count > 7 ? arguments[7] : "cpu.chunk64.fp32";
  const auto kernels = built_in_kernels();
  const auto kernel = std::ranges::find(kernels, wanted, &Kernel::name);
  if ((name != "mqar" && name != "palindrome" && name != "stack") || tokens < 8 || width < 1 || sequences < 1 || !(minutes > 0) ||
      !(rate > 0) || kernel == kernels.end()) {
    std::fputs("synthetic_tasks mqar|palindrome|stack [tokens] [width of a head] [minutes] [sequences in a batch] [rate] [kernel]\n",
               stderr);
    return 2;
  }
  const Task task = task_named(name, tokens);
  Model model = fresh_model(task, width, 1);
  const auto started = std::chrono::steady_clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count(); };
  fmt::print("{}: {} tokens, {} symbols, two layers of two heads of {}, {} sequences a step, rate {}, {}\n", name, task.T, task.vocabulary,
             width, sequences, rate, wanted);
  const auto goes_on = [&](int step, double accuracy) {
    fmt::print("step {:5}  {:5.1f} % right  {:6.1f} s\n", step, 100 * accuracy, passed());
    std::fflush(stdout);
    return passed() < 60 * minutes;
  };
  const Trained trained = train(model, task, *kernel, 0.99,
                                {.sequences = sequences,
                                 .rate = rate,
                                 .most_steps = 20'000,
                                 .steps_between_looks = 50,
                                 .looked_at = std::max<std::int64_t>(2, 4096 / task.T),
                                 .goes_on = goes_on});
  fmt::print("{:.1f} % right after {} steps, {:.0f} s\n", 100 * trained.accuracy, trained.steps, passed());
  return trained.accuracy >= 0.99 ? 0 : 1;
}
