#include "legal_roundings.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>

namespace kdacheck {
namespace {

constexpr std::string_view bf16_wy = "input=bf16 output=bf16 operands=bf16 chunk=16 order=wy l2norm=both";
constexpr std::string_view bf16_any_order = "input=bf16 output=bf16 operands=bf16 chunk=16 l2norm=both";

constexpr std::array catalogue{
    LegalRounding{Fault::output_bf16, "output=bf16", "chunk=16 order=residual_first output=bf16",
                  "the output is stored in bf16 anyway: rounding it first changes no bit"},
    LegalRounding{Fault::output_through_fp16, "output=fp16", "chunk=16 order=residual_first output=fp16 value_max=1000",
                  "the output is stored in fp16 anyway: rounding it first changes no bit"},
    LegalRounding{Fault::query_bf16, "input=bf16", "chunk=16 order=residual_first input=bf16",
                  "q arrives in bf16: rounding it again changes no bit"},
    LegalRounding{Fault::value_bf16, "input=bf16", "chunk=16 order=residual_first input=bf16",
                  "v arrives in bf16: rounding it again changes no bit"},
    LegalRounding{Fault::beta_bf16, "beta_input=bf16", "chunk=16 order=residual_first beta_input=bf16",
                  "beta arrives in bf16: rounding it again changes no bit"},
    LegalRounding{Fault::gate_bf16, "gate_input=bf16", "chunk=16 order=residual_first gate_input=bf16",
                  "g arrives in bf16: rounding it again changes no bit"},
    LegalRounding{Fault::scores_bf16, "scores=bf16", "chunk=16 order=residual_first scores=bf16", "operands of the scores may be bf16"},
    LegalRounding{Fault::scores_tf32, "scores=tf32", "chunk=16 order=residual_first scores=tf32", "operands of the scores may be tf32"},
    LegalRounding{Fault::state_bf16, "state=bf16", "chunk=16 order=residual_first state=bf16",
                  "the state may be stored in bf16 at every chunk"},
    LegalRounding{Fault::state_fp16, "state=fp16", "chunk=16 order=residual_first state=fp16 value_max=1000",
                  "the state may be stored in fp16 at every chunk"},
    LegalRounding{Fault::cumsum_bf16, "cumsum=bf16 gate_input=bf16", "chunk=16 order=residual_first cumsum=bf16 gate_input=bf16",
                  "sums of log decay may be formed in bf16"},
    LegalRounding{Fault::cumsum_bf16, "cumsum=bf16", "chunk=16 order=residual_first cumsum=bf16",
                  "where g has more digits than its sums, the first term of a sum is rounded like every other"},
    LegalRounding{Fault::residual_bf16, "bf16, order=wy", bf16_wy,
                  "order wy forms U from T beta V and T beta kd S, both bf16 operands: no residual is promised to be finer"},
    LegalRounding{Fault::residual_bf16, "bf16, order undeclared", bf16_any_order,
                  "what order wy allows is allowed where no order is declared"},
    LegalRounding{Fault::beta_bf16, "bf16, order=wy", bf16_wy,
                  "order wy folds beta into a bf16 operand, which rounds by as much as beta does"},
    LegalRounding{Fault::keys_renormalised, "bf16", bf16_any_order,
                  "keys in bf16 miss length 1 by less than half a unit in the last place of their entries, which rounding them moves"},
    LegalRounding{Fault::split_exponent, "g_min=-5, chunk=16", "chunk=16 order=residual_first g_min=-5",
                  "|G| <= 80 in a chunk: neither factor overflows, and an error of u |G| is what the sum of log decay has itself"},
    LegalRounding{Fault::order_varies, "repeat=none", "chunk=16 order=residual_first repeat=none batch=none prefix=none",
                  "sums may be formed in any order where repeatability is not promised"},
    // of the backward pass
    LegalRounding{Fault::gradient_bf16, "gradient=bf16", "chunk=16 order=residual_first gradient=bf16 initial_state=no",
                  "gradients are stored in bf16 anyway: rounding them first changes no bit"},
    LegalRounding{Fault::dg_bf16, "gradient=bf16", "chunk=16 order=residual_first gradient=bf16",
                  "dg of a log decay is stored in bf16 anyway: rounding it first changes no bit"},
    // Not under gradient_state=bf16: saved_states_bf16, from which the forward pass of a chunk is computed again, and dS_bf16, which is
    // handed on from chunk to chunk. That clause covers what gradients read of a state and of its cotangent, not what is carried.
    LegalRounding{Fault::beta_bf16_backward, "beta_input=bf16", "chunk=16 order=residual_first beta_input=bf16",
                  "beta arrives in bf16: rounding it again changes no bit"},
};

} // namespace

std::span<const LegalRounding> legal_roundings() { return catalogue; }

Kernel legal_kernel(const LegalRounding& legal) {
  const auto faults = planted_faults();
  const auto info = std::ranges::find(faults, legal.fault, &FaultInfo::fault);
  if (info == faults.end()) throw std::logic_error("a legal rounding names no planted fault");
  FaultInfo under = *info;
  under.contract = legal.contract;
  Kernel kernel = faulty_kernel(under);
  kernel.name = "legal." + std::string(info->name) + "." + std::string(legal.label);
  return kernel;
}

} // namespace kdacheck
