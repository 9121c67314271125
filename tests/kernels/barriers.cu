// Block-wide cooperation, each kernel with and without a mistake.
#include "entry.h"

constexpr int kThreads = 256;

// Sums 256 values per block. Broken: without the barrier between two halvings.
template <bool kBarrier>
__global__ void sum_kernel(const float* values, float* sums) {
    DS_SHARED(float, partial, kThreads);
    const int thread = threadIdx.x;
    partial[thread] = values[blockIdx.x * kThreads + thread];
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
        if (thread < half) partial[thread] += partial[thread + half];
        if (kBarrier) __syncthreads();
    }
    if (thread == 0) sums[blockIdx.x] = partial[0];
}

ENTRY sum(const float* values, float* sums, int blocks, int barrier) {
    return run(barrier ? sum_kernel<true> : sum_kernel<false>, blocks, kThreads, 0, values, sums);
}

// Reverses `values` through dynamic shared memory. Broken: one element overwritten before all have read.
template <bool kBarrier>
__global__ void reverse_kernel(float* values) {
    SharedArena arena;
    const Shared<float> held = arena.take<float>(blockDim.x);
    const int thread = threadIdx.x, mirrored = blockDim.x - 1 - thread;
    held[thread] = values[thread];
    __syncthreads();
    values[thread] = held[mirrored];
    if (kBarrier) __syncthreads();
    if (thread == 0) held[0] = 0.0f;
}

ENTRY reverse(float* values, int threads, int barrier) {
    return run(barrier ? reverse_kernel<true> : reverse_kernel<false>, 1, threads, threads * sizeof(float), values);
}

// Odd and even warps come to different barriers.
__global__ void divergent_kernel(int apart) {
    if (apart && threadIdx.x / 32 % 2) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

ENTRY divergent(int apart) { return run(divergent_kernel, 1, 128, 0, apart); }

// Threads from `stay` on return before the barrier.
__global__ void early_return_kernel(int stay, int* after) {
    if (static_cast<int>(threadIdx.x) >= stay) return;
    __syncthreads();
    after[threadIdx.x] = 1;
}

ENTRY early_return(int threads, int stay, int* after) { return run(early_return_kernel, 1, threads, 0, stay, after); }

// Per thread: how many values are positive, whether any and whether all are.
__global__ void votes_kernel(const float* values, int* counts, int* some, int* every) {
    const bool positive = values[threadIdx.x] > 0.0f;
    counts[threadIdx.x] = __syncthreads_count(positive);
    some[threadIdx.x] = __syncthreads_or(positive);
    every[threadIdx.x] = __syncthreads_and(positive);
}

ENTRY votes(const float* values, int threads, int* counts, int* some, int* every) {
    return run(votes_kernel, 1, threads, 0, values, counts, some, every);
}
