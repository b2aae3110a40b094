// Prints what the certified tiers answer, bit for bit: a line for each random problem with the checksum of all values, second words and
// radii. Two builds for processors with vectors of different widths must print the same (same_bits.py beside it).

#include "../../sha256.hpp"
#include "../../truth.hpp"
#include "../random_problem.hpp"

#include <cstdio>
#include <vector>

using namespace kdacheck;

namespace {

std::string checksum(const Truth& truth) {
  std::vector<double> all;
  const auto take = [&](const Enclosed& tensor) {
    for (const auto* part : {&tensor.value, &tensor.low, &tensor.radius}) all.insert(all.end(), part->begin(), part->end());
  };
  take(truth.o);
  take(truth.final_state);
  for (Input input : all_inputs) take(truth[input]);
  return sha256_of(std::as_bytes(std::span(all)));
}

void print(const char* what, std::uint64_t seed, const Problem& problem) {
  for (Arithmetic arithmetic : {Arithmetic::fp64, Arithmetic::double_double})
    std::printf("%s %llu %s %s %s\n", what, static_cast<unsigned long long>(seed), std::string(name(arithmetic)).c_str(),
                checksum(forward_truth(problem, arithmetic)).c_str(), checksum(gradient_truth(problem, arithmetic)).c_str());
}

} // namespace

int main() {
  for (std::uint64_t seed = 0; seed < 400; ++seed) print("small", seed, test::random_problem(seed));
  for (std::uint64_t seed = 0; seed < 60; ++seed) print("large", seed, test::random_problem(seed, 90, 70, 40));
#if defined(__AVX512F__)
  std::puts("lanes 8");
#else
  std::puts("lanes 4");
#endif
}
