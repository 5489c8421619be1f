// What the two sides of a local solve, M x = b and M^T lam = t, give together.
#pragma once

#include <cstdint>
#include <vector>

#include "local_side.hpp"

namespace backsolve::local {

// phi = t.x + lam.r, whose error is s.M^-1 r exactly (s = t - M^T lam), with what rounding adds to it.
//
// With r^ for the computed r, |r - r^| <= tau: lam.r differs from lam.r^ by at most |lam|.tau. The sum of N products, each
// through at most N roundings, is within gamma(N) of the sum of their moduli, and within half of the least number for
// each product; that sum of moduli and |lam|.tau are computed within the same factor, and rounded up by `up`.
struct Functional {
  double value = 0;
  double rounding = 0;  // sum |lam| tau + gamma(p + q + 1) (|t|.|x| + |lam|.|r|), and underflow
};

template <class Side>
Functional functional(const Side& primal, const Side& dual, const std::int64_t* index, const double* t,
                             std::int64_t count) {
  const Subnormals kept;
  Functional found;
  double size = 0, lost = 0, terms = 0;
  const auto term = [&](double a, double b) {
    found.value += a * b;
    size += std::fabs(a * b);
    ++terms;
  };
  for (std::int64_t k = 0; k < count; ++k)
    if (const Site* s = primal.find(index[k]); s && s->x != 0) term(t[k], s->x);
  for (const std::int64_t i : dual.touched()) {
    const double lam = dual.find(i)->x;
    const Site* s = lam != 0 ? primal.find(i) : nullptr;
    if (!s) continue;
    term(lam, s->r);
    lost += std::fabs(lam) * primal.tau(*s);
  }
  const double up = 1 + 4 * gamma(terms + 16);
  found.rounding = (lost + gamma(terms + 1) * size) * up + (terms > 0 ? 4 * (terms + 1) * least() : 0);
  return found;
}

// Entries of the gradient of t.x by the values of M, -lam_i x_j where M has an entry (i, j): (value, row, column, -lam x).
struct Outer {
  std::vector<std::int64_t> slot, row, column;
  std::vector<double> value;
};

// Reads the lists of the side whose support has fewer entries. `rows` and `columns` are those of M.
template <class Side, class V>
Outer outer(const Side& primal, const Side& dual, const V& rows, const V& columns) {
  const auto volume = [](const Side& side, const V& lists) {
    std::int64_t sum = 0;
    for (const std::int64_t i : side.touched())
      if (side.find(i)->x != 0) sum += lists.count(i);
    return sum;
  };
  Outer out;
  const bool by_rows = volume(dual, rows) <= volume(primal, columns);
  const Side& own = by_rows ? dual : primal;
  const Side& other = by_rows ? primal : dual;
  const V& lists = by_rows ? rows : columns;
  for (const std::int64_t i : own.touched()) {
    const double a = own.find(i)->x;
    if (a == 0) continue;
    lists.each(i, [&](std::int64_t j, double, std::int64_t slot) {
      const Site* s = other.find(j);
      if (!s || s->x == 0) return;
      out.slot.push_back(slot);
      out.row.push_back(by_rows ? i : j);
      out.column.push_back(by_rows ? j : i);
      out.value.push_back(-(a * s->x));
    });
  }
  return out;
}

// N on the unknowns with x != 0 or with a push waiting at eps, as CSC arrays: what a Krylov method takes over.
struct Block {
  std::vector<std::int64_t> node, ptr, idx;
  std::vector<double> value;
};

template <class Side, class V>
Block block(const Side& side, const V& columns, double eps) {
  Block out;
  std::vector<std::int64_t> place(side.touched().size(), -1);
  for (const std::int64_t i : side.touched()) {
    const Site* s = side.find(i);
    if (s->x == 0 && !(std::fabs(s->r) > eps * s->weight)) continue;
    if (!columns.known(i)) continue;  // nothing rests on the block being whole
    place[s->place - 1] = static_cast<std::int64_t>(out.node.size());
    out.node.push_back(i);
  }
  out.ptr.push_back(0);
  for (const std::int64_t i : out.node) {
    columns.each(i, [&](std::int64_t j, double value, std::int64_t) {
      const Site* s = side.find(j);
      if (!s || place[s->place - 1] < 0) return;
      out.idx.push_back(place[s->place - 1]);
      out.value.push_back(value);
    });
    out.ptr.push_back(static_cast<std::int64_t>(out.idx.size()));
  }
  return out;
}

}  // namespace backsolve::local
