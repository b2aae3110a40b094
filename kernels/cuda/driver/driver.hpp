#pragma once
// The program that checks and times the CUDA kernels on the machine it runs on. It links nothing of the suite but the
// vocabulary, so that one binary can be carried to a machine with a GPU.

#include <nlohmann/json.hpp>
#include <string>

namespace kdacheck::cuda {

/// Relative errors of every kernel whose name contains `filter` against the recurrence in double, by regime; those regimes alone whose
/// name contains `regime`. Adds rows to `report["accuracy"]`; false if any is beyond its bound.
bool check_accuracy(nlohmann::json& report, bool quick, const std::string& filter, const std::string& regime);

/// The same for a million tokens.
bool check_long_runs(nlohmann::json& report);

/// Tensors of more than 2^31 elements, where the device has the memory; elsewhere a row says that it has not. Adds rows to
/// `report["behaviour"]`.
bool check_far_offsets(nlohmann::json& report);

/// Guards, repeatability under load, graph replay, refused calls; `small`: on small problems, a few runs of each. Adds rows to
/// `report["behaviour"]`.
bool check_behaviour(nlohmann::json& report, bool small);

/// Relative errors of every gradient against the adjoint in double. Adds rows to `report["gradients"]`.
bool check_backward_accuracy(nlohmann::json& report, bool quick, const std::string& regime);

/// Strided tensors, forward and backward. Adds rows to `report["behaviour"]`.
bool check_strided(nlohmann::json& report);

/// The same for decode.
bool check_decode_behaviour(nlohmann::json& report, bool small);

/// Tensors that begin at any element, and launches that fail. Adds rows to `report["behaviour"]`.
bool check_misaligned(nlohmann::json& report);

/// The gate's kernel alone, against double. Adds rows to `report["behaviour"]`.
bool check_gates_alone(nlohmann::json& report);

/// The transition alone, against double. Adds rows to `report["behaviour"]`.
bool check_transition_alone(nlohmann::json& report);

/// The same as check_behaviour for the backward pass.
bool check_backward_behaviour(nlohmann::json& report, bool small);

/// Medians of graph replays beside the copy bandwidth of the same run. Adds rows to `report["timing"]`.
/// `sweep` tries other cuts into blocks and warps, `shapes` ("slices,producers,stages,sharing;...") those that it names; `filter` keeps
/// rows whose "kernel case" contains it.
void measure(nlohmann::json& report, bool sweep, const std::string& shapes, const std::string& filter);

/// Writes what kernels of others are to be run on, and what double gives for it, as a safetensors file: the inputs of the timed cases, and
/// some regimes of the accuracy checks. Throws if it cannot be written.
void write_peer_cases(const std::string& file);

/// Adds rows that another program measured on this machine and these inputs (kernels/plugin/python/adapters/time_fla.py) to `report`,
/// after measure(). Throws if the file cannot be read.
void add_peers(nlohmann::json& report, const std::string& file);

} // namespace kdacheck::cuda
