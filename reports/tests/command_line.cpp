#include "commands.hpp"

#include <fstream>
#include <sstream>
#include <vector>

using namespace kdacheck::tests;

TEST_CASE("wrong usage is one sentence and status 2, with the nearest name") {
  const std::vector<std::array<std::string, 2>> cases{
      {"verfy", "verify"},
      {"verify --kernl x", "--kernel"},
      {"search --kernel cpu.chunk16.fp32 one two --time-budgt 3",
       "expected: one two --time-budgt 3; the nearest to '--time-budgt' is '--time-budget'"},
      {"verify --kernel cpu.chunk61.fp32 --out /dev/null/x", "cpu.chunk"},
      {"verify --property agrees-with-the-oracles", "agrees-with-the-oracle"},
      {"verify --regime gausian-keys", "gaussian-keys"},
      {"verify --tier fast", "--tier"},
      {"verify --shard 3/3", "--shard"},
      {"verify --time-budget -1", "--time-budget: '-1' is not a finite number > 0"},
      {"search --kernel cpu.chunk16.fp32 --time-budget nan", "--time-budget: 'nan' is not a finite number > 0"},
      {"verify --time-budget inf", "--time-budget: 'inf' is not"},
      {"verify --call-timeout 3s", "--call-timeout: '3s' is not"},
      {"verify --shrink-seconds -1", "--shrink-seconds: '-1' is not a finite number >= 0"},
      {"gate-power --seeds 0 --out /nonexistent/x", "--seeds: '0' is not"},
      {"verify --plugin /nonexistent.so", "/nonexistent.so"},
      {"verify --inputs /nonexistent.safetensors", "/nonexistent.safetensors"},
      {"verify --seed -1", "--seed"},
      {"verify --seed 99999999999999999999999", "--seed"},
      {"verify --resume --exec true", "--resume"},
      {"replay nonsense", "replay token"},
      {"gate-power --rule cosine:1", "cosine:1"},
      {"gate-power --rule allclose --out /nonexistent/x", "atol"},
      {"golden generat", "'generate'"},
      {"golden generate /dev/null/x --regim gaussian-keys", "'--regime'"},
      {"golden generate /dev/null/x", "/dev/null is a file"},
      {"golden generate /dev/null --found", "/dev/null is a file"},
      {"golden verify /dev/null", "/dev/null is a file"},
      {"golden generate /nonexistent/x --shape 8,8,8 --largest-T 4", "--largest-T"},
      {"golden generate /nonexistent/x --token k1,x --name y --seed 3", "--seed"},
      {"golden generate /nonexistent/x --token k1,x --name y --found", "--found"},
      {"golden generate /nonexistent/x --token k1,x --name y --shape 8,8,8", "--shape"},
      {"golden generate /nonexistent/x --found --regime gaussian-keys", "--regime"},
      {"golden generate /nonexistent/x --cases y --count 3", "--count"},
      {"golden generate /nonexistent/x --found --dtype bf16", "--dtype"},
      {"verify --inputs ''", "--inputs: needs a value"},
      {"verify --inputs= --kernel cpu.recurrence.fp32", "--inputs: needs a value"},
      {"verify --kernel ''", "--kernel: needs a value"},
      {"verify --shard ''", "--shard: needs a value"},
      {"verify --out ''", "--out: needs a value"},
      {"verify --exec ''", "--exec: needs a value"},
      {"gate-power --rule '' --out /nonexistent/x", "--rule: needs a value"},
      {"gate-power --keep '' --out /nonexistent/x", "--keep: needs a value"},
      {"replay k1 --save ''", "--save: needs a value"},
      {"search --kernel ''", "--kernel: needs a value"},
      {"golden generate /nonexistent/x --cases ''", "--cases: needs a value"},
      {"golden generate /nonexistent/x --token ''", "--token: needs a value"},
      {"golden generate ''", "set: needs a value"},
      {"report ''", "folder: needs a value"},
      {"report /nonexistent --figures ''", "--figures: needs a value"},
      {"compare '' ''", "needs a value"},
      {"measure --out '' --longest 1", "--out: needs a value"},
      {"bench --out ''", "--out: needs a value"},
      {"bench --device cuda --modules", "excludes"},
      {"bench --device tpu", "--device"},
      {"bench --peers /nonexistent --device cuda", "does not exist"},
      {"verify --module nosuch", "list modules"},
      {"verify --module StateManager --property nosuch", "list modules"},
      {"verify --module StateManager --regime gaussian-keys", "list modules"},
      {"golden generate-modules /nonexistent/x --regime gaussian-keys", "list modules"},
      {"verify --module StateManager --kernel cpu.recurrence.fp32", "excludes"},
      {"verify --module StateManager --plugin x.so", "excludes"},
      {"verify --module StateManager --inputs x.safetensors", "excludes"},
      {"gate-power --module StateManager --kernel x --out /nonexistent/x", "excludes"},
      {"verify --tier \"$(printf 'a\\nb')\"", "--tier"},
      {"verify --shard \"$(printf 'a\\nb')\"", "--shard"},
      {"verify --inputs /usr", "/usr is a folder"},
      {"verify --inputs /dev/zero", "/dev/zero is a pipe or a device"},
      {"verify --kernel cpu.recurrence.fp32 --out /dev/null", "/dev/null is a file"},
      {"gate-power --module nosuch --out /nonexistent/x", "nosuch"},
      {"gate-power --keep /usr --out /nonexistent/x", "/usr is a folder"},
      {"search --kernel cpu.recurrence.fp32 --save /dev/null", "/dev/null is a file"},
      {"search --kernel cpu.recurrence.fp32 --keep /usr", "/usr is a folder"},
      {"measure --longest 1 --out /dev/null", "/dev/null is a file"},
      {"bench --out /dev/null/x", "/dev/null is a file"},
      {"replay cpu.recurrence.fp32:agrees-with-the-oracle:@/usr", "/usr is a folder"},
      {"report /dev/null", "/dev/null is a file"},
      {"report --history /dev/null", "/dev/null is a file"},
      {"compare /dev/null /usr", "/dev/null is a file"},
      {"golden diff /dev/null /usr", "/dev/null is a file"},
      {"golden accept /dev/null x", "/dev/null is a file"},
      {"golden generate-modules /dev/null", "/dev/null is a file"},
      {"golden generate /nonexistent/x --cases /usr", "/usr is a folder"},
      {"golden generate /nonexistent/x --cases /dev/zero", "/dev/zero is a pipe or a device"},
  };
  for (const auto& [arguments, part] : cases) {
    INFO(arguments);
    const Ended ended = run(arguments);
    INFO(ended.text);
    CHECK(ended.status == 2);
    CHECK(lines(ended.text) == 1);
    CHECK(contains(ended.text, part));
  }
}

