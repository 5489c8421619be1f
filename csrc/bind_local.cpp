// Python face of local solves: checks sizes, releases the GIL, calls. No logic.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <optional>
#include <variant>

#include "arrays.hpp"
#include "local_pairs.hpp"

using nb::literals::operator""_a;
using namespace backsolve::local;

namespace {

template <class P, class I, class T>
struct Lists {
  View<P, I, T> rows, columns;
};
using AnyLists = std::variant<Lists<std::int32_t, std::int32_t, double>, Lists<std::int64_t, std::int32_t, double>,
                              Lists<std::int64_t, std::int64_t, double>, Lists<std::int32_t, std::int32_t, float>,
                              Lists<std::int64_t, std::int32_t, float>, Lists<std::int64_t, std::int64_t, float>>;

// A matrix that nobody has checked. Its arrays live as long as it does: keep_alive in the bindings.
struct Matrix {
  AnyLists lists;
  std::int64_t n;
};

// A side of a matrix, and how its unknowns are weighed.
struct Setting {
  const Matrix* matrix;
  bool dual;
  Weights weights;

  // f(columns of N, rows of N)
  template <class F>
  auto visit(F&& f) const {
    return std::visit([&](const auto& l) { return dual ? f(l.rows, l.columns) : f(l.columns, l.rows); }, matrix->lists);
  }
};

template <class P, class I, class T>
void bind_matrix(nb::class_<Matrix>& c) {
  c.def("__init__", [](Matrix* self, In<P, 1> indptr, In<I, 1> indices, In<T, 1> data, std::optional<In<P, 1>> t_indptr,
                       std::optional<In<I, 1>> t_indices, std::optional<In<P, 1>> t_slot) {
    if (indptr.shape(0) < 1) throw nb::value_error("indptr is empty; it must hold one number more than there are rows");
    View<P, I, T> rows;
    rows.n = static_cast<std::int64_t>(indptr.shape(0)) - 1;
    rows.stored = static_cast<std::int64_t>(indices.shape(0));
    rows.values = static_cast<std::int64_t>(data.shape(0));
    rows.ptr = indptr.data();
    rows.idx = indices.data();
    rows.val = data.data();
    expect(data, {rows.stored}, "data");
    View<P, I, T> columns = rows;
    columns.name = "column";
    if (t_indptr.has_value() != t_indices.has_value() || t_indptr.has_value() != t_slot.has_value())
      throw nb::value_error("t_indptr, t_indices and t_slot must be given together");
    if (t_indptr) {
      expect(*t_indptr, {rows.n + 1}, "t_indptr");
      expect(*t_indices, {rows.stored}, "t_indices");
      expect(*t_slot, {rows.stored}, "t_slot");
      columns.ptr = t_indptr->data();
      columns.idx = t_indices->data();
      columns.slot = t_slot->data();
    }
    new (self) Matrix{Lists<P, I, T>{rows, columns}, rows.n};
  }, nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(), nb::keep_alive<1, 5>(), nb::keep_alive<1, 6>(),
     nb::keep_alive<1, 7>(), "indptr"_a.noconvert(), "indices"_a.noconvert(), "data"_a.noconvert(),
     "t_indptr"_a.noconvert().none(), "t_indices"_a.noconvert().none(), "t_slot"_a.noconvert().none());
}

using Numbers = std::optional<In<double, 1>>;

void bind_setting(nb::module_& m) {
  nb::class_<Setting> c(m, "LocalSetting");
  c.def("__init__", [](Setting* self, const Matrix& matrix, bool dual, bool by_rows, bool rows, bool columns, Numbers kept,
                       Numbers w, Numbers v) {
    const auto pointer = [&](const Numbers& array, const char* name) -> const double* {
      if (!array) return nullptr;
      expect(*array, {matrix.n}, name);
      return array->data();
    };
    Weights weights;
    weights.sense = by_rows ? Sense::rows : Sense::columns;
    weights.rows = rows;
    weights.columns = columns;
    weights.kept = pointer(kept, "kept");
    weights.w = pointer(w, "w");
    weights.v = pointer(v, "v");
    new (self) Setting{&matrix, dual, weights};
  }, nb::keep_alive<1, 2>(), nb::keep_alive<1, 7>(), nb::keep_alive<1, 8>(), nb::keep_alive<1, 9>(), "matrix"_a, "dual"_a,
     "by_rows"_a, "rows"_a, "columns"_a, "kept"_a.noconvert().none(), "w"_a.noconvert().none(), "v"_a.noconvert().none());
}

using Index = In<std::int64_t, 1>;
using Values = In<double, 1>;

std::int64_t length(const Side& side, const Setting& setting, const Index& index, const Values& value) {
  if (side.n() != setting.matrix->n) throw nb::value_error("the side belongs to a matrix of another size");
  expect(value, {static_cast<std::int64_t>(index.shape(0))}, "value");
  return static_cast<std::int64_t>(index.shape(0));
}

void expect_same(const Side& side, const Setting& setting) {
  if (side.n() != setting.matrix->n) throw nb::value_error("the side belongs to a matrix of another size");
}

nb::tuple support(const Side& side, bool touched) {
  std::vector<std::int64_t> node;
  std::vector<double> x, r, tau;
  for (const std::int64_t i : side.touched()) {
    const Site& s = *side.find(i);
    if (!touched && s.x == 0) continue;
    node.push_back(i);
    x.push_back(s.x);
    r.push_back(s.r);
    tau.push_back(side.tau(s));
  }
  return nb::make_tuple(own(std::move(node)), own(std::move(x)), own(std::move(r)), own(std::move(tau)));
}

void bind_side(nb::module_& m) {
  nb::class_<Side> c(m, "LocalSide");
  c.def(nb::init<std::int64_t>(), "n"_a);
  c.def_prop_ro("work", &Side::work);
  c.def_prop_ro("pushes", &Side::pushes);
  c.def_prop_ro("volume", &Side::volume);
  c.def_prop_ro("touched", [](const Side& s) { return s.touched().size(); });
  c.def("clear", &Side::clear);
  c.def("load", [](Side& side, const Setting& at, Index index, Values value) {
    const std::int64_t count = length(side, at, index, value);
    nb::gil_scoped_release release;
    at.visit([&](const auto& columns, const auto& rows) { side.load(columns, rows, at.weights, index.data(), value.data(), count); });
  }, "setting"_a, "index"_a.noconvert(), "value"_a.noconvert());
  c.def("push", [](Side& side, const Setting& at, double eps, double omega, std::int64_t budget) {
    expect_same(side, at);
    nb::gil_scoped_release release;
    return at.visit([&](const auto& columns, const auto& rows) { return side.push(columns, rows, at.weights, eps, omega, budget); });
  }, "setting"_a, "eps"_a, "omega"_a, "budget"_a);
  c.def("add", [](Side& side, const Setting& at, Index index, Values step) {
    const std::int64_t count = length(side, at, index, step);
    nb::gil_scoped_release release;
    at.visit([&](const auto& columns, const auto& rows) { side.add(columns, rows, at.weights, index.data(), step.data(), count); });
  }, "setting"_a, "index"_a.noconvert(), "step"_a.noconvert());
  c.def("recompute", [](Side& side, const Setting& at, Index index, Values value) {
    const std::int64_t count = length(side, at, index, value);
    for (std::int64_t k = 0; k < count; ++k)
      if (index.data()[k] < 0 || index.data()[k] >= side.n()) throw nb::value_error("an index of the right-hand side is out of range");
    nb::gil_scoped_release release;
    at.visit([&](const auto& columns, const auto& rows) { side.recompute(columns, rows, at.weights, index.data(), value.data(), count); });
  }, "setting"_a, "index"_a.noconvert(), "value"_a.noconvert());
  c.def("bounds", [](const Side& side, const Setting& at) {
    expect_same(side, at);
    Bounds found;
    {
      nb::gil_scoped_release release;
      found = at.visit([&](const auto&, const auto& rows) { return side.bounds(rows, at.weights); });
    }
    return nb::make_tuple(found.rows, found.columns, found.weakest);
  }, "setting"_a);
  c.def("standing", [](const Side& side, const Setting& at) { return side.standing(at.weights); }, "setting"_a);
  c.def("support", &support, "touched"_a = false);
  c.def("block", [](const Side& side, const Setting& at, double eps) {
    expect_same(side, at);
    Block found;
    {
      nb::gil_scoped_release release;
      found = at.visit([&](const auto& columns, const auto&) { return block(side, columns, eps); });
    }
    return nb::make_tuple(own(std::move(found.node)), own(std::move(found.ptr)), own(std::move(found.idx)), own(std::move(found.value)));
  }, "setting"_a, "eps"_a);
}

}  // namespace

