#include "chunk_intermediates.hpp"
#include "chunk_algebra.hpp"
#include "evaluate_in.hpp"

#include <boost/multiprecision/mpfr.hpp>

#include <stdexcept>

namespace kdacheck {
namespace {
using Real = boost::multiprecision::number<boost::multiprecision::mpfr_float_backend<50>, boost::multiprecision::et_off>;
} // namespace

std::vector<ChunkIntermediates> chunk_intermediates(const Problem& problem, std::int64_t C) {
  if (const auto sentence = malformed(problem)) throw std::invalid_argument(*sentence);
  if (C < 1) throw std::invalid_argument("chunk length must be at least 1, not " + std::to_string(C));
  std::vector<ChunkIntermediates> result;
  forward_by_chunks<Real>(problem, Exactly<Real>{problem}, C,
                          [&](const Sequence& sequence, std::int64_t head, std::int64_t first, const Chunk<Real>& chunk) {
                            result.push_back({.sequence = sequence.index,
                                              .head = head,
                                              .first = first,
                                              .length = chunk.O.rows,
                                              .G = to_digits(chunk.G.element),
                                              .start = to_digits(chunk.start.element),
                                              .Akk = to_digits(chunk.Akk.element),
                                              .Aqk = to_digits(chunk.Aqk.element),
                                              .Abk = to_digits(chunk.Abk.element),
                                              .Aqa = to_digits(chunk.Aqa.element),
                                              .T = to_digits(chunk.T.element),
                                              .W = to_digits(chunk.W.element),
                                              .U = to_digits(chunk.U.element),
                                              .O = to_digits(chunk.O.element),
                                              .end = to_digits(chunk.end.element)});
                          });
  return result;
}

} // namespace kdacheck
