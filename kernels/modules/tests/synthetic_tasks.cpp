// Two KDA layers, trained with the suite's kernels, learn to recall: associative recall (MQAR), reversal (Palindrome) and stacks, in
// small. A kernel that is wrong on purpose loses what was learned. bench/synthetic_tasks.cpp does it in large.

#include "trained_model.hpp"

#include "../../faults/faults.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>

using namespace kdacheck;
using namespace kdacheck::modules::tests;

namespace {

const Kernel& trained_with() { return *std::ranges::find(built_in_kernels(), std::string("cpu.chunk16.fp32"), &Kernel::name); }

double learned(Model& model, const Task& task, double wanted, int most_steps) {
  const Trained trained = train(model, task, trained_with(), wanted, {.most_steps = most_steps});
  std::printf("%.1f %% right after %d steps\n", 100 * trained.accuracy, trained.steps);
  return trained.accuracy;
}

/// One drawn sequence of a task: what is asked stands at its token.
struct Drawn {
  std::vector<std::int64_t> tokens, targets;
};
std::vector<Drawn> drawn(const Task& task, std::int64_t sequences) {
  Random random(5);
  const Batch batch = task.draw(random, sequences);
  REQUIRE(batch.tokens.size() == static_cast<std::size_t>(sequences * task.T));
  REQUIRE(batch.targets.size() == batch.tokens.size());
  std::vector<Drawn> all;
  for (std::int64_t first = 0; first < sequences * task.T; first += task.T) {
    const auto part = [&](const std::vector<std::int64_t>& of) {
      return std::vector<std::int64_t>(of.begin() + first, of.begin() + first + task.T);
    };
    all.push_back({part(batch.tokens), part(batch.targets)});
    for (const std::int64_t token : all.back().tokens) CHECK((token >= 0 && token < task.vocabulary));
  }
  return all;
}

/// The mean of -ln p over what is asked, in fp64 from the logits.
double loss_of(const Model& model, const Task& task, const Batch& batch) {
  const std::vector<float> logits = run(model, task, trained_with(), batch).logits;
  const auto wide = static_cast<std::size_t>(model.vocabulary);
  double sum = 0, asked = 0;
  for (std::size_t t = 0; t < batch.targets.size(); ++t) {
    if (batch.targets[t] < 0) continue;
    double total = 0;
    for (std::size_t i = 0; i < wide; ++i) total += std::exp(static_cast<double>(logits[t * wide + i]));
    sum += std::log(total) - static_cast<double>(logits[t * wide + static_cast<std::size_t>(batch.targets[t])]), ++asked;
  }
  return sum / asked;
}

} // namespace

TEST_CASE("associative recall asks, in another order, for the value that was told with each key") {
  const Task task = associative_recall(8, 12, 5);
  bool reordered = false;
  for (const auto& [tokens, targets] : drawn(task, 20)) {
    std::map<std::int64_t, std::int64_t> told;
    for (std::size_t i = 0; i < 16; i += 2) {
      CHECK(told.emplace(tokens[i], tokens[i + 1]).second); // no key twice
      CHECK((tokens[i] >= 1 && tokens[i] <= 12 && tokens[i + 1] > 12));
    }
    for (std::size_t i = 0; i < 21; ++i) CHECK((targets[i] == -1 && (i < 16 || tokens[i] == 0)));
    std::set<std::int64_t> asked;
    for (std::size_t i = 21; i < tokens.size(); ++i) {
      CHECK(targets[i] == told.at(tokens[i]));
      CHECK(asked.insert(tokens[i]).second);
      reordered = reordered || tokens[i] != tokens[2 * (i - 21)];
    }
  }
  CHECK(reordered);
}

TEST_CASE("a palindrome's second half is its first backwards, asked for one token ahead") {
  for (const auto& [tokens, targets] : drawn(palindrome(8, 12), 20)) {
    const std::vector<std::int64_t> told(tokens.begin(), tokens.begin() + 8), backwards(told.rbegin(), told.rend());
    CHECK(std::ranges::all_of(told, [](std::int64_t symbol) { return symbol > 0; }));
    CHECK(std::vector<std::int64_t>(targets.begin(), targets.begin() + 8) == std::vector<std::int64_t>(8, -1));
    CHECK(std::vector<std::int64_t>(targets.begin() + 8, targets.end()) == backwards);
    CHECK(tokens[8] == 0);
    CHECK(std::equal(tokens.begin() + 9, tokens.end(), backwards.begin()));
  }
}

