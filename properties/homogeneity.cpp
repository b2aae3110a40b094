#include "homogeneity.hpp"

#include "perturbed/gradient_pass.hpp"

#include <limits>

namespace kdacheck {

using namespace gradient_pass;

namespace {

/// By how much the two sides of the homogeneity relations move in one batch of draws through one group.
template <class Run> struct HomogeneityDefects {
  const Problem& problem;
  const Truth& truth;
  const Sequence& sequence;
  Run& run;
  Rounding output, gradient, single;
  std::vector<Lanes>&token_outputs, &token_gradients; ///< [tokens] of the group
  std::vector<Lanes>&head_outputs, &head_gradients;   ///< [HV]

  /// What is written is rounded to its format first.
  Lanes error(const Rounding& stored, Lanes x, double exact) const { return run.round(stored, Site::gradient, x) - exact; }

  void outputs(const PreparedHead& p, const ChunkFactors& f, const std::vector<Lanes>& rows) const {
    const std::int64_t V = problem.shape.V, HV = problem.shape.HV;
    for (std::int64_t i = 0; i < f.n && !p.d_o.empty(); ++i)
      for (std::int64_t j = 0; j < V; ++j) {
        const std::int64_t t = f.first + i;
        const double exact = truth.o.value[static_cast<std::size_t>(((sequence.first + t) * HV + p.index) * V + j)];
        const Lanes share = p.d_o[at(t, j, V)] * error(output, rows[at(i, j, V)], exact);
        token_outputs[static_cast<std::size_t>(t)] += share;
        head_outputs[static_cast<std::size_t>(p.index)] += share;
      }
  }

  void final_state(const PreparedHead& p, const std::vector<Lanes>& state) const {
    const std::int64_t HV = problem.shape.HV, KV = problem.shape.K * problem.shape.V;
    for (std::int64_t i = 0; i < KV && !problem.d_final_state.empty(); ++i) {
      const auto place = static_cast<std::size_t>((sequence.index * HV + p.index) * KV + i);
      const double d = problem.d_final_state[place];
      head_outputs[static_cast<std::size_t>(p.index)] +=
          d * error(single, state[static_cast<std::size_t>(i)], truth.final_state.value[place]);
    }
  }

  void operator()(Input input, std::int64_t first, std::int64_t count, const Lanes* values) const {
    const auto& [B, T, H, HV, K, V] = problem.shape;
    if (input != Input::q && input != Input::v && input != Input::initial_state) return;
    Lanes sum{};
    for (std::int64_t i = 0; i < count; ++i) {
      const auto place = static_cast<std::size_t>(first + i);
      const Rounding& stored = input == Input::initial_state ? single : gradient;
      sum += static_cast<double>(problem[input][place]) * error(stored, values[i], truth[input].value[place]);
    }
    if (input == Input::q)
      token_gradients[static_cast<std::size_t>(first / (H * K) - sequence.first)] += sum;
    else
      head_gradients[static_cast<std::size_t>(input == Input::v ? first / V % HV : first / (K * V) % HV)] += sum;
  }
};

} // namespace

HomogeneitySpread homogeneity_spread(const Contract& contract, const Problem& problem, const Truth& truth, std::uint64_t seed,
                                     int batches) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  const std::int64_t N = sequence_count(problem);
  const Roundings roundings = roundings_of(contract);
  const Rounding output = rounding_to(contract.output, false, 1), gradient = rounding_to(contract.gradient, false, 1);
  const std::vector<Order> orders = backward_orders(contract, roundings.coarse);
  const auto tokens = static_cast<std::size_t>(B * T * H), heads = static_cast<std::size_t>(N * HV);
  struct Sums {
    std::vector<double> token_outputs, token_gradients, head_outputs, head_gradients;
  };
  const std::vector<double> no_tokens(tokens, 0.0), no_heads(heads, 0.0);
  std::vector<Sums> sums(3 * orders.size(), {no_tokens, no_tokens, no_heads, no_heads});
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t key_head = 0; key_head < H; ++key_head) {
      const PreparedGroup group = prepare_group(contract, problem, sequence, key_head);
      for (std::size_t i = 0; i < orders.size(); ++i)
        for (int batch = 0; batch < batches; ++batch) {
          const std::uint64_t stream = scatter(scatter(scatter(seed + i) + static_cast<std::uint64_t>(batch)) +
                                               static_cast<std::uint64_t>(sequence.index * H + key_head));
          Tape tape;
          if (roundings.accumulates) {
            Recorder recorder(stream, roundings.accumulate, tape);
            auto unused = parameter_sums<double>(problem);
            run_group(contract, roundings, problem, sequence, group, orders[i], recorder, unused,
                      [](Input, std::int64_t, std::int64_t, const double*) {});
          }
          const auto trial = [&]<NoiseModel model>(std::size_t submodel) {
            tape.next = 0;
            Perturbed<model> run(scatter(stream + submodel + 1), roundings.accumulates, tape);
            std::vector<Lanes> token_outputs(static_cast<std::size_t>(sequence.length)), token_gradients(token_outputs);
            std::vector<Lanes> head_outputs(static_cast<std::size_t>(HV)), head_gradients(head_outputs);
            const HomogeneityDefects<Perturbed<model>> defects{problem,         truth,        sequence,         run,
                                                               output,          gradient,     roundings.single, token_outputs,
                                                               token_gradients, head_outputs, head_gradients};
            auto parameters = parameter_sums<Lanes>(problem);
            run_group(contract, roundings, problem, sequence, group, orders[i], run, parameters, defects, defects);
            const auto add = [](double& sum, Lanes x) {
              for (int lane = 0; lane < draws_per_batch; ++lane) sum += x[lane] * x[lane];
            };
            Sums& s = sums[submodel];
            for (std::int64_t t = 0; t < sequence.length; ++t) {
              const auto place = static_cast<std::size_t>((sequence.first + t) * H + key_head);
              add(s.token_outputs[place], token_outputs[static_cast<std::size_t>(t)]);
              add(s.token_gradients[place], token_gradients[static_cast<std::size_t>(t)]);
            }
            for (const PreparedHead& p : group.heads) {
              const auto place = static_cast<std::size_t>(sequence.index * HV + p.index);
              add(s.head_outputs[place], head_outputs[static_cast<std::size_t>(p.index)]);
              add(s.head_gradients[place], head_gradients[static_cast<std::size_t>(p.index)]);
            }
          };
          trial.template operator()<NoiseModel::independent>(2 * i);
          trial.template operator()<NoiseModel::grid>(2 * i + 1);
          if (orders[i] != Order::recurrence) trial.template operator()<NoiseModel::grid_of_pairs>(2 * orders.size() + i);
        }
    }
  HomogeneitySpread spread{no_tokens, no_heads, batches * draws_per_batch};
  const auto largest = [&](std::vector<double> Sums::*part, std::size_t at) {
    double most = 0;
    for (const Sums& s : sums) {
      const double second = (s.*part)[at];
      if (!(second <= most)) most = std::isfinite(second) ? second : std::numeric_limits<double>::infinity();
    }
    return most / spread.draws;
  };
  for (std::size_t i = 0; i < tokens; ++i)
    spread.token[i] = std::sqrt(largest(&Sums::token_outputs, i) + largest(&Sums::token_gradients, i));
  for (std::size_t i = 0; i < heads; ++i) spread.head[i] = std::sqrt(largest(&Sums::head_outputs, i) + largest(&Sums::head_gradients, i));
  return spread;
}

} // namespace kdacheck
