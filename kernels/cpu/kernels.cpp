// The CPU kernels of the suite: one line each.

#include "chunk.hpp"
#include "dplr_chunk.hpp"
#include "recurrence.hpp"

namespace kdacheck {
namespace {

/// What all CPU kernels accept and promise.
Contract everywhere() {
  Contract contract;
  contract.gates = {GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent};
  contract.betas = {BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid};
  contract.l2norm_inside = true;
  contract.K = contract.V = {1, 256};
  contract.strided = true;
  contract.beta_max = 2;
  return contract;
}

/// Chunks of C tokens with fp32 throughout.
Contract chunks(std::int64_t C, Order order = Order::residual_first) {
  Contract contract = everywhere();
  contract.chunk = C;
  contract.order = order;
  return contract;
}

/// Chunks of C tokens whose matrix operands are rounded; 16-bit formats also come in and go out as bf16.
Contract rounded_chunks(std::int64_t C, Format operands, Format scores, Order order = Order::residual_first) {
  Contract contract = chunks(C, order);
  contract.operands = operands;
  contract.scores = scores;
  if (storage_bytes(operands) == 2) contract.input = contract.output = Format::bf16;
  return contract;
}

Contract bf16_state(Contract contract) {
  contract.state = Format::bf16;
  return contract;
}

Contract bf16_gradients(Contract contract) {
  contract.gradient = Format::bf16;
  return contract;
}

Contract v_first(Contract contract) {
  contract.state_v_first = true;
  return contract;
}

/// KDA through the general form, U = T (V - bd S), has KDA's roundings but for one: the rows b that erase are (alpha k)
/// e^{G before}, where KDA has k e^G. So a decay of theirs is a product of two exponentials of 2 ulp each; alpha, and alpha k,
/// are rounded besides, half an ulp each: as one exponential, 5 ulp.
Contract general_form(Contract contract) {
  contract.exp_ulp = 2 + 2 + 0.5 + 0.5;
  return contract;
}

Contract dplr(Contract contract) {
  contract.rules = {Rule::dplr};
  return contract;
}

} // namespace

void append_cpu_kernels(std::vector<Kernel>& list) {
  list.push_back(cpu::recurrence("cpu.recurrence.fp32", "token by token in fp32", everywhere()));
  list.push_back(cpu::chunkwise("cpu.chunk16.fp32", "chunks of 16 in fp32", chunks(16)));
  list.push_back(cpu::chunkwise("cpu.chunk32.fp32", "chunks of 32 in fp32", chunks(32)));
  list.push_back(cpu::chunkwise("cpu.chunk64.fp32", "chunks of 64 in fp32", chunks(64)));
  list.push_back(cpu::chunkwise("cpu.chunk128.fp32", "chunks of 128 in fp32", chunks(128)));
  list.push_back(cpu::chunkwise("cpu.chunk64.wy.fp32", "chunks of 64 in fp32, U = T beta V - W S", chunks(64, Order::wy)));
  list.push_back(cpu::chunkwise("cpu.chunk64.v_first.fp32", "chunks of 64 in fp32, state stored V-first", v_first(chunks(64))));
  list.push_back(cpu::chunkwise("cpu.chunk16.tf32", "chunks of 16 with tf32 operands", rounded_chunks(16, Format::tf32, Format::tf32)));
  list.push_back(cpu::chunkwise("cpu.chunk64.tf32", "chunks of 64 with tf32 operands", rounded_chunks(64, Format::tf32, Format::tf32)));
  list.push_back(cpu::chunkwise("cpu.chunk16.fp16", "chunks of 16 with fp16 operands scaled by powers of two, scores in tf32",
                                rounded_chunks(16, Format::fp16, Format::tf32)));
  list.push_back(cpu::chunkwise("cpu.chunk16.bf16", "chunks of 16 with bf16 operands", rounded_chunks(16, Format::bf16, Format::bf16)));
  list.push_back(cpu::chunkwise("cpu.chunk64.bf16", "chunks of 64 with bf16 operands, gradients stored as bf16",
                                bf16_gradients(rounded_chunks(64, Format::bf16, Format::bf16))));
  list.push_back(cpu::chunkwise("cpu.chunk64.wy.bf16", "chunks of 64 with bf16 operands, U = T beta V - W S",
                                rounded_chunks(64, Format::bf16, Format::bf16, Order::wy)));
  list.push_back(cpu::chunkwise("cpu.chunk64.bf16_state", "chunks of 64 with bf16 operands and a state stored as bf16",
                                bf16_state(rounded_chunks(64, Format::bf16, Format::bf16))));
  list.push_back(cpu::recurrence("cpu.dplr.recurrence.fp32", "general DPLR token by token in fp32", dplr(everywhere())));
  list.push_back(cpu::dplr_chunkwise("cpu.dplr.chunk16.fp32", "general DPLR in chunks of 16 in fp32", dplr(chunks(16))));
  list.push_back(cpu::dplr_chunkwise("cpu.dplr.chunk64.fp32", "general DPLR in chunks of 64 in fp32", dplr(chunks(64))));
  list.push_back(cpu::dplr_chunkwise("cpu.dplr.chunk64.bf16", "general DPLR in chunks of 64 with bf16 operands",
                                     dplr(rounded_chunks(64, Format::bf16, Format::bf16))));
  list.push_back(cpu::dplr_chunkwise("cpu.kda_via_dplr.chunk16.fp32", "KDA as DPLR with a = beta k, b = alpha k, in chunks of 16 in fp32",
                                     general_form(chunks(16))));
}

} // namespace kdacheck
