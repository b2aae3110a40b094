// Views of a fused projection have strides that no two dimensions share.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  const Run dense = trial.forward(trial.problem);
  trial.expect_same_or_true(trial.contract.repeat, trial.problem, dense, trial.forward(trial.problem, {.strided = true}), "strided inputs",
                            Equality::bits);
}

} // namespace

Property strided_inputs_equal_dense_ones() {
  return {.name = "strided-inputs-equal-dense-ones",
          .claim = "inputs with gaps between their rows give the bits that dense ones give",
          .excluded = [](const Contract& contract) { return std::string(contract.strided ? "" : "strided=no: dense inputs only"); },
          .in_every_round = true,
          .check = tried<law>};
}

} // namespace kdacheck::laws
