// Gaussian elimination along pivots that are known, for many matrices on one Pattern.
//
// The columns of M = A^T are the rows of A. With row scales S, rows and columns of S^-1 M in pivotal order are K, upper
// block triangular. Each diagonal block is L U, with L unit lower and U upper triangular; blocks above the diagonal stay
// as they are. So column k of K needs three lists: entries above its block, entries of U above the pivot (both in
// `upper`, in this order), and entries of L below the pivot. Values of L, U and pivots are double or complex double.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "kernels.hpp"
#include "parallel.hpp"
#include "pattern.hpp"
#include "triangular.hpp"

namespace backsolve {

// Lists of indices, one for each column.
struct Columns {
  std::vector<std::int32_t> indptr, indices;
  std::int64_t nnz() const { return static_cast<std::int64_t>(indices.size()); }
};

class Elimination {
 public:
  const Pattern<std::int32_t>& pattern;
  std::int64_t n;
  std::vector<std::int32_t> row, place;  // row[i]: row of M at position i; place: its inverse
  std::vector<std::int32_t> column;      // column[k]: column of M at position k
  std::vector<std::int32_t> first;       // first[k]: where the diagonal block of column k begins
  Columns lower, upper;

  // blocks are the bounds of the diagonal blocks; the indices of L and U are positions in the whole of K.
  Elimination(const Pattern<std::int32_t>& pattern_, const std::int32_t* rows, const std::int32_t* columns,
              const std::int32_t* blocks, std::int64_t block_count, const std::int32_t* l_count,
              const std::int32_t* l_indices, std::int64_t l_nnz, const std::int32_t* u_count,
              const std::int32_t* u_indices, std::int64_t u_nnz)
      : pattern(pattern_), n(pattern_.n_rows) {
    const auto refuse = [](bool bad) {
      if (bad) throw std::invalid_argument("Elimination: these pivots and factors do not belong to this Pattern");
    };
    refuse(pattern.n_cols != n);
    row.assign(rows, rows + n);
    column.assign(columns, columns + n);
    place.assign(static_cast<std::size_t>(n), -1);
    first.assign(static_cast<std::size_t>(n), -1);
    std::vector<bool> taken(static_cast<std::size_t>(n), false);
    for (std::int64_t i = 0; i < n; ++i) {
      refuse(row[i] < 0 || row[i] >= n || place[row[i]] >= 0);
      place[row[i]] = static_cast<std::int32_t>(i);
      refuse(column[i] < 0 || column[i] >= n || taken[column[i]]);
      taken[column[i]] = true;
    }
    refuse(blocks[0] != 0 || blocks[block_count] != n);
    for (std::int64_t block = 0; block < block_count; ++block) {
      refuse(blocks[block + 1] <= blocks[block] || blocks[block + 1] > n);
      std::fill(first.begin() + blocks[block], first.begin() + blocks[block + 1], blocks[block]);
    }
    std::int64_t l = 0, u = 0;
    lower.indptr.assign(1, 0);
    upper.indptr.assign(1, 0);
    lower.indices.reserve(static_cast<std::size_t>(l_nnz));
    upper.indices.reserve(static_cast<std::size_t>(u_nnz));
    std::vector<std::int32_t> seen(static_cast<std::size_t>(n), -1);  // the last column that lists a position
    for (std::int64_t k = 0; k < n; ++k) {
      const auto& a = pattern.rows();
      const auto begin = a.indices.begin() + a.indptr[column[k]], end = a.indices.begin() + a.indptr[column[k] + 1];
      seen[k] = static_cast<std::int32_t>(k);
      for (auto at = begin; at < end; ++at)
        if (place[*at] < first[k]) {
          upper.indices.push_back(place[*at]);
          seen[place[*at]] = static_cast<std::int32_t>(k);
        }
      refuse(u_count[k] < 0 || u + u_count[k] > u_nnz || l_count[k] < 0 || l + l_count[k] > l_nnz);
      for (const auto stop = u + u_count[k]; u < stop; ++u) {
        refuse(u_indices[u] < first[k] || u_indices[u] >= k);
        upper.indices.push_back(u_indices[u]);
        seen[u_indices[u]] = static_cast<std::int32_t>(k);
      }
      for (const auto stop = l + l_count[k]; l < stop; ++l) {
        refuse(l_indices[l] <= k || l_indices[l] >= n || first[l_indices[l]] != first[k]);
        lower.indices.push_back(l_indices[l]);
        seen[l_indices[l]] = static_cast<std::int32_t>(k);
      }
      for (auto at = begin; at < end; ++at) refuse(seen[place[*at]] != k);
      std::sort(lower.indices.begin() + lower.indptr.back(), lower.indices.end());
      std::sort(upper.indices.begin() + upper.indptr.back(), upper.indices.end());
      lower.indptr.push_back(static_cast<std::int32_t>(lower.nnz()));
      upper.indptr.push_back(static_cast<std::int32_t>(upper.nnz()));
    }
    refuse(l != l_nnz || u != u_nnz || std::max(lower.nnz(), upper.nnz()) > std::numeric_limits<std::int32_t>::max());
  }
  Elimination(const Elimination&) = delete;
  Elimination& operator=(const Elimination&) = delete;

