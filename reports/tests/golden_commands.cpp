#include "commands.hpp"

#include <nlohmann/json.hpp>

#include <fstream>
#include <iterator>
#include <sstream>

using namespace kdacheck::tests;

TEST_CASE("golden generate makes the shape that it is told to, whatever the regime draws") {
  const Folder folder;
  const std::string set = (folder.path / "set").string();
  const Ended ended =
      run("golden generate " + set + " --shape 21,7,9 --no-gradients --regime gaussian-keys --regime packed-with-empty --regime 'exact-*'");
  INFO(ended.text);
  CHECK(ended.status == 0);
  std::size_t cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(set)) {
    if (!entry.is_directory()) continue;
    std::ifstream file(entry.path() / "manifest.json");
    const auto manifest = nlohmann::json::parse(file);
    INFO(entry.path());
    const auto shape_of = [&](const char* name) {
      for (const auto& tensor : manifest["tensors"])
        if (tensor["name"] == name) return tensor["shape"];
      return nlohmann::json();
    };
    CHECK(shape_of("k")[1] == 21);
    CHECK(shape_of("k")[3] == 7);
    CHECK(shape_of("v")[3] == 9);
    ++cases;
  }
  CHECK(cases > 5);
  CHECK(run("golden verify " + set).status == 0);
  const Ended too_large = run("golden generate " + set + "2 --shape 1048576,1024,1024 --regime gaussian-keys");
  INFO(too_large.text);
  CHECK(too_large.status == 3);
  CHECK(lines(too_large.text) == 1);
  CHECK(contains(too_large.text, "of memory"));
  const Ended states = run("golden generate " + set + "2 --shape 1024,4096,4096 --regime near-identical-keys --states");
  CHECK(states.status == 3);
  CHECK(contains(states.text, "with its states needs about"));
  const Ended parts = run("golden generate " + set + "2 --shape 16384,1024,1024 --regime near-identical-keys --intermediates 1");
  CHECK(parts.status == 3);
  CHECK(contains(parts.text, "with chunk intermediates needs about"));
  CHECK(!std::filesystem::exists(set + "2"));
}

TEST_CASE("golden verify ends with 2 on a damaged case, with 1 on a changed one, and writes nothing") {
  const Folder set;
  const std::string folder = (set.path / "zero-keys.bf16.1").string(), verify = "golden verify " + set.path.string();
  const std::string manifest = folder + "/manifest.json", tensors = folder + "/tensors.safetensors";
  const auto index = [&] {
    REQUIRE(run_in_shell("cd " + set.path.string() + " && sha256sum zero-keys.bf16.1/manifest.json >index.sha256").status == 0);
  };
  const auto restore = [&] {
    std::filesystem::remove_all(folder);
    std::filesystem::copy(KDACHECK_SOURCE "/golden/starter/zero-keys.bf16.1", folder);
    index();
  };
  const auto text_of = [](const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  };
  restore();
  CHECK(run(verify).status == 0);
  const auto refused = [&](const std::string& path, const std::string& damaged, const std::string& sentence) {
    restore();
    std::ofstream(path, std::ios::binary) << damaged;
    index();
    const Ended ended = run(verify);
    INFO(ended.text);
    CHECK(ended.status == 2);
    CHECK(contains(ended.text, sentence));
    CHECK(text_of(path) == damaged);
    CHECK(std::distance(std::filesystem::directory_iterator(set.path), std::filesystem::directory_iterator()) == 2);
  };
  restore();
  const std::string good = text_of(tensors), written = text_of(manifest);
  std::string flipped = good;
  flipped.back() = static_cast<char>(flipped.back() ^ 1);
  refused(tensors, flipped, "sha256");
  refused(tensors, good.substr(0, good.size() / 2), "DAMAGED");
  const std::string key = "\"schema_version\": 2";
  const auto at = written.find(key);
  REQUIRE(at != std::string::npos);
  std::string foreign = written;
  foreign.replace(at, key.size(), "\"schema_version\": 9");
  refused(manifest, foreign, "schema version 9, not 2");
  refused(manifest, "{", "DAMAGED");

  restore(); // sound in itself, but not what the recipe gives
  const std::string token =
      "k1,zero-keys,T=5,K=12,V=12,l2norm=yes,scale=1.279a74p-2,keys=sparse_zero,key_noise=1p+0,gates=jitter,decay=1.99999ap-5,"
      "decay_spread=1p+0,loss=everywhere,seed=1,cb8eb24b";
  const std::string another =
      "k1,narrow,B=2,T=24,K=11,scale=1.34bf64p-2,gates=jitter,decay=1.333334p-2,decay_spread=1p+0,loss=everywhere,seed=1,1765974b";
  const auto stands = written.find(token);
  REQUIRE(stands != std::string::npos);
  std::ofstream(manifest, std::ios::binary) << std::string(written).replace(stands, token.size(), another);
  const Ended tampered = run(verify);
  CHECK(tampered.status == 2);
  CHECK(contains(tampered.text, "index.sha256"));
  index();
  const Ended ended = run(verify);
  INFO(ended.text);
  CHECK(ended.status == 1);
  CHECK(contains(ended.text, "CHANGED"));
}

TEST_CASE("golden generate-modules leaves what is there as it is, and writes what differs beside it") {
  const Folder folder;
  const std::string set = folder.path.string(), mine = set + "/StateManager.usual.1.safetensors",
                    other = set + "/Other.usual.1.safetensors";
  REQUIRE(run("golden generate-modules " + set).status == 0);
  const auto text = [](const std::string& path) {
    std::ostringstream all;
    all << std::ifstream(path, std::ios::binary).rdbuf();
    return all.str();
  };
  const std::string before = text(mine);
  std::ofstream(mine) << "no golden file";
  const Ended again = run("golden generate-modules " + set);
  CHECK(again.status == 1);
  CHECK(contains(again.text, "CHANGED    " + mine));
  CHECK(contains(again.text, "1 changed"));
  CHECK(text(mine) == "no golden file");
  CHECK(text(mine + ".new") == before);
  std::filesystem::rename(mine + ".new", mine);
  CHECK(run("golden generate-modules " + set).status == 0);
  std::filesystem::rename(mine, other); // each file tells which one it is
  const Ended renamed = run("golden verify-modules " + set);
  CHECK(renamed.status == 1);
  CHECK(contains(renamed.text, "it is not named StateManager.usual.1.safetensors"));
}
