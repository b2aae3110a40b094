#include "gradient_trial.hpp"

#include "gradient_pass.hpp"
#include "worse_of.hpp"

namespace kdacheck {

using namespace gradient_pass;

void run_gradient_trials(const Contract& contract, const Problem& problem, const Truth& truth, std::uint64_t seed, int batches,
                         Submodels submodels, const std::function<void(std::size_t, Input, std::int64_t, Lanes)>& collect) {
  const Roundings roundings = roundings_of(contract, submodels != Submodels::all_in_range);
  std::vector<Order> orders = backward_orders(contract, roundings.coarse);
  const bool all = takes_all(submodels);
  if (!all) orders.resize(1);
  std::vector<ParameterSums<Lanes>> sums((all ? 3 : 1) * orders.size() * static_cast<std::size_t>(batches), parameter_sums<Lanes>(problem));
  const auto emit_as = [&](std::size_t submodel) {
    return [&, submodel](Input input, std::int64_t first, std::int64_t count, const Lanes* values) {
      const std::vector<double>& exact = truth[input].value;
      Lanes squares{};
      for (std::int64_t i = 0; i < count; ++i) {
        const Lanes error = values[i] - exact[static_cast<std::size_t>(first + i)];
        squares += error * error;
      }
      collect(submodel, input, first / count, squares * (1 / static_cast<double>(count)));
    };
  };
  Tape tape;
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t key_head = 0; key_head < problem.shape.H; ++key_head) {
      const PreparedGroup group = prepare_group(contract, problem, sequence, key_head);
      for (std::size_t i = 0; i < orders.size(); ++i) {
        for (int batch = 0; batch < batches; ++batch) {
          const std::uint64_t stream = scatter(scatter(scatter(seed + i) + static_cast<std::uint64_t>(batch)) +
                                               static_cast<std::uint64_t>(sequence.index * problem.shape.H + key_head));
          tape.clear();
          if (roundings.accumulates) {
            Recorder recorder(stream, roundings.accumulate, tape, all);
            auto unused = parameter_sums<double>(problem);
            run_group(contract, roundings, problem, sequence, group, orders[i], recorder, unused,
                      [](Input, std::int64_t, std::int64_t, const double*) {});
          }
          const auto trial = [&]<NoiseModel model>(std::size_t submodel) {
            tape.next = 0;
            Perturbed<model> run(scatter(stream + submodel + 1), roundings.accumulates, tape);
            run_group(contract, roundings, problem, sequence, group, orders[i], run,
                      sums[submodel * static_cast<std::size_t>(batches) + static_cast<std::size_t>(batch)], emit_as(submodel));
          };
          trial.template operator()<NoiseModel::independent>(2 * i);
          if (all) trial.template operator()<NoiseModel::grid>(2 * i + 1);
          if (all && orders[i] != Order::recurrence) trial.template operator()<NoiseModel::grid_of_pairs>(2 * orders.size() + i);
        }
      }
    }
  for (std::size_t i = 0; i < sums.size(); ++i) emit_parameters(sums[i], emit_as(i / static_cast<std::size_t>(batches)));
}

double noise_free_gradient_deviation(const Contract& contract, const Problem& problem, const Truth& truth) {
  const Roundings roundings = roundings_of(contract);
  std::array<double, all_inputs.size()> error{}, size{};
  for (Order order : backward_orders(contract, roundings.coarse)) {
    Tape tape;
    Recorder recorder(0, roundings.accumulate, tape);
    auto sums = parameter_sums<double>(problem);
    const auto emit = [&](Input input, std::int64_t first, std::int64_t count, const double* values) {
      const auto which = static_cast<std::size_t>(input);
      for (std::int64_t i = 0; i < count; ++i) {
        const double exact = truth[input].value[static_cast<std::size_t>(first + i)];
        error[which] = worse_of(error[which], std::abs(values[i] - exact));
        size[which] = std::max(size[which], std::abs(exact));
      }
    };
    for (const Sequence& sequence : sequences(problem))
      for (std::int64_t key_head = 0; key_head < problem.shape.H; ++key_head)
        run_group(contract, roundings, problem, sequence, prepare_group(contract, problem, sequence, key_head), order, recorder, sums,
                  emit);
    emit_parameters(sums, emit);
  }
  double largest = 0;
  for (std::size_t i = 0; i < error.size(); ++i)
    if (!(error[i] == 0)) largest = worse_of(largest, error[i] / size[i]);
  return largest;
}

} // namespace kdacheck
