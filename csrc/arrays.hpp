// What both halves of the Python face share: typed views of arrays, and vectors as arrays.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace nb = nanobind;

template <class T, int Dims>
using In = nb::ndarray<const T, nb::ndim<Dims>, nb::c_contig, nb::device::cpu>;
template <class T, int Dims>
using Out = nb::ndarray<T, nb::ndim<Dims>, nb::c_contig, nb::device::cpu>;

template <class Array>
void expect(const Array& array, std::initializer_list<std::int64_t> shape, const char* name) {
  std::size_t axis = 0;
  for (const std::int64_t size : shape)
    if (static_cast<std::int64_t>(array.shape(axis++)) != size)
      throw nb::value_error((std::string(name) + " has the wrong shape for this Pattern").c_str());
}

// A NumPy view of a vector, or an array that owns it.
template <class I>
nb::ndarray<nb::numpy, const I, nb::ndim<1>> view(const std::vector<I>& v, nb::handle owner) {
  return {v.data(), {v.size()}, owner};
}
template <class I>
nb::ndarray<nb::numpy, I, nb::ndim<1>> own(std::vector<I>&& v) {
  auto* kept = new std::vector<I>(std::move(v));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<I>*>(p); });
  return {kept->data(), {kept->size()}, owner};
}
