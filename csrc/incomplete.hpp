// Incomplete elimination on the pattern of A: A ~ (L + D) D^-1 (D + U), with L, D, U on the stored places of A.
//
// Row i takes, for each stored k < i in order, (w_ik / d_k) u_kj off its entries j > k (Saad, algorithm 10.4, with w_ik
// left unscaled). What would fall on places that are not stored is dropped, and `relaxation` times its sum is put on the
// diagonal (Gustafsson 1978): 0 gives ILU(0), 1 keeps the row sums. For Hermitian A, U = L^H: that is IC(0) or MIC.
// Before, `shift` |a_ii| is added to every diagonal entry with its own phase (Manteuffel 1980).
#pragma once

#include <cmath>
#include <cstdint>
#include <new>
#include <span>
#include <vector>

#include "kernels.hpp"
#include "parallel.hpp"
#include "pattern.hpp"
#include "triangular.hpp"

namespace backsolve {

inline constexpr std::int64_t kNoMemory = -2;

// Row of the first pivot that is zero, not finite or, where `definite`, not real and positive; -1 if there is none.
template <class I, class T>
std::int64_t eliminate_incompletely(const Pattern<I>& pattern, const T* a, T* w, double relaxation, double shift,
                                    bool definite) {
  using W = wide_t<T>;
  const Rows<I>& rows = pattern.rows();
  const std::int64_t n = pattern.n_rows;
  std::vector<I> place(static_cast<std::size_t>(n), I{-1});
  std::vector<I> diagonal(static_cast<std::size_t>(n), I{-1});
  std::vector<W> row;
  for (std::int64_t i = 0; i < n; ++i) {
    const I begin = rows.indptr[i], end = rows.indptr[i + 1];
    row.resize(static_cast<std::size_t>(end - begin));
    for (I e = begin; e < end; ++e) {
      const std::int64_t j = rows.indices[e];
      place[j] = e - begin;
      row[e - begin] = static_cast<W>(a[e]);
      if (j == i) {
        diagonal[i] = e;
        row[e - begin] *= 1.0 + shift;
      }
    }
    if (diagonal[i] < 0) return i;
    W dropped{};
    for (I e = begin; e < end && rows.indices[e] < i; ++e) {
      const std::int64_t k = rows.indices[e];
      const W factor = over(row[e - begin], static_cast<W>(w[diagonal[k]]));
      for (I f = diagonal[k] + 1; f < rows.indptr[k + 1]; ++f) {
        const W fill = times(factor, static_cast<W>(w[f]));
        const I at = place[rows.indices[f]];
        if (at >= 0) row[at] -= fill;
        else dropped += fill;
      }
    }
    row[diagonal[i] - begin] -= relaxation * dropped;
    for (I e = begin; e < end; ++e) {
      w[e] = static_cast<T>(row[e - begin]);
      place[rows.indices[e]] = I{-1};
    }
    const W pivot = static_cast<W>(w[diagonal[i]]);
    const double size = magnitude(pivot);
    if (!(size > 0) || !std::isfinite(size)) return i;
    if (definite && !(std::real(pivot) > 0.5 * size)) return i;
  }
  return -1;
}

// Item by item with the first of `shifts` that does, or the last.
template <class I, class T>
void eliminate_incompletely_all(const Pattern<I>& pattern, const T* data, T* w, std::span<const double> shifts,
                                std::int64_t* failed, std::int64_t batch, double relaxation, bool definite) {
  for_chunks(batch, batch * pattern.nnz() * 8, [&](std::int64_t at) {
    const std::int64_t here = at * pattern.nnz();
    try {
      for (const double shift : shifts) {
        failed[at] = eliminate_incompletely(pattern, data + here, w + here, relaxation, shift, definite);
        if (failed[at] < 0) break;
      }
    } catch (const std::bad_alloc&) {
      failed[at] = kNoMemory;
    }
  });
}

}  // namespace backsolve
