// The command line: options in, a status out. What the commands do stands in reports/commands.hpp.

#include "properties/selection.hpp"
#include "reference/safetensors.hpp"
#include "reports/commands.hpp"
#include "reports/compare.hpp"
#include "reports/number_options.hpp"
#include "reports/typed_words.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <csignal>
#include <cstdio>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <new>

using namespace kdacheck;

namespace {

constexpr int wrong_usage = 2, machine_trouble = 3;

/// Returns the option for modules: what chooses kernels does not go with it.
CLI::Option* add_selection(CLI::App& command, CaseSelection& selection) {
  auto* kernel = command.add_option("--kernel", selection.kernels, "only kernels whose name matches GLOB (may be repeated)")
                     ->type_name("GLOB")
                     ->allow_extra_args(false);
  command.add_option("--property", selection.properties, "only properties whose name matches GLOB")
      ->type_name("GLOB")
      ->allow_extra_args(false);
  command.add_option("--regime", selection.regimes, "only regimes whose name matches GLOB")->type_name("GLOB")->allow_extra_args(false);
  auto* module = command
                     .add_option("--module", selection.modules,
                                 "only modules whose name matches GLOB; --property and --regime then choose their laws and regimes")
                     ->type_name("GLOB")
                     ->allow_extra_args(false)
                     ->excludes(kernel);
  command.add_option("--direction", selection.direction, "which passes")
      ->check(CLI::IsMember({"forward", "backward", "both"}))
      ->capture_default_str();
  command.add_option("--tier", selection.tier, "how many cases and how large")
      ->check(CLI::IsMember({"quick", "full", "nightly"}))
      ->capture_default_str();
  command.add_option("--seed", selection.seed, "every case follows from it")->check(whole_number)->capture_default_str();
  command.add_option("--threads", selection.threads, "worker threads, 0: one per core")->check(CLI::Range(0, 4096))->capture_default_str();
  return module;
}

void add_sources(CLI::App& command, KernelSources& sources) {
  command
      .add_option("--plugin", sources.plugins,
                  "kernels of a shared library (kernels/plugin/kdacheck_plugin.h) instead of the built-in ones")
      ->type_name("FILE")
      ->allow_extra_args(false);
  command.add_option("--exec", sources.commands, "kernels of a worker program (kernels/plugin/PROTOCOL.md)")
      ->type_name("COMMAND")
      ->allow_extra_args(false);
  command.add_option("--python", sources.functions, "a Python function, called by keyword")
      ->type_name("MODULE:FUNCTION")
      ->allow_extra_args(false);
  command.add_option("--call-timeout", sources.call_timeout, "seconds that one call of a foreign kernel may take")
      ->check(positive)
      ->capture_default_str();
  command
      .add_option("--start-timeout", sources.start_timeout,
                  "seconds that its process may take to start (load, import, find its device); not counted as a call")
      ->check(positive)
      ->capture_default_str();
  command.add_flag("--show-stderr", sources.keep_standard_error, "let the standard error of foreign kernels through");
}

struct CommandLine {
  CLI::App app{"kdacheck: is a kernel of Kimi Delta Attention right, and how do you know?", "kdacheck"};
  VerifyArguments verify;
  ReplayArguments replay;
  PowerArguments power;
  SearchArguments search;
  GoldenArguments golden_arguments;
  std::string other;
  BenchArguments bench;
  ReportArguments report;
  MeasureArguments measure;
  std::string listed, before, after;
  std::function<int()> chosen;

