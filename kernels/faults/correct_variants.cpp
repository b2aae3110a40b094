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

/// Stages that are coarser than the rest, and tf32 that is cut off.
void append_coarse_stages(std::vector<Kernel>& kernels) {
  const std::string residual_first = "order=residual_first ";
  for (const std::string format : {"tf32", "bf16"})
    kernels.push_back(readable("fp32.solve_" + format, residual_first + "chunk=32 solve=" + format));
  for (const std::string format : {"tf32", "fp16", "bf16"})
    kernels.push_back(
        readable("fp32.scores_" + format, residual_first + "chunk=16 scores=" + format + (format == "fp16" ? " value_max=1000" : "")));
  kernels.push_back(readable("fp32.gradient_state_bf16", residual_first + "chunk=16 gradient_state=bf16"));
  kernels.push_back(readable("fp32.cumsum_tf32", residual_first + "chunk=16 cumsum=tf32"));
  kernels.push_back(readable("tf32.truncated", residual_first + "chunk=32 operands=tf32 tf32=truncate"));
}

/// Token by token in coarse formats. A chunk of one token is not quite that: it rounds what arrives from before and from the token apart.
void append_coarse_tokens(std::vector<Kernel>& kernels) {
  const std::string tf32 = " operands=tf32", bf16(bf16_in_and_out);
  kernels.push_back(readable("tf32.chunk1", "order=residual_first chunk=1" + tf32));
  kernels.push_back(of_cpu(cpu::recurrence, "recurrence.tf32", "token by token, operands in tf32", tf32));
  kernels.push_back(of_cpu(cpu::recurrence, "recurrence.tf32.dg_sums", "token by token, operands cut to tf32, dg as a running sum",
                           tf32 + " tf32=truncate decay_gradient=sums"));
  kernels.push_back(of_cpu(cpu::recurrence, "recurrence.bf16", "token by token, inputs and operands in bf16", bf16));
  kernels.push_back(of_cpu(cpu::recurrence, "recurrence.bf16_operands", "token by token on fp32 inputs, operands in bf16",
                           "operands=bf16 state_layout=v_first"));
  kernels.push_back(of_cpu(cpu::recurrence, "recurrence.state_bf16", "token by token, each token's state kept in bf16", "state=bf16"));
  kernels.push_back(
      of_cpu(cpu::recurrence, "recurrence.gradient_state_bf16", "token by token, dg from states stored in bf16", "gradient_state=bf16"));
}

/// The general rule.
void append_dplr(std::vector<Kernel>& kernels) {
  const std::string bf16(bf16_in_and_out);
  const auto chunks = [&](std::string_view label, const std::string& contract) {
    kernels.push_back(of_cpu(cpu::dplr_chunkwise, label, "general DPLR in chunks", "rule=dplr " + contract));
  };
  const auto tokens = [&](std::string_view label, const std::string& contract) {
    kernels.push_back(of_cpu(cpu::recurrence, label, "general DPLR token by token", "rule=dplr " + contract));
  };
  chunks("dplr.fp32.chunk32", "order=residual_first chunk=32");
  chunks("dplr.fp32.undeclared_order", "chunk=16 state_layout=v_first");
  chunks("dplr.tf32.chunk16", "order=residual_first chunk=16 operands=tf32");
  chunks("dplr.tf32.truncated", "order=residual_first chunk=64 operands=tf32 tf32=truncate");
  chunks("dplr.bf16.chunk16", "order=residual_first chunk=16" + bf16);
  tokens("dplr.recurrence.fp32", "state_layout=v_first");
  tokens("dplr.recurrence.tf32", "operands=tf32");
  tokens("dplr.recurrence.bf16", bf16);
  tokens("dplr.recurrence.bf16_operands", "operands=bf16 decay_gradient=sums");
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
    append_coarse_stages(kernels);
    append_coarse_tokens(kernels);
    append_dplr(kernels);
    append_sums(kernels);
    append_algorithms(kernels);
    return kernels;
  }();
  return all;
}

} // namespace kdacheck
