// The states that a reverse pass starts from where nothing is declared of how the forward pass was ordered. Token by token it leaves S_t
// wrong by rho_t, in the form of KDA or of the general rule: proved_recurrence.cpp, proved_general_recurrence.cpp. A pass in chunks errs
// by E at their ends, from the largest of E and rho at their own starts. Who goes back token by token finds the states between two that
// were kept again, from an error of max(E, rho) at the first. Each of these bounds is monotone in the error that it starts from, so that
// the largest holds for any sequence of chunks and tokens that meets at multiples of the shortest chunk.

#include "proved_starts.hpp"

#include "proved_chunk.hpp"
#include "proved_general.hpp"

namespace kdacheck {

MixedStarts mixed_starts(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t chunk,
                         const std::vector<std::int64_t>& lengths, const std::vector<Order>& orders) {
  MixedStarts starts;
  std::vector<double> token(static_cast<std::size_t>(head.tokens)), row(static_cast<std::size_t>(head.K));
  const auto by_token = [&](const ChunkStarts* kept) {
    std::vector<double> largest(static_cast<std::size_t>((head.tokens + 1) * head.V), 0.0), errors(largest);
    for (const auto bound : {bound_recurrence, bound_general_recurrence}) {
      if (head.dplr && bound == bound_recurrence) continue;
      bound(units, head, gate_floor, chunk, token.data(), row.data(), errors.data(), kept);
      for (std::size_t i = 0; i < errors.size(); ++i) largest[i] = std::max(largest[i], sane(errors[i]));
    }
    return largest;
  };
  starts.chunks = head.dplr ? chunk_starts<GeneralBound>(units, head, gate_floor, chunk, lengths, orders, by_token(nullptr))
                            : chunk_starts<ChunkBound, GeneralBound>(units, head, gate_floor, chunk, lengths, orders, by_token(nullptr));
  starts.tokens = by_token(&starts.chunks);
  return starts;
}

} // namespace kdacheck
