// Two runs over different poisons: what keeps both was never written, what differs was added to.

#include "../perturbed/trial.hpp"

#include "../guarded_tensor.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const std::uint32_t first = 0x7fc5a5a5, second = 0x3f9d70a4;
  const Run one = trial.forward(trial.problem, {.poison = first, .workspace_poison = 0});
  const Run two = trial.forward(trial.problem, {.poison = second, .workspace_poison = 0});
  for (Output output : all_outputs) {
    const Format format = output == Output::o ? trial.contract.output : Format::fp32;
    for (std::size_t i = 0; i < one[output].size(); ++i) {
      const bool kept = same(one[output][i], poison_value(format, first), Equality::bits) &&
                        same(two[output][i], poison_value(format, second), Equality::bits);
      trial.expect(!kept, "not written", place_of(output, trial.problem, trial.contract.chunk, i));
    }
  }
  trial.expect_same_or_true(trial.contract.repeat, trial.problem, one, two, "the outputs held something else before");
}

} // namespace

Property every_output_element_is_written() {
  return {.name = "every-output-element-is-written",
          .claim = "no element of o or of the final state keeps what the memory held before",
          .check = tried<law>};
}

} // namespace kdacheck::laws
