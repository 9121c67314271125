// Tensors as the bindings take them, and the check that keeps every kernel inside them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace nb = nanobind;

template <class T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Floats = Array<const float>;
using FloatsOut = Array<float>;
using Ints = Array<const int32_t>;
using IntsOut = Array<int32_t>;

template <class A>
inline void expect(const A& array, const char* name, int64_t size) {
    if (static_cast<int64_t>(array.size()) != size)
        throw std::invalid_argument(std::string(name) + " has " + std::to_string(array.size()) + " elements, expected " +
                                    std::to_string(size));
}
