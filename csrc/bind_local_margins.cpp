// Python face of the margins of dominance of matrices that nobody has checked. No logic.
#include <nanobind/stl/optional.h>

#include <optional>

#include "arrays.hpp"
#include "local_margins.hpp"

using nb::literals::operator""_a;
using backsolve::local::View;

namespace {

template <class P, class I, class T>
View<P, I, T> lists(const In<P, 1>& indptr, const In<I, 1>& indices, const std::optional<In<P, 1>>& slot,
                    const In<T, 1>& data, bool columns) {
  if (indptr.shape(0) < 1) throw nb::value_error("indptr is empty; it must hold one number more than there are rows");
  View<P, I, T> view;
  view.n = static_cast<std::int64_t>(indptr.shape(0)) - 1;
  view.stored = static_cast<std::int64_t>(indices.shape(0));
  view.values = static_cast<std::int64_t>(data.shape(0));
  view.ptr = indptr.data();
  view.idx = indices.data();
  view.val = data.data();
  view.name = columns ? "column" : "row";
  if (slot) {
    expect(*slot, {view.stored}, "slot");
    view.slot = slot->data();
  } else {
    expect(data, {view.stored}, "data");
  }
  return view;
}

template <class P, class I, class T>
void bind_values(nb::module_& m) {
  m.def("local_margins", [](In<P, 1> indptr, In<I, 1> indices, std::optional<In<P, 1>> slot, In<T, 1> data,
                            std::optional<In<double, 1>> weights, Out<double, 1> out, std::int64_t first, bool columns) {
    const View<P, I, T> view = lists<P, I, T>(indptr, indices, slot, data, columns);
    if (weights) expect(*weights, {view.n}, "weights");
    const std::int64_t last = first + static_cast<std::int64_t>(out.shape(0));
    if (first < 0 || last > view.n) throw nb::value_error("out must not be longer than the rows that are left");
    nb::gil_scoped_release release;
    backsolve::local::margins(view, weights ? weights->data() : nullptr, first, last, out.data());
  }, "indptr"_a.noconvert(), "indices"_a.noconvert(), "slot"_a.noconvert().none(), "data"_a.noconvert(),
     "weights"_a.noconvert().none(), "out"_a.noconvert(), "first"_a, "columns"_a);
  m.def("local_margins_at", [](In<P, 1> indptr, In<I, 1> indices, std::optional<In<P, 1>> slot, In<T, 1> data,
                               std::optional<In<double, 1>> weights, Out<double, 1> out, In<std::int64_t, 1> nodes, bool columns) {
    const View<P, I, T> view = lists<P, I, T>(indptr, indices, slot, data, columns);
    if (weights) expect(*weights, {view.n}, "weights");
    const std::int64_t count = static_cast<std::int64_t>(nodes.shape(0));
    expect(out, {count}, "out");
    nb::gil_scoped_release release;
    backsolve::local::margins_at(view, weights ? weights->data() : nullptr, nodes.data(), count, out.data());
  }, "indptr"_a.noconvert(), "indices"_a.noconvert(), "slot"_a.noconvert().none(), "data"_a.noconvert(),
     "weights"_a.noconvert().none(), "out"_a.noconvert(), "nodes"_a.noconvert(), "columns"_a);
}

template <class T>
void bind_indices(nb::module_& m) {
  bind_values<std::int32_t, std::int32_t, T>(m);
  bind_values<std::int64_t, std::int32_t, T>(m);
  bind_values<std::int64_t, std::int64_t, T>(m);
}

}  // namespace

void bind_local_margins(nb::module_& m) {
  bind_indices<double>(m);
  bind_indices<float>(m);
}
