#pragma once
// The certified recurrence, one function per arithmetic. Each is instantiated in a file of its own. `truth.bits` says how
// many bits MPFR works with; the others have what they have.

#include "truth.hpp"

namespace kdacheck::certified {

void forward_fp64(const Problem&, Truth&);
void forward_double_double(const Problem&, Truth&);
void forward_mpfr(const Problem&, Truth&);
void forward_cpp_bin_float(const Problem&, Truth&);

void gradient_fp64(const Problem&, Truth&);
void gradient_double_double(const Problem&, Truth&);
void gradient_mpfr(const Problem&, Truth&);
void gradient_cpp_bin_float(const Problem&, Truth&);

} // namespace kdacheck::certified
