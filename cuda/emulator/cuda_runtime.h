// Stands in for the CUDA toolkit's header of this name, so that g++ compiles the kernels of cuda/gpu for the block
// emulator. Holds what those kernels use; anything else is missing on purpose and fails to compile.
//
//     g++ -std=c++17 -x c++ -DDS_EMULATOR -I cuda/emulator -I cuda/include -I cuda/gpu kernel.cu
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>

#include "vector_types.h"
#include "emulator.h"

// Default visibility, so that errors can name the kernel.
#define __global__ __attribute__((visibility("default")))
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))

// ---- the host's side ----

// Numbered as in the toolkit.
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDevice = 101,
    cudaErrorNotSupported = 801,
};

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrWarpSize = 10,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

using cudaStream_t = struct CUstream_st*;   // every call has finished when it returns, whatever the stream

struct cudaLaunchAttribute;                 // none is supported

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute* attrs;
    unsigned numAttrs;
};

cudaError_t cudaGetLastError();             // and forgets it
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device);
cudaError_t cudaMemsetAsync(void* data, int byte, std::size_t count, cudaStream_t);

namespace dictsplat::emulator {
cudaError_t launch(const cudaLaunchConfig_t&, const Kernel&);
cudaError_t set_function_attribute(const void* function, cudaFuncAttribute, int value);
}  // namespace dictsplat::emulator

template <class Function>
cudaError_t cudaFuncSetAttribute(Function* function, cudaFuncAttribute attribute, int value) {
    return dictsplat::emulator::set_function_attribute(reinterpret_cast<const void*>(function), attribute, value);
}

struct cudaFuncAttributes {
    int maxThreadsPerBlock;
};

template <class Function>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Function*) {
    attributes->maxThreadsPerBlock = dictsplat::emulator::kMaxThreads;
    return cudaSuccess;
}

// Runs the kernel to its end. Returns CUDA's errors for launches that CUDA refuses, and throws
// `dictsplat::emulator::Error` for what the kernel does wrong.
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    using Call = std::pair<void (*)(Parameters...), std::tuple<Parameters...>>;
    const Call call(kernel, std::tuple<Parameters...>(std::forward<Arguments>(arguments)...));
    const auto run = [](const void* data) {
        const Call& c = *static_cast<const Call*>(data);
        std::apply(c.first, c.second);
    };
    return dictsplat::emulator::launch(*config, {reinterpret_cast<const void*>(kernel), run, &call});
}

// ---- what kernels call ----

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// A place in the source: threads that meet must meet at the same one.
#define DS_SITE(name)                                                                       \
    ([]() -> const ::dictsplat::emulator::Site& {                                           \
        static constexpr ::dictsplat::emulator::Site site{name, __FILE__, __LINE__};        \
        return site;                                                                        \
    }())

#define __syncthreads() static_cast<void>(::dictsplat::emulator::sync_threads(DS_SITE("__syncthreads"), false))
#define __syncthreads_count(...) ::dictsplat::emulator::sync_threads(DS_SITE("__syncthreads_count"), (__VA_ARGS__) != 0)
#define __syncthreads_or(...) \
    static_cast<int>(::dictsplat::emulator::sync_threads(DS_SITE("__syncthreads_or"), (__VA_ARGS__) != 0) > 0)
#define __syncthreads_and(...) \
    static_cast<int>(::dictsplat::emulator::sync_threads(DS_SITE("__syncthreads_and"), (__VA_ARGS__) == 0) == 0)

#define __syncwarp ::dictsplat::emulator::SyncWarp{DS_SITE("__syncwarp")}    // an object, for its optional mask
#define __ballot_sync(...) ::dictsplat::emulator::ballot(DS_SITE("__ballot_sync"), __VA_ARGS__)
#define __any_sync(...) ::dictsplat::emulator::any(DS_SITE("__any_sync"), __VA_ARGS__)
#define __all_sync(...) ::dictsplat::emulator::all(DS_SITE("__all_sync"), __VA_ARGS__)
#define __shfl_sync(...) \
    ::dictsplat::emulator::shuffle<::dictsplat::emulator::Move::kIndex>(DS_SITE("__shfl_sync"), __VA_ARGS__)
#define __shfl_up_sync(...) \
    ::dictsplat::emulator::shuffle<::dictsplat::emulator::Move::kUp>(DS_SITE("__shfl_up_sync"), __VA_ARGS__)
#define __shfl_down_sync(...) \
    ::dictsplat::emulator::shuffle<::dictsplat::emulator::Move::kDown>(DS_SITE("__shfl_down_sync"), __VA_ARGS__)
#define __shfl_xor_sync(...) \
    ::dictsplat::emulator::shuffle<::dictsplat::emulator::Move::kXor>(DS_SITE("__shfl_xor_sync"), __VA_ARGS__)

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }

template <class T>
T __ldg(const T* address) {
    return *address;
}

inline float __expf(float x) { return expf(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
// Divisors beyond 2^126 give 0, as on a GPU.
inline float __fdividef(float x, float y) { return fabsf(y) > 0x1p126f && !std::isinf(y) ? x * 0.0f : x / y; }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long min(long a, long b) { return a < b ? a : b; }
inline long max(long a, long b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// Threads take turns on one core, so that nothing comes between the read and the write.
inline float atomicAdd(float* address, float value) { return std::exchange(*address, *address + value); }
inline double atomicAdd(double* address, double value) { return std::exchange(*address, *address + value); }
inline int atomicAdd(int* address, int value) { return std::exchange(*address, *address + value); }
inline unsigned atomicAdd(unsigned* address, unsigned value) { return std::exchange(*address, *address + value); }
inline int atomicMax(int* address, int value) { return std::exchange(*address, max(*address, value)); }
inline int atomicMin(int* address, int value) { return std::exchange(*address, min(*address, value)); }
