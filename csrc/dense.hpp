// Dense matrices of a batch, item by item in threads: LAPACK, whose functions the caller hands over, and the residual.
//
// Matrices are (batch, n, n) in C order. LAPACK counts columns first: to it each item is A^T. So A^T is factored, which
// chooses pivots along the rows of A, and A x = b is solved with the transpose of what was factored; nothing is turned.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "kernels.hpp"
#include "parallel.hpp"

namespace backsolve {

template <class T> using Getrf = void (*)(int* m, int* n, T* a, int* lda, int* pivots, int* info);
template <class T>
using Getrs = void (*)(char* trans, int* n, int* k, T* a, int* lda, int* pivots, T* b, int* ldb, int* info);
template <class T> using Potrf = void (*)(char* uplo, int* n, T* a, int* lda, int* info);
template <class T> using Potrs = void (*)(char* uplo, int* n, int* k, T* a, int* lda, T* b, int* ldb, int* info);

// Calls item(i) for all items: in threads where BLAS takes no threads itself.
template <class Item>
void for_items(std::int64_t batch, std::int64_t n, std::int64_t work, const Item& item) {
  for_chunks(batch, n <= 128 ? work : 0, item);
}

// A tile of 4 x 4 numbers.
template <class T>
inline void turn_tile(const T* from, T* to, std::int64_t rows, std::int64_t columns) {
#if defined(__GNUC__) && !defined(__clang__)
  if constexpr (std::is_same_v<T, double>) {
    typedef double Vector __attribute__((vector_size(32), aligned(8), may_alias));
    typedef std::int64_t Places __attribute__((vector_size(32)));
    const auto row = [&](std::int64_t i) { return reinterpret_cast<const Vector*>(from + i * columns); };
    const Vector a = *row(0), b = *row(1), c = *row(2), d = *row(3);
    const Vector ab0 = __builtin_shuffle(a, b, Places{0, 4, 2, 6}), ab1 = __builtin_shuffle(a, b, Places{1, 5, 3, 7});
    const Vector cd0 = __builtin_shuffle(c, d, Places{0, 4, 2, 6}), cd1 = __builtin_shuffle(c, d, Places{1, 5, 3, 7});
    const auto put = [&](std::int64_t j, Vector v) { *reinterpret_cast<Vector*>(to + j * rows) = v; };
    put(0, __builtin_shuffle(ab0, cd0, Places{0, 1, 4, 5}));
    put(1, __builtin_shuffle(ab1, cd1, Places{0, 1, 4, 5}));
    put(2, __builtin_shuffle(ab0, cd0, Places{2, 3, 6, 7}));
    put(3, __builtin_shuffle(ab1, cd1, Places{2, 3, 6, 7}));
    return;
  }
#endif
  T kept[4][4];
  for (std::int64_t i = 0; i < 4; ++i)
    for (std::int64_t j = 0; j < 4; ++j) kept[j][i] = from[i * columns + j];
  for (std::int64_t j = 0; j < 4; ++j) std::copy_n(kept[j], 4, to + j * rows);
}

// to[j * rows + i] = from[i * columns + j], tile by tile.
template <class T>
BACKSOLVE_FOR_THE_PROCESSOR
void turn(const T* from, T* to, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t tile = 4;
  for (std::int64_t i0 = 0; i0 < rows; i0 += tile)
    for (std::int64_t j0 = 0; j0 < columns; j0 += tile) {
      if (i0 + tile <= rows && j0 + tile <= columns) {
        turn_tile(from + i0 * columns + j0, to + j0 * rows + i0, rows, columns);
      } else {
        for (std::int64_t j = j0; j < std::min(j0 + tile, columns); ++j)
          for (std::int64_t i = i0; i < std::min(i0 + tile, rows); ++i) to[j * rows + i] = from[i * columns + j];
      }
    }
}

template <class T>
void lu_factor(Getrf<T> getrf, const T* a, T* lu, int* pivots, std::int64_t* info, std::int64_t batch, std::int64_t n) {
  for_items(batch, n, batch * n * n * n / 3, [&](std::int64_t at) {
    int size = static_cast<int>(n), found = 0;
    std::copy_n(a + at * n * n, n * n, lu + at * n * n);
    getrf(&size, &size, lu + at * n * n, &size, pivots + at * n, &found);
    info[at] = found;
  });
}

template <class T>
void cholesky(Potrf<T> potrf, const T* a, T* factor, std::int64_t* info, std::int64_t batch, std::int64_t n) {
  for_items(batch, n, batch * n * n * n / 6, [&](std::int64_t at) {
    int size = static_cast<int>(n), found = 0;
    char upper = 'U';  // of the turned item: what is read is the lower triangle of A
    std::copy_n(a + at * n * n, n * n, factor + at * n * n);
    potrf(&upper, &size, factor + at * n * n, &size, &found);
    info[at] = found;
  });
}

// Solves for b (batch, n, k), with call(item, columns) in place on (k, n).
template <bool Conjugate, class T, class Call>
void solve_items(const T* b, T* x, std::int64_t batch, std::int64_t n, std::int64_t k, const Call& call) {
  for_items(batch, n, batch * n * n * k, [&](std::int64_t at) {
    const std::int64_t size = n * k;
    std::vector<T> turned(static_cast<std::size_t>(k > 1 ? size : 0));
    T* columns = k > 1 ? turned.data() : x + at * size;
    if (k > 1) turn(b + at * size, columns, n, k);
    else std::copy_n(b + at * size, size, columns);
    const auto conjugate_all = [&](T* v) {
      if constexpr (Conjugate)
        for (std::int64_t e = 0; e < size; ++e) v[e] = conjugate(v[e]);
    };
    conjugate_all(columns);
    call(at, columns);
    conjugate_all(columns);
    if (k > 1) turn(columns, x + at * size, k, n);
  });
}

template <class T>
void lu_solve(Getrs<T> getrs, const T* lu, const int* pivots, const T* b, T* x, std::int64_t batch, std::int64_t n,
              std::int64_t k, bool adjoint) {
  const auto call = [&](std::int64_t at, T* columns) {
    int size = static_cast<int>(n), count = static_cast<int>(k), info = 0;
    char trans = adjoint ? 'N' : 'T';
    getrs(&trans, &size, &count, const_cast<T*>(lu + at * n * n), &size, const_cast<int*>(pivots + at * n), columns,
          &size, &info);
  };
  constexpr bool is_complex = !std::is_floating_point_v<T>;  // A^H x = b is A^T conj(x) = conj(b)
  if (adjoint) solve_items<is_complex>(b, x, batch, n, k, call);
  else solve_items<false>(b, x, batch, n, k, call);
}

template <class T>
void cholesky_solve(Potrs<T> potrs, const T* factor, const T* b, T* x, std::int64_t batch, std::int64_t n,
                    std::int64_t k) {
  constexpr bool is_complex = !std::is_floating_point_v<T>;  // conj(A) conj(x) = conj(b)
  solve_items<is_complex>(b, x, batch, n, k, [&](std::int64_t at, T* columns) {
    int size = static_cast<int>(n), count = static_cast<int>(k), info = 0;
    char upper = 'U';
    potrs(&upper, &size, &count, const_cast<T*>(factor + at * n * n), &size, columns, &size, &info);
  });
}

// Sums of a row: a_j x_j, |a_j| |x_j| and |a_j|, in 8 interleaved parts that processors can add at once.
struct RowSums {
  double weight, size;
};
template <class W, class T>
BACKSOLVE_FOR_THE_PROCESSOR
RowSums row_sums(const T* a, const W* x, const double* x_size, std::int64_t n, W& product) {
  constexpr int parts = 8;
#if defined(__GNUC__)
  if constexpr (std::is_same_v<T, double>) {
    typedef double Vector __attribute__((vector_size(32), aligned(8), may_alias));
    Vector sum[2]{}, weight[2]{}, size[2]{};
    std::int64_t j = 0;
    for (; j + parts <= n; j += parts)
      for (int half = 0; half < 2; ++half) {
        const std::int64_t at = j + 4 * half;
        const Vector v = *reinterpret_cast<const Vector*>(a + at), v_size = v < 0.0 ? -v : v;
        sum[half] += v * *reinterpret_cast<const Vector*>(x + at);
        weight[half] += v_size * *reinterpret_cast<const Vector*>(x_size + at);
        size[half] += v_size;
      }
    RowSums total{0, 0};
    product = 0;
    for (int half = 0; half < 2; ++half)
      for (int p = 0; p < 4; ++p)
        product += sum[half][p], total.weight += weight[half][p], total.size += size[half][p];
    for (; j < n; ++j) product += a[j] * x[j], total.weight += magnitude(a[j]) * x_size[j], total.size += magnitude(a[j]);
    return total;
  }
#endif
  W sum[parts] = {};
  double weight[parts] = {}, size[parts] = {};
  const auto take = [&](std::int64_t j, int p) {
    const W v = static_cast<W>(a[j]);
    const double v_size = magnitude(v);
    sum[p] += times(v, x[j]);
    weight[p] += v_size * x_size[j];
    size[p] += v_size;
  };
  std::int64_t j = 0;
  for (; j + parts <= n; j += parts)
    for (int p = 0; p < parts; ++p) take(j + p, p);
  for (; j < n; ++j) take(j, 0);
  RowSums total{0, 0};
  product = W{};
  for (int p = 0; p < parts; ++p) product += sum[p], total.weight += weight[p], total.size += size[p];
  return total;
}

// r = b - A x or b - A^H x of (batch, n, k), and (batch, k, 11) norms as kernels.hpp's `residual` has them.
template <class T>
void dense_residual(const T* data, const T* x, const T* b, T* r, double* norms, std::int64_t batch, std::int64_t n,
                    std::int64_t k, bool adjoint) {
  using W = wide_t<T>;
  for_chunks(batch, 2 * batch * n * n * k, [&](std::int64_t at) {
    std::vector<T> turned(static_cast<std::size_t>(adjoint ? n * n : 0));
    const T* a = data + at * n * n;
    if (adjoint) {
      turn(a, turned.data(), n, n);
      if constexpr (!std::is_floating_point_v<T>)
        for (T& v : turned) v = conjugate(v);
      a = turned.data();
    }
    std::vector<W> column(static_cast<std::size_t>(n));
    std::vector<double> sizes(static_cast<std::size_t>(n));
    for (std::int64_t c = 0; c < k; ++c) {
      Norms found;
      for (std::int64_t j = 0; j < n; ++j) {
        column[j] = static_cast<W>(x[(at * n + j) * k + c]);
        sizes[j] = magnitude(column[j]);
      }
      for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t here = (at * n + i) * k + c;
        W product;
        const RowSums sums = row_sums(a + i * n, column.data(), sizes.data(), n, product);
        found.add_row(column[i], static_cast<W>(b[here]), product, sums.weight, sums.size, r[here]);
      }
      found.write(norms + (at * k + c) * kNorms);
    }
  });
}

}  // namespace backsolve
