// Python face of local solves: checks sizes, releases the GIL, calls. No logic.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <optional>
#include <variant>

#include "bind_local_side.hpp"

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

  std::int64_t n() const { return matrix->n; }
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
  bind_side<Side, Setting>(m, "LocalSide");
  bind_local_fetched(m);
  m.def("local_functional", &bound_functional<Side>, "primal"_a, "dual"_a, "index"_a.noconvert(), "t"_a.noconvert());
  m.def("local_outer", [](const Side& primal, const Side& dual, const Matrix& matrix) {
    if (primal.n() != matrix.n || dual.n() != matrix.n) throw nb::value_error("the sides belong to matrices of different sizes");
    Outer found;
    {
      nb::gil_scoped_release release;
      found = std::visit([&](const auto& l) { return outer(primal, dual, l.rows, l.columns); }, matrix.lists);
    }
    return arrays(std::move(found));
  }, "primal"_a, "dual"_a, "matrix"_a);
}
