#pragma once
// The certified recurrence, one function per arithmetic. Each is instantiated in a file of its own.

#include "truth.hpp"

namespace kdacheck::certified {

void forward_fp64(const Problem&, Truth&);
void forward_double_double(const Problem&, Truth&);

void gradient_fp64(const Problem&, Truth&);
void gradient_double_double(const Problem&, Truth&);

} // namespace kdacheck::certified
