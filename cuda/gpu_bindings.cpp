// Python bindings of the CUDA kernels, as the module `_cuda`. Tensors cross by DLPack without being copied or waited
// for, the stream as an integer; every output is allocated by the caller. Types, devices and shapes that do not fit
// are refused here with a sentence, so that no kernel reads past an array. The values of `isect_offsets` and
// `flatten_ids` are trusted: looking at them would mean waiting for the GPU.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cuda_runtime.h>

#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dictsplat/math.h"
#include "gpu/kernels.h"

namespace nb = nanobind;
using namespace dictsplat;

#if defined(DS_EMULATOR)
constexpr int kDevice = nb::device::cpu::value;
constexpr const char* kDeviceName = "a CPU tensor (emulated kernels)";
#else
constexpr int kDevice = nb::device::cuda::value;
constexpr const char* kDeviceName = "a CUDA tensor";
#endif

using Tensor = nb::ndarray<>;

namespace {

// Name, element type and shape that an argument has to have; -1 is any size.
struct Expected {
    const char* name;
    nb::dlpack::dtype dtype;
    std::initializer_list<int64_t> shape;
};

std::string shape_text(const int64_t* begin, size_t count) {
    std::string text = "[";
    for (size_t i = 0; i < count; ++i) text += (i ? ", " : "") + (begin[i] < 0 ? std::string("any") : std::to_string(begin[i]));
    return text + "]";
}

std::string dtype_text(nb::dlpack::dtype dtype) {
    const char* kind = dtype.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float)  ? "float"
                       : dtype.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Int)  ? "int"
                       : dtype.code == static_cast<uint8_t>(nb::dlpack::dtype_code::UInt) ? "uint"
                                                                                          : "other";
    return kind + std::to_string(dtype.bits);
}

// Checks tensors and remembers their device, which has to be the same for all.
class Arguments {
  public:
    template <class T>
    T* get(const Tensor& tensor, const Expected& expected) {
        bool fits = tensor.ndim() == expected.shape.size();
        std::vector<int64_t> shape;
        for (size_t i = 0; i < tensor.ndim(); ++i) shape.push_back(static_cast<int64_t>(tensor.shape(i)));
        for (size_t i = 0; fits && i < shape.size(); ++i) {
            const int64_t want = expected.shape.begin()[i];
            fits = want < 0 || want == shape[i];
        }
        const std::string name = expected.name;
        if (!fits || tensor.dtype() != expected.dtype)
            throw std::invalid_argument(name + ": expected " + dtype_text(expected.dtype) + " " +
                                        shape_text(expected.shape.begin(), expected.shape.size()) + ", got " +
                                        dtype_text(tensor.dtype()) + " " + shape_text(shape.data(), shape.size()));
        if (tensor.device_type() != kDevice) throw std::invalid_argument(name + ": expected " + kDeviceName);
        if (device_ >= 0 && tensor.device_id() != device_)
            throw std::invalid_argument(name + " is on CUDA device " + std::to_string(tensor.device_id()) +
                                        ", but other arguments are on device " + std::to_string(device_));
        device_ = tensor.device_id();
        int64_t stride = 1;
        for (size_t i = shape.size(); i-- > 0; stride *= shape[i])
            if (shape[i] > 1 && tensor.size() > 0 && tensor.stride(i) != stride)
                throw std::invalid_argument(name + " must be contiguous");
        return static_cast<T*>(tensor.data());
    }
    int device() const { return device_; }

  private:
    int device_ = -1;
};

// Makes a device current while kernels are queued.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device) : wanted_(device) {
        cudaError_t status = cudaGetDevice(&previous_);
        if (status == cudaSuccess && previous_ != wanted_) status = cudaSetDevice(wanted_);
        if (status != cudaSuccess)
            throw std::runtime_error("CUDA device " + std::to_string(wanted_) + ": " + cudaGetErrorString(status));
    }
    ~DeviceGuard() {
        if (previous_ != wanted_) cudaSetDevice(previous_);
    }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

  private:
    int wanted_, previous_ = 0;
};

const nb::dlpack::dtype kFloat = nb::dtype<float>(), kInt = nb::dtype<int32_t>(), kByte = nb::dtype<uint8_t>();

