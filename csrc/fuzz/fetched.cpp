// Matrices that are given by functions: lists that arrive while queries run, some of them wrong, in a hash of what was met.
#include <algorithm>
#include <utility>

#include "../local_fetched.hpp"
#include "../local_pairs.hpp"
#include "damaged.hpp"

namespace {

using namespace backsolve;
using fuzz::Random;
using Side = local::BasicSide<local::HashedSites<local::Site>>;
using Ids = std::vector<std::int64_t>;

// Rows and columns of a band of five diagonals, whose entries are hashes of their places.
struct Source {
  std::int64_t n;
  std::uint64_t salt;
  bool symmetric, broken;

  double value(std::int64_t i, std::int64_t j) const {
    if (i == j) return 5;
    if (symmetric && i > j) std::swap(i, j);
    std::uint64_t h = (static_cast<std::uint64_t>(i) * 0x9E3779B97F4A7C15u) ^ (static_cast<std::uint64_t>(j) + salt);
    h ^= h >> 31, h *= 0xbf58476d1ce4e5b9u, h ^= h >> 29;
    return static_cast<double>(static_cast<std::int64_t>(h % 2001) - 1000) / 1000;
  }

  void fetch(Random& g, local::Fetched& into, bool columns, const Ids& ids) const {
    Ids count, idx;
    std::vector<double> val;
    for (const std::int64_t i : ids) {
      Ids near;
      for (std::int64_t j = std::max<std::int64_t>(i - 2, 0); j <= std::min(i + 2, n - 1); ++j) near.push_back(j);
      std::shuffle(near.begin(), near.end(), g);
      for (const std::int64_t j : near) idx.push_back(j), val.push_back(columns ? value(j, i) : value(i, j));
      count.push_back(static_cast<std::int64_t>(near.size()));
      if (broken && g() % 50 == 0) spoil(g, count, idx, val);
    }
    into.append(columns, static_cast<std::int64_t>(ids.size()), ids.data(), count.data(), idx.data(), val.data(), nullptr);
  }

  static void spoil(Random& g, Ids& count, Ids& idx, std::vector<double>& val) {
    switch (g() % 5) {
      case 0: idx.back() = fuzz::any_integer<std::int64_t>(g); break;
      case 1: val.back() = fuzz::any_value<double>(g); break;
      case 2: val.back() += 1e-3; break;
      case 3: idx.back() = idx[idx.size() - static_cast<std::size_t>(count.back())]; break;
      default: idx.pop_back(), val.pop_back(), --count.back(); break;
    }
  }
};

void trial(Random& g, bool broken) {
  const Source source{g() % 3 ? static_cast<std::int64_t>(1 + g() % 60) : std::int64_t{1} << 62, g(), g() % 2 == 0, broken};
  local::Fetched m(source.n, source.symmetric, true, local::Promise{true, 0}, local::Promise{true, 0});
  local::Weights weights;
  weights.sense = g() % 2 ? local::Sense::rows : local::Sense::columns;
  weights.rows = weights.sense == local::Sense::rows, weights.columns = !weights.rows;
  Side primal(source.n), dual(source.n);
  const std::int64_t at = static_cast<std::int64_t>(g() % static_cast<std::uint64_t>(source.n));
  const double one = 1;
  for (Side* side : {&primal, &dual}) {
    const bool turned = side == &dual;
    auto& columns = turned ? m.rows() : m.columns();
    auto& rows = turned ? m.columns() : m.rows();
    if (weights.rows && !rows.known(at)) source.fetch(g, m, turned, {at});
    side->load(columns, rows, weights, &at, &one, 1);
    for (double eps = 0.1; eps > 1e-9; eps /= 4)
      for (int round = 0; round < 1000 && !side->push(columns, rows, weights, eps, 1.0, 1 << 20); ++round) {
        for (const std::int64_t i : std::exchange(side->wanted_columns, {}))
          if (!columns.known(i)) source.fetch(g, m, !turned, {i});
        for (const std::int64_t i : std::exchange(side->wanted_rows, {}))
          if (!rows.known(i)) source.fetch(g, m, turned, {i});
      }
    side->recompute(columns, rows, weights, &at, &one, 1);
    const local::Bounds found = side->bounds(rows, weights);
    if (!broken && !(std::min(found.rows, found.columns) < 1e-5)) std::printf("not solved: %g\n", found.rows), std::abort();
    local::block(*side, columns, 1e-12);
  }
  local::functional(primal, dual, &at, &one, 1);
  local::outer(primal, dual, m.rows(), m.columns());
  primal.clear();
}

}  // namespace

int main(int argc, char** argv) { return fuzz::run(argc, argv, "fetched", trial); }
