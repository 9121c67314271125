// What the kernels need beyond CUDA itself: shared memory as objects, so that the block emulator can watch
// every access (bounds, uninitialised reads, races), and a launch that throws. On a GPU these are plain pointers.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels.h"

#if defined(DS_EMULATOR)
#include "shared_checked.h"
#else

namespace dictsplat {

template <class T>
class Shared {
  public:
    __device__ __forceinline__ explicit Shared(T* data) : data_(data) {}
    __device__ __forceinline__ T& operator[](int index) const { return data_[index]; }

  private:
    T* data_;
};

// Hands out consecutive pieces of the dynamic shared memory; every thread takes the same ones.
class SharedArena {
  public:
    __device__ __forceinline__ SharedArena() {
        extern __shared__ uint4 dynamic_shared[];
        next_ = reinterpret_cast<unsigned char*>(dynamic_shared);
    }
    template <class T>
    __device__ __forceinline__ Shared<T> take(int count) {
        T* const start = reinterpret_cast<T*>(next_);
        next_ += (count * sizeof(T) + 15) / 16 * 16;
        return Shared<T>(start);
    }

  private:
    unsigned char* next_;
};

}  // namespace dictsplat

#endif

namespace dictsplat {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr size_t kDefaultSharedBytes = 48 * 1024;   // more has to be asked for per kernel

inline void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// What `SharedArena::take<T>(count)` uses up.
template <class T>
constexpr size_t shared_bytes(size_t count) {
    return (count * sizeof(T) + 15) / 16 * 16;
}

// Queues the kernel on the stream. Nothing here waits for the GPU.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, gpu::BlockShape block, cudaStream_t stream,
            Arguments... arguments) {
    const size_t bytes = block.shared_bytes;
    if (bytes > kDefaultSharedBytes)
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
              (std::string(name) + " needs " + std::to_string(bytes) + " bytes of shared memory per block").c_str());
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(static_cast<unsigned>(block.threads), 1, 1);
    config.dynamicSmemBytes = bytes;
    config.stream = stream;
    check(cudaLaunchKernelEx(&config, kernel, arguments...), name);
}

}  // namespace dictsplat