  CommandLine() {
    app.require_subcommand(1);
    app.footer("Exit status: 0 passed, 1 a kernel failed, 2 wrong usage or input, 3 trouble of the machine, 4 stopped at the time budget,\n"
               "5 nothing was selected or an expected test did not run.");
    add_verify();
    add_replay();
    add_search();
    add_power();
    add_golden();
    add_bench();
    auto* list = app.add_subcommand("list", "what there is");
    list->add_option("what", listed, "kernels, modules, properties, regimes or faults")
        ->required()
        ->check(CLI::IsMember({"kernels", "modules", "properties", "regimes", "faults"}));
    list->callback([this] { chosen = [this] { return list_command(listed); }; });
    add_report();
    add_measure();
    auto* compared = app.add_subcommand(
        "compare", "two runs: verdicts that changed, what is judged no more, errors that grew beyond chance (status 1 if worse)");
    compared->add_option("before", before, "result folder of the first run")->required();
    compared->add_option("after", after, "result folder of the second run")->required();
    compared->callback([this] { chosen = [this] { return compare_command(before, after); }; });
    app.add_subcommand("doctor", "what this machine can run")->callback([this] { chosen = [] { return doctor_command(); }; });
  }

private:
  void add_verify() {
    auto* command = app.add_subcommand("verify", "judge kernels; writes report.json, cases.jsonl, junit.xml and summary.md");
    auto* module = add_selection(*command, verify.selection);
    add_sources(*command, verify.sources);
    for (const char* source : {"--plugin", "--exec", "--python"}) module->excludes(command->get_option(source));
    command->add_option("--inputs", verify.inputs, "judge on recorded activations (safetensors) instead of generated cases")
        ->type_name("FILE")
        ->excludes(module);
    command->add_option("--time-budget", verify.time_budget, "stop after SECONDS; what ran is kept (status 4)")
        ->type_name("SECONDS")
        ->check(positive);
    command->add_option("--shard", verify.shard, "I/N: this run's share of the cases, I from 0")->type_name("I/N");
    command
        ->add_option("--shrink-seconds", verify.shrink_seconds,
                     "time to simplify a failing case, per kind of failure; twice that for all crashes of a kernel")
        ->check(not_negative)
        ->capture_default_str();
    command->add_option("--out", verify.out, "folder for the result files")->capture_default_str();
    command->add_flag("--resume", verify.resume, "go on with the interrupted run in --out");
    command->callback([this] { chosen = [this] { return verify_command(verify); }; });
  }

  void add_replay() {
    auto* command = app.add_subcommand("replay", "run one case again and say where it goes wrong");
    command->add_option("token", replay.token, "as printed by verify")->required();
    command->add_option("--save", replay.save, "write the case as safetensors into this folder")->type_name("DIR");
    add_sources(*command, replay.sources);
    command->callback([this] { chosen = [this] { return replay_command(replay); }; });
  }

  void add_search() {
    auto* command = app.add_subcommand("search", "look for the recipe with the largest error / bound");
    command->add_option("--kernel", search.kernel, "the kernel's name; fault.NAME or correct.NAME for what gate-power judges")->required();
    add_sources(*command, search.sources);
    command->add_option("--regime", search.regimes, "start only from regimes whose name matches GLOB")
        ->type_name("GLOB")
        ->allow_extra_args(false);
    command->add_option("--direction", search.direction, "which pass")
        ->check(CLI::IsMember({"forward", "backward"}))
        ->capture_default_str();
    command->add_option("--tier", search.tier, "how large the first cases are")
        ->check(CLI::IsMember({"quick", "full", "nightly"}))
        ->capture_default_str();
    command->add_option("--seed", search.seed, "of the search")->check(whole_number)->capture_default_str();
    command->add_option("--time-budget,--seconds", search.seconds, "how long to look")->check(positive)->capture_default_str();
    command->add_option("--shrink-seconds", search.shrink_seconds, "how long to simplify a failing case")
        ->check(not_negative)
        ->capture_default_str();
    command->add_option("--threads", search.threads, "worker threads, 0: one per core; 1 repeats exactly")
        ->check(CLI::Range(0, 4096))
        ->capture_default_str();
    command->add_option("--save", search.save, "write the worst case and programs that show it into this folder")->type_name("DIR");
    command->add_option("--keep", search.keep, "append the worst case to this file of found cases (properties/found_cases.txt)")
        ->type_name("FILE");
    command->callback([this] { chosen = [this] { return search_command(search); }; });
  }

