// Python face of incomplete elimination. No logic.
#include <nanobind/stl/complex.h>

#include <complex>

#include "arrays.hpp"
#include "incomplete.hpp"

using nb::literals::operator""_a;
using backsolve::Pattern;

namespace {

template <class I, class T>
void bind_values(nb::module_& m) {
  m.def("eliminate_incompletely", [](const Pattern<I>& p, In<T, 2> data, Out<T, 2> w, In<double, 1> shifts,
                                     Out<std::int64_t, 1> failed, double relaxation, bool definite) {
    const std::int64_t batch = data.shape(0);
    if (p.n_cols != p.n_rows) throw nb::value_error("eliminate_incompletely needs a square Pattern");
    expect(data, {batch, p.nnz()}, "data");
    expect(w, {batch, p.nnz()}, "w");
    expect(failed, {batch}, "failed");
    nb::gil_scoped_release release;
    backsolve::eliminate_incompletely_all<I, T>(p, data.data(), w.data(), {shifts.data(), shifts.shape(0)},
                                                failed.data(), batch, relaxation, definite);
  }, "pattern"_a, "data"_a.noconvert(), "w"_a.noconvert(), "shifts"_a.noconvert(), "failed"_a.noconvert(),
     "relaxation"_a, "definite"_a);
}

template <class I>
void bind_index(nb::module_& m) {
  bind_values<I, double>(m);
  bind_values<I, float>(m);
  bind_values<I, std::complex<double>>(m);
  bind_values<I, std::complex<float>>(m);
}

}  // namespace

void bind_incomplete(nb::module_& m) {
  bind_index<std::int32_t>(m);
  bind_index<std::int64_t>(m);
}
