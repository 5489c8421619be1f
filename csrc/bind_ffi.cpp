// XLA's face of the kernels: finds the Pattern by its digest, checks the sizes of all arrays, calls. No logic.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <exception>
#include <initializer_list>
#include <new>
#include <string>
#include <string_view>

#include "kernels.hpp"
#include "shared_patterns.hpp"
#include "triangular.hpp"
#include "xla/ffi/api/ffi.h"

namespace nb = nanobind;
namespace ffi = xla::ffi;
using nb::literals::operator""_a;
using backsolve::Pattern;
using Array = ffi::AnyBuffer;
using Result = ffi::Result<ffi::AnyBuffer>;

namespace {

struct Refusal {
  XLA_FFI_Error_Code code;
  std::string message;
};

std::string text(ffi::Span<const std::int64_t> shape) {
  std::string out = "(";
  for (const std::int64_t size : shape) out += std::to_string(size) + ",";
  return out + ")";
}

void expect(const Array& array, ffi::DataType type, std::initializer_list<std::int64_t> shape, const char* name) {
  const auto given = array.dimensions();
  const ffi::Span<const std::int64_t> wanted(shape.begin(), shape.size());
  if (array.element_type() != type)
    throw Refusal{XLA_FFI_Error_Code_INVALID_ARGUMENT, std::string(name) + " must have the dtype of the other arrays"};
  if (!std::equal(given.begin(), given.end(), wanted.begin(), wanted.end()))
    throw Refusal{XLA_FFI_Error_Code_INVALID_ARGUMENT,
                  std::string(name) + " must have shape " + text(wanted) + " for this Pattern; got " + text(given)};
}

std::int64_t size(const Array& array, std::size_t axis, std::size_t rank, const char* name) {
  if (array.dimensions().size() != rank)
    throw Refusal{XLA_FFI_Error_Code_INVALID_ARGUMENT,
                  std::string(name) + " must have " + std::to_string(rank) + " axes; got " + text(array.dimensions())};
  return array.dimensions()[axis];
}

template <class T> const T* in(const Array& array) { return static_cast<const T*>(array.untyped_data()); }
template <class T> T* out(Result& array) { return static_cast<T*>(array->untyped_data()); }

// Calls kernel.operator()<T>(pattern) for the Pattern of this digest and values of this dtype. No exception leaves, as
// XLA knows none.
template <class Kernel>
ffi::Error call(std::string_view digest, ffi::DataType type, const Kernel& kernel) try {
  const backsolve::AnyPattern any = backsolve::shared_patterns().find(digest);
  return std::visit([&](const auto& pattern) {
    if constexpr (std::is_same_v<decltype(pattern), const std::monostate&>) {
      return ffi::Error(XLA_FFI_Error_Code_FAILED_PRECONDITION,
                        "backsolve: this process does not know the pattern of this compiled program: trace and compile "
                        "the function here, with its operator, instead of loading the program");
    } else {
      switch (type) {
        case ffi::F32: kernel.template operator()<float>(*pattern); break;
        case ffi::F64: kernel.template operator()<double>(*pattern); break;
        case ffi::C64: kernel.template operator()<std::complex<float>>(*pattern); break;
        case ffi::C128: kernel.template operator()<std::complex<double>>(*pattern); break;
        default:
          throw Refusal{XLA_FFI_Error_Code_INVALID_ARGUMENT,
                        "values must be float32, float64, complex64 or complex128"};
      }
      return ffi::Error::Success();
    }
  }, any);
} catch (const Refusal& refusal) {
  return ffi::Error(refusal.code, "backsolve: " + refusal.message);
} catch (const std::bad_alloc&) {
  return ffi::Error(XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "backsolve: no memory for a kernel");
} catch (const std::exception& error) {
  return ffi::Error(XLA_FFI_Error_Code_INTERNAL, std::string("backsolve: ") + error.what());
}

ffi::Error matmat(std::string_view digest, bool adjoint, Array data, Array x, Result y) {
  return call(digest, data.element_type(), [&]<class T, class I>(const Pattern<I>& p) {
    const std::int64_t batch = size(data, 0, 2, "data"), k = size(x, 2, 3, "x");
    expect(data, data.element_type(), {batch, p.nnz()}, "data");
    expect(x, data.element_type(), {batch, adjoint ? p.n_rows : p.n_cols, k}, "x");
    expect(*y, data.element_type(), {batch, adjoint ? p.n_cols : p.n_rows, k}, "y");
    const auto kernel = adjoint ? backsolve::matmat<true, I, T> : backsolve::matmat<false, I, T>;
    kernel(p, in<T>(data), in<T>(x), out<T>(y), batch, k);
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

}  // namespace

void bind_ffi(nb::module_& m) {
  bind_share<std::int32_t>(m);
  bind_share<std::int64_t>(m);
  nb::dict handlers;
  handlers["matmat"] = nb::capsule(reinterpret_cast<void*>(on_matmat));
  handlers["outer"] = nb::capsule(reinterpret_cast<void*>(on_outer));
  m.attr("XLA_HANDLERS") = handlers;
}
