// The columns of a matrix whose index arrays are read piece by piece, and whether columns that were read from somewhere
// are those of the rows.
//
// Columns are made by counting: once for the pointers, once for the entries, each time for as many columns as there is
// memory for. Positions are checked where they are read and written, as in local_view.hpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "local_view.hpp"

namespace backsolve::local {

// Counts the entries of each of the columns low <= j < high among `count` indices.
template <class I>
void count_columns(const I* idx, std::int64_t count, std::int64_t n, std::int64_t low, std::int64_t high,
                   std::int64_t* counts) {
  for (std::int64_t k = 0; k < count; ++k) {
    const std::int64_t j = idx[k];
    if (static_cast<std::uint64_t>(j) >= static_cast<std::uint64_t>(n))
      malformed("indices must lie in [0, " + std::to_string(n) + "); got " + std::to_string(j) + ".");
    if (j >= low && j < high) ++counts[j - low];
  }
}

// Rows first, first + 1, ... of a matrix: `ptr` has their positions in the whole matrix, `idx` their indices alone.
template <class P, class I>
struct Piece {
  std::int64_t first, rows, count;
  const P* ptr;
  const I* idx;
};

// Puts the entries of the columns low <= j < high of a piece behind those of earlier pieces: `next[j - low]` is the place
// of the next entry of column j in t_idx and slot, which have `room` places.
template <class P, class I>
void scatter_columns(const Piece<P, I>& piece, std::int64_t low, std::int64_t high, std::int64_t* next, I* t_idx, P* slot,
                     std::int64_t room) {
  const std::int64_t base = piece.ptr[0];
  for (std::int64_t r = 0; r < piece.rows; ++r) {
    const std::int64_t begin = piece.ptr[r], end = piece.ptr[r + 1];
    if (base < 0 || begin < base || end < begin || end - base > piece.count) malformed("indptr must not decrease.");
    for (std::int64_t k = begin - base; k < end - base; ++k) {
      const std::int64_t j = piece.idx[k];
      if (j < low || j >= high) continue;
      const std::int64_t place = next[j - low]++;
      if (static_cast<std::uint64_t>(place) >= static_cast<std::uint64_t>(room))
        malformed("the indices changed while their columns were counted.");
      t_idx[place] = static_cast<I>(piece.first + r);
      slot[place] = static_cast<P>(base + k);
    }
  }
}

// The first of the columns first <= j < last with an entry that is not one of the rows, or not behind the one before it,
// or -1. Where all columns pass and hold as many entries as the rows, they are the transpose: no entry is there twice.
template <class P, class I, class T>
std::int64_t foreign_column(const View<P, I, T>& rows, const View<P, I, T>& columns, std::int64_t first, std::int64_t last) {
  for (std::int64_t j = first; j < last; ++j) {
    const auto [begin, end] = columns.range(j);
    std::int64_t before = -1;
    for (std::int64_t k = begin; k < end; ++k) {
      const std::int64_t i = columns.idx[k], s = columns.slot[k];
      if (s <= before || s >= rows.stored || i < 0 || i >= rows.n || static_cast<std::int64_t>(rows.idx[s]) != j) return j;
      const auto [from, to] = rows.range(i);
      if (s < from || s >= to) return j;
      before = s;
    }
  }
  return -1;
}

// The first entry (i, j) of the rows first <= i < last without one of the same value at (j, i), or (-1, -1). Rows are
// sorted; without values only places are compared.
template <class P, class I, class T>
std::pair<std::int64_t, std::int64_t> without_mirror(const View<P, I, T>& rows, std::int64_t first, std::int64_t last) {
  for (std::int64_t i = first; i < last; ++i) {
    const auto [begin, end] = rows.range(i);
    for (std::int64_t k = begin; k < end; ++k) {
      const std::int64_t j = rows.idx[k];
      if (j < 0 || j >= rows.n) return {i, j};
      const auto [from, to] = rows.range(j);
      const I* found = std::lower_bound(rows.idx + from, rows.idx + to, static_cast<I>(i));
      if (found == rows.idx + to || static_cast<std::int64_t>(*found) != i) return {i, j};
      if (rows.val && rows.val[k] != rows.val[found - rows.idx]) return {i, j};
    }
  }
  return {-1, -1};
}

}  // namespace backsolve::local
