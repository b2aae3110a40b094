#include "gradient_trial.hpp"

#include "gradient_pass.hpp"
#include "worse_of.hpp"

namespace kdacheck {

using namespace gradient_pass;

namespace {

/// Squares of deviations by channel, of one sequence and the heads that share a q/k head.
class ChannelSquares {
public:
  ChannelSquares(const Problem& problem, const Sequence& sequence, std::int64_t key_head)
      : shape_(problem.shape), sequence_(sequence), key_head_(key_head) {}

  void add(Input input, std::int64_t row, std::int64_t count, std::int64_t i, Lanes square) {
    std::vector<Lanes>& sums = sums_[static_cast<std::size_t>(input)];
    if (sums.empty()) sums.resize(static_cast<std::size_t>(heads(input) * count));
    const std::int64_t head = input == Input::initial_state ? row / shape_.K % shape_.HV : row % all_heads(input);
    sums[static_cast<std::size_t>((head - first_head(input)) * count + i)] += square;
  }

  void hand_over(const auto& collect) const {
    for (Input input : {Input::q, Input::k, Input::v, Input::g, Input::a, Input::b, Input::initial_state}) {
      const std::vector<Lanes>& sums = sums_[static_cast<std::size_t>(input)];
      const auto count = static_cast<std::int64_t>(sums.size()) / heads(input);
      const double pooled = static_cast<double>(input == Input::initial_state ? shape_.K : sequence_.length);
      const std::int64_t first = (sequence_.index * all_heads(input) + first_head(input)) * count;
      for (std::size_t i = 0; i < sums.size(); ++i) collect(input, first + static_cast<std::int64_t>(i), sums[i] * (1 / pooled));
    }
  }

private:
  static bool of_keys(Input input) { return input == Input::q || input == Input::k; }
  std::int64_t all_heads(Input input) const { return of_keys(input) ? shape_.H : shape_.HV; }
  std::int64_t heads(Input input) const { return of_keys(input) ? 1 : shape_.HV / shape_.H; }
  std::int64_t first_head(Input input) const { return key_head_ * heads(input); }

  Shape shape_;
  Sequence sequence_;
  std::int64_t key_head_;
  std::array<std::vector<Lanes>, all_inputs.size()> sums_;
};

} // namespace

void run_gradient_trials(const Contract& contract, const Problem& problem, const Truth& truth, std::uint64_t seed, int batches,
                         Submodels submodels, const std::function<void(std::size_t, GradientGroup, Input, std::int64_t, Lanes)>& collect) {
  const Roundings roundings = roundings_of(contract, submodels != Submodels::all_in_range);
  std::vector<Order> orders = backward_orders(contract, roundings.coarse);
  const bool all = takes_all(submodels);
  if (!all) orders.resize(1);
  std::vector<ParameterSums<Lanes>> sums((all ? 3 : 1) * orders.size() * static_cast<std::size_t>(batches), parameter_sums<Lanes>(problem));
  const auto emit_as = [&](std::size_t submodel, ChannelSquares* channels) {
    return [&, submodel, channels](Input input, std::int64_t first, std::int64_t count, const Lanes* values) {
      const std::vector<double>& exact = truth[input].value;
      Lanes squares{};
      for (std::int64_t i = 0; i < count; ++i) {
        const Lanes error = values[i] - exact[static_cast<std::size_t>(first + i)];
        squares += error * error;
        if (channels && input != Input::beta) channels->add(input, first / count, count, i, error * error);
      }
      collect(submodel, GradientGroup::line, input, first / count, squares * (1 / static_cast<double>(count)));
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
            ChannelSquares channels(problem, sequence, key_head);
            run_group(contract, roundings, problem, sequence, group, orders[i], run,
                      sums[submodel * static_cast<std::size_t>(batches) + static_cast<std::size_t>(batch)], emit_as(submodel, &channels));
            channels.hand_over([&](Input input, std::int64_t group, Lanes mean_square) {
              collect(submodel, GradientGroup::channel, input, group, mean_square);
            });
          };
          trial.template operator()<NoiseModel::independent>(2 * i);
          if (all) trial.template operator()<NoiseModel::grid>(2 * i + 1);
          if (all && orders[i] != Order::recurrence) trial.template operator()<NoiseModel::grid_of_pairs>(2 * orders.size() + i);
        }
      }
    }
  for (std::size_t i = 0; i < sums.size(); ++i) emit_parameters(sums[i], emit_as(i / static_cast<std::size_t>(batches), nullptr));
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
