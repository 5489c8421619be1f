// Python face of elimination along known pivots. No logic.
#include <nanobind/stl/complex.h>

#include <complex>

#include "arrays.hpp"
#include "elimination.hpp"
#include "lanes.hpp"

using nb::literals::operator""_a;
using backsolve::Elimination;
using backsolve::wide_t;

namespace {

template <class T>
void bind_values(nb::class_<Elimination>& c) {
  using W = wide_t<T>;
  c.def("factor", [](const Elimination& e, In<T, 2> data, Out<W, 2> lower, Out<W, 2> upper, Out<W, 2> pivots,
                     Out<double, 2> scale, Out<std::int64_t, 1> failed, double threshold) {
    const std::int64_t batch = data.shape(0);
    expect(data, {batch, e.pattern.nnz()}, "data");
    expect(lower, {batch, e.lower.nnz()}, "lower");
    expect(upper, {batch, e.upper.nnz()}, "upper");
    expect(pivots, {batch, e.n}, "pivots");
    expect(scale, {batch, e.n}, "scale");
    expect(failed, {batch}, "failed");
    nb::gil_scoped_release release;
    backsolve::eliminate_all<T>(e, data.data(), lower.data(), upper.data(), pivots.data(), scale.data(), failed.data(),
                                batch, threshold);
  }, "data"_a.noconvert(), "lower"_a.noconvert(), "upper"_a.noconvert(), "pivots"_a.noconvert(),
     "scale"_a.noconvert(), "failed"_a.noconvert(), "threshold"_a);
  c.def("solve", [](const Elimination& e, In<W, 2> lower, In<W, 2> upper, In<W, 2> pivots, In<double, 2> scale,
                    In<T, 3> b, Out<T, 3> x, bool adjoint) {
    const std::int64_t batch = b.shape(0), k = b.shape(2);
    expect(lower, {batch, e.lower.nnz()}, "lower");
    expect(upper, {batch, e.upper.nnz()}, "upper");
    expect(pivots, {batch, e.n}, "pivots");
    expect(scale, {batch, e.n}, "scale");
    expect(b, {batch, e.n, k}, "b");
    expect(x, {batch, e.n, k}, "x");
    nb::gil_scoped_release release;
    backsolve::solve_eliminated<T>(e, lower.data(), upper.data(), pivots.data(), scale.data(), b.data(), x.data(),
                                   batch, k, adjoint);
  }, "lower"_a.noconvert(), "upper"_a.noconvert(), "pivots"_a.noconvert(), "scale"_a.noconvert(), "b"_a.noconvert(),
     "x"_a.noconvert(), "adjoint"_a);
}

}  // namespace

void bind_elimination(nb::module_& m) {
  using Indices = In<std::int32_t, 1>;
  nb::class_<Elimination> c(m, "Elimination");
  c.def("__init__", [](Elimination* self, const backsolve::Pattern<std::int32_t>& pattern, Indices rows,
                       Indices columns, Indices blocks, Indices l_count, Indices l_indices, Indices u_count,
                       Indices u_indices) {
    const std::int64_t n = pattern.n_rows;
    expect(rows, {n}, "rows");
    expect(columns, {n}, "columns");
    expect(l_count, {n}, "l_count");
    expect(u_count, {n}, "u_count");
    if (blocks.shape(0) == 0) throw nb::value_error("blocks must hold the bounds of the blocks");
    nb::gil_scoped_release release;
    new (self) Elimination(pattern, rows.data(), columns.data(), blocks.data(),
                           static_cast<std::int64_t>(blocks.shape(0)) - 1, l_count.data(), l_indices.data(),
                           static_cast<std::int64_t>(l_indices.shape(0)), u_count.data(), u_indices.data(),
                           static_cast<std::int64_t>(u_indices.shape(0)));
  }, nb::keep_alive<1, 2>(), "pattern"_a, "rows"_a.noconvert(), "columns"_a.noconvert(), "blocks"_a.noconvert(),
     "l_count"_a.noconvert(), "l_indices"_a.noconvert(), "u_count"_a.noconvert(), "u_indices"_a.noconvert());
  c.def_prop_ro("rows", [](nb::object self) { return view(nb::cast<const Elimination&>(self).row, self); });
  c.def_prop_ro("columns", [](nb::object self) { return view(nb::cast<const Elimination&>(self).column, self); });
  c.def_prop_ro("lower_nnz", [](const Elimination& e) { return e.lower.nnz(); });
  c.def_prop_ro("upper_nnz", [](const Elimination& e) { return e.upper.nnz(); });
  bind_values<double>(c);
  bind_values<float>(c);
  bind_values<std::complex<double>>(c);
  bind_values<std::complex<float>>(c);
  m.attr("LANES") = nb::make_tuple(4, 1);
}