gpu::SplatLists lists_of(Arguments& args, const Tensor& means2d, const Tensor& conics, const Tensor& opacities,
                                const Tensor& isect_offsets, const Tensor& flatten_ids,
                                const std::optional<Tensor>& gaussian_ids, int64_t gaussians, int width, int height) {
    if (width <= 0 || height <= 0 || width > 65535 || height > 65535)
        throw std::invalid_argument("width and height must be in 1..65535");
    gpu::SplatLists s = {};
    s.means2d = args.get<const float>(means2d, {"means2d", kFloat, {-1, 2}});
    const int64_t splats = static_cast<int64_t>(means2d.shape(0));
    s.conics = args.get<const float>(conics, {"conics", kFloat, {splats, 3}});
    s.opacities = args.get<const float>(opacities, {"opacities", kFloat, {splats}});
    const int64_t tiles_x = (width + kTile - 1) / kTile, tiles_y = (height + kTile - 1) / kTile;
    s.isect_offsets = args.get<const int32_t>(isect_offsets, {"isect_offsets", kInt, {-1, tiles_y, tiles_x}});
    const int64_t cameras = static_cast<int64_t>(isect_offsets.shape(0));
    if (cameras < 1 || cameras > 65535) throw std::invalid_argument("isect_offsets: the number of cameras must be in 1..65535");
    s.flatten_ids = args.get<const int32_t>(flatten_ids, {"flatten_ids", kInt, {-1}});
    s.intersections = static_cast<int64_t>(flatten_ids.shape(0));
    if (s.intersections > INT32_MAX)
        throw std::invalid_argument("flatten_ids has more than 2^31 entries; render fewer cameras at a time");
    s.gaussian_ids = gaussian_ids ? args.get<const int32_t>(*gaussian_ids, {"gaussian_ids", kInt, {splats}}) : nullptr;
    if (!gaussian_ids && splats != cameras * gaussians)
        throw std::invalid_argument("means2d has " + std::to_string(splats) + " rows, expected " + std::to_string(cameras) +
                                    " cameras x " + std::to_string(gaussians) + " Gaussians (packed ones need gaussian_ids)");
    s.gaussians = gaussians;
    s.cameras = static_cast<int>(cameras);
    s.width = width;
    s.height = height;
    return s;
}

gpu::Codes codes_of(Arguments& args, const Tensor& indices, const std::optional<Tensor>& weights, int atoms) {
    if (atoms < 1 || atoms > gpu::kMaxAtoms) throw std::invalid_argument("atoms must be in 1..256");
    gpu::Codes codes = {};
    codes.indices = args.get<const uint8_t>(indices, {"indices", kByte, {-1, -1, -1}});
    const int64_t count = static_cast<int64_t>(indices.shape(0)), levels = static_cast<int64_t>(indices.shape(1));
    const int64_t nonzeros = static_cast<int64_t>(indices.shape(2));
    if (levels < 1 || levels > 64 || nonzeros < 1 || nonzeros > 64)
        throw std::invalid_argument("indices must be [N, levels, nonzeros] with 1..64 levels and nonzeros");
    if (weights) codes.weights = args.get<const float>(*weights, {"weights", kFloat, {count, levels, nonzeros}});
    codes.levels = static_cast<int>(levels);
    codes.nonzeros = static_cast<int>(nonzeros);
    codes.atoms = atoms;
    return codes;
}

cudaStream_t stream_of(uintptr_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

}  // namespace

#define DS_LISTS_ARGS                                                                                            \
    nb::arg("means2d"), nb::arg("conics"), nb::arg("opacities"), nb::arg("isect_offsets"), nb::arg("flatten_ids"), \
        nb::arg("gaussian_ids").none()

