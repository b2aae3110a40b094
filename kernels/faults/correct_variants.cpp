#include "correct_variants.hpp"

#include "../cpu/chunk.hpp"
#include "../cpu/dplr_chunk.hpp"
#include "../cpu/recurrence.hpp"
#include "faults.hpp"

#include <stdexcept>
#include <string>
#include <vector>

namespace kdacheck {
namespace {

constexpr std::string_view everything =
    " gates=log_decay,softplus,bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid beta_max=2 l2norm=both strided=yes";
constexpr std::string_view bf16_in_and_out = " input=bf16 output=bf16 operands=bf16";

Kernel readable(std::string_view label, std::string_view contract, SumTree tree = SumTree::rising) {
  return faultless_kernel(label, std::string(contract) + std::string(everything), tree);
}

using MakeCpuKernel = Kernel (*)(std::string name, std::string summary, Contract);

Kernel of_cpu(MakeCpuKernel make, std::string_view label, std::string_view summary, std::string_view text) {
  const ParsedContract parsed = parse_contract(std::string(text) + " K=1..256 V=1..256" + std::string(everything));
  if (!parsed.contract) throw std::logic_error(std::string(label) + ": " + parsed.error);
  return make("correct." + std::string(label), std::string(summary), *parsed.contract);
}

/// Formats of operands by chunk length.
void append_formats(std::vector<Kernel>& kernels) {
  for (const std::string chunk : {"16", "32", "64"})
    for (const std::string formats : {"fp32", "tf32", "fp16", "bf16"}) {
      std::string contract = "order=residual_first chunk=" + chunk;
      if (formats != "fp32") contract += " operands=" + formats;
      if (formats == "fp16") contract += " value_max=1000"; // no scaling: operands overflow at 65504
      if (formats == "bf16" || formats == "fp16") contract += " input=" + formats + " output=" + formats;
      kernels.push_back(readable(formats + ".chunk" + chunk, contract));
    }
}

/// Layouts, and formats of single stages.
void append_stages(std::vector<Kernel>& kernels) {
  const std::string bf16(bf16_in_and_out);
  kernels.push_back(readable("fp32.v_first", "order=residual_first chunk=16 state_layout=v_first"));
  kernels.push_back(readable("bf16.state_bf16", "order=residual_first chunk=32 state=bf16" + bf16));
  kernels.push_back(readable("bf16.scores_tf32", "order=residual_first chunk=32 scores=tf32" + bf16));
  kernels.push_back(readable("fp32.undeclared_order", "chunk=16"));
  kernels.push_back(readable("fp32.state_fp16", "order=residual_first chunk=16 state=fp16 value_max=1000"));
  kernels.push_back(readable("fp32.cumsum_bf16", "order=residual_first chunk=16 cumsum=bf16"));
  kernels.push_back(
      readable("bf16.all_stored", "order=residual_first chunk=64 gate_input=bf16 beta_input=bf16 cumsum=bf16 state=bf16" + bf16));
}

/// Orders of the sums of products.
void append_sums(std::vector<Kernel>& kernels) {
  kernels.push_back(readable("fp32.falling_sums", "order=residual_first chunk=64", SumTree::falling));
  kernels.push_back(readable("fp32.pairwise_sums", "order=residual_first chunk=32", SumTree::pairwise));
  kernels.push_back(readable("tf32.lane_sums", "order=residual_first chunk=16 operands=tf32 state_layout=v_first", SumTree::lanes));
  kernels.push_back(readable("fp32.sums_by_pairs", "order=residual_first chunk=128", SumTree::pairs));
  kernels.push_back(readable("fp32.dg_sums", "order=recurrence chunk=1 decay_gradient=sums"));
  kernels.push_back(readable("bf16.pairwise_sums", "order=residual_first chunk=48" + std::string(bf16_in_and_out), SumTree::pairwise));
}

/// Other algorithms, from other code: blocks with anchors of their own, fused multiply-adds, U from W, no chunks at all.
void append_algorithms(std::vector<Kernel>& kernels) {
  kernels.push_back(of_cpu(cpu::chunkwise, "wy.fp32.chunk128", "U = T beta V - W S in fp32", "order=wy chunk=128"));
  kernels.push_back(of_cpu(cpu::chunkwise, "wy.tf32.chunk32", "U = T beta V - W S, operands cut to tf32",
                           "order=wy chunk=32 operands=tf32 tf32=truncate state_layout=v_first"));
  kernels.push_back(of_cpu(cpu::chunkwise, "wy.bf16.chunk16", "U = T beta V - W S, bf16 operands and gradients",
                           "order=wy chunk=16 gradient=bf16" + std::string(bf16_in_and_out)));
  kernels.push_back(of_cpu(cpu::recurrence, "recurrence.bf16_inputs", "token by token on bf16 inputs, state V-first",
                           "input=bf16 gate_input=bf16 beta_input=bf16 output=bf16 state_layout=v_first"));
  kernels.push_back(of_cpu(cpu::recurrence, "recurrence.dg_sums", "token by token in fp32, dg as a running sum", "decay_gradient=sums"));
  kernels.push_back(of_cpu(cpu::dplr_chunkwise, "via_dplr.fp32.chunk32", "as DPLR with a = beta k, b = alpha k, in fp32",
                           "order=residual_first chunk=32 exp_ulp=5"));
}

} // namespace

Kernel right_under(std::string name, const Contract& contract) {
  const std::string summary = "right, and as precise as its contract";
  if (contract.order == Order::recurrence) return cpu::recurrence(std::move(name), summary, contract);
  if (contract.rules == std::vector{Rule::dplr}) return cpu::dplr_chunkwise(std::move(name), summary, contract);
  Kernel kernel = faultless_kernel(name, to_text(contract));
  kernel.name = std::move(name);
  return kernel;
}

std::span<const Kernel> correct_variants() {
  static const std::vector<Kernel> all = [] {
    std::vector<Kernel> kernels;
    append_formats(kernels);
    append_stages(kernels);
    append_sums(kernels);
    append_algorithms(kernels);
    return kernels;
  }();
  return all;
}

} // namespace kdacheck
