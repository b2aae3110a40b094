#include "head_spread.hpp"

#include "perturbed/dplr_chunk_run.hpp"
#include "perturbed/kda_chunk_run.hpp"
#include "perturbed/recurrence_run.hpp"
#include "perturbed/worse_of.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>

namespace kdacheck {
namespace {

constexpr std::int64_t recurrence_span = 64; // tokens of a pure recurrence that are run between two look-ins

/// Every algorithm for one kind of number, with its scratch memory.
template <class Run> struct Algorithms {
  using Number = typename Run::Number;
  KdaChunkRun<Run> kda;
  DplrChunkRun<Run> dplr;
  bool general;
  RecurrenceRun<Run> recurrence;

  Algorithms(const Contract& contract, const Head& head, const Roundings& roundings)
      : kda(head, roundings), dplr(head, roundings), general(head.dplr), recurrence(head, roundings, contract.chunk) {}

  const std::vector<Number>& advance(const ChunkFactors& f, Order order, Run& run, std::vector<Number>& state) {
    if (order == Order::recurrence) {
      recurrence.advance(f.first, f.n, run, state);
      return recurrence.output();
    }
    if (general) {
      dplr.advance(f, order, run, state);
      return dplr.output();
    }
    kda.advance(f, order, run, state);
    return kda.output();
  }
};

template <class Number> std::vector<Number> initial_state(const Head& head) {
  std::vector<Number> state;
  state.reserve(head.state.size());
  for (double x : head.state) state.push_back(Number{} + x);
  return state;
}

/// One batch of draws of one submodel, on its way through the head.
template <NoiseModel model> struct Trial {
  Perturbed<model> run;
  std::vector<Lanes> state, channel;
};

/// Eight draws of every noise model, and the noise-free run whose accumulation errors they share.
struct Batch {
  Tape tape;
  std::optional<Recorder> recorder;
  std::vector<double> state;
  std::optional<Trial<NoiseModel::independent>> independent;
  std::optional<Trial<NoiseModel::grid>> grid;
  std::optional<Trial<NoiseModel::grid_of_pairs>> pairs;
};

void add(Moments& moments, Lanes squares, double factor) {
  for (int lane = 0; lane < draws_per_batch; ++lane) {
    const double x = squares[lane] * factor;
    moments.second += x;
    moments.fourth += x * x;
  }
}

/// The errors of a token or state row, pooled over all value columns as a comparison pools them: where one large column errs
/// more than all others together, its error is the line's, with the scatter of a single one.
struct Line {
  const Head& head;
  Lanes squares{}, relative{}; ///< of the columns looked at; the same, each divided by its size

