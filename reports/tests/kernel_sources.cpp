#include "../kernel_sources.hpp"
#include "../words.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>

using namespace kdacheck;

TEST_CASE("a replay command of built-in kernels is a token alone") {
  CHECK(replay_prefix({}) == "./kdacheck replay");
  Context context;
  CHECK(replay_command(context, std::string("cpu.chunk64.fp32:agrees-with-the-oracle:k1,gaussian-keys,T=3")) ==
        "./kdacheck replay cpu.chunk64.fp32:agrees-with-the-oracle:k1,gaussian-keys,T=3");
}

TEST_CASE("a replay command names every foreign source, each as one word of the shell") {
  unsetenv("KDACHECK_PYTHON");
  unsetenv("PYTHONPATH");
  unsetenv("KDACHECK_WORKER_GIB");
  KernelSources sources{.plugins = {"./libmine.so", "/tmp/it's mine.so"}, .commands = {"python3 worker.py $HOME"}, .functions = {"m:f"}};
  CHECK(replay_prefix(sources) ==
        R"(./kdacheck replay --plugin ./libmine.so --plugin '/tmp/it'\''s mine.so' --exec 'python3 worker.py $HOME' --python m:f)");
  sources.call_timeout = 0.5; // a time-out shows again only with the same patience
  CHECK(replay_prefix(sources).ends_with(" --python m:f --call-timeout 0.5"));
  sources.start_timeout = 600;
  CHECK(replay_prefix(sources).ends_with(" --python m:f --call-timeout 0.5 --start-timeout 600"));
  setenv("KDACHECK_WORKER_GIB", "2", 1);
  CHECK(replay_prefix(sources).starts_with("KDACHECK_WORKER_GIB=2 ./kdacheck replay --plugin"));
  CHECK(replay_prefix({}) == "./kdacheck replay");
  unsetenv("KDACHECK_WORKER_GIB");
}

TEST_CASE("a replay command of a Python function carries the environment that found it") {
  setenv("KDACHECK_PYTHON", "python3.11", 1);
  setenv("PYTHONPATH", "my kernels", 1);
  CHECK(replay_prefix({.functions = {"m:f"}}) == "KDACHECK_PYTHON=python3.11 PYTHONPATH='my kernels' ./kdacheck replay --python m:f");
  CHECK(replay_prefix({.plugins = {"x.so"}}) == "./kdacheck replay --plugin x.so");
}

TEST_CASE("the simplest token known is replayed, quoted where a shell would read more into it") {
  Context context;
  CaseResult result;
  result.replay = "k:p:@my dump.safetensors";
  CHECK(replay_command(context, result) == "./kdacheck replay 'k:p:@my dump.safetensors'");
  result.shrunk = "k:p:k1,x";
  CHECK(replay_command(context, result) == "./kdacheck replay k:p:k1,x");
}