NB_MODULE(_cuda, m) {
    m.doc() = "dictsplat's CUDA kernels; splat.ops is the interface to use.";
#if defined(DS_CUDA_ARCHITECTURES)
    m.attr("architectures") = DS_CUDA_ARCHITECTURES;
#else
    m.attr("architectures") = "";
#endif
    m.def("obstacle", [](int device) { return std::string(gpu::obstacle(device)); }, nb::arg("device"),
          "Why the kernels do not run on a CUDA device, or an empty string if they do.");
    m.def("blocks", [](int nonzeros, int atoms) {
        if (nonzeros < 1 || nonzeros > 64 || atoms < 1 || atoms > gpu::kMaxAtoms)
            throw std::invalid_argument("nonzeros must be in 1..64 and atoms in 1..256");
        const gpu::Codes codes = {nullptr, nullptr, 1, nonzeros, atoms};
        nb::dict all;
        for (const auto& [name, block] : {std::pair("codes", gpu::codes_block(codes)), std::pair("lift", gpu::lift_block()),
                                          std::pair("relevancy", gpu::relevancy_block(codes))})
            all[name] = nb::make_tuple(block.threads, block.shared_bytes);
        return all;
    }, nb::arg("nonzeros"), nb::arg("atoms"), "Threads and shared bytes of a block, by kernel.");
    m.def("codes", [](Tensor means2d, Tensor conics, Tensor opacities, Tensor isect_offsets, Tensor flatten_ids,
                      std::optional<Tensor> gaussian_ids, Tensor indices, Tensor weights, int width, int height, int atoms,
                      Tensor out, Tensor alphas, uintptr_t stream) {
        Arguments args;
        const gpu::Codes codes = codes_of(args, indices, weights, atoms);
        const gpu::SplatLists s = lists_of(args, means2d, conics, opacities, isect_offsets, flatten_ids, gaussian_ids,
                                           static_cast<int64_t>(indices.shape(0)), width, height);
        float* const to = args.get<float>(out, {"out", kFloat, {s.cameras, height, width, codes.levels * atoms}});
        float* const alpha = args.get<float>(alphas, {"alphas", kFloat, {s.cameras, height, width, 1}});
        const DeviceGuard guard(args.device());
        gpu::splat_codes(s, codes, to, alpha, stream_of(stream));
    }, DS_LISTS_ARGS, nb::arg("indices"), nb::arg("weights"), nb::arg("width"), nb::arg("height"), nb::arg("atoms"),
          nb::arg("out"), nb::arg("alphas"), nb::arg("stream"));
    m.def("codes_vjp", [](Tensor means2d, Tensor conics, Tensor opacities, Tensor isect_offsets, Tensor flatten_ids,
                          std::optional<Tensor> gaussian_ids, Tensor indices, Tensor v_out, int width, int height, int atoms,
                          Tensor v_weights, uintptr_t stream) {
        Arguments args;
        const gpu::Codes codes = codes_of(args, indices, std::nullopt, atoms);
        const int64_t count = static_cast<int64_t>(indices.shape(0));
        const gpu::SplatLists s = lists_of(args, means2d, conics, opacities, isect_offsets, flatten_ids, gaussian_ids, count,
                                           width, height);
        const float* const v = args.get<const float>(v_out, {"v_out", kFloat, {s.cameras, height, width, codes.levels * atoms}});
        float* const to = args.get<float>(v_weights, {"v_weights", kFloat, {count, codes.levels, codes.nonzeros}});
        const DeviceGuard guard(args.device());
        gpu::splat_codes_vjp(s, codes, v, to, stream_of(stream));
    }, DS_LISTS_ARGS, nb::arg("indices"), nb::arg("v_out"), nb::arg("width"), nb::arg("height"), nb::arg("atoms"),
          nb::arg("v_weights"), nb::arg("stream"));
    m.def("lift", [](Tensor means2d, Tensor conics, Tensor opacities, Tensor isect_offsets, Tensor flatten_ids,
                     std::optional<Tensor> gaussian_ids, Tensor values, int width, int height, Tensor sums, Tensor mass,
                     uintptr_t stream) {
        Arguments args;
        float* const to = args.get<float>(sums, {"sums", kFloat, {-1, -1}});
        const int64_t count = static_cast<int64_t>(sums.shape(0)), channels = static_cast<int64_t>(sums.shape(1));
        if (channels > 64 * 65535) throw std::invalid_argument("sums has too many channels");
        float* const total = args.get<float>(mass, {"mass", kFloat, {count}});
        const gpu::SplatLists s = lists_of(args, means2d, conics, opacities, isect_offsets, flatten_ids, gaussian_ids, count,
                                           width, height);
        const float* const v = args.get<const float>(values, {"values", kFloat, {s.cameras, height, width, channels}});
        const DeviceGuard guard(args.device());
        gpu::lift(s, static_cast<int>(channels), v, to, total, stream_of(stream));
    }, DS_LISTS_ARGS, nb::arg("values"), nb::arg("width"), nb::arg("height"), nb::arg("sums"), nb::arg("mass"), nb::arg("stream"));
    m.def("relevancy", [](Tensor means2d, Tensor conics, Tensor opacities, Tensor isect_offsets, Tensor flatten_ids,
                          std::optional<Tensor> gaussian_ids, Tensor indices, Tensor weights, Tensor scores, Tensor gram,
                          int positives, float temperature, int width, int height, Tensor out, Tensor alphas, uintptr_t stream) {
        Arguments args;
        gpu::RelevancyQuery query = {};
        query.scores = args.get<const float>(scores, {"scores", kFloat, {-1, -1, -1}});
        const int atoms = static_cast<int>(scores.shape(2));
        const gpu::Codes codes = codes_of(args, indices, weights, atoms);
        if (static_cast<int>(scores.shape(0)) != codes.levels)
            throw std::invalid_argument("scores has " + std::to_string(scores.shape(0)) + " levels, the codes have " +
                                        std::to_string(codes.levels));
        query.gram = args.get<const float>(gram, {"gram", kFloat, {codes.levels, atoms, atoms}});
        query.phrases = positives;
        query.texts = static_cast<int>(scores.shape(1));
        query.temperature = temperature;
        if (positives < 1 || query.texts <= positives)
            throw std::invalid_argument("relevancy needs at least one phrase and one negative");
        const gpu::SplatLists s = lists_of(args, means2d, conics, opacities, isect_offsets, flatten_ids, gaussian_ids,
                                           static_cast<int64_t>(indices.shape(0)), width, height);
        float* const to = args.get<float>(out, {"out", kFloat, {s.cameras, positives, codes.levels, height, width}});
        float* const alpha = args.get<float>(alphas, {"alphas", kFloat, {s.cameras, height, width, 1}});
        const DeviceGuard guard(args.device());
        gpu::relevancy(s, codes, query, to, alpha, stream_of(stream));
    }, DS_LISTS_ARGS, nb::arg("indices"), nb::arg("weights"), nb::arg("scores"), nb::arg("gram"), nb::arg("positives"),
          nb::arg("temperature"), nb::arg("width"), nb::arg("height"), nb::arg("out"), nb::arg("alphas"), nb::arg("stream"));
}
