// XLA's face of the kernels: finds the Pattern by its digest, checks the sizes of all arrays, calls. No logic.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <string>
#include <string_view>
#include <vector>

#include "ffi.hpp"
#include "kernels.hpp"
#include "shared_patterns.hpp"
#include "triangular.hpp"
#include "verdict.hpp"

namespace nb = nanobind;
using nb::literals::operator""_a;
using backsolve::Pattern;

void bind_ffi_sweeps(nb::dict handlers);  // bind_ffi_sweeps.cpp

namespace {

ffi::Error matmat(std::string_view digest, bool adjoint, Array data, Array x, Result y) {
  return call(digest, data.element_type(), [&]<class T, class I>(const Pattern<I>& p) {
    const std::int64_t batch = size(data, 0, 2, "data"), k = size(x, 2, 3, "x");
    expect(data, data.element_type(), {batch, p.nnz()}, "data");
    expect(x, data.element_type(), {batch, adjoint ? p.n_rows : p.n_cols, k}, "x");
    expect(*y, data.element_type(), {batch, adjoint ? p.n_cols : p.n_rows, k}, "y");
    backsolve::matmat_for<I, T>(adjoint, false)(p, in<T>(data), in<T>(x), out<T>(y), batch, k);
  });
}

ffi::Error outer(std::string_view digest, Array y, Array x, Result s) {
  return call(digest, y.element_type(), [&]<class T, class I>(const Pattern<I>& p) {
    const std::int64_t batch = size(y, 0, 3, "y"), k = size(y, 2, 3, "y");
    expect(y, y.element_type(), {batch, p.n_rows, k}, "y");
    expect(x, y.element_type(), {batch, p.n_cols, k}, "x");
    expect(*s, y.element_type(), {batch, p.nnz()}, "s");
    backsolve::outer<I, T>(p, in<T>(y), in<T>(x), out<T>(s), batch, k);
  });
}

// Substitutes and judges: settled is 1 for items of which nothing is left to say, else 0.
ffi::Error triangular(std::string_view digest, bool lower, bool adjoint, ffi::Span<const double> standard, Array data,
                      Array b, Result x, Result settled) {
  return call(digest, data.element_type(), [&]<class T, class I>(const Pattern<I>& p) {
    const std::int64_t batch = size(data, 0, 2, "data"), k = size(b, 2, 3, "b"), n = p.n_rows;
    if (p.n_cols != n) throw Refusal{"a triangular solve needs a square Pattern"};
    if (standard.size() != backsolve::Standard::size)
      throw Refusal{"standard must have 10 numbers"};
    expect(data, data.element_type(), {batch, p.nnz()}, "data");
    expect(b, data.element_type(), {batch, n, k}, "b");
    expect(*x, data.element_type(), {batch, n, k}, "x");
    expect(*settled, ffi::S32, {batch}, "settled");
    std::vector<T> r(static_cast<std::size_t>(batch * n * k));
    std::vector<double> norms(static_cast<std::size_t>(batch * k * backsolve::kNorms));
    backsolve::solve_triangular(p, in<T>(data), in<T>(b), out<T>(x), batch, k, lower, adjoint);
    const auto residual = adjoint ? backsolve::residual<true, I, T> : backsolve::residual<false, I, T>;
    residual(p, in<T>(data), out<T>(x), in<T>(b), r.data(), norms.data(), batch, k);
    for (std::int64_t at = 0; at < batch; ++at)
      out<std::int32_t>(settled)[at] = backsolve::settled(norms.data() + at * k * backsolve::kNorms, k,
                                                          backsolve::Standard::of(standard.begin()));
  });
}

template <class I>
void bind_share(nb::module_& m) {
  m.def("share", [](const std::shared_ptr<Pattern<I>>& pattern, const std::string& digest) {
    return std::const_pointer_cast<Pattern<I>>(backsolve::shared_patterns().share<I>(digest, pattern));
  }, "pattern"_a, "digest"_a);
}

XLA_FFI_DEFINE_HANDLER(on_matmat, matmat,
                       ffi::Ffi::Bind()
                           .Attr<std::string_view>("pattern")
                           .Attr<bool>("adjoint")
                           .Arg<Array>()
                           .Arg<Array>()
                           .Ret<Array>());
XLA_FFI_DEFINE_HANDLER(on_outer, outer,
                       ffi::Ffi::Bind()
                           .Attr<std::string_view>("pattern")
                           .Arg<Array>()
                           .Arg<Array>()
                           .Ret<Array>());

XLA_FFI_DEFINE_HANDLER(on_triangular, triangular,
                       ffi::Ffi::Bind()
                           .Attr<std::string_view>("pattern")
                           .Attr<bool>("lower")
                           .Attr<bool>("adjoint")
                           .Attr<ffi::Span<const double>>("standard")
                           .Arg<Array>()
                           .Arg<Array>()
                           .Ret<Array>()
                           .Ret<Array>());

}  // namespace

void bind_ffi(nb::module_& m) {
  bind_share<std::int32_t>(m);
  bind_share<std::int64_t>(m);
  nb::dict handlers;
  handlers["matmat"] = nb::capsule(reinterpret_cast<void*>(on_matmat));
  handlers["outer"] = nb::capsule(reinterpret_cast<void*>(on_outer));
  handlers["triangular"] = nb::capsule(reinterpret_cast<void*>(on_triangular));
  bind_ffi_sweeps(handlers);
  m.attr("XLA_HANDLERS") = handlers;
}