TEST_CASE("a selection or recording that is refused leaves no folder, and the results of before as they were") {
  const Folder folder;
  const std::string out = " --out " + (folder.path / "out").string();
  CHECK(run("verify --module nosuch" + out).status == 2);
  CHECK(run("verify --module StateManager --property nosuch" + out).status == 2);
  CHECK(run("gate-power --module nosuch" + out).status == 2);
  CHECK(run("gate-power --rule rms_rel:x" + out).status == 2);
  CHECK(run("verify --inputs /usr" + out).status == 2);
  CHECK_FALSE(std::filesystem::exists(folder.path / "out"));
  CHECK(run("verify --kernel cpu.recurrence.fp32 --property agrees-with-the-oracle --regime zero-keys" + out).status == 0);
  const auto size = std::filesystem::file_size(folder.path / "out/cases.jsonl");
  CHECK(size > 0);
  CHECK(run("verify --inputs " KDACHECK_SOURCE "/README.md" + out).status == 2);
  CHECK(std::filesystem::file_size(folder.path / "out/cases.jsonl") == size);
  const std::filesystem::path place = folder.path / "out";
  for (const auto& [command, file] :
       std::vector<std::array<std::string, 2>>{{"verify --kernel cpu.recurrence.fp32", "report.json"},
                                               {"verify --kernel cpu.recurrence.fp32", "cases.jsonl"},
                                               {"gate-power --seeds 1", "power.json"},
                                               {"bench --repeats 1", "bench.json"},
                                               {"measure --longest 1", "series.json"}}) { // said before a run, not after it
    std::filesystem::remove_all(place / file);
    std::filesystem::create_directory(place / file);
    const Ended ended = run(command + out);
    INFO(command << ended.text);
    CHECK(ended.status == 2);
    CHECK(lines(ended.text) == 1);
    CHECK(contains(ended.text, file + " is a folder, where a file is due"));
    std::filesystem::remove(place / file);
  }
}

