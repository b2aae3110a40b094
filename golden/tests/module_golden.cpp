// The golden files of modules are drawn and computed again, and a changed number is seen.

#include "../module_golden.hpp"

#include "../../reference/safetensors.hpp"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

using namespace kdacheck;

TEST_CASE("every golden file of a module in the repository is what its case gives") {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(KDACHECK_GOLDEN) / "modules")) {
    if (entry.path().extension() != ".safetensors") continue;
    INFO(entry.path().filename().string());
    CHECK(module_golden_differences(entry.path()).empty());
    ++files;
  }
  CHECK(files >= 18);
}

TEST_CASE("a changed number in a golden file is named") {
  const auto folder = std::filesystem::temp_directory_path() / ("kdacheck_module_golden_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  for (const ModuleSuite& suite : module_suites())
    if (suite.name == "KimiDeltaAttention") {
      const auto path = module_golden_path(suite, "packed", 3, folder);
      write_module_golden(suite, "packed", 3, path);
      CHECK(module_golden_differences(path).empty());
      for (const char* name : {"output.y", "parameter.q_conv", "gradient.dt_bias"}) {
        const SafetensorsFile file(path);
        std::vector<StoredTensor> tensors = file.table().tensors;
        std::vector<std::byte> changed;
        for (StoredTensor& tensor : tensors)
          if (tensor.name == name) {
            changed.assign(tensor.bytes.begin(), tensor.bytes.end());
            changed[changed.size() - 2] ^= std::byte{1}; // of the last number: an exponent's last bit, or a high bit of the fraction
            tensor.bytes = changed;
          }
        std::filesystem::create_directories(folder / "changed");
        const auto other = folder / "changed" / path.filename();
        write_safetensors(other, tensors, file.table().metadata);
        const std::vector<std::string> differences = module_golden_differences(other);
        REQUIRE(differences.size() == 1);
        CHECK(differences[0].starts_with(name));
      }
    }
  std::filesystem::remove_all(folder);
}
