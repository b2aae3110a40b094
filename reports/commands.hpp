#pragma once
// What each command does with its arguments; every one returns the process's exit status (design: 0 passed, 1 a kernel
// failed, 2 wrong usage or input, 3 trouble of the machine, 4 stopped at the time budget, 5 nothing was selected).

#include "kernel_sources.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kdacheck {

/// Which cases: globs over names; empty lists choose everything.
struct CaseSelection {
  std::vector<std::string> kernels, properties, regimes;
  std::vector<std::string> modules; ///< if given: only these modules, and `properties` and `regimes` are theirs
  std::string direction = "both";   ///< forward | backward | both
  std::string tier = "quick";       ///< quick | full | nightly
  std::uint64_t seed = 1;
  int threads = 0;
};

struct VerifyArguments {
  CaseSelection selection;
  KernelSources sources;
  std::string inputs;                ///< safetensors with recorded activations, or empty
  std::optional<double> time_budget; ///< seconds
  std::string shard = "0/1";
  double shrink_seconds = 5;
  std::string out = "results";
  bool resume = false;
  std::string command; ///< as typed
};
int verify_command(const VerifyArguments&);

struct ReplayArguments {
  std::string token;
  std::string save; ///< folder, or empty
  KernelSources sources;
};
int replay_command(const ReplayArguments&);

struct PowerArguments {
  CaseSelection selection;
  std::vector<std::string> faults;
  int seeds = 1;
  std::string rule; ///< or empty: the gate itself
  bool every_catch = false;
  std::size_t correct_runs = 0; ///< judged cases of every correct kernel at least: further seeds are drawn until then
  bool limits = false;          ///< measure detection limits instead
  bool list = false;            ///< of the limits, only name the kernels and regimes
  bool resume = false;
  std::string keep; ///< file to which every fault's shrunk case is appended, or empty
  double shrink_seconds = 5;
  std::string command; ///< as typed
  std::string out = "results";
};
int power_command(const PowerArguments&);

struct SearchArguments {
  std::string kernel; ///< its name
  KernelSources sources;
  std::vector<std::string> regimes;
  std::string direction = "forward", tier = "quick";
  std::uint64_t seed = 1;
  double seconds = 60, shrink_seconds = 20;
  int threads = 0;
  std::string save; ///< folder for the worst case, or empty
  std::string keep; ///< file of found cases to append the worst case to, or empty
};
int search_command(const SearchArguments&);

struct BenchArguments {
  std::vector<std::string> kernels;
  int repeats = 5;
  bool only_round_trips = false, only_modules = false, only_oracle = false;
  int long_oracle = 0;  ///< heads of 65,536 tokens for the oracle alone, 0: none
  bool margins = false; ///< derive the factors z anew instead
  int seeds = 1;        ///< of that
  double seconds = 1e9; ///< no case of that is begun later
  std::string out = "results";
  std::string device = "cpu"; ///< or cuda: instead of all else, this project's CUDA kernels
  std::string peers;          ///< of cuda: rows of other packages' kernels, which time_fla.py wrote
};
int bench_command(const BenchArguments&);
/// Times the CUDA kernels into cuda.json of the folder. 5 where nothing ran: no GPU, or no CUDA kernels in this build.
int bench_device_command(const BenchArguments&);

/// Curves for the page: error along one long sequence and by its length, spectra of transitions.
struct MeasureArguments {
  std::vector<std::string> kernels, regimes; ///< no regimes: drift_regimes()
  KernelSources sources;
  std::uint64_t seed = 1;
  std::int64_t longest = 131072; ///< tokens
  int threads = 0;
  std::string out = "results";
  std::string command; ///< as typed
};
int measure_command(const MeasureArguments&);

struct GoldenArguments {
  std::string set; ///< folder
  std::vector<std::string> regimes;
  std::vector<std::string> modules; ///< whose cases generate-modules makes; `regimes` are theirs then
  std::string token, name;          ///< one case of this recipe or replay token, in the folder of this name, instead of regimes
  std::string cases;                ///< file of cases (golden/listed_cases.hpp), instead of regimes
  bool found = false;               ///< the cases of properties/found_cases.txt, instead of regimes
  std::string dtype = "fp32";       ///< of q, k, v: fp32 | bf16 | fp16
  int count = 1;                    ///< cases per regime
  std::uint64_t seed = 1;
  std::int64_t largest_T = 24, largest_K = 12, largest_V = 12;
  bool exact = false; ///< every case has just these tokens, key and value channels
  bool gradients = true;
  std::int64_t intermediates = 0; ///< chunk length, 0: none
  bool states = false;
};
int golden_generate_command(const GoldenArguments&);
int golden_verify_command(const std::string& set);
int golden_diff_command(const std::string& before, const std::string& after);
int golden_accept_command(const std::string& set, const std::string& name);
/// One file per module and regime that has exact values.
int golden_generate_modules_command(const GoldenArguments&);

struct ReportArguments {
  std::vector<std::string> folders; ///< one with report.json and cases.jsonl; with `history` any number
  std::string out;                  ///< file, or empty: report.html (with `history`: history.html) in the last folder
  std::string figures;              ///< folder for SVG pictures, or empty
  std::string power, bench;         ///< power.json and bench.json, or empty: those in the folder if there are any
  bool history = false;             ///< the trend over the folders instead
};
int report_command(const ReportArguments&);
int history_command(const ReportArguments&);

/// `what`: kernels | modules | properties | regimes | faults.
int list_command(const std::string& what);
int doctor_command();

} // namespace kdacheck
