#include "../atomic_file.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace kdacheck;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("kdacheck-atomic-file-" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::size_t files() const { return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), {})); }
};

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Makes every write beyond `bytes` fail, as a full disk does.
struct SmallDisk {
  rlimit before{};
  explicit SmallDisk(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    rlimit limit = before;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SmallDisk() { setrlimit(RLIMIT_FSIZE, &before); }
};

} // namespace

TEST_CASE("a committed file replaces the old one and leaves nothing beside it") {
  const Folder folder;
  write_atomically(folder.path / "a", "old");
  write_atomically(folder.path / "a", std::string("new\0bytes", 9));
  CHECK(contents(folder.path / "a") == std::string("new\0bytes", 9));
  CHECK(folder.files() == 1);
}

TEST_CASE("a link still leads to the file that is written, and a pipe stays a pipe") {
  const Folder folder;
  const fs::path file = folder.path / "file", link = folder.path / "link", pipe = folder.path / "pipe";
  write_atomically(file, "old");
  fs::create_symlink("file", link);
  write_atomically(link, "new");
  CHECK(fs::is_symlink(link));
  CHECK(contents(file) == "new");

  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const int reader = ::open(pipe.c_str(), O_RDWR | O_NONBLOCK);
  REQUIRE(reader >= 0);
  write_atomically(pipe, "bytes");
  CHECK(fs::is_fifo(pipe));
  char read[8] = {};
  CHECK(::read(reader, read, sizeof read) == 5);
  CHECK(std::string(read) == "bytes");
  ::close(reader);
  CHECK(folder.files() == 3);
}

TEST_CASE("a file that was not committed leaves the old one as it was") {
  const Folder folder;
  write_atomically(folder.path / "a", "old");
  {
    AtomicFile file(folder.path / "a");
    file.write(std::as_bytes(std::span(std::string_view("half"))));
    CHECK(contents(folder.path / "a") == "old");
  }
  CHECK(contents(folder.path / "a") == "old");
  CHECK(folder.files() == 1);
}

TEST_CASE("a full disk is one sentence and leaves the old file and nothing else") {
  const Folder folder;
  write_atomically(folder.path / "a", "old");
  {
    const SmallDisk disk(1000);
    CHECK_THROWS_WITH(write_atomically(folder.path / "a", std::string(5000, 'x')),
                      Catch::StartsWith("cannot write " + (folder.path / "a").string() + ": "));
  }
  CHECK(contents(folder.path / "a") == "old");
  CHECK(folder.files() == 1);
}

TEST_CASE("a folder that cannot be written is one sentence") {
  const Folder folder;
  write_atomically(folder.path / "file", "");
  CHECK_THROWS_AS(write_atomically(folder.path / "file" / "a", "x"), FileTrouble);
  CHECK_THROWS_AS(write_atomically(folder.path / "missing" / "a", "x"), FileTrouble);
  CHECK_THROWS_AS(make_folder(folder.path / "file"), FileTrouble);
  CHECK_THROWS_AS(make_folder(folder.path / "file" / "below"), FileTrouble);
  make_folder(folder.path / "two" / "deep");
  make_folder(folder.path / "two" / "deep");
  CHECK(fs::is_directory(folder.path / "two" / "deep"));
}
