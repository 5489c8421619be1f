// The structure of a sparse matrix: CSR index arrays, owned, checked once, never changed.
//
// Every kernel reads indices from here and nowhere else. The constructor refuses whatever would lead a
// kernel outside its arrays, so kernels need to check the sizes of value arrays only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

namespace backsolve {

enum class Defect : int {
  none = 0,
  not_canonical = 1,  // usable after sorting and summing: unsorted or repeated columns in a row
  indptr_length = -1,
  indptr_start = -2,
  indptr_decreases = -3,
  indptr_end = -4,
  index_range = -5,
};

struct Diagnosis {
  Defect defect;
  std::int64_t position;  // row or entry
  std::int64_t value;     // what stands there
};

template <class I>
Diagnosis diagnose(const I* indptr, std::int64_t indptr_size, const I* indices, std::int64_t nnz,
                   std::int64_t n_rows, std::int64_t n_cols) {
  if (n_rows < 0 || n_cols < 0 || indptr_size != n_rows + 1) return {Defect::indptr_length, 0, indptr_size};
  if (indptr[0] != 0) return {Defect::indptr_start, 0, indptr[0]};
  for (std::int64_t i = 0; i < n_rows; ++i)
    if (indptr[i + 1] < indptr[i]) return {Defect::indptr_decreases, i + 1, indptr[i + 1]};
  if (indptr[n_rows] != nnz) return {Defect::indptr_end, n_rows, indptr[n_rows]};
  for (std::int64_t e = 0; e < nnz; ++e)
    if (indices[e] < 0 || indices[e] >= n_cols) return {Defect::index_range, e, indices[e]};
  for (std::int64_t i = 0; i < n_rows; ++i)
    for (std::int64_t e = indptr[i] + 1; e < indptr[i + 1]; ++e)
      if (indices[e] <= indices[e - 1]) return {Defect::not_canonical, e, indices[e]};
  return {Defect::none, 0, 0};
}

// Row ranges of roughly equal work.
template <class I>
std::vector<std::int64_t> make_chunks(const std::vector<I>& indptr) {
  constexpr std::int64_t target = 1 << 15;
  const std::int64_t n = static_cast<std::int64_t>(indptr.size()) - 1;
  std::vector<std::int64_t> starts{0};
  std::int64_t begin = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    if ((indptr[i + 1] - indptr[begin]) + 4 * (i + 1 - begin) >= target) {
      starts.push_back(i + 1);
      begin = i + 1;
    }
  }
  if (starts.back() != n) starts.push_back(n);
  return starts;
}

// Rows of A, or rows of its transpose: for a transposed view, `slot[e]` says where in A's values entry e lies.
template <class I>
struct Rows {
  std::vector<I> indptr, indices, slot;
  std::vector<std::int64_t> chunks;
  std::int64_t chunk_count() const { return static_cast<std::int64_t>(chunks.size()) - 1; }
};

template <class I>
class Pattern : public std::enable_shared_from_this<Pattern<I>> {
 public:
  std::int64_t n_rows, n_cols;

  Pattern(const I* indptr, std::int64_t indptr_size, const I* indices, std::int64_t nnz, std::int64_t rows,
          std::int64_t cols)
      : n_rows(rows), n_cols(cols) {
    if (diagnose(indptr, indptr_size, indices, nnz, rows, cols).defect != Defect::none)
      throw std::invalid_argument("Pattern: indptr and indices are not a canonical CSR structure");
    forward_.indptr.assign(indptr, indptr + indptr_size);
    forward_.indices.assign(indices, indices + nnz);
    forward_.chunks = make_chunks(forward_.indptr);
  }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  std::int64_t nnz() const { return static_cast<std::int64_t>(forward_.indices.size()); }
  const Rows<I>& rows() const { return forward_; }

  // The rows of the transpose, made at first use: a counting sort, O(nnz + n).
  const Rows<I>& columns() const {
    std::call_once(transposed_, [this] {
      const auto& a = forward_;
      auto& t = backward_;
      t.indptr.assign(static_cast<std::size_t>(n_cols) + 1, 0);
      for (const I j : a.indices) ++t.indptr[j + 1];
      std::partial_sum(t.indptr.begin(), t.indptr.end(), t.indptr.begin());
      t.indices.resize(a.indices.size());
      t.slot.resize(a.indices.size());
      std::vector<I> next(t.indptr.begin(), t.indptr.end() - 1);
      for (std::int64_t i = 0; i < n_rows; ++i)
        for (I e = a.indptr[i]; e < a.indptr[i + 1]; ++e) {
          const I to = next[a.indices[e]]++;
          t.indices[to] = static_cast<I>(i);
          t.slot[to] = e;
        }
      t.chunks = make_chunks(t.indptr);
    });
    return backward_;
  }

