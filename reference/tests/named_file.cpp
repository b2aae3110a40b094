#include "../named_file.hpp"

#include "../atomic_file.hpp"
#include "../safetensors.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <sys/stat.h>
#include <unistd.h>

using namespace kdacheck;
using Catch::Contains;
using Catch::EndsWith;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path;
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "kdacheck-named-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Folder() { fs::remove_all(path); }
};

} // namespace

TEST_CASE("a file's bytes are read, whatever they are") {
  const Folder folder;
  const std::string bytes("a\0b\xff\n", 5);
  write_atomically(folder.path / "file", bytes);
  write_atomically(folder.path / "empty", "");
  CHECK(text_of_file(folder.path / "file") == bytes);
  CHECK(text_of_file(folder.path / "empty").empty());
  fs::create_symlink("file", folder.path / "link");
  CHECK(text_of_file(folder.path / "link") == bytes);
}

TEST_CASE("what is not there, a folder, a pipe and a device are refused as files, each in a sentence and without waiting") {
  const Folder folder;
  REQUIRE(mkfifo((folder.path / "pipe").c_str(), 0600) == 0);
  const auto refused = [&](const fs::path& path, const std::string& why) {
    CHECK_THROWS_WITH(demand_file(path), EndsWith(why));
    CHECK_THROWS_WITH(text_of_file(path), EndsWith(why));
    CHECK_THROWS_WITH(SafetensorsFile(path), EndsWith(why));
    CHECK_THROWS_AS(text_of_file(path), BadFile);
  };
  refused(folder.path / "missing", "missing: No such file or directory");
  refused(folder.path, " is a folder, where a file is due");
  refused(folder.path / "pipe", "pipe is a pipe or a device, where a file is due");
  refused("/dev/null", "/dev/null is a pipe or a device, where a file is due");
}

TEST_CASE("a folder is refused where a file is due, a file where a folder is, and a file above either") {
  const Folder folder;
  write_atomically(folder.path / "file", "");
  CHECK_THROWS_WITH(demand_folder(folder.path / "file"), EndsWith("file is a file, where a folder is due"));
  CHECK_THROWS_WITH(demand_folder(folder.path / "missing"), Contains("there is no folder"));
  demand_folder(folder.path);
  demand_room_for_folder(folder.path), demand_room_for_folder(folder.path / "new/deep"), demand_room_for_folder("relative/to/here");
  CHECK_THROWS_WITH(demand_room_for_folder(folder.path / "file"), EndsWith("file is a file"));
  CHECK_THROWS_WITH(demand_room_for_folder(folder.path / "file/below"), EndsWith((folder.path / "file").string() + " is a file"));
  demand_room_for_file(folder.path / "file"), demand_room_for_file(folder.path / "new/deep"), demand_room_for_file("/dev/null");
  CHECK_THROWS_WITH(demand_room_for_file(folder.path), EndsWith("is a folder, where a file is due"));
  CHECK_THROWS_WITH(demand_room_for_file(folder.path / "file/below"), Contains((folder.path / "file").string() + " is one, and no folder"));
}
