// What kernels of others are run on, and what they made of it: inputs and what double gives, in one file for
// kernels/plugin/python/adapters/time_fla.py; its rows, beside those of the kernels here.

#include "../../../reference/safetensors.hpp"
#include "../host/contracts.hpp"
#include "backward_cases.hpp"
#include "driver.hpp"
#include "timed.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <list>

namespace kdacheck::cuda {
namespace {

using nlohmann::json;

/// Tensors of a file, with their bytes.
struct Written {
  std::list<std::vector<std::byte>> memory;
  std::vector<StoredTensor> tensors;

  void add(std::string name, ElementType type, std::vector<std::int64_t> shape, const void* from, std::size_t count) {
    const auto* bytes = static_cast<const std::byte*>(from);
    memory.emplace_back(bytes, bytes + count * element_bytes(type));
    tensors.push_back({std::move(name), type, std::move(shape), memory.back()});
  }
  void add(std::string name, const TensorView& view) {
    add(std::move(name), element_type_of(view.format), {view.shape.begin(), view.shape.end()}, view.data,
        static_cast<std::size_t>(view.elements()));
  }
  void add(std::string name, const std::vector<double>& values) {
    add(std::move(name), ElementType::F64, {static_cast<std::int64_t>(values.size())}, values.data(), values.size());
  }
  void add_device(std::string name, ElementType type, const void* from, std::int64_t count) {
    std::vector<std::byte> host(static_cast<std::size_t>(count) * element_bytes(type));
    require(cudaMemcpy(host.data(), from, host.size(), cudaMemcpyDeviceToHost), "copy");
    add(std::move(name), type, {count}, host.data(), static_cast<std::size_t>(count));
  }
};

/// The numbers that every tensor of a timed problem is tiled from.
void add_pools(Written& file, bool dplr) {
  const DeviceProblem made = make_problem(1, 8192, 128, 128, 128, timed_seed, true, dplr);
  const kdacheck_cuda_problem& p = made.problem;
  const std::string prefix = dplr ? "pool/dplr/" : "pool/kda/";
  const auto rows = [&](const char* name, const kdacheck_cuda_tensor& tensor) {
    if (tensor.data != nullptr) file.add_device(prefix + name, ElementType::BF16, tensor.data, pool_numbers);
  };
  rows("q", p.q), rows("k", p.k), rows("v", p.v), rows("g", p.g), rows("beta", p.beta), rows("a", p.a), rows("b", p.b);
  file.add_device(prefix + "A_log", ElementType::F32, p.A_log, p.HV);
  file.add_device(prefix + "dt_bias", ElementType::F32, p.dt_bias, p.HV * p.K);
  if (!dplr) file.add_device(prefix + "initial_state", ElementType::F32, p.state, pool_numbers);
}

/// A timed case, and the heads of it that double has been through.
json add_timed(Written& file, const char* kind, const TimedCase& row) {
  const std::string name = std::string(kind) + " " + row.name;
  const DeviceProblem made = make_problem(row.B, row.T, row.H, 128, 128, timed_seed, name.starts_with("decode"), name.starts_with("dplr"));
  json heads = json::array();
  for (const SampledHead& sampled : sampled_truth(made)) {
    const std::string place = "timed/" + name + "/" + std::to_string(heads.size());
    file.add(place + "/o", sampled.exact.o);
    file.add(place + "/state", sampled.exact.state);
    heads.push_back({sampled.n, sampled.head});
  }
  return {{"kind", kind}, {"case", row.name}, {"B", row.B}, {"T", row.T}, {"H", row.H}, {"heads", heads}};
}

/// A regime of the accuracy checks: inputs as bf16 kernels get them, outputs and gradients as double gives them.
json add_regime(Written& file, const Regime& regime) {
  const bool dplr = regime.options.rule == Rule::dplr;
  const Contract contract = dplr ? contracts::general_contract(Format::bf16) : contracts::chunk_contract(Format::bf16, false);
  const Case made = make_case(regime, contract, case_seed(regime));
  const Backward back = make_backward(made, contract, {"", true, true}, cotangent_seed(regime));
  const std::string place = "regime/" + std::string(regime.name) + "/";
  for (Input input : all_inputs)
    if (made.in[input]) file.add(place + std::string(name(input)), made.in[input]);
  file.add(place + "d_o", back.d_o.view);
  file.add(place + "d_final_state", back.d_final_state.view);
  const Shape& s = regime.shape;
  const auto length = static_cast<std::size_t>(s.T), heads = static_cast<std::size_t>(s.HV), V = static_cast<std::size_t>(s.V);
  std::vector<double> o(length * heads * V), states; // B = 1
  for (std::size_t head = 0; head < heads; ++head) {
    const HeadResult truth = recurrence_fp64(made.in, 0, static_cast<std::int64_t>(head));
    for (std::size_t t = 0; t < length; ++t)
      for (std::size_t j = 0; j < V; ++j) o[(t * heads + head) * V + j] = truth.o[t * V + j];
    states.insert(states.end(), truth.state.begin(), truth.state.end());
  }
  file.add(place + "exact/o", o);
  file.add(place + "exact/state", states);
  double A_log_square = 0;
  for (const auto& [input, values] : exact_gradients(made, back, false, A_log_square))
    file.add(place + "exact/d " + std::string(name(input)), values);
  return {{"regime", regime.name},
          {"rule", name(regime.options.rule)},
          {"gate", name(regime.options.gate)},
          {"beta", name(regime.options.beta)},
          {"l2norm", regime.options.l2norm},
          {"lower_bound", regime.options.lower_bound},
          {"scale", regime.options.scale},
          {"A_log_square", A_log_square}};
}

} // namespace

void write_peer_cases(const std::string& to) {
  Written file;
  json timed = json::array(), of_regimes = json::array();
  for (bool dplr : {false, true}) add_pools(file, dplr);
  for (const TimedCase& row : forward_cases()) timed.push_back(add_timed(file, "kda", row));
  for (const TimedCase& row : general_cases()) timed.push_back(add_timed(file, "dplr", row));
  for (const TimedCase& row : decode_cases()) timed.push_back(add_timed(file, "decode", row));
  for (const Regime& regime : regimes())
    for (const char* wanted :
         {"gaussian", "slow decay", "near-identical, empty state", "alternating, empty state", "decay at -5", "DPLR, keys as given"})
      if (std::string_view(regime.name) == wanted) of_regimes.push_back(add_regime(file, regime));
  write_safetensors(to, file.tensors, {{"timed", timed.dump()}, {"regimes", of_regimes.dump()}});
  std::printf("%zu tensors of %zu timed cases and %zu regimes in %s\n", file.tensors.size(), timed.size(), of_regimes.size(), to.c_str());
}

void add_peers(nlohmann::json& report, const std::string& file) {
  std::ifstream stream(file);
  if (!stream) throw std::runtime_error(file + " cannot be read");
  const double bandwidth = report.at("copy_bytes_per_second").get<double>();
  const json peers = json::parse(stream);
  report["peers"] = peers.at("versions");
  for (json row : peers.at("timing")) {
    row["of_bandwidth"] = row.at("bytes").get<double>() / (row.at("median_ms").get<double>() * 1e-3) / bandwidth;
    if (report["matrix_product_flops_per_second"].is_number())
      row["of_compute"] =
          row.at("flops").get<double>() / (row["median_ms"].get<double>() * 1e-3) / report["matrix_product_flops_per_second"].get<double>();
    row["target"] = 0.0;
    std::printf("%-32s %-14s median %.4f least %.4f ms, %.1f %% of copy, o errs by %.1e\n", row.at("kernel").get<std::string>().c_str(),
                row.at("case").get<std::string>().c_str(), row["median_ms"].get<double>(), row.at("least_ms").get<double>(),
                100 * row["of_bandwidth"].get<double>(), row.at("error_o").get<double>());
    report["timing"].push_back(std::move(row));
  }
  for (const char* part : {"accuracy", "gradients"})
    for (json row : peers.at(part)) {
      row["good"] = nullptr; // not judged here
      auto& rows = report[part];
      if (rows.is_null()) rows = json::array();
      const auto same = [&](const json& other) { return other.at("regime") == row.at("regime"); };
      const auto last = std::find_if(rows.rbegin(), rows.rend(), same); // after the kernels here in the same regime
      rows.insert(last == rows.rend() ? rows.end() : last.base(), std::move(row));
    }
}

} // namespace kdacheck::cuda
