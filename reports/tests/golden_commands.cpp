#include "commands.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
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

TEST_CASE("golden generate-modules makes a set that verify, diff and accept take as they take one of cases") {
  const Folder folder;
  const std::string set = folder.path.string(), mine = "StateManager.usual.1.safetensors", place = set + "/" + mine;
  REQUIRE(run("golden generate-modules " + set + " --module StateManager --module 'Fine*'").status == 0);
  CHECK(run_in_shell("cd " + set + " && sha256sum --strict -c index.sha256").status == 0);
  const auto text = [](const std::string& path) {
    std::ostringstream all;
    all << std::ifstream(path, std::ios::binary).rdbuf();
    return all.str();
  };
  const std::string before = text(place);
  std::ofstream(place) << "no golden file";
  const Ended again = run("golden generate-modules " + set + " --module StateManager --regime usual");
  CHECK(again.status == 2);
  CHECK(contains(again.text, "DAMAGED    " + mine));
  CHECK(contains(again.text, "1 cases, 0 changed, 1 damaged"));
  CHECK(contains(again.text, "golden accept " + set + " NAME"));
  CHECK(text(place) == "no golden file");
  CHECK(text(place + ".new") == before);
  CHECK(contains(run("golden verify " + set).text, "waiting    " + mine + ".new"));
  CHECK(run("golden accept " + set + " " + mine).status == 0);
  CHECK(text(place) == before);
  CHECK(run("golden verify " + set).status == 0);
  CHECK(run("golden verify-modules " + set).status == 0);
  CHECK(run("golden diff " + set + " " KDACHECK_SOURCE "/golden/modules").status == 1);
  CHECK(run("golden diff " + place + " " KDACHECK_SOURCE "/golden/modules/" + mine).status == 0);
  std::filesystem::remove(place);
  const Ended deleted = run("golden verify " + set);
  CHECK(deleted.status == 2);
  CHECK(contains(deleted.text, "index.sha256 names it, but there is no " + mine));
  const Ended unknown = run("golden generate-modules " + set + "2 --module nosuch");
  CHECK(unknown.status == 2);
  CHECK_FALSE(std::filesystem::exists(set + "2"));
}

TEST_CASE("what a case cannot hold of what was asked for is said once, and refused of one that is given as a token") {
  const Folder folder;
  const std::string set = (folder.path / "set").string();
  const Ended drawn =
      run("golden generate " + set + " --regime packed-with-empty --regime narrow --regime gaussian-keys --intermediates 8 --states");
  INFO(drawn.text);
  CHECK(drawn.status == 0);
  const auto manifest = [&](const std::string& label) {
    return nlohmann::json::parse(std::ifstream(set + "/" + label + "/manifest.json"));
  };
  const auto has = [&](const std::string& label, const std::string& tensor) {
    return std::ranges::any_of(manifest(label)["tensors"], [&](const auto& each) { return each["name"] == tensor; });
  };
  CHECK(has("narrow.fp32.1", "chunk.0.T.high")); // two sequences: every chunk of both
  CHECK_FALSE(has("narrow.fp32.1", "states.high"));
  CHECK(has("gaussian-keys.fp32.1", "states.high"));
  CHECK(has("gaussian-keys.fp32.1", "chunk.0.U.high"));
  CHECK_FALSE(has("packed-with-empty.fp32.1", "chunk.0.T.high")); // no token at all
  CHECK(manifest("packed-with-empty.fp32.1")["contents"]["intermediates_chunk"] == 0);
  const std::string sentence = "without chunk intermediates: they need a token";
  CHECK(contains(drawn.text,
                 "packed-with-empty.fp32.1\n             without states after every token: they need a single sequence of tokens\n"
                 "             " +
                     sentence));
  CHECK(drawn.text.find(sentence) == drawn.text.rfind(sentence));
  CHECK(run("golden verify " + set).status == 0);

  const std::string token = manifest("packed-with-empty.fp32.1")["token"], list = (folder.path / "list").string();
  const Ended refused = run("golden generate " + set + "2 --name x --intermediates 8 --token " + token);
  CHECK(refused.status == 2);
  CHECK(lines(refused.text) == 1);
  CHECK(contains(refused.text, sentence));
  CHECK_FALSE(std::filesystem::exists(set + "2"));
  std::ofstream(list) << "# why\nmine fp32 " << token << "\n";
  const Ended listed = run("golden generate " + set + "2 --intermediates 8 --states --cases " + list);
  CHECK(listed.status == 0);
  CHECK(contains(listed.text, sentence));
}

TEST_CASE("a name that is no folder's, or that a set could not hold, is refused in one sentence") {
  const Folder folder;
  const std::string
      token = "k1,narrow,B=2,T=24,K=11,scale=1.34bf64p-2,gates=jitter,decay=1.333334p-2,decay_spread=1p+0,loss=everywhere,seed=1,1765974b",
      set = (folder.path / "set").string();
  for (const std::string& name :
       {std::string("$'a\\nb'"), std::string("a/b"), std::string("../a"), std::string(".a"), std::string("$'a\\tb'"),
        std::string("$'a\\x1bb'"), std::string(300, 'x'), std::string("a.new"), std::string("a.safetensors")}) {
    INFO(name);
    const Ended ended = run_in_shell("bash -c \"" + program + " golden generate " + set + " --token " + token + " --name " + name + "\"");
    INFO(ended.text);
    CHECK(ended.status == 2);
    CHECK(lines(ended.text) == 1);
    CHECK(contains(ended.text, "--name: "));
    CHECK_FALSE(std::filesystem::exists(set));
  }
}
