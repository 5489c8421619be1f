// What the handlers of XLA's calls share: the sizes of arrays, the Pattern of a digest, refusals.
#pragma once

#include <algorithm>
#include <complex>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#include "shared_patterns.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using Array = ffi::AnyBuffer;
using Result = ffi::Result<ffi::AnyBuffer>;

// Thrown by checks inside of `call`, which makes it an error of XLA.
struct Refusal {
  std::string message;
};

inline std::string text(ffi::Span<const std::int64_t> shape) {
  std::string out = "(";
  for (const std::int64_t size : shape) out += std::to_string(size) + ",";
  return out + ")";
}

inline void expect(const Array& array, ffi::DataType type, std::initializer_list<std::int64_t> shape, const char* name) {
  const auto given = array.dimensions();
  const ffi::Span<const std::int64_t> wanted(shape.begin(), shape.size());
  if (array.element_type() != type) throw Refusal{std::string(name) + " must have the dtype of the other arrays"};
  if (!std::equal(given.begin(), given.end(), wanted.begin(), wanted.end()))
    throw Refusal{std::string(name) + " must have shape " + text(wanted) + " for this Pattern; got " + text(given)};
}

inline std::int64_t size(const Array& array, std::size_t axis, std::size_t rank, const char* name) {
  if (array.dimensions().size() != rank)
    throw Refusal{std::string(name) + " must have " + std::to_string(rank) + " axes; got " + text(array.dimensions())};
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
        default: throw Refusal{"values must be float32, float64, complex64 or complex128"};
      }
      return ffi::Error::Success();
    }
  }, any);
} catch (const Refusal& refusal) {
  return ffi::Error(XLA_FFI_Error_Code_INVALID_ARGUMENT, "backsolve: " + refusal.message);
} catch (const std::bad_alloc&) {
  return ffi::Error(XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "backsolve: no memory for a kernel");
} catch (const std::exception& error) {
  return ffi::Error(XLA_FFI_Error_Code_INTERNAL, std::string("backsolve: ") + error.what());
}
