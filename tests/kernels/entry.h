// Launches a test's kernel and tells Python what came of it.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "shared_checked.h"

using namespace dictsplat;

#define ENTRY extern "C" __attribute__((visibility("default"))) const char*

// Null, or the words of the error; those of a launch that CUDA refuses begin with "refused".
template <class... Parameters, class... Arguments>
const char* run(void (*kernel)(Parameters...), dim3 grid, dim3 threads, std::size_t bytes, Arguments... arguments) {
    static std::string message;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = threads;
    config.dynamicSmemBytes = bytes;
    try {
        const cudaError_t status = cudaLaunchKernelEx(&config, kernel, arguments...);
        if (status == cudaSuccess) return nullptr;
        message = std::string("refused: ") + cudaGetErrorString(status);
        if (cudaGetLastError() != status || cudaGetLastError() != cudaSuccess) message = "cudaGetLastError is wrong";
    } catch (const emulator::Error& error) {
        message = error.what();
    }
    return message.c_str();
}
