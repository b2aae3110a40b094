#include "../check.hpp"
#include "../launch.hpp"
#include "copy.hpp"
#include "device.hpp"
#include "driver.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>

namespace kdacheck::cuda {
namespace {

using Enqueue = std::function<void(cudaStream_t)>;

/// Median and fastest of single replays, in milliseconds; the graphs take turns, so that their data need not be in cache.
struct Times {
  double median = 0, least = 0;
};
Times time_graphs(const std::vector<Enqueue>& jobs, int replays) {
  cudaStream_t stream;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  std::vector<cudaGraphExec_t> graphs;
  for (const Enqueue& job : jobs) {
    job(stream);
    require(cudaStreamSynchronize(stream), "warm-up");
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
    job(stream);
    require(cudaStreamEndCapture(stream, &graph), "capture");
    require(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
    require(cudaGraphDestroy(graph), "graph");
    graphs.push_back(exec);
  }
  std::vector<cudaEvent_t> events(static_cast<std::size_t>(replays) + 1);
  for (auto& event : events) require(cudaEventCreate(&event), "event");
  for (std::size_t i = 0; i < 5; ++i) require(cudaGraphLaunch(graphs[i % graphs.size()], stream), "launch");
  require(cudaEventRecord(events[0], stream), "event");
  for (std::size_t i = 1; i < events.size(); ++i) {
    require(cudaGraphLaunch(graphs[i % graphs.size()], stream), "launch");
    require(cudaEventRecord(events[i], stream), "event");
  }
  require(cudaStreamSynchronize(stream), "replay");
  std::vector<float> times;
  for (std::size_t i = 1; i < events.size(); ++i) {
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, events[i - 1], events[i]), "time");
    times.push_back(milliseconds);
  }
  for (auto& event : events) cudaEventDestroy(event);
  for (auto& exec : graphs) cudaGraphExecDestroy(exec);
  cudaStreamDestroy(stream);
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times[0]};
}

/// Bytes per second, read and written counted, of a device copy of 1 GiB: the better of the runtime's and a kernel's.
double copy_bandwidth() {
  const std::size_t bytes = std::size_t{1} << 30;
  const DeviceMemory from = random_bf16(static_cast<std::int64_t>(bytes / 2), 0, 1, 5), to = allocate(bytes);
  const Times by_runtime = time_graphs(
      {[&](cudaStream_t stream) { require(cudaMemcpyAsync(to.get(), from.get(), bytes, cudaMemcpyDeviceToDevice, stream), "copy"); }}, 30);
  const Times by_kernel =
      time_graphs({[&](cudaStream_t stream) { require(launch_copy(to.get(), from.get(), bytes, stream), "copy"); }}, 30);
  const auto rate = [&](const Times& times) { return 2.0 * static_cast<double>(bytes) / (times.median * 1e-3); };
  std::printf("copy by the runtime %.3f TB/s, by a kernel %.3f TB/s\n", rate(by_runtime) * 1e-12, rate(by_kernel) * 1e-12);
  return std::max(rate(by_runtime), rate(by_kernel));
}

struct Row {
  const char* name;
  std::int64_t B, T, H;
  double must;              ///< target in ms, fast tier; of decode: share of the copy bandwidth; 0: none
  double must_accurate = 0; ///< target in ms, accurate tier
};

cudaError_t launch_chunk_kernel(int kernel, const ForwardArguments& args, cudaStream_t stream, ChunkShape shape) {
  return kernel == KDACHECK_CUDA_CHUNK_FAST ? launch_chunk_fast(args, stream, shape) : launch_chunk_accurate(args, stream, shape);
}

/// Distinct inputs, enough to exceed the cache where one set does not.
std::vector<DeviceProblem> input_sets(const Row& row, bool decode, double bytes, bool dplr = false) {
  const int count = std::clamp(static_cast<int>(200e6 / bytes) + 1, 1, 8);
  std::vector<DeviceProblem> sets;
  for (int i = 0; i < count; ++i)
    sets.push_back(make_problem(row.B, row.T, row.H, 128, 128, 100 + 20 * static_cast<unsigned>(i), decode, dplr));
  return sets;
}

} // namespace

