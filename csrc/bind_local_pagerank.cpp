// Python face of pushes on graphs. No logic.
#include <nanobind/stl/optional.h>

#include <optional>

#include "arrays.hpp"
#include "local_pagerank.hpp"

using nb::literals::operator""_a;
namespace pagerank = backsolve::pagerank;

namespace {

template <class T> using Maybe = std::optional<In<T, 1>>;

template <class T>
const T* pointer(const Maybe<T>& array) { return array ? array->data() : nullptr; }

void expect_size(std::int64_t size, std::int64_t wanted, const char* name) {
  if (size != wanted)
    throw nb::value_error((std::string(name) + " has " + std::to_string(size) + " entries where " +
                           std::to_string(wanted) + " belong").c_str());
}

template <class P, class I, class T>
backsolve::local::View<P, I, T> view_of(const In<P, 1>& ptr, const In<I, 1>& idx, const Maybe<P>& slot, const Maybe<T>& val,
                             const char* name) {
  if (ptr.shape(0) < 1) throw nb::value_error("indptr is empty");
  backsolve::local::View<P, I, T> rows;
  rows.n = static_cast<std::int64_t>(ptr.shape(0)) - 1;
  rows.stored = static_cast<std::int64_t>(idx.shape(0));
  if (slot) expect_size(static_cast<std::int64_t>(slot->shape(0)), rows.stored, "slot");
  rows.values = val ? static_cast<std::int64_t>(val->shape(0)) : rows.stored;
  if (val && !slot) expect_size(rows.values, rows.stored, "data");
  rows.ptr = ptr.data();
  rows.idx = idx.data();
  rows.slot = pointer(slot);
  rows.val = pointer(val);
  rows.name = name;
  return rows;
}

pagerank::Rule rule_of(const nb::dict& d) {
  pagerank::Rule rule;
  const auto number = [&d](const char* key) { return nb::cast<double>(d[key]); };
  rule.factor = number("factor");
  rule.keep = number("keep");
  rule.by_strength = nb::cast<bool>(d["by_strength"]);
  rule.dangling = nb::cast<int>(d["dangling"]);
  rule.unit = number("unit");
  rule.largest = number("largest");
  rule.least = number("least");
  rule.margin = number("margin");
  rule.scale_margin = number("scale_margin");
  rule.omega = number("omega");
  rule.positive = nb::cast<bool>(d["positive"]);
  return rule;
}

pagerank::Stop stop_of(const nb::dict& d) {
  return {static_cast<pagerank::Goal>(nb::cast<int>(d["goal"])), nb::cast<double>(d["tol"]), nb::cast<std::int64_t>(d["k"]),
          nb::cast<bool>(d["ordered"]), nb::cast<std::int64_t>(d["budget"])};
}

// (first, ids, values) of all answers one after the other, and a row of numbers and of counts for each.
nb::tuple packed(const std::vector<pagerank::Answer>& answers) {
  std::vector<std::int64_t> first{0}, ids, counts;
  std::vector<double> values, numbers;
  std::size_t total = 0;
  for (const auto& a : answers) total += a.ids.size();
  ids.reserve(total);
  values.reserve(total);
  for (const auto& a : answers) {
    ids.insert(ids.end(), a.ids.begin(), a.ids.end());
    values.insert(values.end(), a.values.begin(), a.values.end());
    first.push_back(static_cast<std::int64_t>(ids.size()));
    const pagerank::Bounds& b = a.bounds;
    numbers.insert(numbers.end(), {b.sum, b.up, b.down, b.up_scale, b.down_scale, b.offset, a.lost, a.spread});
    counts.insert(counts.end(), {a.touched, a.edges, a.pushes, a.proved, a.verdict});
  }
  return nb::make_tuple(own(std::move(first)), own(std::move(ids)), own(std::move(values)), own(std::move(numbers)),
                        own(std::move(counts)));
}

template <class P, class I, class T>
void bind_edges(nb::module_& m) {
  m.def("local_push", [](pagerank::Workers& workers, In<P, 1> ptr, In<I, 1> idx, Maybe<P> slot, Maybe<T> val,
                         Maybe<double> strength, Maybe<double> scale, In<std::int64_t, 1> first, In<std::int64_t, 1> ids,
                         In<double, 1> weights, const nb::dict& rule, const nb::dict& stop) {
    pagerank::Graph<P, I, T> g{view_of<P, I, T>(ptr, idx, slot, val, slot ? "column" : "row"), pointer(strength),
                            pointer(scale)};
    expect_size(workers.size(), g.rows.n, "the space of workers");
    if (strength) expect_size(static_cast<std::int64_t>(strength->shape(0)), g.rows.n, "strength");
    if (scale) expect_size(static_cast<std::int64_t>(scale->shape(0)), g.rows.n, "scale");
    expect_size(static_cast<std::int64_t>(weights.shape(0)), static_cast<std::int64_t>(ids.shape(0)), "weights");
    const std::int64_t queries = static_cast<std::int64_t>(first.shape(0)) - 1;
    for (std::int64_t q = 0; q < queries; ++q)
      if (first.data()[q] < 0 || first.data()[q + 1] < first.data()[q] ||
          first.data()[q + 1] > static_cast<std::int64_t>(ids.shape(0)))
        throw nb::value_error("the positions of the seeds fall, or leave the array");
    auto r = rule_of(rule);
    r.scale = static_cast<pagerank::Scale>(nb::cast<int>(rule["scale"]));
    if (r.scale == pagerank::Scale::given && !scale) throw nb::value_error("scale is missing");
    const auto s = stop_of(stop);
    std::vector<pagerank::Answer> answers;
    {
      nb::gil_scoped_release release;
      answers = pagerank::answer(workers, g, r, s, first.data(), queries, ids.data(), weights.data());
    }
    return packed(answers);
  }, "workers"_a, "indptr"_a.noconvert(), "indices"_a.noconvert(), "slot"_a.noconvert().none(),
     "data"_a.noconvert().none(), "strength"_a.noconvert().none(), "scale"_a.noconvert().none(), "first"_a.noconvert(),
     "ids"_a.noconvert(), "weights"_a.noconvert(), "rule"_a, "stop"_a);
  m.def("local_strengths", [](In<P, 1> ptr, In<I, 1> idx, In<T, 1> val, Out<double, 1> out) {
    const auto rows = view_of<P, I, T>(ptr, idx, std::nullopt, val, "row");
    expect_size(static_cast<std::int64_t>(out.shape(0)), rows.n, "out");
    nb::gil_scoped_release release;
    pagerank::strengths(rows, out.data());
  }, "indptr"_a.noconvert(), "indices"_a.noconvert(), "data"_a.noconvert(), "out"_a.noconvert());
}

}  // namespace

void bind_local_pagerank(nb::module_& m) {
  nb::class_<pagerank::Workers>(m, "LocalWorkers").def(nb::init<std::int64_t>(), "n"_a);
  bind_edges<std::int32_t, std::int32_t, double>(m);
  bind_edges<std::int64_t, std::int64_t, double>(m);
  bind_edges<std::int64_t, std::int32_t, double>(m);
  bind_edges<std::int32_t, std::int32_t, float>(m);
  bind_edges<std::int64_t, std::int64_t, float>(m);
  bind_edges<std::int64_t, std::int32_t, float>(m);
}
