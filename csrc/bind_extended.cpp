// Python face of the residual in double-double: checks sizes, releases the GIL, calls. No logic.
#include <nanobind/stl/complex.h>

#include <complex>

#include "arrays.hpp"
#include "extended.hpp"

using nb::literals::operator""_a;
using backsolve::Pattern;

template <class I, class T>
void bind(nb::module_& m) {
  m.def("residual_extended", [](const Pattern<I>& p, In<T, 2> data, In<T, 3> x, In<T, 3> b, Out<T, 3> r, bool adjoint) {
    const std::int64_t batch = data.shape(0), k = x.shape(2), n = p.n_rows;
    if (p.n_cols != n) throw nb::value_error("residual_extended needs a square Pattern");
    expect(data, {batch, p.nnz()}, "data");
    expect(x, {batch, n, k}, "x");
    expect(b, {batch, n, k}, "b");
    expect(r, {batch, n, k}, "r");
    nb::gil_scoped_release release;
    (adjoint ? backsolve::residual_extended<true, I, T> : backsolve::residual_extended<false, I, T>)(
        p, data.data(), x.data(), b.data(), r.data(), batch, k);
  }, "pattern"_a, "data"_a.noconvert(), "x"_a.noconvert(), "b"_a.noconvert(), "r"_a.noconvert(), "adjoint"_a);
}

void bind_extended(nb::module_& m) {
  bind<std::int32_t, double>(m);
  bind<std::int64_t, double>(m);
  bind<std::int32_t, std::complex<double>>(m);
  bind<std::int64_t, std::complex<double>>(m);
}