  void add_power() {
    auto* command = app.add_subcommand("gate-power", "plant every known fault and show what catches it; writes power.json");
    power.selection.tier = "quick";
    add_selection(*command, power.selection);
    command->add_option("--fault", power.faults, "only faults whose name matches GLOB")->type_name("GLOB")->allow_extra_args(false);
    command->add_option("--seeds", power.seeds, "independent seeds")->check(positive)->capture_default_str();
    command->add_option("--rule", power.rule, "measure a rule of your own instead: allclose:atol=X,rtol=X  rms_rel:X  pcc:X  twice_ref")
        ->type_name("RULE");
    command->add_flag("--every-catch", power.every_catch, "fill the whole matrix instead of stopping at the first catch of a fault");
    command
        ->add_option("--correct-runs", power.correct_runs, "draw further seeds for correct kernels until each was judged in so many cases")
        ->check(CLI::Range(0, 100000000));
    command->add_flag("--limits", power.limits,
                      "measure instead the smallest error of every tensor that the gate sees; writes limits.md too");
    command->add_flag("--list", power.list, "with --limits: name what would be measured, KERNEL REGIME a line, and do nothing");
    command->add_flag("--resume", power.resume, "go on with the seeds that an interrupted run has not done");
    command->add_option("--keep", power.keep, "shrink the case on which each fault is caught, and append it to this file of found cases")
        ->type_name("FILE");
    command->add_option("--shrink-seconds", power.shrink_seconds, "time for that, per fault")->check(not_negative)->capture_default_str();
    command->add_option("--out", power.out, "folder for power.json")->capture_default_str();
    command->callback([this] { chosen = [this] { return power_command(power); }; });
  }

