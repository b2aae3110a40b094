#pragma once
// The certified forward pass of a whole problem in one arithmetic. Heads and sequences are independent: they are shared
// among threads, and no result depends on how many there are.

#include "certified_forward.hpp"
#include "enclosed_store.hpp"
#include "strict_arithmetic.hpp"

#include <omp.h>

#include <exception>

namespace kdacheck::certified {

/// Tokens whose effective inputs are kept at a time, so that they stay in cache while the columns pass over them.
inline constexpr std::int64_t forward_segment = 32;

/// Columns j .. j + lanes of the initial state, or zero; exact.
template <class A> inline void load_state(const HeadRows& rows, std::int64_t j, ColumnState<A>& columns) {
  using Column = typename A::Column;
  using Real = Bound<Column>;
  const auto [B, T, H, HV, K, V] = rows.problem.shape;
  const auto& initial = rows.problem.initial_state;
  columns.state.assign(static_cast<std::size_t>(padded_channels(K)), Column{});
  Real square{};
  for (std::int64_t i = 0; i < K && !initial.empty(); ++i) {
    const Real x = load_lanes<Real>(initial.data() + rows.state() + static_cast<std::size_t>(i * V + j), V - j);
    columns.state[static_cast<std::size_t>(i)] = exactly<Column>(x);
    square = square + x * x;
  }
  columns.bound = {.rho = Real{}, .norm = column_norm(square)};
}

/// Column blocks of a head: V in packs.
template <class A> inline std::int64_t column_blocks(const Problem& problem) {
  constexpr std::int64_t lanes = lanes_of<Bound<typename A::Column>>;
  return (problem.shape.V + lanes - 1) / lanes;
}

/// Blocks that pass through a segment together and share what is loaded of the inputs, where a register holds one: two packs of two
/// registers, or sums of wide numbers, fill all registers by themselves.
template <class A>
inline constexpr std::size_t blocks_at_once = std::is_same_v<typename A::Column, Pack> && std::is_same_v<Pack, RegisterPack> ? 2 : 1;

/// o and final_state of one value head of one sequence, `segment_length` tokens at a time; before each segment,
/// `at_segment(first, columns)` sees the state of all column blocks.
template <class A> inline void run_forward_head(const HeadRows& rows, Truth& truth, std::int64_t segment_length, auto at_segment) {
  using Column = typename A::Column;
  using Real = Bound<Column>;
  constexpr std::int64_t lanes = lanes_of<Real>;
  const std::int64_t K = rows.problem.shape.K, V = rows.problem.shape.V;
  const std::int64_t blocks = column_blocks<A>(rows.problem);
  const SegmentBuilder<A> builder(rows);
  const ForwardStep<A> step(rows.problem);
  std::vector<ColumnState<A>> columns(static_cast<std::size_t>(blocks));
  for (std::int64_t block = 0; block < blocks; ++block) load_state<A>(rows, block * lanes, columns[static_cast<std::size_t>(block)]);

  Segment<A> segment;
  for (std::int64_t first = 0; first < rows.sequence.length; first += segment_length) {
    at_segment(first, columns);
    builder.build(first, std::min(segment_length, rows.sequence.length - first), segment);
    const auto on_blocks = [&]<std::size_t count>(std::int64_t block) {
      const auto column = [&](std::size_t c) { return (block + static_cast<std::int64_t>(c)) * lanes; };
      const auto at = [&](std::int64_t t, std::size_t c) {
        return rows.value_row(first + t) * static_cast<std::size_t>(V) + static_cast<std::size_t>(column(c));
      };
      std::array<ColumnState<A>*, count> here;
      for (std::size_t c = 0; c < count; ++c) here[c] = &columns[static_cast<std::size_t>(block) + c];
      step(
          segment,
          [&](std::int64_t t, std::size_t c) { return exactly<Column>(load_lanes<Real>(rows.problem.v.data() + at(t, c), V - column(c))); },
          here,
          [&](std::int64_t t, std::size_t c, const TokenResult<A>& result) {
            store_columns(truth.o, at(t, c), V - column(c), result.output, result.output_radius);
          });
    };
    std::int64_t block = 0;
    for (; block + static_cast<std::int64_t>(blocks_at_once<A>) <= blocks; block += blocks_at_once<A>)
      on_blocks.template operator()<blocks_at_once<A>>(block);
    for (; block < blocks; ++block) on_blocks.template operator()<1>(block);
  }
  for (std::int64_t block = 0; block < blocks; ++block)
    for (std::int64_t i = 0; i < K; ++i) {
      const auto& column = columns[static_cast<std::size_t>(block)];
      store_columns(truth.final_state, rows.state() + static_cast<std::size_t>(i * V + block * lanes), V - block * lanes,
                    column.state[static_cast<std::size_t>(i)], column.bound.rho);
    }
}

/// Threads for a loop of that many independent jobs: one where the caller is already one of several.
inline int threads_for(std::int64_t jobs) {
  if (omp_in_parallel()) return 1;
  return static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(jobs, omp_get_max_threads())));
}

/// Runs independent jobs on threads whose arithmetic is strict. What a job throws, or std::runtime_error where a thread's
/// arithmetic is not strict, is thrown here when all are done.
inline void for_each_job(std::int64_t jobs, auto run) {
  std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic) num_threads(threads_for(jobs))
  for (std::int64_t job = 0; job < jobs; ++job) {
    try {
      require_strict_arithmetic();
      run(job);
    } catch (...) {
#pragma omp critical(kdacheck_certified_failure)
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

/// Makes room for o and final_state.
template <class A> inline void allocate_outputs(const Problem& problem, Truth& truth) {
  const std::int64_t N = sequence_count(problem);
  truth.o = make_enclosed<typename A::Scalar>(element_count(shape_of(Output::o, problem.shape, N)));
  truth.final_state = make_enclosed<typename A::Scalar>(element_count(shape_of(Output::final_state, problem.shape, N)));
}

/// Fills o and final_state.
template <class A> inline void run_forward(const Problem& problem, Truth& truth) {
  require_strict_arithmetic();
  const std::int64_t N = sequence_count(problem), HV = problem.shape.HV;
  allocate_outputs<A>(problem, truth);
  const std::vector<Sequence> all = sequences(problem);
  for_each_job(N * HV, [&](std::int64_t job) {
    const typename A::Precision precision(truth.bits);
    run_forward_head<A>({problem, all[static_cast<std::size_t>(job / HV)], job % HV}, truth, forward_segment,
                        [](std::int64_t, const std::vector<ColumnState<A>>&) {});
  });
}

} // namespace kdacheck::certified