  void add(Lanes square, std::int64_t column) {
    squares += square;
    const double size = head.weight[static_cast<std::size_t>(column)];
    relative += square * (1 / (size * size));
  }
  /// Or, where that is larger, as if every column erred by its size as they all do on average. All columns pass one linear map with one set
  /// of operand errors: with e_j the error of column j and s_j its size, E (e_j / s_j)^2 is the same for all columns, and sum e_j^2 as well
  /// as (mean (e_j / s_j)^2) sum s_j^2 have the mean of the line's error. The first has the scatter of the largest column alone where one
  /// rules the line, the second that of the average of all; the larger of the two in every draw errs to the safe side only, and by little.
  /// With one column that rules the line and a normal error, X = chi^2_1 against 1:
  ///   E max(X, 1) = 1 + P(chi^2_3 > 1) - P(chi^2_1 > 1) = 1.48: sigma is at most 1.22 times what it should be;
  ///   E max(X, 1)^2 = P(chi^2_1 < 1) + 3 P(chi^2_5 > 1) = 3.57, so that the degrees of freedom (confidence.hpp) are taken for 1.6 rather
  ///   than 1, and z for 5.4 rather than 6.1: the line is allowed 1.08 times what its own draws allow when there are many of them.
  /// Of few draws the first may be far too small: the mean of eight chi^2_1 lies below a fifth of its mean with probability 0.009, and a
  /// case has hundreds of lines. The second stands in for it then.
  Lanes mean_square() const {
    const double count = static_cast<double>(head.V), columns = 1 / static_cast<double>(head.all_columns);
    double all = head.unseen;
    for (double size : head.weight) all += size * size;
    const Lanes own = (squares + relative * (head.unseen / count)) * columns, alike = relative * (all / count * columns);
    const Lanes more = alike - own;
    return own + select(more > 0.0, more, Lanes{});
  }
};

std::vector<Order> orders_of(const Contract& contract, bool coarse) {
  if (contract.order != Order::undeclared) return {contract.order};
  if (coarse) return {Order::residual_first, Order::wy};
  return {Order::residual_first, Order::wy, Order::recurrence};
}

class Spreading {
public:
  Spreading(const Contract& contract, const Head& head, const HeadTruth& truth, bool overflows = true)
      : roundings_(roundings_of(contract, overflows)), head_(head), truth_(truth), orders_(orders_of(contract, roundings_.coarse)),
        plain_(contract, head, roundings_), independent_(contract, head, roundings_), grid_(contract, head, roundings_),
        pairs_(contract, head, roundings_) {
    const bool chunked = std::any_of(orders_.begin(), orders_.end(), [](Order order) { return order != Order::recurrence; });
    span_ = chunked ? std::max<std::int64_t>(contract.chunk, 1) : recurrence_span;
    for (std::int64_t first = 0; first < head.tokens; first += span_) {
      const std::int64_t n = std::min(span_, head.tokens - first);
      if (chunked) {
        factors_.push_back(chunk_factors(head, first, n, contract.scores));
      } else {
        factors_.emplace_back();
        factors_.back().first = first;
        factors_.back().n = n;
      }
    }
  }

  std::vector<HeadSpread> run(std::uint64_t seed, int batches, Submodels submodels) {
    const bool all = takes_all(submodels);
    std::vector<HeadSpread> result;
    for (std::size_t i = 0; i < (all ? orders_.size() : 1); ++i) {
      const bool pairs = all && orders_[i] != Order::recurrence;
      HeadSpread of_independent = empty(), of_grid = empty(), of_pairs = empty();
      follow(orders_[i], scatter(seed + i), batches, of_independent, all ? &of_grid : nullptr, pairs ? &of_pairs : nullptr);
      result.push_back(std::move(of_independent));
      if (all) result.push_back(std::move(of_grid));
      if (pairs) result.push_back(std::move(of_pairs));
    }
    return result;
  }

  double deviation() {
    double largest = 0;
    for (Order order : orders_) {
      Tape tape;
      Recorder recorder(0, roundings_.accumulate, tape);
      std::vector<double> state = initial_state<double>(head_);
      double error = 0, size = 1e-300;
      const auto compare = [&](double x, double exact) {
        error = worse_of(error, std::abs(x - exact));
        size = std::max(size, std::abs(exact));
      };
      for (const ChunkFactors& f : factors_) {
        const auto& o = plain_.advance(f, order, recorder, state);
        for (std::size_t i = 0; i < o.size(); ++i) compare(o[i], truth_.o[static_cast<std::size_t>(f.first * head_.V) + i]);
      }
      for (std::size_t i = 0; i < state.size(); ++i) compare(state[i], truth_.state[i]);
      largest = worse_of(largest, error / size);
    }
    return largest;
  }

private:
  HeadSpread empty() const {
    HeadSpread spread;
    spread.token.resize(static_cast<std::size_t>(head_.tokens));
    spread.channel.resize(static_cast<std::size_t>(head_.V));
    spread.column.resize(spread.channel.size());
    spread.row.resize(static_cast<std::size_t>(head_.K));
    return spread;
  }

  template <NoiseModel model> Trial<model> trial(std::uint64_t seed, Tape& tape) const {
    return {
        {scatter(seed), roundings_.accumulates, tape}, initial_state<Lanes>(head_), std::vector<Lanes>(static_cast<std::size_t>(head_.V))};
  }

