#pragma once
// Contracts by their text, and the directions in which every kind of step of a pushed evaluation may err.

#include "../budget_head.hpp"
#include "drawn_problem.hpp"

#include "../../kernels/contract.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
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

/// Rows of q and k that are normalised inside, rounded to operands in one direction: fp16's subnormals too, though by no more than they
/// are.
inline Head with_rows_rounded(const Contract& contract, double push, Head head) {
  const double unit = unit_roundoff(contract.operands);
  for (auto* rows : {&head.q, &head.k})
    for (double& x : *rows)
      x += push *
           std::min(std::abs(x), std::max(unit * std::abs(x), contract.operands == Format::fp16 && std::abs(x) < 0x1p-14 ? 0x1p-25 : 0));
  return head;
}

/// To be normalised inside: rows of even tokens in the first half of the channels, those of odd ones in the second; of the rest next to
/// nothing is left. Values of even tokens are the larger.
inline Problem in_halves(Problem problem, double values) {
  const std::int64_t K = problem.shape.K, V = problem.shape.V;
  problem.options.l2norm = true, problem.options.scale = 1;
  for (auto* rows : {&problem.q, &problem.k})
    for (std::size_t i = 0; i < rows->size(); ++i) {
      const auto t = static_cast<std::int64_t>(i) / K, c = static_cast<std::int64_t>(i) % K;
      if ((t % 2 == 0) != (c < K / 2))
        (*rows)[i] = 1e-6f * std::abs((*rows)[i]);
      else
        (*rows)[i] = std::abs((*rows)[i]);
    }
  for (std::size_t i = 0; i < problem.v.size(); ++i)
    if (static_cast<std::int64_t>(i) / V % 2 == 0) problem.v[i] = std::abs(problem.v[i]) * static_cast<float>(values);
  return problem;
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
