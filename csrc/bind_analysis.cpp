// Python face of the kernels behind `analyze`. No logic.
#include <nanobind/stl/complex.h>

#include <complex>

#include "analysis.hpp"
#include "arrays.hpp"

using nb::literals::operator""_a;
using backsolve::Pattern;

namespace {

template <class I, class T>
void bind_margins(nb::module_& m) {
  m.def("margins", [](const Pattern<I>& p, In<T, 1> data, Out<double, 1> rows, Out<double, 1> columns) {
    expect(data, {p.nnz()}, "data");
    expect(rows, {p.n_rows}, "rows");
    expect(columns, {p.n_cols}, "columns");
    nb::gil_scoped_release release;
    backsolve::margins(p.rows(), false, data.data(), rows.data());
    backsolve::margins(p.columns(), true, data.data(), columns.data());
  }, "pattern"_a, "data"_a.noconvert(), "rows"_a.noconvert(), "columns"_a.noconvert());
}

template <class I>
void expect_symmetric(const Pattern<I>& p) {
  const auto [off, both] = p.mirrored();
  if (p.n_rows != p.n_cols || off != both) throw nb::value_error("the Pattern must be symmetric");
}

template <class I, class T>
void bind_cholesky(nb::module_& m) {
  m.def("cholesky", [](const Pattern<I>& p, In<T, 1> data, double shift) {
    expect(data, {p.nnz()}, "data");
    backsolve::Breakdown<T> found;
    {
      nb::gil_scoped_release release;
      expect_symmetric(p);
      found = backsolve::cholesky(p.rows(), data.data(), shift);
    }
    return nb::make_tuple(found.row, own(std::move(found.v)));
  }, "pattern"_a, "data"_a.noconvert(), "shift"_a);
}

template <class I>
void bind_structure(nb::module_& m) {
  m.def("symbolic", [](const Pattern<I>& p) {
    backsolve::Symbolic<I> s;
    {
      nb::gil_scoped_release release;
      expect_symmetric(p);
      s = backsolve::symbolic(p.rows());
    }
    return nb::make_tuple(own(std::move(s.parent)), own(std::move(s.counts)));
  }, "pattern"_a);
  m.def("longest_row", [](const Pattern<I>& p) {
    nb::gil_scoped_release release;
    expect_symmetric(p);
    return backsolve::longest_row(p.rows());
  }, "pattern"_a);
  bind_margins<I, double>(m);
  bind_margins<I, float>(m);
  bind_margins<I, std::complex<double>>(m);
  bind_margins<I, std::complex<float>>(m);
  bind_cholesky<I, double>(m);
  bind_cholesky<I, std::complex<double>>(m);
}

}  // namespace

void bind_analysis(nb::module_& m) {
  bind_structure<std::int32_t>(m);
  bind_structure<std::int64_t>(m);
}
