// XLA's face of what loops of a program need: adjoint products with values brought in order once, substitution and
// incomplete elimination for preconditioners. No logic.
#include <nanobind/nanobind.h>

#include <new>
#include <string_view>
#include <vector>

#include "ffi.hpp"
#include "incomplete.hpp"
#include "kernels.hpp"
#include "triangular.hpp"

namespace nb = nanobind;
using backsolve::Pattern;

namespace {

template <class I>
void expect_square(const Pattern<I>& p) {
  if (p.n_cols != p.n_rows) throw Refusal{"sweeps need a square Pattern"};
}

ffi::Error turn(std::string_view digest, Array data, Result turned) {
  return call(digest, data.element_type(), [&]<class T, class I>(const Pattern<I>& p) {
    const std::int64_t batch = size(data, 0, 2, "data");
    expect(data, data.element_type(), {batch, p.nnz()}, "data");
    expect(*turned, data.element_type(), {batch, p.nnz()}, "turned");
    backsolve::turn<I, T>(p, in<T>(data), out<T>(turned), batch);
  });
}

ffi::Error multiply_turned(std::string_view digest, Array turned, Array x, Result y) {
  return call(digest, turned.element_type(), [&]<class T, class I>(const Pattern<I>& p) {
    const std::int64_t batch = size(turned, 0, 2, "turned"), k = size(x, 2, 3, "x");
    expect(turned, turned.element_type(), {batch, p.nnz()}, "turned");
    expect(x, turned.element_type(), {batch, p.n_rows, k}, "x");
    expect(*y, turned.element_type(), {batch, p.n_cols, k}, "y");
    backsolve::matmat_for<I, T>(true, true)(p, in<T>(turned), in<T>(x), out<T>(y), batch, k);
  });
}

ffi::Error substitute(std::string_view digest, bool lower, bool adjoint, Array data, Array b, Result x) {
  return call(digest, data.element_type(), [&]<class T, class I>(const Pattern<I>& p) {
    const std::int64_t batch = size(data, 0, 2, "data"), k = size(b, 2, 3, "b");
    expect_square(p);
    expect(data, data.element_type(), {batch, p.nnz()}, "data");
    expect(b, data.element_type(), {batch, p.n_rows, k}, "b");
    expect(*x, data.element_type(), {batch, p.n_rows, k}, "x");
    backsolve::solve_triangular(p, in<T>(data), in<T>(b), out<T>(x), batch, k, lower, adjoint);
  });
}

// lost is 1 for items of which some pivot failed, whatever the shift, else 0.
ffi::Error eliminate(std::string_view digest, ffi::Span<const double> shifts, double relaxation, bool definite,
                     Array data, Result w, Result lost) {
  return call(digest, data.element_type(), [&]<class T, class I>(const Pattern<I>& p) {
    const std::int64_t batch = size(data, 0, 2, "data");
    expect_square(p);
    expect(data, data.element_type(), {batch, p.nnz()}, "data");
    expect(*w, data.element_type(), {batch, p.nnz()}, "w");
    expect(*lost, ffi::S32, {batch}, "lost");
    std::vector<std::int64_t> failed(static_cast<std::size_t>(batch));
    backsolve::eliminate_incompletely_all<I, T>(p, in<T>(data), out<T>(w), {shifts.begin(), shifts.size()},
                                                failed.data(), batch, relaxation, definite);
    for (std::int64_t at = 0; at < batch; ++at) {
      if (failed[at] == backsolve::kNoMemory) throw std::bad_alloc();
      out<std::int32_t>(lost)[at] = failed[at] >= 0;
    }
  });
}

XLA_FFI_DEFINE_HANDLER(on_turn, turn,
                       ffi::Ffi::Bind().Attr<std::string_view>("pattern").Arg<Array>().Ret<Array>());
XLA_FFI_DEFINE_HANDLER(on_multiply_turned, multiply_turned,
                       ffi::Ffi::Bind().Attr<std::string_view>("pattern").Arg<Array>().Arg<Array>().Ret<Array>());
XLA_FFI_DEFINE_HANDLER(on_substitute, substitute,
                       ffi::Ffi::Bind()
                           .Attr<std::string_view>("pattern")
                           .Attr<bool>("lower")
                           .Attr<bool>("adjoint")
                           .Arg<Array>()
                           .Arg<Array>()
                           .Ret<Array>());
XLA_FFI_DEFINE_HANDLER(on_eliminate, eliminate,
                       ffi::Ffi::Bind()
                           .Attr<std::string_view>("pattern")
                           .Attr<ffi::Span<const double>>("shifts")
                           .Attr<double>("relaxation")
                           .Attr<bool>("definite")
                           .Arg<Array>()
                           .Ret<Array>()
                           .Ret<Array>());

}  // namespace

void bind_ffi_sweeps(nb::dict handlers) {
  handlers["turn"] = nb::capsule(reinterpret_cast<void*>(on_turn));
  handlers["multiply_turned"] = nb::capsule(reinterpret_cast<void*>(on_multiply_turned));
  handlers["substitute"] = nb::capsule(reinterpret_cast<void*>(on_substitute));
  handlers["eliminate"] = nb::capsule(reinterpret_cast<void*>(on_eliminate));
}
