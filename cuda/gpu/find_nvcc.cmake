# Sets DS_NVCC_OBSTACLE to why the CUDA kernels cannot be built here, or to "". Never stops the build: a machine without
# a GPU, or with an nvcc that is old or does not fit its g++, is to get everything else.
include(CheckLanguage)
# Both compilers' objects end up in one module, so they must share a C++ library.
if(NOT CMAKE_CUDA_HOST_COMPILER AND NOT DEFINED ENV{CUDAHOSTCXX})
    set(ENV{CUDAHOSTCXX} ${CMAKE_CXX_COMPILER})
endif()
if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE)    # it may have been installed since the last time
endif()
check_language(CUDA)
if(NOT CMAKE_CUDA_HOST_COMPILER)
    set(CMAKE_CUDA_HOST_COMPILER $ENV{CUDAHOSTCXX})
endif()
set(DS_NVCC_OBSTACLE "")
if(NOT CMAKE_CUDA_COMPILER)
    set(DS_NVCC_OBSTACLE "no working nvcc was found; set CUDACXX to one")
else()
    # By hand: try_compile would need the language, and a language that fails once it is enabled is fatal.
    file(WRITE ${CMAKE_BINARY_DIR}/try_nvcc.cu "#include <cuda_runtime.h>
__global__ void kernel(int*) {}
cudaError_t run(cudaLaunchConfig_t config, int* x) { return cudaLaunchKernelEx(&config, kernel, x); }
")
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} -std=c++17 -ccbin ${CMAKE_CUDA_HOST_COMPILER} -c
                            ${CMAKE_BINARY_DIR}/try_nvcc.cu -o ${CMAKE_BINARY_DIR}/try_nvcc.o
                    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
    if(NOT status EQUAL 0)
        message(STATUS "${output}")
        set(DS_NVCC_OBSTACLE "${CMAKE_CUDA_COMPILER} cannot compile them with ${CMAKE_CUDA_HOST_COMPILER} (CUDA 11.8 or newer is needed)")
    endif()
endif()
