// Python face of dense batches: checks sizes, releases the GIL, calls. LAPACK's functions come as addresses. No logic.
#include <nanobind/stl/complex.h>

#include <complex>

#include "arrays.hpp"
#include "dense.hpp"

using nb::literals::operator""_a;

namespace {

template <class T>
void bind(nb::module_& m) {
  m.def("lu_factor", [](std::uintptr_t getrf, In<T, 3> a, Out<T, 3> lu, Out<int, 2> pivots, Out<std::int64_t, 1> info) {
    const std::int64_t batch = a.shape(0), n = a.shape(1);
    expect(a, {batch, n, n}, "a");
    expect(lu, {batch, n, n}, "lu");
    expect(pivots, {batch, n}, "pivots");
    expect(info, {batch}, "info");
    nb::gil_scoped_release release;
    backsolve::lu_factor(reinterpret_cast<backsolve::Getrf<T>>(getrf), a.data(), lu.data(), pivots.data(), info.data(),
                         batch, n);
  }, "getrf"_a, "a"_a.noconvert(), "lu"_a.noconvert(), "pivots"_a.noconvert(), "info"_a.noconvert());
  m.def("lu_solve", [](std::uintptr_t getrs, In<T, 3> lu, In<int, 2> pivots, In<T, 3> b, Out<T, 3> x, bool adjoint) {
    const std::int64_t batch = b.shape(0), n = b.shape(1), k = b.shape(2);
    expect(lu, {batch, n, n}, "lu");
    expect(pivots, {batch, n}, "pivots");
    expect(x, {batch, n, k}, "x");
    nb::gil_scoped_release release;
    backsolve::lu_solve(reinterpret_cast<backsolve::Getrs<T>>(getrs), lu.data(), pivots.data(), b.data(), x.data(),
                        batch, n, k, adjoint);
  }, "getrs"_a, "lu"_a.noconvert(), "pivots"_a.noconvert(), "b"_a.noconvert(), "x"_a.noconvert(), "adjoint"_a);
  m.def("dense_cholesky", [](std::uintptr_t potrf, In<T, 3> a, Out<T, 3> factor, Out<std::int64_t, 1> info) {
    const std::int64_t batch = a.shape(0), n = a.shape(1);
    expect(a, {batch, n, n}, "a");
    expect(factor, {batch, n, n}, "factor");
    expect(info, {batch}, "info");
    nb::gil_scoped_release release;
    backsolve::cholesky(reinterpret_cast<backsolve::Potrf<T>>(potrf), a.data(), factor.data(), info.data(), batch, n);
  }, "potrf"_a, "a"_a.noconvert(), "factor"_a.noconvert(), "info"_a.noconvert());
  m.def("cholesky_solve", [](std::uintptr_t potrs, In<T, 3> factor, In<T, 3> b, Out<T, 3> x) {
    const std::int64_t batch = b.shape(0), n = b.shape(1), k = b.shape(2);
    expect(factor, {batch, n, n}, "factor");
    expect(x, {batch, n, k}, "x");
    nb::gil_scoped_release release;
    backsolve::cholesky_solve(reinterpret_cast<backsolve::Potrs<T>>(potrs), factor.data(), b.data(), x.data(), batch, n,
                              k);
  }, "potrs"_a, "factor"_a.noconvert(), "b"_a.noconvert(), "x"_a.noconvert());
  m.def("dense_residual", [](In<T, 3> a, In<T, 3> x, In<T, 3> b, Out<T, 3> r, Out<double, 3> norms, bool adjoint) {
    const std::int64_t batch = b.shape(0), n = b.shape(1), k = b.shape(2);
    expect(a, {batch, n, n}, "a");
    expect(x, {batch, n, k}, "x");
    expect(r, {batch, n, k}, "r");
    expect(norms, {batch, k, backsolve::kNorms}, "norms");
    nb::gil_scoped_release release;
    backsolve::dense_residual(a.data(), x.data(), b.data(), r.data(), norms.data(), batch, n, k, adjoint);
  }, "a"_a.noconvert(), "x"_a.noconvert(), "b"_a.noconvert(), "r"_a.noconvert(), "norms"_a.noconvert(), "adjoint"_a);
}

}  // namespace

void bind_dense(nb::module_& m) {
  bind<double>(m);
  bind<float>(m);
  bind<std::complex<double>>(m);
  bind<std::complex<float>>(m);
}
