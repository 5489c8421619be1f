// Queries of PageRank and Katz on damaged graphs, batches of them, every goal and policy.
#include "../local_pagerank.hpp"
#include "damaged.hpp"

namespace {

using namespace backsolve;
using fuzz::Random;

template <class P, class I, class T>
void trial(Random& g, bool broken) {
  fuzz::Damaged<P, I, T> m(g, true);
  if (m.n == 0) return;
  pagerank::Graph<P, I, T> graph{m.rows()};
  std::vector<double> strength(static_cast<std::size_t>(m.n));
  pagerank::strengths(graph.rows, strength.data());
  if (broken) m.break_something(g);
  graph.rows = g() % 3 ? m.rows() : m.columns();
  const bool unweighted = g() % 3 == 0;
  if (unweighted) graph.rows.val = nullptr, graph.rows.slot = nullptr;
  graph.strength = unweighted ? nullptr : strength.data();
  if (graph.rows.slot) {  // strengths are those of the lists that are walked along
    const local::View<P, I, T> turned = graph.rows;
    for (std::int64_t v = 0; v < m.n; ++v) {
      strength[v] = 0;
      turned.each(v, [&](std::int64_t, double w, std::int64_t) { strength[v] += w; });
    }
  }
  std::vector<double> scale(static_cast<std::size_t>(m.n), 1.0);
  graph.scale = scale.data();
  pagerank::Rule rule;
  rule.factor = 0.1 + 0.8 * static_cast<double>(g() % 100) / 100;
  rule.keep = 1 - rule.factor, rule.margin = 1 - rule.factor;
  rule.dangling = static_cast<int>(g() % 3);
  rule.scale = static_cast<pagerank::Scale>(g() % 3);
  if (rule.scale == pagerank::Scale::length) rule.unit = rule.largest = 8;
  rule.omega = 1 + static_cast<double>(g() % 4) / 10;
  pagerank::Stop stop{static_cast<pagerank::Goal>(g() % 4), std::ldexp(1.0, -static_cast<int>(g() % 40)),
                      static_cast<std::int64_t>(1 + g() % 8), g() % 2 == 0, static_cast<std::int64_t>(g() % 20'000)};
  std::vector<std::int64_t> first{0}, ids;
  std::vector<double> weights;
  for (std::uint64_t q = g() % 4; q > 0; --q) {
    for (std::uint64_t k = g() % 3; k > 0; --k) {
      const bool wild = broken && g() % 6 == 0;
      ids.push_back(wild ? fuzz::any_integer<std::int64_t>(g) : static_cast<std::int64_t>(g() % static_cast<std::uint64_t>(m.n)));
      weights.push_back(1);
    }
    first.push_back(static_cast<std::int64_t>(ids.size()));
  }
  pagerank::Workers workers(m.n);
  for (int again = 0; again < 2; ++again)  // a worker that has served must be as new
    pagerank::answer(workers, graph, rule, stop, first.data(), static_cast<std::int64_t>(first.size()) - 1, ids.data(),
                     weights.data());
}

}  // namespace

int main(int argc, char** argv) {
  return fuzz::run(argc, argv, "pagerank", [](Random& g, bool broken) {
    if (g() % 2) return trial<std::int64_t, std::int32_t, float>(g, broken);
    return trial<std::int64_t, std::int64_t, double>(g, broken);
  });
}
