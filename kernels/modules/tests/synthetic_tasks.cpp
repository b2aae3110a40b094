// Two KDA layers, trained with the suite's kernels, learn to recall: associative recall (MQAR), reversal (Palindrome) and stacks, in
// small. A kernel that is wrong on purpose loses what was learned. Tasks: Kimi Linear technical report (arXiv 2510.26692), section 5.1.

#include "../hybrid.hpp"
#include "../linear.hpp"
#include "../rms_norm.hpp"

#include "../../faults/faults.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>

using namespace kdacheck;
using namespace kdacheck::modules;

namespace {

using Random = std::mt19937_64;

std::int64_t below(Random& random, std::int64_t count) { return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(count)); }

/// Tokens of a batch, one sequence after the other, and what is to follow each: -1 where nothing is asked.
struct Batch {
  std::vector<std::int64_t> tokens, targets;
};

/// `put` appends one sequence of T tokens.
struct Task {
  std::int64_t vocabulary, T;
  std::function<void(Random&, Batch&)> put;
  Batch draw(Random& random, std::int64_t sequences) const {
    Batch batch;
    for (std::int64_t b = 0; b < sequences; ++b) put(random, batch);
    return batch;
  }
};

std::vector<std::int64_t> shuffled(Random& random, std::int64_t first, std::int64_t count) {
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < count; ++i) all.push_back(first + i);
  for (std::int64_t i = count - 1; i > 0; --i)
    std::swap(all[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(below(random, i + 1))]);
  return all;
}

/// Eight keys with a value each, 16 blanks, and the keys again in another order: each is to be followed by its value. Keys 1 to 12,
/// values 13 to 24.
Task associative_recall() {
  return {25, 40, [](Random& random, Batch& batch) {
            constexpr std::int64_t pairs = 8;
            const auto put = [&](std::int64_t token, std::int64_t target) {
              batch.tokens.push_back(token), batch.targets.push_back(target);
            };
            std::vector<std::int64_t> keys = shuffled(random, 1, 12), values(13);
            keys.resize(pairs);
            for (std::int64_t key : keys) {
              values[static_cast<std::size_t>(key)] = 13 + below(random, 12);
              put(key, -1), put(values[static_cast<std::size_t>(key)], -1);
            }
            for (int i = 0; i < 16; ++i) put(0, -1);
            for (std::int64_t i : shuffled(random, 0, pairs)) {
              const std::int64_t key = keys[static_cast<std::size_t>(i)];
              put(key, values[static_cast<std::size_t>(key)]);
            }
          }};
}

/// Eight symbols of 12, a mark, and the symbols from the last to the first.
Task palindrome() {
  return {13, 16, [](Random& random, Batch& batch) {
            std::vector<std::int64_t> symbols;
            for (int i = 0; i < 8; ++i) symbols.push_back(1 + below(random, 12)), batch.targets.push_back(-1);
            batch.tokens.insert(batch.tokens.end(), symbols.begin(), symbols.end());
            for (std::size_t i = 0; i < symbols.size(); ++i) {
              batch.tokens.push_back(i == 0 ? 0 : symbols[symbols.size() - i]);
              batch.targets.push_back(symbols[symbols.size() - 1 - i]);
            }
          }};
}

/// 16 commands of two tokens on four stacks of ten symbols: push and the symbol, or pop, which is to be followed by what comes off.
Task stacks() {
  return {18, 32, [](Random& random, Batch& batch) {
            const auto put = [&](std::int64_t token, std::int64_t target) {
              batch.tokens.push_back(token), batch.targets.push_back(target);
            };
            std::vector<std::vector<std::int64_t>> all(4);
            for (int command = 0; command < 16; ++command) {
              const std::int64_t s = below(random, 4);
              std::vector<std::int64_t>& stack = all[static_cast<std::size_t>(s)];
              if (stack.empty() || below(random, 2) == 0) {
                stack.push_back(8 + below(random, 10));
                put(s, -1), put(stack.back(), -1);
              } else {
                put(4 + s, stack.back()), put(stack.back(), -1);
                stack.pop_back();
              }
            }
          }};
}

