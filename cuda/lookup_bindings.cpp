// Python bindings of the lookup. Tensors cross by DLPack; shapes that do not fit are refused here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/lookup.h"

namespace nb = nanobind;
using namespace dictsplat;

using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Vector = nb::ndarray<nb::pytorch, T, nb::ndim<1>>;

template <class T>
static Vector<T> new_vector(size_t size) {
    T* data = new T[size];
    return {data, {size}, nb::capsule(data, [](void* p) noexcept { delete[] static_cast<T*>(p); })};
}

static PackedKeys pack(const Matrix& keys) {
    if (keys.shape(0) == 0) throw std::invalid_argument("there are no keys to look up");
    if (keys.shape(0) > INT32_MAX) throw std::length_error("more than 2^31 keys");
    return {keys.data(), static_cast<int64_t>(keys.shape(0)), static_cast<int>(keys.shape(1))};
}

static std::tuple<Vector<int32_t>, Vector<int32_t>, Vector<float>> support(const PackedKeys& keys, const Matrix& queries,
                                                                          int threads) {
    if (static_cast<int64_t>(queries.shape(1)) != keys.channels)
        throw std::invalid_argument("queries have " + std::to_string(queries.shape(1)) + " channels, keys " +
                                    std::to_string(keys.channels));
    const int64_t rows = static_cast<int64_t>(queries.shape(0));
    auto offsets = new_vector<int32_t>(rows + 1);
    std::vector<Support> found;
    {
        nb::gil_scoped_release release;
        found = lookup_kernels().support(keys, queries.data(), rows, std::max(threads, 1), offsets.data() + 1);
    }
    int64_t total = 0;
    offsets.data()[0] = 0;
    for (int64_t row = 1; row <= rows; ++row) {
        total += offsets.data()[row];
        if (total > INT32_MAX)
            throw std::length_error("more than 2^31 weights over all queries; look up fewer at a time");
        offsets.data()[row] = static_cast<int32_t>(total);
    }
    auto indices = new_vector<int32_t>(total);
    auto weights = new_vector<float>(total);
    int64_t at = 0;
    for (Support& block : found) {
        std::copy(block.indices.begin(), block.indices.end(), indices.data() + at);
        std::copy(block.weights.begin(), block.weights.end(), weights.data() + at);
        at += static_cast<int64_t>(block.indices.size());
        block = {};                     // not twice in memory
    }
    return {std::move(offsets), std::move(indices), std::move(weights)};
}

NB_MODULE(_native, m) {
    m.doc() = "dictsplat's native lookup; dictas.lookup is the interface to use.";
    m.def("isa", [] { return std::string(lookup_kernels().isa); });
    nb::class_<PackedKeys>(m, "PackedKeys")
        .def("__init__", [](PackedKeys* self, const Matrix& keys) { new (self) PackedKeys(pack(keys)); })
        .def("support", &support);
}