  void add_golden() {
    auto* golden = app.add_subcommand("golden", "tensors that never change");
    golden->require_subcommand(1);
    auto* generate = golden->add_subcommand("generate", "write cases; changed ones beside the old, never over them");
    generate->add_option("set", golden_arguments.set, "folder of the set")->required();
    auto* regime = generate->add_option("--regime", golden_arguments.regimes, "only regimes whose name matches GLOB")
                       ->type_name("GLOB")
                       ->allow_extra_args(false);
    auto* cases = generate->add_option("--cases", golden_arguments.cases, "the cases that FILE lists, a line NAME DTYPE RECIPE for each")
                      ->type_name("FILE");
    auto* found = generate->add_flag("--found", golden_arguments.found, "the cases that verify always runs: properties/found_cases.txt");
    auto* token = generate->add_option("--token", golden_arguments.token, "one case: a recipe or replay token")->type_name("TOKEN");
    generate->add_option("--name", golden_arguments.name, "of that case's folder")->needs(token);
    auto* dtype = generate->add_option("--dtype", golden_arguments.dtype, "of q, k, v")
                      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}))
                      ->capture_default_str();
    auto* count =
        generate->add_option("--count", golden_arguments.count, "cases per regime")->check(CLI::Range(1, 100000))->capture_default_str();
    auto* seed = generate->add_option("--seed", golden_arguments.seed, "of the first case of each regime")
                     ->check(whole_number)
                     ->capture_default_str();
    auto* shape = generate
                      ->add_option_function<std::vector<std::int64_t>>(
                          "--shape",
                          [this](const std::vector<std::int64_t>& sizes) {
                            golden_arguments.largest_T = sizes[0], golden_arguments.largest_K = sizes[1],
                            golden_arguments.largest_V = sizes[2];
                            golden_arguments.exact = true;
                          },
                          "tokens, key and value channels of every case, exactly; batch and heads stay the regime's")
                      ->delimiter(',')
                      ->expected(3)
                      ->type_name("T,K,V")
                      ->check(CLI::Range(1, 1 << 20));
    std::vector<CLI::Option*> of_draws{regime, count, seed, shape};
    const auto at_most = [&](const char* name, std::int64_t& size, const char* what, int least, int most) {
      of_draws.push_back(generate->add_option(name, size, what)->check(CLI::Range(least, most))->capture_default_str()->excludes(shape));
    };
    at_most("--largest-T", golden_arguments.largest_T, "tokens at most: longer draws are shortened", 0, 1 << 20);
    at_most("--largest-K", golden_arguments.largest_K, "key channels at most", 1, 1024);
    at_most("--largest-V", golden_arguments.largest_V, "value channels at most", 1, 1024);
    for (CLI::Option* of_draw : of_draws) of_draw->excludes(token)->excludes(cases)->excludes(found); // named cases are taken as they stand
    token->excludes(cases)->excludes(found);
    dtype->excludes(cases)->excludes(found);
    generate->add_flag("--gradients,!--no-gradients", golden_arguments.gradients, "with the gradients of the regime's loss (default)");
    generate
        ->add_option("--intermediates", golden_arguments.intermediates,
                     "chunk length whose G, Akk, Aqk, T, W, U and states are written too")
        ->check(CLI::Range(1, 1024));
    generate->add_flag("--states", golden_arguments.states, "with the state after every token");
    generate->callback([this] { chosen = [this] { return golden_generate_command(golden_arguments); }; });
    auto* verify_set = golden->add_subcommand("verify", "check integrity, regenerate from the recipes, compare");
    verify_set->add_option("set", golden_arguments.set, "folder of the set")->required();
    verify_set->callback([this] { chosen = [this] { return golden_verify_command(golden_arguments.set); }; });
    auto* diff = golden->add_subcommand("diff", "what changed, tensor by tensor");
    diff->add_option("before", golden_arguments.set, "a set or a case")->required();
    diff->add_option("after", other, "a set or a case")->required();
    diff->callback([this] { chosen = [this] { return golden_diff_command(golden_arguments.set, other); }; });
    auto* generate_modules = golden->add_subcommand("generate-modules", "write a case of every module and regime, as generate does");
    generate_modules->add_option("set", golden_arguments.set, "folder of the set")->required();
    generate_modules->add_option("--module", golden_arguments.modules, "only modules whose name matches GLOB")
        ->type_name("GLOB")
        ->allow_extra_args(false);
    generate_modules->add_option("--regime", golden_arguments.regimes, "only their regimes whose name matches GLOB")
        ->type_name("GLOB")
        ->allow_extra_args(false);
    generate_modules->add_option("--seed", golden_arguments.seed, "of every case")->check(whole_number)->capture_default_str();
    generate_modules->callback([this] { chosen = [this] { return golden_generate_modules_command(golden_arguments); }; });
    auto* verify_modules = golden->add_subcommand("verify-modules", "the same as verify, which takes sets of modules' cases too");
    verify_modules->add_option("set", golden_arguments.set, "folder of the set")->required();
    verify_modules->callback([this] { chosen = [this] { return golden_verify_command(golden_arguments.set); }; });
    auto* accept = golden->add_subcommand("accept", "take NAME.new for NAME");
    accept->add_option("set", golden_arguments.set, "folder of the set")->required();
    accept->add_option("name", other, "of the case's folder, or of a module's file")->required();
    accept->callback([this] { chosen = [this] { return golden_accept_command(golden_arguments.set, other); }; });
  }

  void add_report() {
    auto* command =
        app.add_subcommand("report", "one HTML page of a run, to open offline or attach to a pull request; status 0 if it was written, "
                                     "whatever the verdict (that is verify's)");
    command->add_option("folder", report.folders, "result folder of verify; with --history one per run")->required();
    command->add_option("--out", report.out, "where to write the page (default: report.html, or history.html, in the last folder)")
        ->type_name("FILE");
    auto* figures =
        command->add_option("--figures", report.figures, "write the main pictures as SVG into this folder too")->type_name("DIR");
    auto* power_file = command->add_option("--power", report.power, "what gate-power wrote (default: power.json in the folder, if there)")
                           ->type_name("FILE");
    auto* bench_file =
        command->add_option("--bench", report.bench, "what bench wrote (default: bench.json in the folder, if there)")->type_name("FILE");
    command->add_flag("--history", report.history, "the trend over runs: a page and a table")
        ->excludes(figures)
        ->excludes(power_file)
        ->excludes(bench_file);
    command->callback([this] { chosen = [this] { return report.history ? history_command(report) : report_command(report); }; });
  }

  void add_measure() {
    auto* command = app.add_subcommand("measure", "error along long sequences, spectra of transitions; writes series.json for report");
    command->add_option("--kernel", measure.kernels, "only kernels whose name matches GLOB")->type_name("GLOB")->allow_extra_args(false);
    command->add_option("--regime", measure.regimes, "regimes of the long sequences (default: four that forget little)")
        ->type_name("GLOB")
        ->allow_extra_args(false);
    add_sources(*command, measure.sources);
    command->add_option("--longest", measure.longest, "tokens of the longest sequence")
        ->check(CLI::Range(1, 1 << 22))
        ->capture_default_str();
    command->add_option("--seed", measure.seed, "every case follows from it")->check(whole_number)->capture_default_str();
    command->add_option("--threads", measure.threads, "worker threads, 0: one per core")->check(CLI::Range(0, 4096))->capture_default_str();
    command->add_option("--out", measure.out, "folder for series.json")->capture_default_str();
    command->callback([this] { chosen = [this] { return measure_command(measure); }; });
  }

  void add_bench() {
    auto* command = app.add_subcommand("bench", "time kernels, the oracle and the gate; writes bench.json");
    command->add_option("--kernel", bench.kernels, "only kernels whose name matches GLOB")->type_name("GLOB")->allow_extra_args(false);
    command->add_option("--repeats", bench.repeats, "timed runs of each row")->check(CLI::Range(1, 10000))->capture_default_str();
    auto* round_trips = command->add_flag("--round-trips", bench.only_round_trips, "only what a call of a foreign kernel adds");
    auto* modules = command->add_flag("--modules", bench.only_modules, "only the modules, beside the figures of the summary they grew from")
                        ->excludes(round_trips);
    auto* oracle = command->add_flag("--oracle", bench.only_oracle, "only the oracle, in every arithmetic");
    auto* long_oracle = command
                            ->add_option("--long-oracle", bench.long_oracle,
                                         "only the oracle, on so many heads of 65536 tokens, K = V = 128 (96: minutes on 2 cores)")
                            ->type_name("HEADS")
                            ->check(CLI::Range(1, 1024));
    auto* margins = command
                        ->add_flag("--margins", bench.margins,
                                   "derive instead the factors z of the statistical bound anew from kernels that are right, and print "
                                   "what the constants leave (status 1 if one is above its bound)")
                        ->excludes(round_trips)
                        ->excludes(modules)
                        ->excludes(oracle)
                        ->excludes(long_oracle);
    command->add_option("--seeds", bench.seeds, "seeds of every regime")->check(positive)->capture_default_str()->needs(margins);
    command
        ->add_option("--seconds", bench.seconds,
                     "begin no case of --margins later; what there is time for is dealt evenly to kernels and regimes")
        ->type_name("SECONDS")
        ->check(positive)
        ->needs(margins);
    command->add_option("--out", bench.out, "folder for bench.json")->capture_default_str();
    auto* device =
        command->add_option("--device", bench.device, "cuda: this project's CUDA kernels alone, into cuda.json (status 5 without a GPU)")
            ->check(CLI::IsMember({"cpu", "cuda"}))
            ->capture_default_str();
    for (CLI::Option* part :
         {command->get_option("--kernel"), command->get_option("--repeats"), round_trips, modules, oracle, long_oracle, margins})
      device->excludes(part);
    command->add_option("--peers", bench.peers, "of --device cuda: rows of other packages' kernels, which time_fla.py wrote")
        ->type_name("FILE")
        ->check(CLI::ExistingFile)
        ->needs(device);
    command->callback([this] { chosen = [this] { return bench_command(bench); }; });
  }
};