  std::int64_t nnz() const { return lower.nnz() + upper.nnz() + n; }
};

// The modulus, up to a factor of √2 for complex numbers.
inline double rough_size(double v) { return std::fabs(v); }
inline double rough_size(std::complex<double> v) { return std::fabs(v.real()) + std::fabs(v.imag()); }

// Factors one item; work is n zeros, and is zeros again afterwards. Returns the first position whose pivot is zero, not
// finite or less than `threshold` times the largest candidate of its column; -1 if all pivots will do.
template <class T, class W>
std::int64_t eliminate(const Elimination& e, const T* data, W* l, W* u, W* pivots, double* scale, W* work,
                       double threshold) {
  const Rows<std::int32_t>& a = e.pattern.rows();
  std::fill_n(scale, e.n, 0.0);
  for (std::int64_t at = 0; at < e.pattern.nnz(); ++at) {
    double& largest = scale[e.place[a.indices[at]]];
    largest = std::max(largest, magnitude(static_cast<wide_t<T>>(data[at])));
  }
  for (std::int64_t i = 0; i < e.n; ++i)
    if (scale[i] == 0) scale[i] = 1;
  for (std::int64_t k = 0; k < e.n; ++k) {
    const std::int32_t from = e.column[k];
    for (std::int32_t at = a.indptr[from]; at < a.indptr[from + 1]; ++at) {
      const std::int32_t i = e.place[a.indices[at]];
      work[i] = static_cast<W>(data[at]) / scale[i];
    }
    for (std::int32_t at = e.upper.indptr[k]; at < e.upper.indptr[k + 1]; ++at) {
      const std::int32_t j = e.upper.indices[at];
      const W v = work[j];
      u[at] = v;
      work[j] = W{};
      if (j < e.first[k] || v == W{}) continue;
      for (std::int32_t down = e.lower.indptr[j]; down < e.lower.indptr[j + 1]; ++down)
        work[e.lower.indices[down]] -= times(l[down], v);
    }
    const W pivot = pivots[k] = work[k];
    work[k] = W{};
    double largest = 0;
    for (std::int32_t at = e.lower.indptr[k]; at < e.lower.indptr[k + 1]; ++at) {
      W& v = work[e.lower.indices[at]];
      largest = Norms::larger(largest, rough_size(v));
      l[at] = over(v, pivot);
      v = W{};
    }
    const double size = rough_size(pivot);
    if (!(size > 0 && size >= threshold * largest && std::isfinite(size) && std::isfinite(largest))) return k;
  }
  return -1;
}

// data is (batch, nnz); l, u, pivots, scale and failed are what `eliminate` makes of each item.
template <class T>
void eliminate_all(const Elimination& e, const T* data, wide_t<T>* l, wide_t<T>* u, wide_t<T>* pivots, double* scale,
                   std::int64_t* failed, std::int64_t batch, double threshold) {
  // One item is one chunk: elimination is worth a thread long before a product with as many entries is.
  for_chunks(batch, 8 * batch * e.nnz(), [&](std::int64_t at) {
    std::vector<wide_t<T>> work(static_cast<std::size_t>(e.n));
    failed[at] = eliminate(e, data + at * e.pattern.nnz(), l + at * e.lower.nnz(), u + at * e.upper.nnz(),
                           pivots + at * e.n, scale + at * e.n, work.data(), threshold);
  });
}

// K y = r for Width columns, in place: from the last block to the first.
template <int Width, bool Conjugate, class W>
void solve_forward(const Elimination& e, const W* l, const W* u, const W* pivots, W* y) {
  const auto entry = [](W v) { return Conjugate ? conjugate(v) : v; };
  for (std::int64_t end = e.n; end > 0;) {
    const std::int64_t begin = e.first[end - 1];
    for (std::int64_t k = begin; k < end; ++k)
      for (std::int32_t at = e.lower.indptr[k]; at < e.lower.indptr[k + 1]; ++at)
        for (int c = 0; c < Width; ++c)
          y[e.lower.indices[at] * std::int64_t{Width} + c] -= times(entry(l[at]), y[k * Width + c]);
    for (std::int64_t k = end - 1; k >= begin; --k) {
      for (int c = 0; c < Width; ++c) y[k * Width + c] = over(y[k * Width + c], entry(pivots[k]));
      for (std::int32_t at = e.upper.indptr[k]; at < e.upper.indptr[k + 1]; ++at)
        for (int c = 0; c < Width; ++c)
          y[e.upper.indices[at] * std::int64_t{Width} + c] -= times(entry(u[at]), y[k * Width + c]);
    }
    end = begin;
  }
}

// K^T y = r for Width columns, in place: from the first block to the last.
template <int Width, class W>
void solve_transposed(const Elimination& e, const W* l, const W* u, const W* pivots, W* y) {
  const auto minus = [&](const Columns& list, const W* values, std::int64_t k, W (&sum)[Width]) {
    for (std::int32_t at = list.indptr[k]; at < list.indptr[k + 1]; ++at)
      for (int c = 0; c < Width; ++c) sum[c] -= times(values[at], y[list.indices[at] * std::int64_t{Width} + c]);
  };
  for (std::int64_t begin = 0, end; begin < e.n; begin = end) {
    for (end = begin; end < e.n && e.first[end] == begin; ++end) {
      W sum[Width];
      for (int c = 0; c < Width; ++c) sum[c] = y[end * Width + c];
      minus(e.upper, u, end, sum);
      for (int c = 0; c < Width; ++c) y[end * Width + c] = over(sum[c], pivots[end]);
    }
    for (std::int64_t k = end - 1; k >= begin; --k) {
      W sum[Width];
      for (int c = 0; c < Width; ++c) sum[c] = y[k * Width + c];
      minus(e.lower, l, k, sum);
      for (int c = 0; c < Width; ++c) y[k * Width + c] = sum[c];
    }
  }
}

// A x = b, or A^H x = b: M^T x = b and conj(M) x = b. b and x are (batch, n, k).
template <class T>
void solve_eliminated(const Elimination& e, const wide_t<T>* l, const wide_t<T>* u, const wide_t<T>* pivots,
                      const double* scale, const T* b, T* x, std::int64_t batch, std::int64_t k, bool adjoint) {
  using W = wide_t<T>;
  constexpr std::int64_t width = 8;
  const std::int64_t n = e.n, groups = (k + width - 1) / width;
  for_chunks(batch * groups, batch * e.nnz() * k, [&](std::int64_t chunk) {
    const std::int64_t item = chunk / groups, left = chunk % groups * width;
    const W *li = l + item * e.lower.nnz(), *ui = u + item * e.upper.nnz(), *pi = pivots + item * n;
    const double* s = scale + item * n;
    for_columns(std::min(width, k - left), [&]<int Width>(std::int64_t k0) {
      const T* in = b + item * n * k + left + k0;
      T* out = x + item * n * k + left + k0;
      std::vector<W> y(static_cast<std::size_t>(n * Width));
      for (std::int64_t i = 0; i < n; ++i)
        for (int c = 0; c < Width; ++c)
          y[i * Width + c] = adjoint ? static_cast<W>(in[e.row[i] * k + c]) / s[i] : static_cast<W>(in[e.column[i] * k + c]);
      if (adjoint)
        solve_forward<Width, true>(e, li, ui, pi, y.data());
      else
        solve_transposed<Width>(e, li, ui, pi, y.data());
      for (std::int64_t i = 0; i < n; ++i)
        for (int c = 0; c < Width; ++c) {
          if (adjoint) out[e.column[i] * k + c] = static_cast<T>(y[i * Width + c]);
          else out[e.row[i] * k + c] = static_cast<T>(y[i * Width + c] / s[i]);
        }
    });
  });
}

}  // namespace backsolve