TEST_CASE("a stack gives back what was pushed last, and is asked for it alone") {
  std::size_t pops = 0, over_another = 0;
  for (const auto& [tokens, targets] : drawn(stacks(4, 10, 16), 40)) {
    std::vector<std::vector<std::int64_t>> all(4);
    for (std::size_t i = 0; i < tokens.size(); i += 2) {
      const bool pop = tokens[i] >= 4;
      std::vector<std::int64_t>& stack = all[static_cast<std::size_t>(tokens[i] % 4)];
      CHECK((tokens[i] < 8 && tokens[i + 1] >= 8 && targets[i + 1] == -1));
      if (!pop) stack.push_back(tokens[i + 1]);
      CHECK(targets[i] == (pop ? stack.back() : -1));
      if (!pop) continue;
      CHECK(tokens[i + 1] == stack.back());
      ++pops, over_another += stack.size() > 1;
      stack.pop_back();
    }
  }
  CHECK(pops > 100);
  CHECK(over_another > 20); // else a queue would do as well
}

TEST_CASE("what a model is trained by is the slope of its loss, in every tensor") {
  const Task task = associative_recall(3, 4, 2);
  Model model = fresh_model(task, 4, 4);
  Random random(6);
  const Batch batch = task.draw(random, 4);
  Model d = gradients(model, task, trained_with(), batch);
  std::vector<std::vector<float>*> slopes;
  d.for_each([&](std::vector<float>& tensor) { slopes.push_back(&tensor); });
  std::size_t n = 0;
  model.for_each([&](std::vector<float>& tensor) {
    const std::vector<float> here = tensor;
    const std::vector<float>& slope = *slopes[n++];
    double length = 0;
    for (const float g : slope) length += static_cast<double>(g) * static_cast<double>(g);
    length = std::sqrt(length);
    REQUIRE(length > 0);
    // Along the slope the loss changes by its length, along others by their share of it: but for the third derivative, and fp32
    // roundings of the loss, 1e-6 / step. What is missing in a slope shows along the others alone.
    constexpr double step = 5e-4;
    for (int direction = 0; direction < 5; ++direction) {
      std::vector<double> along(slope.begin(), slope.end());
      for (double& x : along)
        if (direction > 0) x = below(random, 2) == 0 ? 1 : -1;
      double size = 0, due = 0;
      for (const double x : along) size += x * x;
      for (std::size_t i = 0; i < along.size(); ++i) along[i] /= std::sqrt(size), due += along[i] * static_cast<double>(slope[i]);
      double loss[2];
      for (const int side : {0, 1}) {
        for (std::size_t i = 0; i < tensor.size(); ++i) tensor[i] = here[i] + static_cast<float>((side ? step : -step) * along[i]);
        loss[side] = loss_of(model, task, batch);
      }
      INFO("tensor " << n - 1 << ", slope " << length << ", direction " << direction);
      CHECK(std::abs((loss[1] - loss[0]) / (2 * step) - due) <= 0.01 * std::abs(due) + 2e-3);
    }
    tensor = here;
  });
}

TEST_CASE("two layers learn associative recall, and a fault of the kernel loses what was learned") {
  const Task task = associative_recall(8, 12, 16);
  Model model = fresh_model(task, 16, 1);
  CHECK(accuracy(model, task, trained_with()) < 0.2);
  CHECK(learned(model, task, 0.95, 1000) >= 0.95);
  int others = 0, faults = 0;
  for (const Kernel& other : built_in_kernels()) // trained with one, right with all that are right
    if (other.name == "cpu.recurrence.fp32" || other.name == "cpu.chunk64.bf16") {
      ++others;
      CHECK(accuracy(model, task, other) > 0.93);
    }
  CHECK(others == 2);
  for (const FaultInfo& fault : planted_faults()) {
    const bool forgets = fault.fault == Fault::carry_dropped || fault.fault == Fault::state_transposed;
    if (!forgets && fault.fault != Fault::previous_beta) continue;
    ++faults;
    INFO(fault.name);
    CHECK(accuracy(model, task, faulty_kernel(fault)) < (forgets ? 0.3 : 0.9));
  }
  CHECK(faults == 3);
}

TEST_CASE("two layers learn to reverse a sequence") {
  const Task task = palindrome(8, 12);
  Model model = fresh_model(task, 16, 2);
  CHECK(learned(model, task, 0.95, 1500) >= 0.95);
}

TEST_CASE("two layers learn to follow four stacks") {
  const Task task = stacks(4, 10, 16);
  Model model = fresh_model(task, 16, 3);
  CHECK(learned(model, task, 0.9, 1500) >= 0.9);
}
