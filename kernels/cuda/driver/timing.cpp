#include "../host/check.hpp"
#include "../host/launch.hpp"
#include "copy.hpp"
#include "driver.hpp"
#include "replay.hpp"
#include "timed.hpp"

#include <algorithm>
#include <cstdio>
#include <optional>

namespace kdacheck::cuda {
namespace {

cudaError_t launch_chunk_kernel(int kernel, const ForwardArguments& args, cudaStream_t stream, ChunkShape shape) {
  return kernel == KDACHECK_CUDA_CHUNK_FAST ? launch_chunk_fast(args, stream, shape) : launch_chunk_accurate(args, stream, shape);
}

/// Distinct inputs, enough to exceed the cache where one set does not.
std::vector<DeviceProblem> input_sets(const TimedCase& row, bool decode, double bytes, bool dplr = false) {
  const int count = std::clamp(static_cast<int>(200e6 / bytes) + 1, 1, 8);
  std::vector<DeviceProblem> sets;
  for (int i = 0; i < count; ++i)
    sets.push_back(make_problem(row.B, row.T, row.H, 128, 128, timed_seed + 20 * static_cast<unsigned>(i), decode, dplr));
  return sets;
}

/// What one kernel takes on one case.
struct Work {
  std::string kernel;
  const TimedCase& row;
  std::vector<Enqueue> jobs;
  double bytes; ///< that must move
  double flops = 0;
  int runs = 100;
  bool all_ways = false; ///< besides graphs taking turns: calls, with caches flushed, on the same data again and again
  ChunkShape shape{};
  std::optional<Errors> errors{};
};

class Bench {
public:
  Bench(nlohmann::json& report, std::string filter) : report_(report), filter_(std::move(filter)) {
    bandwidth_ = copy_bandwidth(), product_rate_ = matrix_product_rate();
    report["copy_bytes_per_second"] = bandwidth_;
    report["matrix_product_flops_per_second"] = product_rate_ > 0 ? nlohmann::json(product_rate_) : nlohmann::json();
    std::printf("copy %.3f TB/s (read + written), product of bf16 matrices %.0f TFLOP/s\n", bandwidth_ * 1e-12, product_rate_ * 1e-12);
  }

  bool wanted(const std::string& kernel, const TimedCase& row) const {
    return (kernel + " " + row.name).find(filter_) != std::string::npos;
  }