void bind_local(nb::module_& m) {
  nb::class_<Matrix> c(m, "LocalMatrix");
  bind_matrix<std::int32_t, std::int32_t, double>(c);
  bind_matrix<std::int64_t, std::int32_t, double>(c);
  bind_matrix<std::int64_t, std::int64_t, double>(c);
  bind_matrix<std::int32_t, std::int32_t, float>(c);
  bind_matrix<std::int64_t, std::int32_t, float>(c);
  bind_matrix<std::int64_t, std::int64_t, float>(c);
  bind_setting(m);
  bind_side(m);
  m.def("local_functional", [](const Side& primal, const Side& dual, Index index, Values t) {
    if (primal.n() != dual.n()) throw nb::value_error("the sides belong to matrices of different sizes");
    const std::int64_t count = static_cast<std::int64_t>(index.shape(0));
    expect(t, {count}, "t");
    for (std::int64_t k = 0; k < count; ++k)
      if (index.data()[k] < 0 || index.data()[k] >= primal.n()) throw nb::value_error("an index of t is out of range");
    const Functional found = functional(primal, dual, index.data(), t.data(), count);
    return nb::make_tuple(found.value, found.rounding);
  }, "primal"_a, "dual"_a, "index"_a.noconvert(), "t"_a.noconvert());
  m.def("local_outer", [](const Side& primal, const Side& dual, const Matrix& matrix) {
    if (primal.n() != matrix.n || dual.n() != matrix.n) throw nb::value_error("the sides belong to matrices of different sizes");
    Outer found;
    {
      nb::gil_scoped_release release;
      found = std::visit([&](const auto& l) { return outer(primal, dual, l.rows, l.columns); }, matrix.lists);
    }
    return nb::make_tuple(own(std::move(found.slot)), own(std::move(found.row)), own(std::move(found.column)), own(std::move(found.value)));
  }, "primal"_a, "dual"_a, "matrix"_a);
}