struct Model {
  HybridStack stack;
  std::int64_t vocabulary = 1;
  std::vector<float> embedding; ///< [vocabulary,D]
  HybridParameters layers;
  std::vector<float> norm, head; ///< [D], [D,vocabulary]

  void for_each(const std::function<void(std::vector<float>&)>& visit) {
    visit(embedding), visit(norm), visit(head);
    for (HybridBlock& block : layers) {
      visit(block.norm);
      for_each_tensor(stack.kda, block.kda,
                      [&](std::string_view, std::span<const std::int64_t>, std::vector<float>& tensor) { visit(tensor); });
    }
  }
};

Model fresh_model(const Task& task, std::uint64_t seed) {
  constexpr std::int64_t D = 32;
  Model model{.stack = {.pattern = {Mixer::kda, Mixer::kda},
                        .kda = {.D = D, .H = 2, .HV = 2, .K = 16, .V = 16, .gate_rank = 16, .output_gate_rank = 16},
                        .mla = {.D = D}},
              .vocabulary = task.vocabulary,
              .embedding = {},
              .layers = {},
              .norm = std::vector<float>(D, 1.0f),
              .head = {}};
  model.layers = initial_parameters(model.stack, seed);
  for (HybridBlock& block : model.layers) std::ranges::fill(block.kda.dt_bias, -4.0f); // slow forgetting at first
  Random random(seed);
  const auto numbers = [&](std::int64_t count, double size) {
    std::vector<float> all(static_cast<std::size_t>(count));
    for (float& x : all) x = static_cast<float>(size * (static_cast<double>(random() >> 11) * 0x1p-52 - 1));
    return all;
  };
  model.embedding = numbers(task.vocabulary * D, 1), model.head = numbers(D * task.vocabulary, 0.2);
  return model;
}

/// Logits of every token, and what the backward pass needs.
struct Run {
  std::vector<float> x, h, n, logits;
};
Run run(const Model& model, const Task& task, const Kernel& kernel, const Batch& batch) {
  const std::int64_t D = model.stack.D(), R = static_cast<std::int64_t>(batch.tokens.size());
  Run run;
  for (const std::int64_t token : batch.tokens)
    run.x.insert(run.x.end(), model.embedding.begin() + token * D, model.embedding.begin() + (token + 1) * D);
  HybridState state;
  run.h = hybrid(model.stack, model.layers, kernel, {.B = R / task.T, .T = task.T, .x = run.x}, state);
  run.n = rms_norm({.width = D, .weight = model.norm}, R, run.h);
  run.logits = linear({D, model.vocabulary, model.head}, R, run.n);
  return run;
}

/// Share of targets that the largest logit names.
double accuracy(const Model& model, const Task& task, const Kernel& kernel) {
  Random random(99);
  const Batch batch = task.draw(random, 64);
  const std::vector<float> logits = run(model, task, kernel, batch).logits;
  std::int64_t asked = 0, right = 0;
  for (std::size_t t = 0; t < batch.targets.size(); ++t) {
    if (batch.targets[t] < 0) continue;
    const auto row = logits.begin() + static_cast<std::int64_t>(t) * model.vocabulary;
    ++asked, right += std::max_element(row, row + model.vocabulary) - row == batch.targets[t] ? 1 : 0;
  }
  return static_cast<double>(right) / static_cast<double>(asked);
}

