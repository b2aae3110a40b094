#pragma once
// Contracts by their text, and the directions in which every kind of step of a pushed evaluation may err.

#include "drawn_problem.hpp"

#include "../../kernels/contract.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <string>

namespace kdacheck::testing {

inline Contract contract_of(const std::string& text) {
  const ParsedContract parsed = parse_contract(text);
  INFO(parsed.error);
  REQUIRE(parsed.contract);
  return *parsed.contract;
}

/// A sum of this many terms of this total size in the solve's format, every addition rounded the same way: fp16's subnormals too.
inline double solve_sum(const Contract& contract, double push, double sum, double size, std::int64_t terms) {
  const double flush = contract.solve == Format::fp16 ? 0x1p-25 : 0;
  return sum + push * static_cast<double>(terms) * (unit_roundoff(contract.solve) * size + flush);
}

/// visit(push) for every kind of step alone, for all of them together, and for mixtures of directions, in both directions.
/// `Push::members` names the kinds.
template <class Push, class Visit> void for_each_push(std::uint64_t seed, int mixtures, Visit&& visit) {
  Numbers numbers{seed};
  for (double sign : {-1.0, 1.0}) {
    for (auto member : Push::members) {
      Push one;
      one.*member = sign;
      visit(one);
    }
    for (int mixture = 0; mixture <= mixtures; ++mixture) {
      Push all;
      for (auto member : Push::members) all.*member = mixture == 0 ? sign : numbers.uniform() < 0.5 ? -1 : 1;
      visit(all);
    }
  }
}

} // namespace kdacheck::testing