// Status 3 if it is the machine that lacks it.
TEST_CASE("a foreign kernel that cannot start names what is missing in a sentence") {
  const Folder folder;
  const auto write = [&](const char* name, const char* text) { std::ofstream(folder.path / name) << text; };
  write("lacking.py", "import no_such_framework\ndef f(q): pass\n");
  write("broken.py", "def f(q:\n");
  write("leaving.py", "import sys\nsys.exit('not here')\n");
  write("text.so", "this is no library\n");
  const std::string at = folder.path.string() + "/", python = "PYTHONPATH=" + at + " KDACHECK_PYTHON=/usr/bin/python3 ";
  struct Start {
    std::string environment, source;
    int status;
    std::string words;
  };
  const std::vector<Start> starts{
      {python, "--python lacking:f", 3, "has no module 'no_such_framework'"},
      {python, "--python nothing_of_the_kind:f", 2, "there is no module 'nothing_of_the_kind'"},
      {python, "--python lacking", 2, "'lacking' is not module:function"},
      {python, "--python os:no_such_function", 2, "module 'os' has no function 'no_such_function'"},
      {python, "--python broken:f", 2, "SyntaxError"},
      {python, "--python leaving:f", 2, "not here"},
      {"LC_ALL=C KDACHECK_PYTHON=/no/such/python ", "--python os:getcwd", 3, "/no/such/python': No such file"},
      {"", "--plugin " + at + "text.so", 2, "cannot be loaded"},
      {"", "--plugin " + at, 2, "is no file"},
      {"", "--plugin " + at + "none.so", 2, "there is no plug-in"},
      {"", "--plugin " KDACHECK_LIBRARY_WITHOUT_ENTRY, 2, "does not export kdacheck_plugin"},
      {"", "--plugin " KDACHECK_MISBEHAVING_PLUGIN " --start-timeout 0.001", 3, "was not loaded within 0.001 s (--start-timeout)"},
      {"", "--exec no_such_program", 2, "no_such_program: not found"},
      {"", "--exec ' '", 2, "needs a command"},
      {"", "--exec 'sleep 60' --start-timeout 0.2", 3, "did not start within 0.2 s (--start-timeout)"},
      {"", "--exec '/usr/bin/python3 -c \"import no_such_module\"'", 2, "ModuleNotFoundError: No module named 'no_such_module'"},
  };
  for (const Start& start : starts) {
    const Ended ended = run_in_shell(start.environment + program + " verify " + start.source + " --out " + at + "out");
    INFO(start.environment << start.source << "\n" << ended.text);
    CHECK(ended.status == start.status);
    CHECK(lines(ended.text) == 1);
    CHECK(contains(ended.text, start.words));
    CHECK_FALSE(std::filesystem::exists(folder.path / "out"));
  }
}

TEST_CASE("an output folder that cannot be written is status 3") {
  const Ended ended = run("verify --kernel cpu.recurrence.fp32 --out /proc/kdacheck");
  CHECK(ended.status == 3);
  CHECK(contains(ended.text, "/proc/kdacheck"));
}

TEST_CASE("two runs do not write into the same folder: the second is refused with status 3, the first's results stand") {
  const Folder folder;
  const std::string selection =
      "verify --kernel cpu.recurrence.fp32 --property agrees-with-the-oracle --regime gaussian-keys --out " + folder.path.string();
  CHECK(run(selection).status == 0);
  const auto size = std::filesystem::file_size(folder.path / "cases.jsonl");
  const Ended second = run_in_shell("flock " + folder.path.string() + " " + program + " " + selection);
  CHECK(second.status == 3);
  CHECK(lines(second.text) == 1);
  CHECK(contains(second.text, "another run"));
  CHECK(std::filesystem::file_size(folder.path / "cases.jsonl") == size);
  CHECK(run(selection).status == 0); // the lock went with its holder
}

TEST_CASE("a run that is told to stop, by Ctrl-C, SIGTERM or a terminal that closes, keeps a report and ends with status 4") {
  for (const std::string signal : {"INT", "TERM", "HUP"}) {
    const Folder folder;
    const Ended ended = run_in_shell("timeout --preserve-status -s " + signal + " 6 " + program + " verify --out " + folder.path.string());
    INFO(signal << ": " << ended.text);
    CHECK(ended.status == 4);
    for (const char* name : {"report.json", "junit.xml", "summary.md"}) CHECK(std::filesystem::exists(folder.path / name));
    CHECK(std::filesystem::file_size(folder.path / "cases.jsonl") > 0);
  }
}