/// Gradients of the mean cross entropy at the targets, in the model's form.
Model gradients(const Model& model, const Task& task, const Kernel& kernel, const Batch& batch) {
  const std::int64_t D = model.stack.D(), vocabulary = model.vocabulary, R = static_cast<std::int64_t>(batch.tokens.size());
  const Run forward = run(model, task, kernel, batch);
  std::vector<float> d_logits(forward.logits.size(), 0.0f);
  const double asked = static_cast<double>(std::ranges::count_if(batch.targets, [](std::int64_t target) { return target >= 0; }));
  for (std::size_t t = 0; t < batch.targets.size(); ++t) {
    if (batch.targets[t] < 0) continue;
    const std::size_t at = t * static_cast<std::size_t>(vocabulary), end = at + static_cast<std::size_t>(vocabulary);
    const float most = *std::max_element(forward.logits.begin() + static_cast<std::ptrdiff_t>(at),
                                         forward.logits.begin() + static_cast<std::ptrdiff_t>(end));
    double total = 0;
    for (std::size_t i = at; i < end; ++i) total += std::exp(static_cast<double>(forward.logits[i] - most));
    for (std::size_t i = at; i < end; ++i)
      d_logits[i] = static_cast<float>((std::exp(static_cast<double>(forward.logits[i] - most)) / total -
                                        (i - at == static_cast<std::size_t>(batch.targets[t]) ? 1 : 0)) /
                                       asked);
  }
  Model d = model;
  const Linear head{D, vocabulary, model.head};
  d.head = linear_weight_gradient(head, R, forward.n, d_logits);
  std::vector<float> d_n(forward.n.size(), 0.0f);
  add_linear_input_gradient(head, R, d_logits, d_n);
  const RmsNormGradients norm = rms_norm_backward({.width = D, .weight = model.norm}, R, forward.h, d_n);
  d.norm = norm.weight;
  const HybridGradients back = hybrid_backward(model.stack, model.layers, kernel, {.B = R / task.T, .T = task.T, .x = forward.x}, {},
                                               {.y = norm.x, .kda = {}, .caches = {}});
  d.layers = back.parameters;
  std::ranges::fill(d.embedding, 0.0f);
  for (std::size_t t = 0; t < batch.tokens.size(); ++t)
    for (std::int64_t i = 0; i < D; ++i)
      d.embedding[static_cast<std::size_t>(batch.tokens[t] * D + i)] +=
          back.x[t * static_cast<std::size_t>(D) + static_cast<std::size_t>(i)];
  return d;
}

/// Adam (Kingma and Ba 2015), every step a new batch, until the accuracy is there or the steps are up. Returns the accuracy.
double train(Model& model, const Task& task, const Kernel& kernel, double wanted, int most_steps) {
  constexpr double rate = 4e-3, first = 0.9, second = 0.98;
  Random random(7);
  std::vector<std::vector<double>> mean, square;
  model.for_each([&](std::vector<float>& tensor) { mean.emplace_back(tensor.size(), 0.0), square.emplace_back(tensor.size(), 0.0); });
  double reached = 0;
  int step = 1;
  for (; step <= most_steps && reached < wanted; ++step) {
    Model d = gradients(model, task, kernel, task.draw(random, 32));
    std::vector<std::vector<float>*> slopes;
    d.for_each([&](std::vector<float>& tensor) { slopes.push_back(&tensor); });
    std::size_t n = 0;
    model.for_each([&](std::vector<float>& tensor) {
      for (std::size_t i = 0; i < tensor.size(); ++i) {
        const double g = static_cast<double>((*slopes[n])[i]);
        mean[n][i] = first * mean[n][i] + (1 - first) * g, square[n][i] = second * square[n][i] + (1 - second) * g * g;
        const double m = mean[n][i] / (1 - std::pow(first, step)), v = square[n][i] / (1 - std::pow(second, step));
        tensor[i] -= static_cast<float>(rate * m / (std::sqrt(v) + 1e-8));
      }
      ++n;
    });
    if (step % 25 == 0) reached = accuracy(model, task, kernel);
  }
  std::printf("%.1f %% right after %d steps\n", 100 * reached, step - 1);
  return reached;
}

const Kernel& trained_with() { return *std::ranges::find(built_in_kernels(), std::string("cpu.chunk16.fp32"), &Kernel::name); }

} // namespace

TEST_CASE("two layers learn associative recall, and a fault of the kernel loses what was learned") {
  const Task task = associative_recall();
  Model model = fresh_model(task, 1);
  CHECK(accuracy(model, task, trained_with()) < 0.2);
  CHECK(train(model, task, trained_with(), 0.95, 1000) >= 0.95);
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
  const Task task = palindrome();
  Model model = fresh_model(task, 2);
  CHECK(train(model, task, trained_with(), 0.95, 1500) >= 0.95);
}

TEST_CASE("two layers learn to follow four stacks") {
  const Task task = stacks();
  Model model = fresh_model(task, 3);
  CHECK(train(model, task, trained_with(), 0.9, 1500) >= 0.9);
}
