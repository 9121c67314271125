// Many blocks, atomics, and the order things happen in.
#include "entry.h"

// Every thread of the grid marks its own element of visits [gz, gy, gx, bz, by, bx].
__global__ void visit_kernel(int* visits) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    atomicAdd(visits + block * (blockDim.x * blockDim.y * blockDim.z) + thread, 1);
}

ENTRY visit(int gx, int gy, int gz, int bx, int by, int bz, int* visits) {
    return run(visit_kernel, dim3(gx, gy, gz), dim3(bx, by, bz), 0, visits);
}

constexpr int kBins = 16;

// Counts per bin, in shared memory first. Broken: an addition that another thread may interrupt.
template <bool kAtomic>
__global__ void histogram_kernel(const int* values, int count, unsigned* bins, float* weights, int* largest) {
    DS_SHARED(unsigned, local, kBins);
    const int thread = threadIdx.x, i = static_cast<int>(blockIdx.x * blockDim.x) + thread;
    if (thread < kBins) local[thread] = 0u;
    __syncthreads();
    if (i < count) {
        const int bin = values[i];
        if (kAtomic) {
            atomicAdd(&local[bin], 1u);
        } else {
            local[bin] += 1u;
        }
        atomicAdd(weights + bin, 0.5f);
        atomicMax(largest, bin * count + i);
    }
    __syncthreads();
    if (thread < kBins) atomicAdd(bins + thread, local[thread]);
}

ENTRY histogram(const int* values, int count, int atomic, unsigned* bins, float* weights, int* largest) {
    const auto kernel = atomic ? histogram_kernel<true> : histogram_kernel<false>;
    return run(kernel, (count + 127) / 128, 128, 0, values, count, bins, weights, largest);
}

// An atomic sum that thread 0 reads; kBarrier: after a barrier.
template <bool kBarrier>
__global__ void atomic_read_kernel(int* out) {
    DS_SHARED(int, total, 1);
    if (threadIdx.x == 0) total[0] = 0;
    __syncthreads();
    atomicAdd(total[0], 2);
    if (kBarrier) __syncthreads();
    if (threadIdx.x == 0) *out = total[0];
}

ENTRY atomic_read(int barrier, int* out) {
    return run(barrier ? atomic_read_kernel<true> : atomic_read_kernel<false>, 1, 64, 0, out);
}

// The order in which threads and blocks come by.
__global__ void order_kernel(int* next, int* order) {
    order[atomicAdd(next, 1)] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

ENTRY order(int blocks, int threads, int* next, int* order) {
    return run(order_kernel, blocks, threads, 0, next, order);
}

__global__ void nothing_kernel() {}

ENTRY nothing(int gx, int gy, int gz, int bx, int by, int bz) {
    return run(nothing_kernel, dim3(gx, gy, gz), dim3(bx, by, bz), 0);
}

// Intrinsics of single values.
__global__ void scalars_kernel(int* ints, float* floats) {
    ints[0] = __popc(0xf0f0u);
    ints[1] = __ffs(0x18);
    ints[2] = __ffs(0);
    ints[3] = __clz(0x00010000);
    ints[4] = __clz(0);
    ints[5] = min(3, -2) * 100 + max(3, -2);
    floats[0] = rsqrtf(16.0f);
    floats[1] = __fdividef(3.0f, 4.0f);
    floats[2] = __fdividef(3.0f, 1.5e38f);
    floats[3] = __expf(1.0f);
}

ENTRY scalars(int* ints, float* floats) { return run(scalars_kernel, 1, 1, 0, ints, floats); }