TEST_CASE("a file that may not grow any further ends the run with one sentence and status 3, and nothing half-written") {
  const Folder folder;
  const Ended ended = run_in_shell("ulimit -f 16; " + program + " verify --kernel cpu.recurrence.fp32 --out " + folder.path.string());
  INFO(ended.text);
  CHECK(ended.status == 3);
  CHECK(lines(ended.text) == 1);
  CHECK(contains(ended.text, "cannot write"));
  std::ifstream log(folder.path / "cases.jsonl", std::ios::binary);
  const std::string kept((std::istreambuf_iterator<char>(log)), {});
  CHECK(kept.size() > 0);
  CHECK(kept.back() == '\n');
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path)) ++files;
  CHECK(files == 1);
}

TEST_CASE("too little memory is one sentence and status 3, not a verdict on the kernel") {
  const Folder folder;
  const Ended ended = run_in_shell("ulimit -v 260000; OMP_NUM_THREADS=1 " + program +
                                   " verify --tier nightly --threads 1 --kernel cpu.recurrence.fp32 --regime long-sequences "
                                   "--property long-runs-stay-right --out " +
                                   folder.path.string());
  INFO(ended.text);
  CHECK(ended.status == 3);
  CHECK(lines(ended.text) == 1);
  CHECK(contains(ended.text, "memory"));
}

TEST_CASE("a kernel that is right passes, and its results are in the folder") {
  const Folder folder;
  const Ended ended =
      run("verify --kernel cpu.recurrence.fp32 --property agrees-with-the-oracle --regime gaussian-keys --regime zero-keys --out " +
          folder.path.string());
  INFO(ended.text);
  CHECK(ended.status == 0);
  CHECK(contains(ended.text, "cpu.recurrence.fp32"));
  for (const char* name : {"report.json", "cases.jsonl", "junit.xml", "summary.md"})
    CHECK(std::filesystem::file_size(folder.path / name) > 0);
}

TEST_CASE("a kernel of a shared library is judged, and one that is wrong fails with status 1 and a token that replays") {
  const Folder folder;
  const std::string selection =
      " --property agrees-with-the-oracle --regime gaussian-keys --shrink-seconds 0.5 --out " + folder.path.string();
  const Ended right = run("verify --plugin " KDACHECK_EXAMPLE_PLUGIN + selection);
  INFO(right.text);
  CHECK(right.status == 0);
  CHECK(contains(right.text, "example.recurrence"));

  const auto awkward = folder.path / "it's one library.so"; // the command that is printed must survive a shell
  std::filesystem::copy_file(KDACHECK_MISBEHAVING_PLUGIN, awkward);
  const std::string wrong_plugin = " --plugin \"" + awkward.string() + "\"";
  const Ended wrong = run("verify --kernel writes_nothing" + wrong_plugin + selection);
  INFO(wrong.text);
  CHECK(wrong.status == 1);
  const std::string program = "./kdacheck ";
  const auto at = wrong.text.find(program + "replay");
  REQUIRE(at != std::string::npos);
  const auto start = at + program.size();
  const Ended again = run(wrong.text.substr(start, wrong.text.find('\n', start) - start));
  INFO(again.text);
  CHECK(again.status == 1);
  CHECK(contains(again.text, "verdict"));

  const Ended crash = run("verify --kernel segfault" + wrong_plugin + selection);
  CHECK(crash.status == 1);
  CHECK(contains(crash.text, "signal 11"));
}

TEST_CASE("measure: a kernel that takes its process down has crashed, and the others are measured") {
  const Folder folder;
  const Ended ended = run("measure --plugin " KDACHECK_MISBEHAVING_PLUGIN " --kernel segfault --regime slow-decay --longest 64 --out " +
                          folder.path.string());
  INFO(ended.text);
  CHECK(ended.status == 1);
  CHECK(contains(ended.text, "CRASHED"));
  CHECK(std::filesystem::exists(folder.path / "series.json"));
}

TEST_CASE("a run that selects nothing it can judge is status 5, a spent time budget 4, and a resumed run goes on") {
  const Folder folder;
  const std::string out = " --out " + folder.path.string();
  CHECK(run("verify --kernel cpu.dplr.recurrence.fp32 --property agrees-with-the-oracle --regime gaussian-keys --kernel "
            "cpu.dplr.recurrence.fp32 --direction backward" +
            out)
            .status == 5);
  const std::string selection = "verify --kernel cpu.recurrence.fp32 --property agrees-with-the-oracle --regime 'g*'";
  CHECK(run(selection + " --time-budget 1e-9" + out).status == 4);
  CHECK(run(selection + " --resume" + out).status == 0);
  std::ifstream log(folder.path / "cases.jsonl");
  const std::string once((std::istreambuf_iterator<char>(log)), {});
  CHECK(run(selection + " --resume" + out).status == 0);
  std::ifstream again_log(folder.path / "cases.jsonl");
  const std::string again((std::istreambuf_iterator<char>(again_log)), {});
  CHECK(lines(once) > 0);
  CHECK(again == once);
}

