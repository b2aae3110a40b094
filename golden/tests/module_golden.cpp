// The golden files of modules are drawn and computed again, and a changed number is seen; they are a set as cases of kernels are.

#include "../module_golden.hpp"

#include "../../reference/safetensors.hpp"
#include "small_case.hpp"

using namespace kdacheck;
namespace fs = std::filesystem;

namespace {

const ModuleSuite& suite_named(const std::string& name) {
  for (const ModuleSuite& suite : module_suites())
    if (suite.name == name) return suite;
  throw std::logic_error("no suite " + name);
}

/// The file with another bit in its last number's exponent, or in a high place of its fraction.
void change_tensor(const fs::path& from, const fs::path& to, const std::string& name) {
  const SafetensorsFile file(from);
  std::vector<StoredTensor> tensors = file.table().tensors;
  std::vector<std::byte> changed;
  for (StoredTensor& tensor : tensors)
    if (tensor.name == name) {
      changed.assign(tensor.bytes.begin(), tensor.bytes.end());
      changed[changed.size() - 2] ^= std::byte{1};
      tensor.bytes = changed;
    }
  REQUIRE_FALSE(changed.empty());
  write_safetensors(to, tensors, file.table().metadata);
}

} // namespace

TEST_CASE("every golden file of a module in the repository is what its case gives, and the index names it") {
  std::size_t files = 0;
  for (const GoldenOutcome& outcome : verify_golden(fs::path(KDACHECK_GOLDEN) / "modules")) {
    INFO(outcome.name << (outcome.remarks.empty() ? "" : ": " + outcome.remarks.front()));
    CHECK(outcome.kind == GoldenOutcome::Kind::same);
    ++files;
  }
  CHECK(files >= 18);
}

TEST_CASE("a changed number in a golden file of a module is named") {
  const Folder folder;
  const ModuleSuite& suite = suite_named("KimiDeltaAttention");
  const fs::path path = folder.path / module_golden_name(suite, "packed", 3);
  write_module_golden(suite, "packed", 3, path);
  CHECK(difference_of_module(path, nullptr).remarks.empty());
  for (const char* name : {"output.y", "parameter.q_conv", "gradient.dt_bias"}) {
    fs::create_directories(folder.path / "changed");
    const auto other = folder.path / "changed" / path.filename();
    change_tensor(path, other, name);
    const CaseDifference difference = difference_of_module(other, nullptr);
    CHECK_FALSE(difference.damaged);
    REQUIRE(difference.remarks.size() == 1);
    CHECK(difference.remarks[0].starts_with(name));
  }
}

TEST_CASE("files of modules are a set: what is changed, deleted, new or renamed is told, what differs is written beside and accepted") {
  using enum GoldenOutcome::Kind;
  const Folder set, other;
  const ModuleSuite& suite = suite_named("StateManager");
  const std::string usual = module_golden_name(suite, "usual", 1), reflections = module_golden_name(suite, "reflections", 1);
  for (const Folder* each : {&set, &other})
    for (const char* regime : {"reflections", "usual"}) CHECK(store_module_golden(each->path, suite, regime, 1).kind == written);
  CHECK(store_module_golden(set.path, suite, "usual", 1).kind == same);
  CHECK(text_of(set.path / "index.sha256").find("  " + usual + "\n") != std::string::npos);
  const auto kind = [&](std::size_t at) { return verify_golden(set.path).at(at).kind; };
  CHECK(kind(0) == same);

  const std::string right = text_of(set.path / usual);
  std::string flipped = right;
  flipped.back() = static_cast<char>(flipped.back() ^ 1); // less than what two arithmetics differ by: only the index sees it
  write_text(set.path / usual, flipped);
  CHECK(kind(1) == damaged);
  CHECK(verify_golden(set.path).at(1).remarks.at(0) == "it is not the one of which index.sha256 holds the sha256");
  CHECK(diff_golden(other.path, set.path).at(1).kind == changed);
  CHECK(store_module_golden(set.path, suite, "usual", 1).kind == damaged);
  CHECK(text_of(set.path / usual) == flipped);
  CHECK(text_of(set.path / (usual + ".new")) == right);
  CHECK(diff_golden(set.path / usual, set.path / (usual + ".new")).at(0).remarks.size() == 1);
  CHECK(kind(2) == waiting);
  accept_golden(set.path, usual);
  CHECK(text_of(set.path / usual) == right);
  CHECK(verify_golden(set.path).size() == 2);
  CHECK(kind(1) == same);

  change_tensor(set.path / usual, set.path / usual, "call.k"); // the index made to fit again: another draw is still another
  write_index(set.path, {{usual, hash_for_index(set.path / usual)}, {reflections, hash_for_index(set.path / reflections)}});
  CHECK(kind(1) == changed);
  write_text(set.path / (usual + ".new"), "");
  CHECK_THROWS_WITH(accept_golden(set.path, usual), Catch::Contains("cannot be accepted"));
  fs::remove(set.path / (usual + ".new"));

  fs::rename(set.path / reflections, set.path / "Other.usual.1.safetensors");
  const auto told = verify_golden(set.path);
  REQUIRE(told.size() == 3);
  CHECK(told[0].remarks.at(0) == "index.sha256 does not name it");
  CHECK(told[2].remarks.at(0) == "index.sha256 names it, but there is no " + reflections);
  CHECK(told[2].remarks.at(1) == "Other.usual.1.safetensors holds what it held: it was renamed");
  fs::remove(set.path / "Other.usual.1.safetensors");
  CHECK(verify_golden(set.path).at(1).remarks.size() == 1);
  CHECK(diff_golden(other.path, set.path).at(0).remarks == std::vector<std::string>{"the case is gone"});
}