  /// All batches of one order walk through the chunks together, so that a tape holds one chunk at a time.
  void follow(Order order, std::uint64_t seed, int batches, HeadSpread& of_independent, HeadSpread* of_grid, HeadSpread* of_pairs) {
    std::deque<Batch> all;
    for (int batch = 0; batch < batches; ++batch) {
      const std::uint64_t stream = scatter(seed + static_cast<std::uint64_t>(batch));
      Batch& b = all.emplace_back();
      b.state = initial_state<double>(head_);
      b.recorder.emplace(scatter(stream), roundings_.accumulate, b.tape, of_grid != nullptr);
      b.independent.emplace(trial<NoiseModel::independent>(stream + 1, b.tape));
      b.grid.emplace(trial<NoiseModel::grid>(stream + 2, b.tape));
      b.pairs.emplace(trial<NoiseModel::grid_of_pairs>(stream + 3, b.tape));
    }
    for (const ChunkFactors& f : factors_)
      for (Batch& b : all) {
        b.tape.clear();
        if (roundings_.accumulates) plain_.advance(f, order, *b.recorder, b.state);
        advance(independent_, f, order, b.tape, *b.independent, of_independent);
        if (of_grid) advance(grid_, f, order, b.tape, *b.grid, *of_grid);
        if (of_pairs) advance(pairs_, f, order, b.tape, *b.pairs, *of_pairs);
      }
    for (Batch& b : all) {
      finish(*b.independent, of_independent);
      if (of_grid) finish(*b.grid, *of_grid);
      if (of_pairs) finish(*b.pairs, *of_pairs);
    }
  }

  template <NoiseModel model>
  void advance(Algorithms<Perturbed<model>>& algorithms, const ChunkFactors& f, Order order, Tape& tape, Trial<model>& trial,
               HeadSpread& spread) {
    const std::int64_t V = head_.V;
    tape.next = 0;
    const std::vector<Lanes>& o = algorithms.advance(f, order, trial.run, trial.state);
    for (std::int64_t i = 0; i < f.n; ++i) {
      Line line{head_};
      for (std::int64_t j = 0; j < V; ++j) {
        const Lanes error = o[static_cast<std::size_t>(i * V + j)] - truth_.o[static_cast<std::size_t>((f.first + i) * V + j)];
        line.add(error * error, j);
        trial.channel[static_cast<std::size_t>(j)] += error * error;
      }
      add(spread.token[static_cast<std::size_t>(f.first + i)], line.mean_square(), 1);
    }
  }

  template <NoiseModel model> void finish(Trial<model>& trial, HeadSpread& spread) {
    const std::int64_t K = head_.K, V = head_.V;
    std::vector<Lanes> column(static_cast<std::size_t>(V));
    for (std::int64_t c = 0; c < K; ++c) {
      Line row{head_};
      for (std::int64_t j = 0; j < V; ++j) {
        const auto entry = static_cast<std::size_t>(c * V + j);
        const Lanes error = trial.state[entry] - truth_.state[entry];
        row.add(error * error, j);
        column[static_cast<std::size_t>(j)] += error * error;
      }
      add(spread.row[static_cast<std::size_t>(c)], row.mean_square(), 1);
    }
    for (std::size_t j = 0; j < column.size(); ++j) {
      add(spread.column[j], column[j], 1 / static_cast<double>(K));
      add(spread.channel[j], trial.channel[j], 1 / static_cast<double>(std::max<std::int64_t>(head_.tokens, 1)));
    }
  }

  Roundings roundings_;
  const Head& head_;
  const HeadTruth& truth_;
  std::vector<Order> orders_;
  std::int64_t span_ = 1;
  std::vector<ChunkFactors> factors_;
  Algorithms<Recorder> plain_;
  Algorithms<Perturbed<NoiseModel::independent>> independent_;
  Algorithms<Perturbed<NoiseModel::grid>> grid_;
  Algorithms<Perturbed<NoiseModel::grid_of_pairs>> pairs_;
};

} // namespace

std::vector<HeadSpread> head_spread(const Contract& contract, const Head& head, const HeadTruth& truth, std::uint64_t seed, int batches,
                                    Submodels submodels) {
  return Spreading(contract, head, truth, submodels != Submodels::all_in_range).run(seed, batches, submodels);
}

double noise_free_deviation(const Contract& contract, const Head& head, const HeadTruth& truth) {
  return Spreading(contract, head, truth).deviation();
}

} // namespace kdacheck
