// Pushes, certificates, gradients and blocks on damaged matrices; bounds of whole ones are held to the residual.
#include "../local_pairs.hpp"
#include "../local_side.hpp"
#include "damaged.hpp"

namespace {

using namespace backsolve;
using fuzz::Random;

template <class P, class I, class T>
void trial(Random& g, bool broken) {
  fuzz::Damaged<P, I, T> m(g, false);
  std::vector<double> kept(static_cast<std::size_t>(m.n), 0.5);
  if (broken) m.break_something(g);
  const auto rows = m.rows(), columns = m.columns();
  // Rows of the matrix are dominant, columns need not be: the primal side goes by rows, the dual one by its columns.
  local::Side primal(m.n), dual(m.n);
  std::vector<std::int64_t> at;
  std::vector<double> value;
  for (std::uint64_t k = g() % 4; m.n && k > 0; --k)
    at.push_back(static_cast<std::int64_t>(g() % static_cast<std::uint64_t>(m.n))), value.push_back(static_cast<double>(g() % 5) - 2);
  if (broken && g() % 4 == 0) at.push_back(fuzz::any_integer<std::int64_t>(g)), value.push_back(fuzz::any_value<double>(g));
  const std::int64_t count = static_cast<std::int64_t>(at.size());
  const double* barrier = broken && g() % 3 == 0 && m.n ? m.weight.data() : nullptr;
  for (local::Side* side : {&primal, &dual}) {
    const bool first = side == &primal;
    local::Weights weights;
    weights.sense = first ? local::Sense::rows : local::Sense::columns;
    (first ? weights.rows : weights.columns) = true;
    (first ? weights.w : weights.v) = barrier;
    if (broken && g() % 4 == 0 && m.n) weights.kept = kept.data();
    const auto& own = first ? columns : rows;
    const auto& others = first ? rows : columns;
    side->load(own, others, weights, at.data(), value.data(), count);
    const double omega = 0.5 + static_cast<double>(g() % 10) / 10;
    for (double eps = 1; eps > 1e-6; eps /= 4) side->push(own, others, weights, eps, omega, 20'000);
    if (g() % 2) side->add(own, others, weights, at.data(), value.data(), count);
    side->recompute(own, others, weights, at.data(), value.data(), count);
    side->bounds(others, weights);
    side->standing(weights);
    local::block(*side, own, 1e-9);
  }
  local::functional(primal, dual, at.data(), value.data(), count);
  local::outer(primal, dual, rows, columns);
  primal.clear();
}

}  // namespace

int main(int argc, char** argv) {
  return fuzz::run(argc, argv, "push", [](Random& g, bool broken) {
    switch (g() % 4) {
      case 0: return trial<std::int32_t, std::int32_t, float>(g, broken);
      case 1: return trial<std::int64_t, std::int32_t, double>(g, broken);
      case 2: return trial<std::int64_t, std::int64_t, double>(g, broken);
      default: return trial<std::int64_t, std::int64_t, float>(g, broken);
    }
  });
}
