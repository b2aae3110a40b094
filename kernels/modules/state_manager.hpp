#pragma once
// StateManager: owns the recurrent states of a batch, steps them, and keeps checkpoints to return to.
//
//   S <- (I - beta k k^T) Diag(alpha) S + beta k v^T        per sequence and head, S [K,V] fp32, zero at first
//
// Source: Kimi Linear technical report (arXiv 2510.26692), eq. 1. Sizes in bytes, steps in tokens.

#include "cache_lines.hpp"
#include "dplr_transition.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <future>
#include <span>
#include <string>
#include <vector>

namespace kdacheck::modules {

struct StateSettings {
  StateShape largest;                      ///< B is the largest batch; all memory for states is taken at once
  std::int64_t checkpoint_interval = 1000; ///< steps between checkpoints taken by `update`; 0: none
  std::int64_t checkpoints_kept = 10;      ///< at least 1; beyond it the oldest go
  /// Empty: in memory alone. Else each checkpoint is written there too. A folder belongs to one run: it starts from
  /// `load_latest` or an empty folder, and only one program at a time writes there.
  std::filesystem::path folder{};
  /// With a folder: checkpoints are written by a thread of their own, one at a time, while later tokens run, and `update` does not
  /// wait for the disk. What uses the folder next waits, and throws the FileTrouble of that writing; the destructor waits and says
  /// nothing. A crash may lose the checkpoint that is being written, never the one before it.
  bool write_behind = false;
};

/// T tokens for the first B sequences: alpha, k [B,T,H,K]; beta [B,T,H]; v [B,T,H,V].
struct StateTokens {
  std::int64_t B = 1, T = 1;
  std::span<const float> alpha, k, beta, v;
};

/// What `update` repaired in one head of one sequence at one token.
struct StateFault {
  enum class Kind : std::uint8_t { restored, clipped };
  Kind kind = Kind::restored; ///< NaN: the state before the token is kept; infinity: those elements became +-1e6
  std::int64_t b = 0, h = 0;
  std::int64_t step = 0;     ///< steps done before that token
  std::int64_t elements = 0; ///< clipped elements; all K V where restored
  bool operator==(const StateFault&) const = default;
};

/// Bytes of heap memory that hold the manager's data: their sum is what its constructor and checkpoints allocated.
struct StateMemory {
  std::size_t states = 0;      ///< B H K V fp32
  std::size_t scratch = 0;     ///< a head's state per thread
  std::size_t checkpoints = 0; ///< states in checkpoints, those kept for reuse, and the one that is being written behind
  std::size_t bookkeeping = 0; ///< the list of checkpoints
  std::size_t total() const { return states + scratch + checkpoints + bookkeeping; }
};

class StateManager {
public:
  /// Throws std::invalid_argument for extents, interval or number of checkpoints out of range, FileTrouble
  /// (reference/atomic_file.hpp) if the folder cannot be made. Files that an earlier program left half-written there go.
  explicit StateManager(StateSettings);

  /// Steps the first B sequences through T tokens; many tokens in one call or one by one give the same bits and the same
  /// checkpoints. Returns the repairs, ordered by step, sequence and head. A repair touches no other head or sequence.
  /// Throws std::invalid_argument, having changed nothing, for B beyond the largest batch or a size that does not fit;
  /// FileTrouble if a checkpoint cannot be written (the states are stepped up to it and the checkpoint is in memory).
  std::vector<StateFault> update(const StateTokens&);

  /// Takes a checkpoint now; one of the same step is replaced. Throws FileTrouble as `update` does.
  void checkpoint();

  /// With write_behind: until the last checkpoint is on the disk. Throws its FileTrouble.
  void finish_writing();

  /// Returns to a checkpoint in memory; later ones go, their files too. Throws std::invalid_argument if there is none of
  /// that step.
  void restore(std::int64_t step);

  /// The states and the step in a file: safetensors with a checksum over both, whole under its name or not there. Throws
  /// FileTrouble.
  void save(const std::filesystem::path&) const;

  /// Takes states and step from a file; checkpoints of later steps go. Throws BadFile (reference/safetensors.hpp), having
  /// changed nothing, if the file is damaged or of another shape.
  void load(const std::filesystem::path&);

  /// Loads the latest checkpoint of the folder that is whole; damaged ones are passed over. False if there is none.
  bool load_latest();

  std::span<const float> states() const { return states_; } ///< [B,H,K,V] of the largest batch
  std::int64_t step() const { return step_; }
  std::vector<std::int64_t> checkpoint_steps() const;       ///< oldest first
  std::int64_t restored_count() const { return restored_; } ///< heads times tokens, since construction
  std::int64_t clipped_count() const { return clipped_; }   ///< elements, since construction
  StateMemory memory() const;

private:
  struct Checkpoint {
    std::int64_t step = 0;
    std::vector<float> states;
  };

  void step_heads(const StateTokens&, std::int64_t first, std::int64_t count, std::vector<StateFault>& faults);
  void forget_after(std::int64_t step);
  void write_behind();

  StateSettings settings_;
  AlignedFloats states_, scratch_;
  std::vector<Checkpoint> checkpoints_; ///< oldest first
  std::vector<std::vector<float>> spare_;
  std::vector<float> outgoing_; ///< what `writing_` reads
  std::future<void> writing_;   ///< after `outgoing_`: destroyed, and so waited for, before it
  std::int64_t step_ = 0, restored_ = 0, clipped_ = 0;
};

} // namespace kdacheck::modules