int complain(int status, std::string sentence) {
  std::ranges::replace_if( // one line, whatever names a user gives
      sentence, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  std::fprintf(stderr, "kdacheck: %s\n", sentence.c_str());
  return status;
}

} // namespace

int main(int argc, char** argv) try {
#ifdef __GLIBC__
  // Cases ask for the same megabytes again and again: they are kept instead of being returned to the system each time.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 512 << 20);
#endif
  std::signal(SIGXFSZ, SIG_IGN); // a limit on file sizes is met like a full disk: as an error of the write
  CommandLine line;
  for (int i = 0; i < argc; ++i) line.verify.command += (i ? " " : "") + std::string(i ? argv[i] : "./kdacheck");
  line.power.command = line.verify.command;
  line.measure.command = line.verify.command;
  try {
    parse_typed(line.app, argc, argv);
  } catch (const CLI::Success& help) {
    return line.app.exit(help);
  }
  return line.chosen();
} catch (const UsageError& error) {
  return complain(wrong_usage, error.what());
} catch (const BadFile& error) {
  return complain(wrong_usage, error.what());
} catch (const std::invalid_argument& error) {
  return complain(wrong_usage, error.what());
} catch (const std::bad_alloc&) {
  return complain(machine_trouble, "out of memory");
} catch (const std::exception& error) {
  return complain(machine_trouble, error.what());
}
