// Python face of the kernels: checks the sizes of value arrays, releases the GIL, calls. No logic.
#include <nanobind/stl/array.h>
#include <nanobind/stl/complex.h>
#include <nanobind/stl/shared_ptr.h>

#include <array>
#include <complex>
#include <memory>

#include "arrays.hpp"
#include "kernels.hpp"
#include "pattern.hpp"
#include "triangular.hpp"
#include "verdict.hpp"

using nb::literals::operator""_a;
using backsolve::Pattern;

void bind_analysis(nb::module_& m);     // bind_analysis.cpp
void bind_elimination(nb::module_& m);
void bind_extended(nb::module_& m);     // bind_extended.cpp
void bind_incomplete(nb::module_& m);
void bind_local_pagerank(nb::module_& m);
void bind_ffi(nb::module_& m);          // bind_ffi.cpp
void bind_local(nb::module_& m);
void bind_local_margins(nb::module_& m);
void bind_local_transpose(nb::module_& m);

template <class I, class T, class Class>
void bind_values(Class& c) {
  using P = Pattern<I>;
  c.def("matmat", [](const P& p, In<T, 2> data, In<T, 3> x, Out<T, 3> y, bool adjoint) {
    const std::int64_t batch = data.shape(0), k = x.shape(2);
    const std::int64_t n_in = adjoint ? p.n_rows : p.n_cols, n_out = adjoint ? p.n_cols : p.n_rows;
    expect(data, {batch, p.nnz()}, "data");
    expect(x, {batch, n_in, k}, "x");
    expect(y, {batch, n_out, k}, "y");
    nb::gil_scoped_release release;
    (adjoint ? backsolve::matmat<true, I, T> : backsolve::matmat<false, I, T>)(p, data.data(), x.data(), y.data(), batch, k);
  }, "data"_a.noconvert(), "x"_a.noconvert(), "y"_a.noconvert(), "adjoint"_a);
  c.def("outer", [](const P& p, In<T, 3> y, In<T, 3> x, Out<T, 2> s) {
    const std::int64_t batch = y.shape(0), k = y.shape(2);
    expect(y, {batch, p.n_rows, k}, "y");
    expect(x, {batch, p.n_cols, k}, "x");
    expect(s, {batch, p.nnz()}, "s");
    nb::gil_scoped_release release;
    backsolve::outer<I, T>(p, y.data(), x.data(), s.data(), batch, k);
  }, "y"_a.noconvert(), "x"_a.noconvert(), "s"_a.noconvert());
  c.def("residual", [](const P& p, In<T, 2> data, In<T, 3> x, In<T, 3> b, Out<T, 3> r, Out<double, 3> norms, bool adjoint) {
    const std::int64_t batch = data.shape(0), k = x.shape(2), n = p.n_rows;
    if (p.n_cols != n) throw nb::value_error("residual needs a square Pattern");
    expect(data, {batch, p.nnz()}, "data");
    expect(x, {batch, n, k}, "x");
    expect(b, {batch, n, k}, "b");
    expect(r, {batch, n, k}, "r");
    expect(norms, {batch, k, backsolve::kNorms}, "norms");
    nb::gil_scoped_release release;
    (adjoint ? backsolve::residual<true, I, T> : backsolve::residual<false, I, T>)(
        p, data.data(), x.data(), b.data(), r.data(), norms.data(), batch, k);
  }, "data"_a.noconvert(), "x"_a.noconvert(), "b"_a.noconvert(), "r"_a.noconvert(), "norms"_a.noconvert(), "adjoint"_a);
  c.def("solve_triangular", [](const P& p, In<T, 2> data, In<T, 3> b, Out<T, 3> x, bool lower, bool adjoint) {
    const std::int64_t batch = data.shape(0), k = b.shape(2), n = p.n_rows;
    if (p.n_cols != n) throw nb::value_error("solve_triangular needs a square Pattern");
    expect(data, {batch, p.nnz()}, "data");
    expect(b, {batch, n, k}, "b");
    expect(x, {batch, n, k}, "x");
    nb::gil_scoped_release release;
    backsolve::solve_triangular(p, data.data(), b.data(), x.data(), batch, k, lower, adjoint);
  }, "data"_a.noconvert(), "b"_a.noconvert(), "x"_a.noconvert(), "lower"_a, "adjoint"_a);
  c.def("not_definite", [](const P& p, In<T, 1> data) {
    if (p.n_cols != p.n_rows) throw nb::value_error("not_definite needs a square Pattern");
    expect(data, {p.nnz()}, "data");
    const auto [i, j] = backsolve::not_definite<I, T>(p, data.data());
    return nb::make_tuple(i, j);
  }, "data"_a.noconvert());
}