void measure(nlohmann::json& report, bool sweep, const std::string& filter) {
  const auto wanted = [&](const std::string& kernel, const Row& row) {
    return (kernel + " " + row.name).find(filter) != std::string::npos;
  };
  const double bandwidth = copy_bandwidth();
  report["copy_bytes_per_second"] = bandwidth;
  std::printf("copy %.3f TB/s (read + written)\n", bandwidth * 1e-12);
  const auto add = [&](const char* kernel, const Row& row, Times times, double bytes, ChunkShape shape) {
    const double target = std::string(kernel) == "accurate" ? row.must_accurate : row.must;
    const double share = bytes / (times.median * 1e-3) / bandwidth;
    report["timing"].push_back({{"kernel", kernel},
                                {"case", row.name},
                                {"median_ms", times.median},
                                {"least_ms", times.least},
                                {"bytes", bytes},
                                {"of_bandwidth", share},
                                {"target", target},
                                {"slices", shape.slices},
                                {"producers", shape.producer_warps},
                                {"stages", shape.stages},
                                {"sharing", shape.sharing}});
    std::printf("%-20s %-14s [%d %d %d %d] median %.4f least %.4f ms, %.1f %% of copy, must %.3g\n", kernel, row.name, shape.slices,
                shape.producer_warps, shape.stages, shape.sharing, times.median, times.least, 100 * share, target);
    std::fflush(stdout);
  };
  const std::vector<Row> rows{{"B1 T8192 H96", 1, 8192, 96, 1.00, 1.30},
                              {"B1 T8192 H32", 1, 8192, 32, 0.60},
                              {"B1 T8192 H4", 1, 8192, 4, 0.32},
                              {"B8 T1024 H32", 8, 1024, 32, 0.40},
                              {"B1 T512 H32", 1, 512, 32, 0.085}};
  for (const Row& row : rows) {
    const double bytes = static_cast<double>(row.B * row.T * row.H) * 1282 + static_cast<double>(row.B * row.H) * 65536;
    if (!wanted("fast", row) && !wanted("accurate", row)) continue;
    const auto sets = input_sets(row, false, bytes);
    for (int kernel : {KDACHECK_CUDA_CHUNK_FAST, KDACHECK_CUDA_CHUNK_ACCURATE}) {
      const char* kernel_name = kernel == KDACHECK_CUDA_CHUNK_FAST ? "fast" : "accurate";
      if (!wanted(kernel_name, row)) continue;
      std::vector<ChunkShape> shapes{{}};
      if (sweep)
        for (int slices : {1, 2, 4, 8})
          for (int sharing : {1, 2, 4, 8})
            for (int producers : {3, 4, 6, 8})
              if (slices % sharing == 0 && 8 / slices + producers <= 16 && row.H * row.B * slices <= 264)
                shapes.push_back({slices, producers, 0, sharing});
      for (const ChunkShape& shape : shapes) try {
          std::vector<Enqueue> jobs;
          for (const DeviceProblem& set : sets) {
            CheckedCall call = check_call(kernel, &set.problem);
            require(call.result);
            call.args.handover = static_cast<unsigned char*>(set.workspace.get());
            jobs.push_back([=](cudaStream_t stream) { require(launch_chunk_kernel(kernel, call.args, stream, shape), "launch"); });
          }
          add(kernel_name, row, time_graphs(jobs, 100), bytes, shape);
        } catch (const std::exception& error) {
          std::printf("%s [%d %d %d]: %s\n", row.name, shape.slices, shape.producer_warps, shape.stages, error.what());
          cudaGetLastError();
        }
    }
  }
  // The general rule on the same cases, with a and b instead of beta.
  for (const Row& row : std::vector<Row>{{"B1 T8192 H96", 1, 8192, 96, 2.0},
                                         {"B1 T8192 H32", 1, 8192, 32, 0},
                                         {"B1 T8192 H16", 1, 8192, 16, 0},
                                         {"B8 T1024 H32", 8, 1024, 32, 0}}) {
    const double bytes = static_cast<double>(row.B * row.T * row.H) * 1792 + static_cast<double>(row.B * row.H) * 65536;
    if (!wanted("dplr", row)) continue;
    const auto sets = input_sets(row, false, bytes, true);
    std::vector<ChunkShape> shapes{{}};
    if (sweep)
      for (int sharing : {1, 2, 4, 8})
        for (int producers : {2, 3, 4, 5, 6, 7, 8})
          if (8 / sharing + producers <= 12 && row.H * row.B * sharing <= 264) shapes.push_back({sharing, producers, 0, sharing});
    for (const ChunkShape& shape : shapes) try {
        std::vector<Enqueue> jobs;
        for (const DeviceProblem& set : sets) {
          CheckedCall call = check_call(KDACHECK_CUDA_CHUNK_FAST, &set.problem);
          require(call.result);
          call.args.handover = static_cast<unsigned char*>(set.workspace.get());
          jobs.push_back([=](cudaStream_t stream) { require(launch_general_fast(call.args, stream, shape), "launch"); });
        }
        add("dplr", row, time_graphs(jobs, sweep ? 30 : 100), bytes, shape);
      } catch (const std::exception& error) {
        std::printf("%s [%d %d %d]: %s\n", row.name, shape.slices, shape.producer_warps, shape.stages, error.what());
        cudaGetLastError();
      }
  }
  for (const Row& row : std::vector<Row>{{"B1 T8192 H96", 1, 8192, 96, 5.4},
                                         {"B1 T8192 H32", 1, 8192, 32, 0},
                                         {"B1 T8192 H4", 1, 8192, 4, 0},
                                         {"B8 T1024 H32", 8, 1024, 32, 0},
                                         {"B1 T512 H32", 1, 512, 32, 0}}) {
    for (int kernel : {KDACHECK_CUDA_CHUNK_FAST, KDACHECK_CUDA_CHUNK_ACCURATE})
      for (bool forward : {false, true}) {
        const std::string label = std::string(forward ? "fwd+bwd " : "bwd ") + (kernel == KDACHECK_CUDA_CHUNK_FAST ? "fast" : "accurate");
        if (!wanted(label, row)) continue;
        const double tokens = static_cast<double>(row.B * row.T * row.H), states = static_cast<double>(row.B * row.H) * 65536;
        const double bytes = tokens * 2312 + states * 2 + (forward ? tokens * 1282 + states : 0);
        const auto sets = input_sets(row, false, bytes);
        std::vector<DeviceGradients> backs;
        std::vector<Enqueue> jobs;
        for (const DeviceProblem& set : sets) backs.push_back(make_gradients(kernel, set, 300));
        for (std::size_t i = 0; i < sets.size(); ++i)
          jobs.push_back([&, i](cudaStream_t stream) {
            if (forward) require(sets[i].forward(kernel, stream));
            require(kdacheck_cuda_backward(kernel, &sets[i].problem, &backs[i].gradients, backs[i].workspace.get(),
                                           backs[i].workspace_bytes, stream));
          });
        Row shown = row;
        if (!forward) shown.must = 0;
        if (kernel == KDACHECK_CUDA_CHUNK_ACCURATE) shown.must_accurate = shown.must;
        add(label.c_str(), shown, time_graphs(jobs, 100), bytes, {});
      }
  }
  // Shapes besides those of the targets: value heads that share keys, whose gradients are taken in rounds, and keys of other sizes, whose
  // kernels have room for more.
  struct Shaped {
    Row row;
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
        const Row& row = shaped.row;
        if (!wanted(label, row) || (back && kernel == KDACHECK_CUDA_CHUNK_ACCURATE && shaped.K > 128)) continue;
        const double tokens = static_cast<double>(row.B * row.T), key_heads = static_cast<double>(row.H),
                     heads = key_heads * static_cast<double>(shaped.group), K = static_cast<double>(shaped.K),
                     V = static_cast<double>(shaped.V), state = static_cast<double>(row.B) * heads * K * V * 4;
        // Each input once, each output once: forward q k, v o g beta; backward those without o, dO, and a gradient for each input.
        const double bytes = back ? 2 * tokens * (4 * K * key_heads + (2 * K + 3 * V + 2) * heads) + 2 * state
                                  : 2 * tokens * (2 * K * key_heads + (K + 2 * V + 1) * heads) + state;
        const DeviceProblem made = make_problem(row.B, row.T, row.H, shaped.K, shaped.V, 100, false, false, shaped.group);
        const DeviceGradients gradients = back ? make_gradients(kernel, made, 300) : DeviceGradients{};
        const Enqueue job = [&](cudaStream_t stream) {
          if (!back) return require(made.forward(kernel, stream));
          require(kdacheck_cuda_backward(kernel, &made.problem, &gradients.gradients, gradients.workspace.get(), gradients.workspace_bytes,
                                         stream));
        };
        add(label.c_str(), row, time_graphs({job}, 30), bytes, {});
      }
  if (const Row row{"B1 T8192 H96", 1, 8192, 96, 0}; wanted("gate alone", row)) {
    const DeviceGates made = make_gates(row.T, row.H);
    const Enqueue job = [&](cudaStream_t stream) { require(kdacheck_cuda_gates(&made.call, stream)); };
    add("gate alone", row, time_graphs({job}, 50), static_cast<double>(row.T * row.H) * 128 * 10, {});
  }
  if (const Row row{"an empty kernel", 0, 0, 0, 0}; wanted("decode", row) || wanted("nothing", row))
    add("nothing", row, time_graphs({[](cudaStream_t stream) { require(launch_nothing(stream), "launch"); }}, 200), 0, {});
  for (const Row& row :
       std::vector<Row>{{"B1 T8192 H96", 1, 8192, 96, 0}, {"B1 T8192 H32", 1, 8192, 32, 0}, {"B8 T1024 H32", 8, 1024, 32, 0}})
    for (bool forward : {false, true}) {
      const char* label = forward ? "fwd+bwd dplr" : "bwd dplr";
      if (!wanted(label, row)) continue;
      const double tokens = static_cast<double>(row.B * row.T * row.H), states = static_cast<double>(row.B * row.H) * 65536;
      const double bytes = tokens * 3590 + states * 2 + (forward ? tokens * 1792 + states : 0);
      const auto sets = input_sets(row, false, bytes, true);
      const DeviceGradients back = make_gradients(KDACHECK_CUDA_CHUNK_FAST, sets[0], 300);
      const Enqueue job = [&](cudaStream_t stream) {
        if (forward) require(sets[0].forward(KDACHECK_CUDA_CHUNK_FAST, stream));
        require(kdacheck_cuda_backward(KDACHECK_CUDA_CHUNK_FAST, &sets[0].problem, &back.gradients, back.workspace.get(),
                                       back.workspace_bytes, stream));
      };
      add(label, row, time_graphs({job}, 50), bytes, {});
    }
  // The GPU's own reference for gradients: no target.
  for (bool dplr : {false, true}) {
    const Row row{"B1 T8192 H32", 1, 8192, 32, 0};
    const char* label = dplr ? "bwd recurrence, DPLR" : "bwd recurrence";
    if (!wanted(label, row)) continue;
    const double bytes = static_cast<double>(row.B * row.T * row.H) * (dplr ? 3590 : 2312) + static_cast<double>(row.B * row.H) * 131072;
    const auto sets = input_sets(row, false, bytes, dplr);
    const DeviceGradients back = make_gradients(KDACHECK_CUDA_RECURRENCE, sets[0], 300);
    const Enqueue job = [&](cudaStream_t stream) {
      require(kdacheck_cuda_backward(KDACHECK_CUDA_RECURRENCE, &sets[0].problem, &back.gradients, back.workspace.get(),
                                     back.workspace_bytes, stream));
    };
    add(label, row, time_graphs({job}, 10), bytes, {});
  }
  for (const Row& row : {Row{"decode B1 H32", 1, 1, 32, 0}, Row{"decode B64 H32", 64, 1, 32, 0.85},
                         Row{"decode B256 H32", 256, 1, 32, 0.85}, Row{"decode B64 H32 T4", 64, 4, 32, 0}}) {
    const double bytes = static_cast<double>(row.B * row.H) * (131072 + static_cast<double>(row.T) * 1282);
    if (!wanted("decode", row)) continue;
    const auto sets = input_sets(row, true, bytes);
    std::vector<Enqueue> jobs;
    for (const DeviceProblem& set : sets)
      jobs.push_back([&set](cudaStream_t stream) { require(set.forward(KDACHECK_CUDA_DECODE, stream)); });
    add("decode", row, time_graphs(jobs, 200), bytes, {});
  }
}

void add_peers(nlohmann::json& report, const std::string& file) {
  std::ifstream stream(file);
  if (!stream) throw std::runtime_error(file + " cannot be read");
  const double bandwidth = report.at("copy_bytes_per_second").get<double>();
  for (nlohmann::json row : nlohmann::json::parse(stream)) {
    row["of_bandwidth"] = row.at("bytes").get<double>() / (row.at("median_ms").get<double>() * 1e-3) / bandwidth;
    row["target"] = 0.0;
    std::printf("%-32s %-14s median %.4f least %.4f ms, %.1f %% of copy\n", row.at("kernel").get<std::string>().c_str(),
                row.at("case").get<std::string>().c_str(), row["median_ms"].get<double>(), row.at("least_ms").get<double>(),
                100 * row["of_bandwidth"].get<double>());
    report["timing"].push_back(std::move(row));
  }
}

} // namespace kdacheck::cuda