  // Place of each diagonal entry among the values, -1 where none is stored.
  std::vector<I> diagonal() const {
    std::vector<I> slots(static_cast<std::size_t>(std::min(n_rows, n_cols)), I{-1});
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(slots.size()); ++i) {
      const auto begin = forward_.indices.begin() + forward_.indptr[i];
      const auto end = forward_.indices.begin() + forward_.indptr[i + 1];
      const auto found = std::lower_bound(begin, end, static_cast<I>(i));
      if (found != end && *found == i) slots[i] = static_cast<I>(found - forward_.indices.begin());
    }
    return slots;
  }

  // Off-diagonal entries (i, j), and how many of them have (j, i) stored too: rows of A merged with those of its transpose.
  std::pair<std::int64_t, std::int64_t> mirrored() const {
    const auto& t = columns();
    std::int64_t off = 0, both = 0;
    for (std::int64_t i = 0; i < std::min(n_rows, n_cols); ++i) {
      I u = t.indptr[i];
      for (I e = forward_.indptr[i]; e < forward_.indptr[i + 1]; ++e) {
        const I j = forward_.indices[e];
        if (j == i) continue;
        ++off;
        while (u < t.indptr[i + 1] && t.indices[u] < j) ++u;
        if (u < t.indptr[i + 1] && t.indices[u] == j) ++both;
      }
    }
    return {off, both};
  }

 private:
  Rows<I> forward_;
  mutable Rows<I> backward_;
  mutable std::once_flag transposed_;
};

// Triplets (row, column) in any order, with repeats, to canonical CSR: two stable counting sorts, O(nnz + n); a
// dimension far above the number of triplets is sorted by comparison instead, without an array of its size.
// slots[t] is the place of triplet t among the canonical values.
template <class I>
struct Canonical {
  std::vector<I> indptr, indices, slots;
};

template <class I>
Canonical<I> canonicalise(const I* rows, const I* cols, std::int64_t count, std::int64_t n_rows,
                          std::int64_t n_cols) {
  for (std::int64_t t = 0; t < count; ++t)
    if (rows[t] < 0 || rows[t] >= n_rows || cols[t] < 0 || cols[t] >= n_cols)
      throw std::invalid_argument("canonicalise: an index is out of range");
  const auto stable_by = [count](const I* key, std::int64_t size, const std::vector<I>* before) {
    std::vector<I> order(count);
    if (size / 8 > count + 1024) {
      if (before) order = *before; else std::iota(order.begin(), order.end(), I{0});
      std::stable_sort(order.begin(), order.end(), [key](I a, I b) { return key[a] < key[b]; });
      return order;
    }
    std::vector<I> next(static_cast<std::size_t>(size) + 1, 0);
    for (std::int64_t t = 0; t < count; ++t) ++next[key[t] + 1];
    std::partial_sum(next.begin(), next.end(), next.begin());
    for (std::int64_t t = 0; t < count; ++t) {
      const I from = before ? (*before)[t] : static_cast<I>(t);
      order[next[key[from]]++] = from;
    }
    return order;
  };
  const std::vector<I> by_col = stable_by(cols, n_cols, nullptr);
  const std::vector<I> order = stable_by(rows, n_rows, &by_col);

  Canonical<I> out;
  out.indptr.assign(static_cast<std::size_t>(n_rows) + 1, 0);
  out.slots.resize(count);
  out.indices.reserve(count);
  for (std::int64_t t = 0; t < count; ++t) {
    const I now = order[t];
    const bool repeated = t > 0 && rows[order[t - 1]] == rows[now] && cols[order[t - 1]] == cols[now];
    if (!repeated) {
      out.indices.push_back(cols[now]);
      ++out.indptr[rows[now] + 1];
    }
    out.slots[now] = static_cast<I>(out.indices.size() - 1);
  }
  std::partial_sum(out.indptr.begin(), out.indptr.end(), out.indptr.begin());
  return out;
}

}  // namespace backsolve
