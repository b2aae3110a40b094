#pragma once

#include "../kernel.hpp"

namespace kdacheck::cpu {

/// The recurrence token by token in fp32, KDA or DPLR as the contract's rule says; all else of the contract is read too.
Kernel recurrence(std::string name, std::string summary, Contract contract);

} // namespace kdacheck::cpu