template <class I>
void bind_pattern(nb::module_& m, const char* name) {
  using P = Pattern<I>;
  nb::class_<P> c(m, name);
  c.def(nb::new_([](In<I, 1> indptr, In<I, 1> indices, std::int64_t n_rows, std::int64_t n_cols) {
    return std::make_shared<P>(indptr.data(), indptr.shape(0), indices.data(), indices.shape(0), n_rows, n_cols);
  }), "indptr"_a.noconvert(), "indices"_a.noconvert(), "n_rows"_a, "n_cols"_a);
  const auto field = [&c](const char* attribute, auto pick) {
    c.def_prop_ro(attribute, [pick](nb::object self) {
      const P& p = nb::cast<const P&>(self);
      return view<I>(pick(p), self);
    });
  };
  field("indptr", [](const P& p) -> const std::vector<I>& { return p.rows().indptr; });
  field("indices", [](const P& p) -> const std::vector<I>& { return p.rows().indices; });
  field("t_indptr", [](const P& p) -> const std::vector<I>& { return p.columns().indptr; });
  field("t_indices", [](const P& p) -> const std::vector<I>& { return p.columns().indices; });
  field("t_slot", [](const P& p) -> const std::vector<I>& { return p.columns().slot; });
  c.def("diagonal", [](const P& p) { return own(p.diagonal()); });
  c.def("mirrored", [](const P& p) {
    const auto [off, both] = p.mirrored();
    return nb::make_tuple(off, both);
  });
  bind_values<I, double>(c);
  bind_values<I, float>(c);
  bind_values<I, std::complex<double>>(c);
  bind_values<I, std::complex<float>>(c);
  m.def("diagnose", [](In<I, 1> indptr, In<I, 1> indices, std::int64_t n_rows, std::int64_t n_cols) {
    const auto d = backsolve::diagnose(indptr.data(), static_cast<std::int64_t>(indptr.shape(0)), indices.data(),
                                       static_cast<std::int64_t>(indices.shape(0)), n_rows, n_cols);
    return nb::make_tuple(static_cast<int>(d.defect), d.position, d.value);
  }, "indptr"_a.noconvert(), "indices"_a.noconvert(), "n_rows"_a, "n_cols"_a);
  m.def("canonicalise", [](In<I, 1> rows, In<I, 1> cols, std::int64_t n_rows, std::int64_t n_cols) {
    const std::int64_t count = rows.shape(0);
    expect(cols, {count}, "cols");
    auto c = backsolve::canonicalise(rows.data(), cols.data(), count, n_rows, n_cols);
    return nb::make_tuple(own(std::move(c.indptr)), own(std::move(c.indices)), own(std::move(c.slots)));
  }, "rows"_a.noconvert(), "cols"_a.noconvert(), "n_rows"_a, "n_cols"_a);
}

template <class T>
void bind_beyond(nb::module_& m) {
  m.def("first_beyond", [](In<T, 1> values, double limit) {
    nb::gil_scoped_release release;
    return backsolve::first_beyond(values.data(), static_cast<std::int64_t>(values.shape(0)), limit);
  }, "values"_a.noconvert(), "limit"_a);
}

NB_MODULE(_kernels, m) {
  nb::set_leak_warnings(false);  // patterns that live until the interpreter exits are no leak
  bind_pattern<std::int32_t>(m, "Pattern32");
  bind_pattern<std::int64_t>(m, "Pattern64");
  bind_beyond<double>(m);
  bind_beyond<float>(m);
  bind_beyond<std::complex<double>>(m);
  bind_beyond<std::complex<float>>(m);
  bind_analysis(m);
  bind_elimination(m);
  bind_extended(m);
  bind_incomplete(m);
  bind_local(m);
  bind_local_margins(m);
  bind_local_transpose(m);
  bind_local_pagerank(m);
  bind_ffi(m);
  m.def("settled", [](In<double, 3> norms, const std::array<double, backsolve::Standard::size>& standard) {
    expect(norms, {static_cast<std::int64_t>(norms.shape(0)), static_cast<std::int64_t>(norms.shape(1)),
                   backsolve::kNorms}, "norms");
    const std::int64_t columns = norms.shape(0) * norms.shape(1);
    return backsolve::settled(norms.data(), columns, backsolve::Standard::of(standard.data()));
  }, "norms"_a.noconvert(), "standard"_a);
  m.def("thread_count", &backsolve::thread_count);
}