  void operator()(const Work& work) {
    const TimedCase& row = work.row;
    const Times times = time_jobs(work.jobs, work.runs);
    const double target = work.kernel == "accurate" ? row.must_accurate : row.must, seconds = times.median * 1e-3;
    nlohmann::json line{{"kernel", work.kernel},
                        {"case", row.name},
                        {"median_ms", times.median},
                        {"least_ms", times.least},
                        {"runs", work.runs},
                        {"bytes", work.bytes},
                        {"of_bandwidth", work.bytes / seconds / bandwidth_},
                        {"target", target},
                        {"slices", work.shape.slices},
                        {"producers", work.shape.producer_warps},
                        {"stages", work.shape.stages},
                        {"sharing", work.shape.sharing}};
    std::printf("%-20s %-14s [%d %d %d %d] median %.4f least %.4f ms, %.1f %% of copy, must %.3g", work.kernel.c_str(), row.name,
                work.shape.slices, work.shape.producer_warps, work.shape.stages, work.shape.sharing, times.median, times.least,
                100 * work.bytes / seconds / bandwidth_, target);
    if (work.flops > 0) {
      line["flops"] = work.flops;
      if (product_rate_ > 0) line["of_compute"] = work.flops / seconds / product_rate_;
    }
    if (work.errors) {
      line["error_o"] = work.errors->o, line["error_state"] = work.errors->state;
      std::printf(", errs by %.1e %.1e", work.errors->o, work.errors->state);
    }
    if (work.all_ways) {
      const double called = time_jobs(work.jobs, work.runs, Way::call).median,
                   flushed = time_jobs(work.jobs, work.runs, Way::flushed).median, warm = time_jobs({work.jobs[0]}, work.runs).median;
      line["call_ms"] = called, line["flushed_ms"] = flushed, line["warm_ms"] = warm;
      std::printf(", called %.4f, flushed %.4f, warm %.4f", called, flushed, warm);
    }
    std::printf("\n");
    std::fflush(stdout);
    report_["timing"].push_back(std::move(line));
  }

private:
  nlohmann::json& report_;
  std::string filter_;
  double bandwidth_ = 0, product_rate_ = 0;
};

double tokens_of(const TimedCase& row) { return static_cast<double>(row.B * row.T * row.H); }
double states_of(const TimedCase& row) { return static_cast<double>(row.B * row.H) * 65536; }
// Operations for a token and head at K = V = 128, in chunks of 16.
constexpr double d = 128, C = 16, forward_flops = 6 * d * d + 8 * C * d, backward_flops = 16 * d * d + 22 * C * d,
                 general_flops = 8 * d * d + 16 * C * d, decode_flops = 7 * d * d;

/// A chunk kernel on a case, in its own cut into blocks and warps and in others.
void measure_chunks(Bench& bench, const TimedCase& row, int kernel, const std::string& name, const std::vector<DeviceProblem>& sets,
                    const std::vector<SampledHead>& truth, double bytes, double flops, const std::vector<ChunkShape>& shapes) {
  const bool dplr = name == "dplr";
  for (const ChunkShape& shape : shapes) try {
      std::vector<Enqueue> jobs;
      for (const DeviceProblem& set : sets) {
        CheckedCall call = check_call(kernel, &set.problem);
        require(call.result);
        call.args.handover = static_cast<unsigned char*>(set.workspace.get());
        jobs.push_back([=](cudaStream_t stream) {
          require(dplr ? launch_general_fast(call.args, stream, shape) : launch_chunk_kernel(kernel, call.args, stream, shape), "launch");
        });
      }
      jobs[0](nullptr);
      const Errors errors = sampled_errors(sets[0], truth);
      bench({name, row, jobs, bytes, flops, shapes.size() > 1 ? 30 : 100, shapes.size() == 1, shape, errors});
    } catch (const std::exception& error) {
      std::printf("%s [%d %d %d]: %s\n", row.name, shape.slices, shape.producer_warps, shape.stages, error.what());
      cudaGetLastError();
    }
}

/// "slices,producers,stages,sharing;..."
std::vector<ChunkShape> shapes_of(const std::string& text) {
  std::vector<ChunkShape> shapes;
  ChunkShape one{};
  int used = 0;
  for (const char* at = text.c_str(); *at != 0; at += used) {
    used = 0;
    if (std::sscanf(at, "%d,%d,%d,%d%n", &one.slices, &one.producer_warps, &one.stages, &one.sharing, &used) != 4)
      throw std::runtime_error("--shapes: '" + text + "' is not of the form slices,producers,stages,sharing;...");
    shapes.push_back(one);
    if (at[used] == ';') ++used;
  }
  return shapes;
}

void measure_forward(Bench& bench, bool sweep, const std::vector<ChunkShape>& more) {
  for (const TimedCase& row : forward_cases()) {
    if (!bench.wanted("fast", row) && !bench.wanted("accurate", row)) continue;
    const double bytes = tokens_of(row) * 1282 + states_of(row);
    const auto sets = input_sets(row, false, bytes);
    const auto truth = sampled_truth(sets[0]);
    std::vector<ChunkShape> shapes{{}};
    if (sweep)
      for (int slices : {1, 2, 4, 8})
        for (int sharing : {1, 2, 4, 8})
          for (int producers : {3, 4, 6, 8})
            if (slices % sharing == 0 && 8 / slices + producers <= 16 && row.H * row.B * slices <= 264)
              shapes.push_back({slices, producers, 0, sharing});
    shapes.insert(shapes.end(), more.begin(), more.end());
    for (int kernel : {KDACHECK_CUDA_CHUNK_FAST, KDACHECK_CUDA_CHUNK_ACCURATE}) {
      const char* name = kernel == KDACHECK_CUDA_CHUNK_FAST ? "fast" : "accurate";
      if (bench.wanted(name, row)) measure_chunks(bench, row, kernel, name, sets, truth, bytes, tokens_of(row) * forward_flops, shapes);
    }
  }
  // The general rule on the same cases, with a and b instead of beta.
  for (const TimedCase& row : general_cases()) {
    if (!bench.wanted("dplr", row)) continue;
    const double bytes = tokens_of(row) * 1792 + states_of(row);
    const auto sets = input_sets(row, false, bytes, true);
    std::vector<ChunkShape> shapes{{}};
    if (sweep)
      for (int sharing : {1, 2, 4, 8})
        for (int producers : {2, 3, 4, 5, 6, 7, 8})
          if (8 / sharing + producers <= 12 && row.H * row.B * sharing <= 264) shapes.push_back({sharing, producers, 0, sharing});
    shapes.insert(shapes.end(), more.begin(), more.end());
    measure_chunks(bench, row, KDACHECK_CUDA_CHUNK_FAST, "dplr", sets, sampled_truth(sets[0]), bytes, tokens_of(row) * general_flops,
                   shapes);
  }
}

/// A backward pass, and one after its forward pass.
void measure_backward(Bench& bench, const TimedCase& row, int kernel, const std::string& name, bool dplr, int runs = 100) {
  for (bool forward : {false, true}) {
    const std::string label = (forward ? "fwd+bwd " : "bwd ") + name;
    if (!bench.wanted(label, row)) continue;
    const double states = states_of(row), back = tokens_of(row) * (dplr ? 3590 : 2312) + states * 2;
    const double bytes = back + (forward ? tokens_of(row) * (dplr ? 1792 : 1282) + states : 0);
    const auto sets = input_sets(row, false, bytes, dplr);
    std::vector<DeviceGradients> backs;
    std::vector<Enqueue> jobs;
    for (const DeviceProblem& set : sets) backs.push_back(make_gradients(kernel, set, 300));
    for (std::size_t i = 0; i < sets.size(); ++i)
      jobs.push_back([&, i](cudaStream_t stream) {
        if (forward) require(sets[i].forward(kernel, stream));
        require(kdacheck_cuda_backward(kernel, &sets[i].problem, &backs[i].gradients, backs[i].workspace.get(), backs[i].workspace_bytes,
                                       stream));
      });
    TimedCase shown = row;
    if (!forward) shown.must = 0;
    const double flops = dplr ? 0 : tokens_of(row) * (backward_flops + (forward ? forward_flops : 0));
    bench({label, shown, jobs, bytes, flops, runs, forward && shown.must > 0});
  }
}

/// Shapes besides those of the targets: value heads that share keys, whose gradients are taken in rounds, and keys of other sizes, whose
/// kernels have room for more.
void measure_shapes(Bench& bench) {
  struct Shaped {
    TimedCase row;
    std::int64_t group, K, V;
  };
  for (const Shaped& shaped : std::vector<Shaped>{{{"B1 T8192 H8 HV32", 1, 8192, 8, 0}, 4, 128, 128},
                                                  {{"B1 T8192 H1 HV16", 1, 8192, 1, 0}, 16, 128, 128},
                                                  {{"B1 T8192 H32 K16 V64", 1, 8192, 32, 0}, 1, 16, 64},
                                                  {{"B1 T8192 H32 K80 V128", 1, 8192, 32, 0}, 1, 80, 128},
                                                  {{"B1 T8192 H32 K256 V256", 1, 8192, 32, 0}, 1, 256, 256}})
    for (int kernel : {KDACHECK_CUDA_CHUNK_FAST, KDACHECK_CUDA_CHUNK_ACCURATE})
      for (bool back : {false, true}) {
        const std::string label =
            std::string(back ? "bwd " : "") + (kernel == KDACHECK_CUDA_CHUNK_FAST ? "fast" : "accurate") + (back ? "" : " shaped");
        const TimedCase& row = shaped.row;
        if (!bench.wanted(label, row) || (back && kernel == KDACHECK_CUDA_CHUNK_ACCURATE && shaped.K > 128)) continue;
        const double tokens = static_cast<double>(row.B * row.T), key_heads = static_cast<double>(row.H),
                     heads = key_heads * static_cast<double>(shaped.group), K = static_cast<double>(shaped.K),
                     V = static_cast<double>(shaped.V), state = static_cast<double>(row.B) * heads * K * V * 4;
        // Each input once, each output once: forward q k, v o g beta; backward those without o, dO, and a gradient for each input.
        const double bytes = back ? 2 * tokens * (4 * K * key_heads + (2 * K + 3 * V + 2) * heads) + 2 * state
                                  : 2 * tokens * (2 * K * key_heads + (K + 2 * V + 1) * heads) + state;
        const DeviceProblem made = make_problem(row.B, row.T, row.H, shaped.K, shaped.V, timed_seed, false, false, shaped.group);
        const DeviceGradients gradients = back ? make_gradients(kernel, made, 300) : DeviceGradients{};
        const Enqueue job = [&](cudaStream_t stream) {
          if (!back) return require(made.forward(kernel, stream));
          require(kdacheck_cuda_backward(kernel, &made.problem, &gradients.gradients, gradients.workspace.get(), gradients.workspace_bytes,
                                         stream));
        };
        bench({label, row, {job}, bytes, 0, 30});
      }
}

void measure_decode(Bench& bench) {
  for (const TimedCase& row : decode_cases()) {
    if (!bench.wanted("decode", row)) continue;
    const double bytes = static_cast<double>(row.B * row.H) * 131072 + tokens_of(row) * 1282;
    const auto sets = input_sets(row, true, bytes);
    const auto truth = sampled_truth(sets[0]);
    require(sets[0].forward(KDACHECK_CUDA_DECODE, nullptr));
    const Errors errors = sampled_errors(sets[0], truth);
    std::vector<Enqueue> jobs;
    for (const DeviceProblem& set : sets)
      jobs.push_back([&set](cudaStream_t stream) { require(set.forward(KDACHECK_CUDA_DECODE, stream)); });
    bench({"decode", row, jobs, bytes, tokens_of(row) * decode_flops, 200, true, {}, errors});
  }
}

} // namespace

void measure(nlohmann::json& report, bool sweep, const std::string& shapes, const std::string& filter) {
  const auto more = shapes_of(shapes);
  Bench bench(report, filter);
  measure_forward(bench, sweep, more);
  for (const TimedCase& row : std::vector<TimedCase>{{"B1 T8192 H96", 1, 8192, 96, 5.4},
                                                     {"B1 T8192 H32", 1, 8192, 32, 0},
                                                     {"B1 T8192 H4", 1, 8192, 4, 0},
                                                     {"B8 T1024 H32", 8, 1024, 32, 0},
                                                     {"B1 T512 H32", 1, 512, 32, 0}})
    for (int kernel : {KDACHECK_CUDA_CHUNK_FAST, KDACHECK_CUDA_CHUNK_ACCURATE})
      measure_backward(bench, row, kernel, kernel == KDACHECK_CUDA_CHUNK_FAST ? "fast" : "accurate", false);
  measure_shapes(bench);
  if (const TimedCase row{"B1 T8192 H96", 1, 8192, 96, 0}; bench.wanted("gate alone", row)) {
    const DeviceGates made = make_gates(row.T, row.H);
    bench({"gate alone", row, {[&](cudaStream_t stream) { require(kdacheck_cuda_gates(&made.call, stream)); }}, tokens_of(row) * 128 * 10});
  }
  for (const TimedCase& row :
       {TimedCase{"B1 H32", 1, 1, 32, 0}, TimedCase{"B64 H32", 64, 1, 32, 0}, TimedCase{"B256 H32", 256, 1, 32, 0}}) {
    if (!bench.wanted("transition alone", row)) continue;
    const double bytes = tokens_of(row) * (131072 + 1280);
    std::vector<DeviceTransition> made;
    for (int i = 0; i < std::clamp(static_cast<int>(200e6 / bytes) + 1, 1, 8); ++i) made.push_back(make_transition(row.B, row.H));
    std::vector<Enqueue> jobs;
    for (const DeviceTransition& set : made)
      jobs.push_back([&set](cudaStream_t stream) { require(kdacheck_cuda_transition(&set.call, stream)); });
    bench({"transition alone", row, jobs, bytes, tokens_of(row) * 6 * d * d, 200});
  }
  if (const TimedCase row{"an empty kernel", 0, 0, 0, 0}; bench.wanted("decode", row) || bench.wanted("nothing", row))
    bench({"nothing", row, {[](cudaStream_t stream) { require(launch_nothing(stream), "launch"); }}, 0, 0, 200});
  for (const TimedCase& row :
       std::vector<TimedCase>{{"B1 T8192 H96", 1, 8192, 96, 0}, {"B1 T8192 H32", 1, 8192, 32, 0}, {"B8 T1024 H32", 8, 1024, 32, 0}})
    measure_backward(bench, row, KDACHECK_CUDA_CHUNK_FAST, "dplr", true);
  // The GPU's own reference for gradients: no target.
  for (bool dplr : {false, true}) {
    const TimedCase row{"B1 T8192 H32", 1, 8192, 32, 0};
    const char* label = dplr ? "bwd recurrence, DPLR" : "bwd recurrence";
    if (!bench.wanted(label, row)) continue;
    const double bytes = tokens_of(row) * (dplr ? 3590 : 2312) + states_of(row) * 2;
    const auto sets = input_sets(row, false, bytes, dplr);
    const DeviceGradients back = make_gradients(KDACHECK_CUDA_RECURRENCE, sets[0], 300);
    const Enqueue job = [&](cudaStream_t stream) {
      require(kdacheck_cuda_backward(KDACHECK_CUDA_RECURRENCE, &sets[0].problem, &back.gradients, back.workspace.get(),
                                     back.workspace_bytes, stream));
    };
    bench({label, row, {job}, bytes, 0, 10});
  }
  measure_decode(bench);
}

} // namespace kdacheck::cuda
