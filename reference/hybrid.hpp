#pragma once
// A stack of KDA layers and latent attention layers in pre-norm residual blocks, with its reverse mode, of one sequence, in any
// number type:  h <- h + mixer(RMSNorm(h)).  Source: Kimi Linear technical report (arXiv 2510.26692), section 4.

#include "kda_layer_adjoint.hpp"
#include "latent_attention_adjoint.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

struct HybridForm {
  std::vector<bool> latent; ///< per layer: latent attention, or KDA
  LayerForm kda;
  LatentForm mla;
  double norm_epsilon = 1e-5;
};

/// Parameters of a block, or their gradients; of kda and mla the one that it has.
template <Number N> struct HybridTensors {
  std::vector<N> norm;
  LayerTensors<N> kda;
  LatentTensors<N> mla;
};

/// What a block remembers, or its gradient.
template <Number N> struct HybridMemory {
  LayerMemory<N> kda;
  Matrix<N> mla;
};

template <Number N> struct HybridRun {
  std::vector<Matrix<N>> h, normalised; ///< before every block, and y; what the mixers see
  std::vector<LayerRun<N>> kda;         ///< per layer, empty for the other kind
  std::vector<LatentRun<N>> mla;
  std::vector<HybridMemory<N>> end;
};

/// x [T,D]; chunk as in `run_layer`, absorbed as in `run_latent`.
template <Number N>
HybridRun<N> run_hybrid(const HybridForm& form, const std::vector<HybridTensors<N>>& p, const Matrix<N>& x,
                        const std::vector<HybridMemory<N>>& start, std::int64_t chunk = 0, bool absorbed = false) {
  HybridRun<N> run;
  run.h.push_back(x);
  run.kda.resize(p.size()), run.mla.resize(p.size()), run.end.resize(p.size());
  for (std::size_t l = 0; l < p.size(); ++l) {
    run.normalised.push_back(rms_normalised(run.h[l], p[l].norm, N(form.norm_epsilon)));
    if (form.latent[l]) {
      run.mla[l] = run_latent(form.mla, p[l].mla, run.normalised[l], start[l].mla, absorbed);
      run.end[l].mla = run.mla[l].end;
      run.h.push_back(run.h[l] + run.mla[l].y);
    } else {
      run.kda[l] = run_layer(form.kda, p[l].kda, run.normalised[l], start[l].kda, chunk);
      run.end[l].kda = run.kda[l].end;
      run.h.push_back(run.h[l] + run.kda[l].y);
    }
  }
  return run;
}

template <Number N> struct HybridReverse {
  Matrix<N> x;
  std::vector<HybridMemory<N>> start;
};

/// Adds to `d` what this sequence contributes to the parameters' gradients; run is `run_hybrid` of the same arguments.
template <Number N>
HybridReverse<N> hybrid_reverse(const HybridForm& form, const std::vector<HybridTensors<N>>& p, const std::vector<HybridMemory<N>>& start,
                                std::int64_t chunk, const HybridRun<N>& run, const Matrix<N>& d_y,
                                const std::vector<HybridMemory<N>>& d_end, std::vector<HybridTensors<N>>& d) {
  HybridReverse<N> result{d_y, std::vector<HybridMemory<N>>(p.size())};
  for (std::size_t l = p.size(); l-- > 0;) {
    Matrix<N> d_n;
    if (form.latent[l]) {
      LatentReverse<N> back =
          latent_reverse(form.mla, p[l].mla, run.normalised[l], start[l].mla, run.mla[l], result.x, d_end[l].mla, d[l].mla);
      d_n = std::move(back.x), result.start[l].mla = std::move(back.start);
    } else {
      LayerReverse<N> back = layer_reverse(form.kda, p[l].kda, run.normalised[l], chunk, run.kda[l], result.x, d_end[l].kda, d[l].kda);
      d_n = std::move(back.x), result.start[l].kda = std::move(back.start);
    }
    result.x = result.x + rms_normalised_reverse(run.h[l], p[l].norm, N(form.norm_epsilon), d_n, d[l].norm);
  }
  return result;
}

} // namespace kdacheck
