#include "../faults.hpp"

#include <catch2/catch.hpp>

#include <set>

using namespace kdacheck;

TEST_CASE("every fault of the enumeration stands in the catalogue once, with a name, an origin and a contract that parses") {
  std::set<Fault> faults;
  std::set<std::string_view> names;
  for (const FaultInfo& info : planted_faults()) {
    INFO(info.name);
    CHECK(faults.insert(info.fault).second);
    CHECK(names.insert(info.name).second);
    CHECK_FALSE(info.origin.empty());
    CHECK_FALSE(info.what.empty());
    CHECK(parse_contract(info.contract).error == "");
    CHECK(faulty_kernel(info).name == "fault." + std::string(info.name));
  }
  CHECK(faults.size() == static_cast<std::size_t>(Fault::count) - 1);
}
