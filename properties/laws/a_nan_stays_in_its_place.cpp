// Kernels multiply masked entries by zero, and 0 * NaN spreads; max() and selects swallow a NaN that should be seen.

#include "../perturbed/trial.hpp"

#include <array>
#include <cmath>
#include <limits>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const Problem& problem = trial.problem;
  const Sequence sequence = sequences(problem)[static_cast<std::size_t>(trial.longest(problem))];
  trial.applies_if(sequence.length >= 1, "no tokens");
  const std::int64_t token = trial.pick(sequence.length);
  const Input input =
      std::array{Input::v, Input::k, Input::q, problem.g.empty() ? Input::v : Input::g}[static_cast<std::size_t>(trial.pick(4))];
  const RowShape row = row_shape(input, problem.shape);
  const std::int64_t head = trial.pick(row.heads), group = problem.shape.HV / row.heads, channel = trial.pick(row.channels);
  Problem poisoned = problem;
  poisoned[input][static_cast<std::size_t>(((sequence.first + token) * row.heads + head) * row.channels + channel)] =
      std::numeric_limits<float>::quiet_NaN();

  const Run clean = trial.forward(problem), got = run_forward(trial.kernel, poisoned);
  trial.applies_if(!got.refused, "the kernel refuses NaN");
  const std::string what = "NaN in " + std::string(name(input)) + " of head " + std::to_string(head) + ", token " + std::to_string(token);
  for (Output output : all_outputs)
    for (std::size_t i = 0; i < got[output].size(); ++i) {
      const Place place = place_of(output, problem, trial.contract.chunk, i);
      const bool own = place.sequence == sequence.index && place.head / group == head;
      const bool earlier = output == Output::o && place.token < token;
      if (own && !earlier) continue;
      const Sameness promised = own ? trial.contract.prefix : trial.contract.batch;
      const bool holds = promised == Sameness::bitwise ? same(clean[output][i], got[output][i], Equality::numbers)
                                                       : std::isfinite(got[output][i]) || !std::isfinite(clean[output][i]);
      trial.expect(holds, what + (own ? " travels back in time" : " reaches another head or sequence"), place);
    }
  if (input != Input::q && input != Input::v) return;
  // q's NaN meets every channel of its own token; v's its own channel of the state, whatever the decay
  const std::int64_t shown = input == Input::q ? 0 : channel;
  const auto o_index = ((sequence.first + token) * problem.shape.HV + head * group) * problem.shape.V + shown;
  const auto state_index = ((sequence.index * problem.shape.HV + head) * problem.shape.K) * problem.shape.V + shown;
  const float seen = input == Input::q ? got.o[static_cast<std::size_t>(o_index)] : got.final_state[static_cast<std::size_t>(state_index)];
  trial.expect(std::isnan(seen), what + " does not show in what depends on it");
}

} // namespace

Property a_nan_stays_in_its_place() {
  return {.name = "a-nan-stays-in-its-place",
          .claim = "a NaN stays in its own head and sequence, shows there, and never travels back in time",
          .everywhere = true,
          .check = tried<law>};
}

} // namespace kdacheck::laws
