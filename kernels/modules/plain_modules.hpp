#pragma once
// FineGrainedGating, DPLRTransition and StateManager as Modules.

#include "gating.hpp"
#include "module.hpp"

namespace kdacheck::modules {

/// Input x [R,D], outputs alpha and log_decay [R,W], parameters down, up and, but for the sigmoid form, A_log and, if
/// there is one, dt_bias; no state.
Module gating_module(const Gating&);

/// Inputs alpha, k [R,H,K], beta [R,H], v [R,H,V]; no output but the state memory [N,H,K,V], stepped token by token by
/// `update`, and back by `update_backward`.
Module transition_module(std::int64_t H, std::int64_t K, std::int64_t V);

/// The same of the general form: inputs d, a, b, k [R,H,K] and v [R,H,V].
Module general_transition_module(std::int64_t H, std::int64_t K, std::int64_t V);

/// Inputs and state as transition_module: what a StateManager holds behind one `update` of a batch. Sequences are of one length and
/// start from zero; forward only.
Module state_manager_module(std::int64_t H, std::int64_t K, std::int64_t V);

} // namespace kdacheck::modules
