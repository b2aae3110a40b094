// What runs leave that were stopped while they wrote a golden set, and what is no file in the place of one.

#include "../set_index.hpp"
#include "small_case.hpp"

#include <sys/stat.h>

using namespace kdacheck;
namespace fs = std::filesystem;

TEST_CASE("what a stopped run left half-written gives way to the whole case, and what is none of its own does not") {
  using enum GoldenOutcome::Kind;
  const Folder set;
  store_golden(set.path, small_case(), "");
  const fs::path second = set.path / "second", partial = set.path / "second.partial";
  GoldenCase golden = small_case(8);
  golden.name = "second";
  fs::create_directories(second); // as killed while its first tensors were written, and between them and the manifest
  write_text(second / "tensors.safetensors.partial-12-0", "half");
  for (const char* more : {"manifest.json.partial-12-1", "tensors.safetensors"}) {
    write_text(second / more, "half");
    const auto told = verify_golden(set.path);
    REQUIRE(told.size() == 2);
    CHECK(told[0].kind == same);
    CHECK(told[1].kind == unfinished);
    CHECK(told[1].name == "second");
  }
  fs::create_directories(partial);
  write_text(partial / "manifest.json", "half");
  CHECK(verify_golden(set.path).size() == 3);
  CHECK(store_golden(set.path, golden, "").kind == written);
  CHECK_FALSE(fs::exists(partial));
  CHECK(verify_golden(set.path).at(0).kind == same);
  CHECK(verify_golden(set.path).size() == 2);

  fs::remove(second / "manifest.json"); // but a case that the index has lost its manifest: that is said, and kept
  CHECK(store_golden(set.path, golden, "").kind == damaged);
  CHECK(fs::exists(set.path / "second.new/manifest.json"));
  const fs::path mine = set.path / "third";
  fs::create_directories(mine);
  write_text(mine / "notes.txt", "mine");
  golden.name = "third";
  CHECK(store_golden(set.path, golden, "").kind == damaged);
  CHECK(text_of(mine / "notes.txt") == "mine");
}

TEST_CASE("accepting can be taken up again wherever it was stopped") {
  using enum GoldenOutcome::Kind;
  for (const int steps : {1, 2, 3}) {
    INFO(steps);
    const Folder set;
    store_golden(set.path, small_case(), "");
    store_golden(set.path, small_case(8), "");
    const std::string fresh = hash_for_index(set.path / "small.new");
    write_index(set.path, {{"small", fresh}});
    if (steps > 1) fs::rename(set.path / "small", set.path / "small.old");
    if (steps > 2) fs::rename(set.path / "small.new", set.path / "small");
    if (steps < 3) accept_golden(set.path, "small");
    CHECK(hash_for_index(set.path / "small") == fresh);
    const auto told = verify_golden(set.path);
    CHECK(told.at(0).kind == same);
    CHECK(told.size() == (steps < 3 ? 1 : 2));
    CHECK(told.back().kind == (steps < 3 ? same : unfinished)); // small.old
  }
  const Folder set;
  store_golden(set.path, small_case(), "");
  CHECK_THROWS_WITH(accept_golden(set.path, "../" + set.path.filename().string() + "/small"), Catch::Contains("is no name of a case"));
}

TEST_CASE("a pipe in the place of any file of a set is refused without waiting for what comes out of it") {
  const Folder set;
  store_golden(set.path, small_case(), "");
  for (const char* name : {"small/manifest.json", "small/tensors.safetensors", "index.sha256"}) {
    INFO(name);
    fs::rename(set.path / name, set.path / "kept");
    REQUIRE(mkfifo((set.path / name).c_str(), 0600) == 0);
    if (std::string(name) == "index.sha256") {
      CHECK_THROWS_WITH(verify_golden(set.path), Catch::EndsWith("is a pipe or a device, where a file is due"));
    } else {
      const GoldenOutcome told = verify_golden(set.path).at(0);
      CHECK(told.kind == GoldenOutcome::Kind::damaged);
      CHECK_THAT(told.remarks.at(0), Catch::EndsWith("is a pipe or a device, where a file is due"));
    }
    fs::rename(set.path / "kept", set.path / name);
  }
  CHECK(verify_golden(set.path).at(0).kind == GoldenOutcome::Kind::same);
}