TEST_CASE("a resumed run does not count cases of a plug-in that has been rebuilt, or of another seed") {
  const Folder folder;
  const std::string plugin = (folder.path / "kernels.so").string(), out = (folder.path / "out").string();
  const auto verify = [&](const std::string& more) {
    return run("verify --plugin " + plugin + " --property agrees-with-the-oracle --regime gaussian-keys --shrink-seconds 0 --out " + out +
               more);
  };
  std::filesystem::copy_file(KDACHECK_EXAMPLE_PLUGIN, plugin);
  CHECK(verify("").status == 0);
  std::filesystem::remove(plugin);
  std::filesystem::copy_file(KDACHECK_MISBEHAVING_PLUGIN, plugin);
  CHECK(verify(" --resume --kernel writes_nothing").status == 1);
  std::filesystem::remove(plugin);
  std::filesystem::copy_file(KDACHECK_EXAMPLE_PLUGIN, plugin);
  CHECK(verify("").status == 0);
  const Ended other_seed =
      run("verify --plugin " + plugin + " --property agrees-with-the-oracle --regime gaussian-keys --seed 2 --resume --out " + out);
  CHECK(other_seed.status == 0);
  CHECK(contains(other_seed.text, "2 cases"));
  CHECK(contains(other_seed.text,
                 "holds cases of another seed, tier, program or plug-in only: they do not count, and the run begins anew\n"));
  const Ended same_seed =
      run("verify --plugin " + plugin + " --property agrees-with-the-oracle --regime gaussian-keys --seed 2 --resume --out " + out);
  CHECK_FALSE(contains(same_seed.text, "begins anew"));
}

TEST_CASE("a kernel that dies on recorded activations is a verdict, in a report") {
  const Folder folder;
  const Ended judged = run("verify --exec 'python3 " KDACHECK_SOURCE
                           "/kernels/plugin/tests/misbehaving_worker.py takes_everything_and_aborts' --inputs " KDACHECK_SOURCE
                           "/golden/recorded/kda_layer0.safetensors --out " +
                           folder.path.string());
  INFO(judged.text);
  CHECK(judged.status == 1);
  CHECK(contains(judged.text, "CRASHED"));
  CHECK(contains(judged.text, "signal 6"));
  CHECK(std::filesystem::exists(folder.path / "report.json"));
}

TEST_CASE("why a worker had to go is told where its standard error is let through, too") {
  const Folder folder;
  const Ended judged =
      run_in_shell("KDACHECK_WORKER_GIB=0.25 " + program +
                   " verify --show-stderr --plugin " KDACHECK_MISBEHAVING_PLUGIN
                   " --kernel touches_memory --property agrees-with-the-oracle --regime usual-decay --shrink-seconds 0 --out " +
                   folder.path.string() + " 2>/dev/null; cat " + (folder.path / "cases.jsonl").string());
  INFO(judged.text);
  CHECK(contains(judged.text, "took more than the 0.25 GiB of memory that a worker may have"));
}

TEST_CASE("recorded activations are judged, malformed ones refused") {
  const Folder folder;
  const std::string recording = KDACHECK_SOURCE "/golden/recorded/kda_layer0.safetensors";
  const Ended judged = run("verify --kernel cpu.recurrence.fp32 --inputs " + recording + " --out " + folder.path.string());
  INFO(judged.text);
  CHECK(judged.status == 0);
  const auto torn = folder.path / "torn.safetensors";
  std::filesystem::copy_file(recording, torn);
  std::filesystem::resize_file(torn, 5000);
  const Ended refused = run("verify --inputs " + torn.string() + " --out " + folder.path.string());
  CHECK(refused.status == 2);
  CHECK(lines(refused.text) == 1);
}

TEST_CASE("list and doctor name what there is") {
  CHECK(contains(run("list kernels").text, "cpu.recurrence.fp32"));
  CHECK(contains(run("list properties").text, "agrees-with-the-oracle"));
  CHECK(contains(run("list regimes").text, "gaussian-keys"));
  CHECK(contains(run("list faults").text, "neumann-fp16"));
  const Ended doctor = run("doctor");
  CHECK(doctor.status == 0);
  CHECK(contains(doctor.text, "planted faults"));
}
