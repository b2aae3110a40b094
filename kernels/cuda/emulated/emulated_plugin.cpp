// KDA's chunk kernels on an emulated multiprocessor as a plug-in, so that the
// gate can judge them where there is no GPU:
//   ./kdacheck verify --plugin libcuda_emulated.so --property
//   decay-alone-is-exact --call-timeout 600
// Names and contracts are those of the kernels for a device, so that a run's
// seed draws the same cases, and the judge sees the same promise. Arithmetic is
// the kernels' own, but for sums of products, which are added up in double and
// rounded once, and for functions that the machine approximates. A call takes
// seconds where a device takes microseconds.

#include "../../plugin/kdacheck_plugin.h"
#include "../host/contracts.hpp"
#include "emulated_calls.hpp"

#include <cstdio>
#include <deque>
#include <string>

namespace kdacheck::cuda {
namespace {

kdacheck_cuda_tensor tensor(const kdacheck_tensor& x) {
  if (x.data == nullptr) return {};
  const int format = x.format == KDACHECK_BF16 ? KDACHECK_CUDA_BF16 : x.format == KDACHECK_FP16 ? KDACHECK_CUDA_FP16 : KDACHECK_CUDA_FP32;
  return {x.data, format, {x.stride[0], x.stride[1], x.stride[2]}};
}

float* numbers(const kdacheck_tensor& x) { return static_cast<float*>(x.data); }

kdacheck_cuda_problem problem_of(const kdacheck_inputs& in) {
  kdacheck_cuda_problem p{};
  p.B = in.B, p.T = in.T, p.H = in.H, p.HV = in.HV, p.K = in.K, p.V = in.V;
  p.rule = in.rule, p.gate = in.gate, p.beta_form = in.beta_form,
  p.l2norm = in.l2norm; // the same numbers
  p.lower_bound = in.lower_bound, p.scale = in.scale;
  p.q = tensor(in.q), p.k = tensor(in.k), p.v = tensor(in.v), p.g = tensor(in.g), p.beta = tensor(in.beta);
  p.A_log = numbers(in.A_log), p.dt_bias = numbers(in.dt_bias), p.initial_state = numbers(in.initial_state);
  if (in.cu_seqlens != nullptr) p.cu_seqlens = p.cu_seqlens_host = in.cu_seqlens, p.sequences = in.N;
  return p;
}

int answer(const kdacheck_cuda_result& result, char* why, std::size_t why_size) {
  if (result.status == KDACHECK_CUDA_OK) return 0;
  std::snprintf(why, why_size, "%s", result.text);
  return 1;
}

template <bool accurate>
int forward(const kdacheck_inputs* in, const kdacheck_outputs* out, void*, std::size_t, char* why, std::size_t why_size) {
  kdacheck_cuda_problem p = problem_of(*in);
  p.o = tensor(out->o), p.final_state = numbers(out->final_state);
  return answer(testing::emulated_forward<accurate>(p), why, why_size);
}

template <bool accurate>
int backward(const kdacheck_inputs* in, const kdacheck_cotangents* of, const kdacheck_gradients* to, void*, std::size_t, char* why,
             std::size_t why_size) {
  const kdacheck_cuda_problem p = problem_of(*in);
  kdacheck_cuda_gradients d{};
  d.d_o = tensor(of->d_o), d.d_final_state = numbers(of->d_final_state);
  d.dq = tensor(to->dq), d.dk = tensor(to->dk), d.dv = tensor(to->dv), d.dg = tensor(to->dg), d.dbeta = tensor(to->dbeta);
  d.d_A_log = numbers(to->dA_log), d.d_dt_bias = numbers(to->ddt_bias), d.d_initial_state = numbers(to->dinitial_state);
  if (p.T == 0) d.dq = d.dk = d.dv = d.dg = d.dbeta = {};
  return answer(testing::emulated_backward<accurate>(p, d), why, why_size);
}

} // namespace
} // namespace kdacheck::cuda

extern "C" const kdacheck_library* kdacheck_plugin(uint32_t version) {
  using namespace kdacheck;
  using namespace kdacheck::cuda;
  if (version != KDACHECK_PLUGIN_VERSION) return nullptr;
  static std::deque<std::string> texts; // whose storage stays where it is
  static std::vector<kdacheck_kernel> kernels;
  static kdacheck_library library{};
  if (kernels.empty()) {
    const auto add = [&](Format input, bool accurate) {
      const std::string& name =
          texts.emplace_back(std::string("cuda.segment64.") + (accurate ? "accurate." : "fast.") + std::string(kdacheck::name(input)));
      const std::string& contract = texts.emplace_back(to_text(contracts::segment_contract(input, accurate)));
      kernels.push_back({.name = name.c_str(),
                         .summary = "cuda.segment64 on an emulated multiprocessor",
                         .contract = contract.c_str(),
                         .workspace_bytes = nullptr,
                         .forward = accurate ? forward<true> : forward<false>,
                         .backward = accurate ? backward<true> : backward<false>,
                         .decode = nullptr});
    };
    for (const Format input : {Format::bf16, Format::fp16})
      for (const bool accurate : {false, true}) add(input, accurate);
    library = {.version = KDACHECK_PLUGIN_VERSION, .count = static_cast<uint32_t>(kernels.size()), .kernels = kernels.data()};
  }
  return &library;
}
