// Token-heads per second of processor time of every arithmetic at K = V = 128 on one core: the certified tiers beside Boost's
// types run plainly. Processor time, so that a busy machine distorts it less.
//   throughput_reference [seconds per row]

#include "../certified_tiers.hpp"
#include "../oracle.hpp"
#include "../truth.hpp"

#include <omp.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <random>

using namespace kdacheck;

namespace {

Problem one_head(std::int64_t T, GateForm gate, bool gradients) {
  std::mt19937_64 bits(7);
  const auto uniform = [&] { return static_cast<double>(bits() >> 11) * 0x1p-53; };
  Problem p;
  p.shape = {.B = 1, .T = T, .H = 1, .HV = 1, .K = 128, .V = 128};
  p.options.gate = gate;
  p.options.scale = 0.0883883461f;
  const auto fill = [&](std::vector<float>& tensor, std::int64_t size, double low, double high) {
    tensor.resize(static_cast<std::size_t>(size));
    for (float& x : tensor) x = static_cast<float>(low + (high - low) * uniform());
  };
  const double key = std::sqrt(3.0 / 128); // unit length in the mean
  fill(p.q, T * 128, -1, 1);
  fill(p.k, T * 128, -key, key);
  fill(p.v, T * 128, -1, 1);
  fill(p.g, T * 128, -0.2, 0);
  fill(p.beta, T, 0, 1);
  if (gate == GateForm::softplus) {
    fill(p.A_log, 1, 0, 1);
    fill(p.dt_bias, 128, -4, -2);
  }
  if (gradients) fill(p.d_o, T * 128, -1, 1);
  return p;
}

double token_heads_per_second(double seconds, std::int64_t T, const std::function<void()>& pass) {
  pass();
  std::int64_t passes = 0;
  const std::clock_t begin = std::clock();
  double elapsed = 0;
  do {
    pass();
    ++passes;
    elapsed = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  } while (elapsed < seconds);
  return static_cast<double>(passes * T) / elapsed;
}

void row(const char* what, double rate) { std::printf("%-44s %12.0f %12.2f\n", what, rate, 1e6 / rate); }

} // namespace

int main(int count, char** arguments) {
  const double seconds = count > 1 ? std::atof(arguments[1]) : 1;
  omp_set_num_threads(1);
  std::printf("%-44s %12s %12s\n", "K = V = 128, one core", "token-heads/s", "us each");
  const Problem plain = one_head(512, GateForm::log_decay, true), raw = one_head(512, GateForm::softplus, true);
  const Problem small = one_head(8, GateForm::log_decay, true);
  const auto certified = [&](const char* what, const Problem& p, Arithmetic arithmetic, int bits, bool gradients) {
    row(what, token_heads_per_second(seconds, p.shape.T,
                                     [&] { gradients ? gradient_truth(p, arithmetic, bits) : forward_truth(p, arithmetic, bits); }));
  };
  certified("fp64 with bound", plain, Arithmetic::fp64, 53, false);
  certified("fp64 with bound, softplus gate", raw, Arithmetic::fp64, 53, false);
  certified("fp64 with bound, gradients", plain, Arithmetic::fp64, 53, true);
  certified("double-double with bound", plain, Arithmetic::double_double, 106, false);
  certified("double-double with bound, softplus gate", raw, Arithmetic::double_double, 106, false);
  certified("double-double with bound, gradients", plain, Arithmetic::double_double, 106, true);
  certified("MPFR 113 with bound", small, Arithmetic::multiprecision, 113, false);
  certified("MPFR 226 with bound", small, Arithmetic::multiprecision, 226, false);
  row("cpp_bin_float 256 with bound", token_heads_per_second(seconds, small.shape.T, [&] {
        Truth truth;
        certified::forward_cpp_bin_float(small, truth);
      }));
  for (NumberType type : all_number_types) {
    const std::string label = std::string(name(type)) + ", no bound";
    row(label.c_str(), token_heads_per_second(seconds, small.shape.T, [&] { evaluate(small, type); }));
  }
}
