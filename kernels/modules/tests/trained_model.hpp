#pragma once
// Two KDA layers between an embedding and a head, trained by Adam with any kernel of the suite.

#include "../hybrid.hpp"
#include "../linear.hpp"
#include "../rms_norm.hpp"
#include "synthetic_tasks.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

namespace kdacheck::modules::tests {

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

/// Two layers of two heads of `width`, D = 2 width.
inline Model fresh_model(const Task& task, std::int64_t width, std::uint64_t seed) {
  const std::int64_t D = 2 * width;
  Model model{.stack = {.pattern = {Mixer::kda, Mixer::kda},
                        .kda = {.D = D, .H = 2, .HV = 2, .K = width, .V = width, .gate_rank = width, .output_gate_rank = width},
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
inline Run run(const Model& model, const Task& task, const Kernel& kernel, const Batch& batch) {
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
inline double accuracy(const Model& model, const Task& task, const Kernel& kernel, std::int64_t sequences = 64) {
  Random random(99);
  const Batch batch = task.draw(random, sequences);
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
inline Model gradients(const Model& model, const Task& task, const Kernel& kernel, const Batch& batch) {
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

struct Training {
  std::int64_t sequences = 32; ///< in a batch; every step draws a new one
  double rate = 4e-3;
  int most_steps = 1000;
  int steps_between_looks = 25;
  std::int64_t looked_at = 64;                                 ///< sequences, always the same
  std::function<bool(int step, double accuracy)> goes_on = {}; ///< asked at each look, if it is given
};
struct Trained {
  double accuracy = 0;
  int steps = 0;
};

/// Adam (Kingma and Ba 2015), until the accuracy is there, the steps are up or nobody wants to go on.
inline Trained train(Model& model, const Task& task, const Kernel& kernel, double wanted, const Training& settings) {
  constexpr double first = 0.9, second = 0.98;
  Random random(7);
  std::vector<std::vector<double>> mean, square;
  model.for_each([&](std::vector<float>& tensor) { mean.emplace_back(tensor.size(), 0.0), square.emplace_back(tensor.size(), 0.0); });
  Trained trained;
  bool goes_on = true;
  while (trained.steps < settings.most_steps && trained.accuracy < wanted && goes_on) {
    const int step = ++trained.steps;
    Model d = gradients(model, task, kernel, task.draw(random, settings.sequences));
    std::vector<std::vector<float>*> slopes;
    d.for_each([&](std::vector<float>& tensor) { slopes.push_back(&tensor); });
    std::size_t n = 0;
    const double first_left = 1 - std::pow(first, step), second_left = 1 - std::pow(second, step);
    model.for_each([&](std::vector<float>& tensor) {
      for (std::size_t i = 0; i < tensor.size(); ++i) {
        const double g = static_cast<double>((*slopes[n])[i]);
        mean[n][i] = first * mean[n][i] + (1 - first) * g, square[n][i] = second * square[n][i] + (1 - second) * g * g;
        const double m = mean[n][i] / first_left, v = square[n][i] / second_left;
        tensor[i] -= static_cast<float>(settings.rate * m / (std::sqrt(v) + 1e-8));
      }
      ++n;
    });
    if (step % settings.steps_between_looks != 0) continue;
    trained.accuracy = accuracy(model, task, kernel, settings.looked_at);
    if (settings.goes_on) goes_on = settings.goes_on(step, trained.accuracy);
  }
  return trained;
}

} // namespace kdacheck::modules::tests
