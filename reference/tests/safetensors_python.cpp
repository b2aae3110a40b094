// Files go to Python's safetensors package and come back. Skipped (and said so) where python3 does not have it.

#include "../safetensors.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <unistd.h>

using namespace kdacheck;
namespace fs = std::filesystem;

namespace {

constexpr const char* script = R"(
import sys
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
ours, theirs = sys.argv[1:]
tensors = load_file(ours)
assert tensors["f32"].dtype == np.float32 and tensors["f32"].tolist() == [[1.5, -2.0], [0.0, 3.0]], tensors["f32"]
assert tensors["f64"].dtype == np.float64 and tensors["f64"].shape == () and tensors["f64"] == 1 / 3
assert tensors["i64"].dtype == np.int64 and tensors["i64"].tolist() == [-1, 2]
assert tensors["u8"].dtype == np.uint8 and tensors["u8"].tolist() == [7]
assert tensors["empty"].shape == (0, 3)
with safe_open(ours, "np") as file:
    assert file.metadata() == {"note": "caf\u00e9 \"x\""}, file.metadata()
tensors["f16"] = np.array([0.1, 2.0], dtype=np.float16)
save_file(tensors, theirs, metadata={"back": "yes"})
)";

template <class T> std::span<const std::byte> bytes(const std::vector<T>& values) { return std::as_bytes(std::span(values)); }

} // namespace

TEST_CASE("Python's safetensors package reads our files, and we read its own") {
  const char* chosen = std::getenv("KDACHECK_PYTHON");
  const std::string python = chosen ? chosen : "python3";
  if (std::system((python + " -c 'import numpy, safetensors' 2>/dev/null").c_str()) != 0) {
    std::cout << "skipped: " << python << " has no numpy or safetensors package\n";
    SUCCEED("skipped");
    return;
  }
  const fs::path folder = fs::temp_directory_path() / ("kdacheck-safetensors-python-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  std::ofstream(folder / "script.py") << script;
  const std::vector<float> f32{1.5f, -2.0f, 0.0f, 3.0f};
  const std::vector<double> f64{1.0 / 3};
  const std::vector<std::int64_t> i64{-1, 2};
  const std::vector<std::uint8_t> u8{7};
  write_safetensors(
      folder / "ours",
      std::vector{StoredTensor{"u8", ElementType::U8, {1}, bytes(u8)}, StoredTensor{"f32", ElementType::F32, {2, 2}, bytes(f32)},
                  StoredTensor{"f64", ElementType::F64, {}, bytes(f64)}, StoredTensor{"i64", ElementType::I64, {2}, bytes(i64)},
                  StoredTensor{"empty", ElementType::F32, {0, 3}, {}}},
      {{"note", "caf\xC3\xA9 \"x\""}});
  const std::string command =
      python + " '" + (folder / "script.py").string() + "' '" + (folder / "ours").string() + "' '" + (folder / "theirs").string() + "'";
  REQUIRE(std::system(command.c_str()) == 0);
  const SafetensorsFile theirs(folder / "theirs");
  CHECK(theirs.table().metadata == Metadata{{"back", "yes"}});
  CHECK(floats(*theirs.table().find("f32")) == f32);
  CHECK(doubles(*theirs.table().find("f64")) == f64);
  CHECK(integers(*theirs.table().find("i64")) == i64);
  CHECK(theirs.table().find("empty")->shape == std::vector<std::int64_t>{0, 3});
  CHECK(floats(*theirs.table().find("f16")) == std::vector<float>{static_cast<float>(static_cast<_Float16>(0.1)), 2.0f});
  fs::remove_all(folder);
}
