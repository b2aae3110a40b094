#include "../legal_roundings.hpp"
#include "../stages.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
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
  const auto backward = std::ranges::count_if(planted_faults(), &FaultInfo::backward);
  INFO(backward << " of them backward");
  CHECK(backward >= 90);
  CHECK(std::ssize(planted_faults()) - backward >= 90);
}

TEST_CASE("what is planted under further contracts are faults of the catalogue, each with a name and a contract of its own") {
  std::set<std::string_view> names;
  std::set<std::pair<Fault, std::string_view>> planted;
  for (const FaultInfo& info : planted_kernels()) {
    INFO(info.name);
    CHECK(names.insert(info.name).second);
    CHECK(planted.emplace(info.fault, info.contract).second);
    CHECK(parse_contract(info.contract).error == "");
    CHECK(std::ranges::find(planted_faults(), info.fault, &FaultInfo::fault) != planted_faults().end());
  }
  CHECK(planted_kernels().size() >= planted_faults().size() + 60);
}

TEST_CASE("every planted fault declares the stage of the chunk algorithm that it spoils") {
  for (const FaultInfo& info : planted_faults()) {
    INFO(info.name);
    CHECK(stage_of(info.fault).has_value());
  }
  CHECK_FALSE(stage_of(Fault::none).has_value());
}

TEST_CASE("every legal rounding is a planted fault under a contract that parses, with a reason") {
  std::set<std::string> names;
  for (const LegalRounding& legal : legal_roundings()) {
    INFO(legal.label);
    CHECK(parse_contract(legal.contract).error == "");
    CHECK_FALSE(legal.reason.empty());
    CHECK(names.insert(legal_kernel(legal).name).second);
  }
}
