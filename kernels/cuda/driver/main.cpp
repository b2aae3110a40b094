// kdacheck_cuda_check [--quick | --small] [--no-check] [--no-behaviour] [--no-time] [--forward | --backward] [--kernel TEXT]
// [--regime TEXT] [--case TEXT] [--sweep] [--shapes TEXT] [--write-cases FILE] [--peers FILE] [--json FILE]: checks, then times, the CUDA
// kernels here. --forward and --backward keep the checks of that pass, --kernel the accuracy of forward kernels whose name contains the
// text, --regime the regimes whose name does, --case the timings whose "kernel case" does; --sweep and --shapes
// "slices,producers,stages,sharing;..." time other cuts into blocks and warps; --small: all checks on small problems, nothing timed, for
// compute-sanitizer (sanitize.sh); --write-cases only writes what time_fla.py reads, --peers adds rows that it wrote.
// Exit status: 0 all good, 1 a check failed, 2 wrong usage, 5 not run (no GPU).

#include "../suite/kernels.hpp"
#include "device.hpp"
#include "driver.hpp"

#include <cstdio>
#include <fstream>
#include <string_view>

int main(int argc, char** argv) try {
  bool quick = false, small = false, checked = true, forward = true, backward = true, behaviour = true, timed = true, sweep = false;
  std::string file, filter, shapes, kernel, regime, cases, peers;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--quick")
      quick = true;
    else if (option == "--small")
      quick = small = true, timed = false;
    else if (option == "--no-check")
      checked = false;
    else if (option == "--backward")
      forward = false;
    else if (option == "--forward")
      backward = false;
    else if (option == "--no-behaviour")
      behaviour = false;
    else if (option == "--no-time")
      timed = false;
    else if (option == "--sweep")
      sweep = true;
    else if (option == "--shapes" && i + 1 < argc)
      shapes = argv[++i];
    else if (option == "--kernel" && i + 1 < argc)
      kernel = argv[++i];
    else if (option == "--regime" && i + 1 < argc)
      regime = argv[++i];
    else if (option == "--case" && i + 1 < argc)
      filter = argv[++i];
    else if (option == "--write-cases" && i + 1 < argc)
      cases = argv[++i];
    else if (option == "--peers" && i + 1 < argc)
      peers = argv[++i];
    else if (option == "--json" && i + 1 < argc)
      file = argv[++i];
    else {
      std::fprintf(stderr, "unknown option %s\n", argv[i]);
      return 2;
    }
  }
  if (const std::string absent = kdacheck::cuda_kernels_absent(); !absent.empty()) {
    std::printf("%s\n", absent.c_str());
    return 5;
  }
  if (!cases.empty()) return kdacheck::cuda::write_peer_cases(cases), 0;
  nlohmann::json report;
  cudaDeviceProp properties{};
  kdacheck::cuda::require(cudaGetDeviceProperties(&properties, 0), "device");
  report["device"] = properties.name;
  report["multiprocessors"] = properties.multiProcessorCount;
  bool accurate = true, behaved = true;
  if (checked && forward) accurate = kdacheck::cuda::check_accuracy(report, quick, kernel, regime);
  if (checked && forward && !quick && kernel.empty() && regime.empty()) accurate = kdacheck::cuda::check_long_runs(report) && accurate;
  if (checked && backward) accurate = kdacheck::cuda::check_backward_accuracy(report, quick, regime) && accurate;
  if (checked && behaviour && forward) behaved = kdacheck::cuda::check_behaviour(report, small);
  if (checked && behaviour && forward) behaved = kdacheck::cuda::check_decode_behaviour(report, small) && behaved;
  if (checked && behaviour && forward) behaved = kdacheck::cuda::check_misaligned(report) && behaved;
  if (checked && behaviour && forward) behaved = kdacheck::cuda::check_gates_alone(report) && behaved;
  if (checked && behaviour && forward) behaved = kdacheck::cuda::check_transition_alone(report) && behaved;
  if (checked && behaviour && backward) behaved = kdacheck::cuda::check_backward_behaviour(report, small) && behaved;
  if (checked && behaviour && forward && backward) behaved = kdacheck::cuda::check_strided(report) && behaved;
  if (checked && behaviour && !quick && kernel.empty()) behaved = kdacheck::cuda::check_far_offsets(report) && behaved;
  if (timed) kdacheck::cuda::measure(report, sweep, shapes, filter);
  if (timed && !peers.empty()) kdacheck::cuda::add_peers(report, peers);
  if (!file.empty()) std::ofstream(file) << report.dump(1) << '\n';
  if (checked) std::printf("%s: accuracy %s, behaviour %s\n", properties.name, accurate ? "good" : "BAD", behaved ? "good" : "BAD");
  return accurate && behaved ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
