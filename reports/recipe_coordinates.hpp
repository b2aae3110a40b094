#pragma once
// Where a recipe lies in the plane of decay and key correlation, from the parameters that it was drawn with.

#include "../properties/cases/recipe.hpp"

namespace kdacheck {

/// Typical |ln alpha| per token and channel: the median of the recipe's gate pattern (sparse resets: the mean), 0 without a gate.
double typical_decay(const Recipe&);

/// Squared part that two keys of a head share with its own direction: 0 independent ... 1 the same key in every token.
/// Keys of the exact patterns: the chance that two are equal up to their sign. Keys uniform in [0, 1): their cosine 3/4.
double key_correlation(const Recipe&);

} // namespace kdacheck
