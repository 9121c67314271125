// The part of CUDA's runtime that hosts of kernels call, for one device with the limits of sm_86, sm_89 and sm_120.
#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "block.h"

namespace {

cudaError_t last_error = cudaSuccess;

cudaError_t note(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

}  // namespace

cudaError_t cudaGetLastError() {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        case cudaErrorNotSupported: return "operation not supported";
    }
    return "unrecognized error code";
}

cudaError_t cudaSetDevice(int device) { return note(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    using namespace dictsplat::emulator;
    if (device != 0) return note(cudaErrorInvalidDevice);
    switch (attribute) {
        case cudaDevAttrMaxThreadsPerBlock: *value = kMaxThreads; return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = static_cast<int>(kSharedBytes); return cudaSuccess;
        case cudaDevAttrWarpSize: *value = kLanes; return cudaSuccess;
        case cudaDevAttrMultiProcessorCount: *value = 1; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMajor: *value = 8; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMinor: *value = 6; return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(kMaxSharedBytes); return cudaSuccess;
    }
    return note(cudaErrorInvalidValue);
}

cudaError_t cudaMemsetAsync(void* data, int byte, std::size_t count, cudaStream_t) {
    std::memset(data, byte, count);
    return cudaSuccess;
}

namespace dictsplat::emulator {

static std::mutex attributes;
static std::map<const void*, std::size_t> shared_bytes_of;     // of kernels that asked for more

static std::size_t allowed_shared_bytes(const void* function) {
    const std::lock_guard<std::mutex> lock(attributes);
    const auto asked = shared_bytes_of.find(function);
    return asked == shared_bytes_of.end() ? kSharedBytes : std::max(kSharedBytes, asked->second);
}

cudaError_t set_function_attribute(const void* function, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        static_cast<std::size_t>(value) > kMaxSharedBytes)
        return note(cudaErrorInvalidValue);
    const std::lock_guard<std::mutex> lock(attributes);
    shared_bytes_of[function] = static_cast<std::size_t>(value);
    return cudaSuccess;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const Kernel& what) {
    const dim3 grid = config.gridDim, threads = config.blockDim;
    if (config.numAttrs != 0) return note(cudaErrorNotSupported);
    const bool fits_grid = grid.x >= 1 && grid.y >= 1 && grid.z >= 1 && grid.x <= 0x7fffffffu &&
                           grid.y <= 65535 && grid.z <= 65535;
    const bool fits_block = threads.x >= 1 && threads.y >= 1 && threads.z >= 1 && threads.x <= kMaxThreads &&
                            threads.y <= kMaxThreads && threads.z <= 64 &&
                            threads.x * threads.y * threads.z <= kMaxThreads;
    if (!fits_grid || !fits_block) return note(cudaErrorInvalidConfiguration);
    const std::size_t allowed = allowed_shared_bytes(what.function);
    if (config.dynamicSmemBytes > allowed) return note(cudaErrorInvalidValue);
    run_grid(what, grid, threads, config.dynamicSmemBytes, allowed);
    return cudaSuccess;
}

}  // namespace dictsplat::emulator
