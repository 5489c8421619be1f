// Substitution with one triangle of a sparse matrix: A x = b, or A^H x = b, both on the CSR rows of A.
//
// A lower: A x = b goes down the rows, x_i = (b_i - sum_{j<i} a_ij x_j) / a_ii. A^H x = b goes up them: row i of A
// is column i of A^H, so as soon as x_i is known, conj(a_ij) x_i is taken from the right-hand side of each j < i, and
// nothing is transposed. A upper is the mirror image. Values of the other triangle are not read.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels.hpp"
#include "parallel.hpp"
#include "pattern.hpp"

namespace backsolve {

// The part of a row inside the triangle: entries [begin, end) beside the diagonal, and the place of the diagonal
// entry, -1 where none is stored.
template <class I> struct HalfRow { I begin, end, diagonal; };

template <bool Lower, class I>
HalfRow<I> half_row(const Rows<I>& rows, std::int64_t i) {
  I begin = rows.indptr[i], end = rows.indptr[i + 1];
  if constexpr (Lower) {
    while (end > begin && rows.indices[end - 1] > i) --end;
    if (end == begin || rows.indices[end - 1] != i) return {begin, end, I{-1}};
    return {begin, static_cast<I>(end - 1), static_cast<I>(end - 1)};
  } else {
    while (begin < end && rows.indices[begin] < i) ++begin;
    if (begin == end || rows.indices[begin] != i) return {begin, end, I{-1}};
    return {static_cast<I>(begin + 1), end, begin};
  }
}

// Plain complex quotients, scaled by the larger part of p so that neither |p| nor its square leaves the range.
inline double over(double v, double p) { return v / p; }
inline std::complex<double> over(std::complex<double> v, std::complex<double> p) {
  const double size = std::max(std::fabs(p.real()), std::fabs(p.imag()));
  const std::complex<double> unit = p / size, w = times(v, conjugate(unit));
  return w / (square(unit) * size);
}

// Solves for Width columns of one item; b, x and rest point at the first of them, in rows of k numbers. rest, which
// may be x, holds what is left of the right-hand side of A^H x = b. False at a diagonal entry that is zero or missing.
template <bool Lower, bool Adjoint, int Width, class I, class T>
bool substitute(const Pattern<I>& pattern, const T* values, const T* b, T* x, wide_t<T>* rest, std::int64_t k) {
  using W = wide_t<T>;
  const Rows<I>& rows = pattern.rows();
  const std::int64_t n = pattern.n_rows;
  if constexpr (Adjoint)
    for (std::int64_t i = 0; i < n; ++i)
      for (int c = 0; c < Width; ++c) rest[i * k + c] = static_cast<W>(b[i * k + c]);
  for (std::int64_t step = 0; step < n; ++step) {
    const std::int64_t i = Lower != Adjoint ? step : n - 1 - step;
    const HalfRow<I> row = half_row<Lower>(rows, i);
    const W pivot = row.diagonal < 0 ? W{} : static_cast<W>(values[row.diagonal]);
    if (pivot == W{}) return false;
    W sum[Width];
    if constexpr (Adjoint) {
      const W divisor = conjugate(pivot);
      for (int c = 0; c < Width; ++c) {
        x[i * k + c] = static_cast<T>(over(rest[i * k + c], divisor));
        sum[c] = static_cast<W>(x[i * k + c]);
      }
      for (I e = row.begin; e < row.end; ++e) {
        const W a = conjugate(static_cast<W>(values[e]));
        W* left = rest + static_cast<std::int64_t>(rows.indices[e]) * k;
        for (int c = 0; c < Width; ++c) left[c] -= times(a, sum[c]);
      }
    } else {
      for (int c = 0; c < Width; ++c) sum[c] = static_cast<W>(b[i * k + c]);
      for (I e = row.begin; e < row.end; ++e) {
        const W a = static_cast<W>(values[e]);
        const T* known = x + static_cast<std::int64_t>(rows.indices[e]) * k;
        for (int c = 0; c < Width; ++c) sum[c] -= times(a, static_cast<W>(known[c]));
      }
      for (int c = 0; c < Width; ++c) x[i * k + c] = static_cast<T>(over(sum[c], pivot));
    }
  }
  return true;
}

// x is NaN for items with a diagonal entry that is zero or not stored. The pattern is square.
template <bool Lower, bool Adjoint, class I, class T>
void substitute_all(const Pattern<I>& pattern, const T* data, const T* b, T* x, std::int64_t batch, std::int64_t k) {
  using W = wide_t<T>;
  constexpr bool in_place = std::is_same_v<T, W>;
  constexpr std::int64_t width = 8;
  const std::int64_t n = pattern.n_rows, groups = (k + width - 1) / width;
  std::vector<W> wide(Adjoint && !in_place ? static_cast<std::size_t>(batch * n * k) : 0);
  for_chunks(batch * groups, batch * pattern.nnz() * k, [&](std::int64_t chunk) {
    const std::int64_t at = chunk / groups, first = chunk % groups * width;
    for_columns(std::min(width, k - first), [&]<int Width>(std::int64_t k0) {
      const std::int64_t here = at * n * k + first + k0;
      W* rest = nullptr;
      if constexpr (in_place) rest = x + here;
      else if constexpr (Adjoint) rest = wide.data() + here;
      if (!substitute<Lower, Adjoint, Width>(pattern, data + at * pattern.nnz(), b + here, x + here, rest, k))
        for (std::int64_t i = 0; i < n; ++i)
          std::fill_n(x + here + i * k, Width, static_cast<T>(std::numeric_limits<double>::quiet_NaN()));
    });
  });
}

template <class I, class T>
void solve_triangular(const Pattern<I>& pattern, const T* data, const T* b, T* x, std::int64_t batch, std::int64_t k,
                      bool lower, bool adjoint) {
  const auto solve = lower ? (adjoint ? substitute_all<true, true, I, T> : substitute_all<true, false, I, T>)
                           : (adjoint ? substitute_all<false, true, I, T> : substitute_all<false, false, I, T>);
  solve(pattern, data, b, x, batch, k);
}

}  // namespace backsolve
