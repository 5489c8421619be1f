// Elimination along known pivots, and solves with the factors.
//
// Items of a batch are factored and solved in lanes: a group of 4 items side by side, or one, so that one index serves
// the numbers of all of them, and processors with vector registers compute them at once. Lanes know nothing of each
// other, and every lane does what one item alone would do, in that order: results are equal to the bit for every width.
// The group that begins at item i has its numbers from i * count on, those of one place next to each other.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "elimination.hpp"
#include "kernels.hpp"
#include "parallel.hpp"
#include "triangular.hpp"

namespace backsolve {

// Calls group.template operator()<Lanes>(first, part) for each group of a batch and each of `parts`, threads permitting.
template <class Group>
void for_lanes(std::int64_t batch, std::int64_t parts, std::int64_t work, const Group& group) {
  const std::int64_t wide = batch / 4, groups = wide + batch % 4;
  for_chunks(groups * parts, work, [&](std::int64_t chunk) {
    const std::int64_t at = chunk / parts, part = chunk % parts;
    if (at < wide) group.template operator()<4>(at * 4, part);
    else group.template operator()<1>(wide * 4 + (at - wide), part);
  });
}

// The modulus, up to a factor of √2 for complex numbers.
inline double rough_size(double v) { return std::fabs(v); }
inline double rough_size(std::complex<double> v) { return std::fabs(v.real()) + std::fabs(v.imag()); }

// w -= l v in every lane, for Panel columns. The vector type says that nothing overlaps, which compilers cannot know.
template <int Lanes, int Panel, class W>
[[gnu::always_inline]] inline void subtract_columns(W* w, const W* l, const W* v) {
#if defined(__GNUC__)
  if constexpr (std::is_same_v<W, double>) {
    constexpr int width = Lanes == 1 ? Panel : Lanes;
    typedef double Vector __attribute__((vector_size(8 * width), aligned(8), may_alias));
    const Vector left = Lanes == 1 ? Vector{} + *l : *reinterpret_cast<const Vector*>(l);
    for (int p = 0; p < Panel * Lanes; p += width)
      *reinterpret_cast<Vector*>(w + p) -= left * *reinterpret_cast<const Vector*>(v + p);
    return;
  }
#endif
  for (int p = 0; p < Panel; ++p)
    for (int c = 0; c < Lanes; ++c) w[p * Lanes + c] -= times(l[c], v[p * Lanes + c]);
}

// What `eliminate` does for the columns of one panel but for its verdict; work is (n, Panel, Lanes) zeros.
// `largest` becomes the size of the largest candidate for each pivot.
template <int Lanes, int Panel, class T, class W>
[[gnu::always_inline]] inline void eliminate_panel(const Elimination& e, std::int64_t panel, const T* data, W* l, W* u,
                                                   W* pivots, const double* scale, W* work, double* largest) {
  constexpr std::int64_t size = std::int64_t{Lanes} * Panel;
  const Rows<std::int32_t>& a = e.pattern.rows();
  const std::int64_t nnz = e.pattern.nnz(), first = e.panels[panel];
  std::int32_t next[Panel];  // places in `upper` of what each column is to lose
  for (int p = 0; p < Panel; ++p) {
    const std::int32_t from = e.column[first + p];
    next[p] = e.upper.indptr[first + p];
    for (std::int32_t at = a.indptr[from]; at < a.indptr[from + 1]; ++at) {
      const std::int64_t i = e.place[a.indices[at]];
      for (int c = 0; c < Lanes; ++c)
        work[i * size + p * Lanes + c] = static_cast<W>(data[c * nnz + at]) / scale[i * Lanes + c];
    }
  }
  for (std::int32_t at = e.before.indptr[panel]; at < e.before.indptr[panel + 1]; ++at) {
    const std::int64_t j = e.before.indices[at];
    W v[size];
    bool nothing = true;
    for (int p = 0; p < size; ++p) {
      v[p] = work[j * size + p];
      work[j * size + p] = W{};
      nothing = nothing && v[p] == W{};
    }
    for (int p = 0; p < Panel; ++p)
      if (next[p] < e.upper.indptr[first + p + 1] && e.upper.indices[next[p]] == j)
        std::copy_n(v + p * Lanes, Lanes, u + std::int64_t{next[p]++} * Lanes);
    if (j < e.first[first] || nothing) continue;
    for (std::int64_t down = e.lower.indptr[j]; down < e.lower.indptr[j + 1]; ++down)
      subtract_columns<Lanes, Panel>(work + e.lower.indices[down] * size, l + down * Lanes, v);
  }
  for (int p = 0; p < Panel; ++p) {
    const std::int64_t k = first + p;
    W* column = work + p * Lanes;
    for (std::int64_t at = next[p]; at < e.upper.indptr[k + 1]; ++at) {  // columns of the panel itself
      const std::int64_t j = e.upper.indices[at];
      W v[Lanes];
      for (int c = 0; c < Lanes; ++c) {
        v[c] = u[at * Lanes + c] = column[j * size + c];
        column[j * size + c] = W{};
      }
      for (std::int64_t down = e.lower.indptr[j]; down < e.lower.indptr[j + 1]; ++down)
        subtract_columns<Lanes, 1>(column + e.lower.indices[down] * size, l + down * Lanes, v);
    }
    W* pivot = pivots + k * Lanes;
    for (int c = 0; c < Lanes; ++c) {
      pivot[c] = column[k * size + c];
      column[k * size + c] = W{};
      largest[p * Lanes + c] = 0;
    }
    for (std::int64_t at = e.lower.indptr[k]; at < e.lower.indptr[k + 1]; ++at) {
      W* v = column + e.lower.indices[at] * size;
      for (int c = 0; c < Lanes; ++c) {
        largest[p * Lanes + c] = Norms::larger(largest[p * Lanes + c], rough_size(v[c]));
        l[at * Lanes + c] = over(v[c], pivot[c]);
        v[c] = W{};
      }
    }
  }
}

// Factors the items of a group; work is n * 4 * Lanes zeros. data is (Lanes, nnz), all else in lanes. failed[c] becomes
// the first position whose pivot is zero, not finite or less than `threshold` times the largest candidate of its column;
// -1 if all pivots will do. What follows it in that lane has no meaning.
template <int Lanes, class T, class W>
BACKSOLVE_FOR_THE_PROCESSOR
void eliminate(const Elimination& e, const T* data, W* l, W* u, W* pivots, double* scale, W* work, std::int64_t* failed,
               double threshold) {
  const Rows<std::int32_t>& a = e.pattern.rows();
  const std::int64_t nnz = e.pattern.nnz();
  std::fill_n(scale, e.n * Lanes, 0.0);
  std::fill_n(failed, Lanes, std::int64_t{-1});
  for (std::int64_t at = 0; at < nnz; ++at) {
    double* largest = scale + std::int64_t{e.place[a.indices[at]]} * Lanes;
    for (int c = 0; c < Lanes; ++c) largest[c] = std::max(largest[c], magnitude(static_cast<wide_t<T>>(data[c * nnz + at])));
  }
  for (std::int64_t i = 0; i < e.n * Lanes; ++i)
    if (scale[i] == 0) scale[i] = 1;
  for (std::size_t panel = 0; panel + 1 < e.panels.size(); ++panel) {
    const std::int64_t first = e.panels[panel], width = e.panels[panel + 1] - first;
    double largest[4 * Lanes];
    if (width == 4) eliminate_panel<Lanes, 4>(e, panel, data, l, u, pivots, scale, work, largest);
    else if (width == 2) eliminate_panel<Lanes, 2>(e, panel, data, l, u, pivots, scale, work, largest);
    else eliminate_panel<Lanes, 1>(e, panel, data, l, u, pivots, scale, work, largest);
    bool over_with = true;
    for (int c = 0; c < Lanes; ++c) {
      for (std::int64_t p = 0; p < width && failed[c] < 0; ++p) {
        const double size = rough_size(pivots[(first + p) * Lanes + c]), rival = largest[p * Lanes + c];
        if (!(size > 0 && size >= threshold * rival && std::isfinite(size) && std::isfinite(rival))) failed[c] = first + p;
      }
      over_with = over_with && failed[c] >= 0;
    }
    if (over_with) return;
  }
}

// data is (batch, nnz); l, u, pivots, scale and failed are what `eliminate` makes of each group.
template <class T>
void eliminate_all(const Elimination& e, const T* data, wide_t<T>* l, wide_t<T>* u, wide_t<T>* pivots, double* scale,
                   std::int64_t* failed, std::int64_t batch, double threshold) {
  // Elimination is worth a thread long before a product with as many entries is.
  for_lanes(batch, 1, 8 * batch * e.nnz(), [&]<int Lanes>(std::int64_t at, std::int64_t) {
    std::vector<wide_t<T>> work(static_cast<std::size_t>(e.n * 4 * Lanes));
    eliminate<Lanes>(e, data + at * e.pattern.nnz(), l + at * e.lower.nnz(), u + at * e.upper.nnz(), pivots + at * e.n,
                     scale + at * e.n, work.data(), failed + at, threshold);
  });
}

// y -= m v for every column (Width) of every lane, or with conj(m).
template <int Lanes, int Width, bool Conjugate, class W>
inline void subtract(W* y, const W* m, const W* v) {
  for (int w = 0; w < Width; ++w)
    for (int c = 0; c < Lanes; ++c) y[w * Lanes + c] -= times(Conjugate ? conjugate(m[c]) : m[c], v[w * Lanes + c]);
}
template <int Lanes, int Width, bool Conjugate, class W>
inline void divide(W* y, const W* m) {
  for (int w = 0; w < Width; ++w)
    for (int c = 0; c < Lanes; ++c) y[w * Lanes + c] = over(y[w * Lanes + c], Conjugate ? conjugate(m[c]) : m[c]);
}

// K y = r in place, y being (n, Width, Lanes): from the last block to the first.
template <int Lanes, int Width, bool Conjugate, class W>
BACKSOLVE_FOR_THE_PROCESSOR
void solve_forward(const Elimination& e, const W* l, const W* u, const W* pivots, W* y) {
  constexpr std::int64_t size = std::int64_t{Lanes} * Width;
  for (std::int64_t end = e.n; end > 0;) {
    const std::int64_t begin = e.first[end - 1];
    for (std::int64_t k = begin; k < end; ++k)
      for (std::int64_t at = e.lower.indptr[k]; at < e.lower.indptr[k + 1]; ++at)
        subtract<Lanes, Width, Conjugate>(y + e.lower.indices[at] * size, l + at * Lanes, y + k * size);
    for (std::int64_t k = end - 1; k >= begin; --k) {
      divide<Lanes, Width, Conjugate>(y + k * size, pivots + k * Lanes);
      for (std::int64_t at = e.upper.indptr[k]; at < e.upper.indptr[k + 1]; ++at)
        subtract<Lanes, Width, Conjugate>(y + e.upper.indices[at] * size, u + at * Lanes, y + k * size);
    }
    end = begin;
  }
}

// K^T y = r in place, y being (n, Width, Lanes): from the first block to the last.
template <int Lanes, int Width, class W>
BACKSOLVE_FOR_THE_PROCESSOR
void solve_transposed(const Elimination& e, const W* l, const W* u, const W* pivots, W* y) {
  constexpr std::int64_t size = std::int64_t{Lanes} * Width;
  for (std::int64_t begin = 0, end; begin < e.n; begin = end) {
    for (end = begin; end < e.n && e.first[end] == begin; ++end) {
      W sum[size];
      std::copy_n(y + end * size, size, sum);
      for (std::int64_t at = e.upper.indptr[end]; at < e.upper.indptr[end + 1]; ++at)
        subtract<Lanes, Width, false>(sum, u + at * Lanes, y + e.upper.indices[at] * size);
      divide<Lanes, Width, false>(sum, pivots + end * Lanes);
      std::copy_n(sum, size, y + end * size);
    }
    for (std::int64_t k = end - 1; k >= begin; --k) {
      W sum[size];
      std::copy_n(y + k * size, size, sum);
      for (std::int64_t at = e.lower.indptr[k]; at < e.lower.indptr[k + 1]; ++at)
        subtract<Lanes, Width, false>(sum, l + at * Lanes, y + e.lower.indices[at] * size);
      std::copy_n(sum, size, y + k * size);
    }
  }
}

// One group: in and out are (Lanes, n, k) from the first of Width columns on.
template <int Lanes, int Width, class T>
void solve_group(const Elimination& e, const wide_t<T>* l, const wide_t<T>* u, const wide_t<T>* pivots,
                 const double* scale, const T* in, T* out, std::int64_t k, bool adjoint) {
  using W = wide_t<T>;
  std::vector<W> y(static_cast<std::size_t>(e.n * Width * Lanes));
  const auto each = [&](const auto& call) {
    for (std::int64_t i = 0; i < e.n; ++i)
      for (int w = 0; w < Width; ++w)
        for (int c = 0; c < Lanes; ++c)
          call(i, c, y[(i * Width + w) * Lanes + c], (c * e.n) * k + w);
  };
  if (adjoint) {
    each([&](std::int64_t i, int c, W& v, std::int64_t at) { v = static_cast<W>(in[at + e.row[i] * k]) / scale[i * Lanes + c]; });
    solve_forward<Lanes, Width, true>(e, l, u, pivots, y.data());
    each([&](std::int64_t i, int, W& v, std::int64_t at) { out[at + e.column[i] * k] = static_cast<T>(v); });
  } else {
    each([&](std::int64_t i, int, W& v, std::int64_t at) { v = static_cast<W>(in[at + e.column[i] * k]); });
    solve_transposed<Lanes, Width>(e, l, u, pivots, y.data());
    each([&](std::int64_t i, int c, W& v, std::int64_t at) { out[at + e.row[i] * k] = static_cast<T>(v / scale[i * Lanes + c]); });
  }
}

// A x = b, or A^H x = b: M^T x = b and conj(M) x = b. b and x are (batch, n, k).
template <class T>
void solve_eliminated(const Elimination& e, const wide_t<T>* l, const wide_t<T>* u, const wide_t<T>* pivots,
                      const double* scale, const T* b, T* x, std::int64_t batch, std::int64_t k, bool adjoint) {
  constexpr std::int64_t together = 8;
  const std::int64_t n = e.n, parts = (k + together - 1) / together;
  for_lanes(batch, parts, batch * e.nnz() * k, [&]<int Lanes>(std::int64_t item, std::int64_t part) {
    const auto some = [&]<int Width>(std::int64_t k0) {
      const std::int64_t at = item * n * k + part * together + k0;
      solve_group<Lanes, Width>(e, l + item * e.lower.nnz(), u + item * e.upper.nnz(), pivots + item * n,
                                scale + item * n, b + at, x + at, k, adjoint);
    };
    const std::int64_t columns = std::min(together, k - part * together);
    if constexpr (Lanes == 1) {
      for_columns(columns, some);
    } else {
      std::int64_t c = 0;
      for (; columns - c >= 4; c += 4) some.template operator()<4>(c);
      for (; c < columns; ++c) some.template operator()<1>(c);
    }
  });
}

}  // namespace backsolve
