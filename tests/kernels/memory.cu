// Shared, local and global memory, and what a kernel may do wrong with them.
#include "entry.h"

__global__ void static_index_kernel(int index, float* out) {
    DS_SHARED(float, table, 8);
    if (threadIdx.x < 8) table[threadIdx.x] = 10.0f * threadIdx.x;
    __syncthreads();
    if (threadIdx.x == 3) *out = table[index];
}

ENTRY static_index(int index, float* out) { return run(static_index_kernel, 1, 32, 0, index, out); }

// Two arrays: an index beyond the first one lies within the second.
__global__ void dynamic_index_kernel(int index, float* out) {
    SharedArena arena;
    const Shared<float> first = arena.take<float>(6), second = arena.take<float>(6);
    if (threadIdx.x == 0)
        for (int i = 0; i < 6; ++i) {
            first[i] = 1.0f + i;
            second[i] = -1.0f - i;
        }
    __syncthreads();
    if (threadIdx.x == 1) {
        first[index] = 50.0f;
        *out = first[index];
    }
}

ENTRY dynamic_index(int index, int bytes, float* out) { return run(dynamic_index_kernel, 1, 32, bytes, index, out); }

struct Pair {
    float key;
    int value;
};

// Fills all elements but the last `missing`, then adds them up.
__global__ void filled_kernel(int missing, float* out) {
    SharedArena arena;
    const Shared<Pair> pairs = arena.take<Pair>(blockDim.x);
    if (threadIdx.x + missing < blockDim.x) pairs[threadIdx.x] = Pair{static_cast<float>(threadIdx.x), 2};
    __syncthreads();
    if (threadIdx.x != 0) return;
    float total = 0.0f;
    for (unsigned i = 0; i < blockDim.x; ++i) {
        const Pair pair = pairs[i];
        total += pair.key * pair.value;
    }
    out[blockIdx.x] = total;
}

ENTRY filled(int blocks, int missing, float* out) {
    return run(filled_kernel, blocks, 32, 32 * sizeof(Pair), missing, out);
}

// The first block fills shared memory, the second one expects it there.
__global__ void left_over_kernel(float* out) {
    DS_SHARED(float, kept, 1);
    if (gridDim.x == 1 || *out < 0.0f) {
        kept[0] = 4.0f;
        *out = 0.0f;
    } else {
        *out = kept[0];
    }
}

ENTRY left_over(int blocks, float* out) { return run(left_over_kernel, blocks, 1, 0, out); }

// Every way to read and write an element.
__global__ void operators_kernel(float* out) {
    SharedArena arena;
    const Shared<float> a = arena.take<float>(2);
    const Shared<int> b = arena.take<int>(2);
    a[0] = 3;
    a[1] = a[0];
    a[1] += 5.0f;
    a[1] -= 1.0f;
    a[1] *= 4.0f;
    a[1] /= 2.0f;
    b[0] = 6;
    b[b[0] - 5] = 12;
    b[0] |= 1;
    b[1] &= b[0];
    out[0] = fmaxf(a[0], a[1]);
    out[1] = a[0] * a[1] - 1.0f;
    out[2] = static_cast<float>(max(b[0], b[1]));
    out[3] = static_cast<float>(b[1]);
}

ENTRY operators(float* out) { return run(operators_kernel, 1, 1, 64, out); }

__global__ void arenas_kernel(int second) {
    SharedArena arena;
    if (second) SharedArena other;
}

ENTRY arenas(int second) { return run(arenas_kernel, 1, 32, 64, second); }

template <bool kSame>
__global__ void disagree_kernel() {
    SharedArena arena;
    arena.take<float>(kSame ? 4 : 4 + threadIdx.x % 2);
}

ENTRY disagree(int same) { return run(same ? disagree_kernel<true> : disagree_kernel<false>, 1, 32, 1024); }

__global__ void sixty_kilobytes_kernel() {
    SharedArena arena;
    const Shared<char> all = arena.take<char>(60 * 1024);
    all[threadIdx.x] = 1;
}

// Launches with `bytes` of dynamic shared memory, after asking for `asked` (0: not asking).
ENTRY dynamic_bytes(int bytes, int asked) {
    if (cudaFuncSetAttribute(sixty_kilobytes_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, asked) != cudaSuccess) {
        cudaGetLastError();
        return "refused the attribute";
    }
    return run(sixty_kilobytes_kernel, 1, 32, bytes);
}

__global__ void static_bytes_kernel() {
    DS_SHARED(float4, large, 2048);
    large[threadIdx.x] = make_float4(1, 2, 3, 4);
}

// 32 KiB of static shared memory, and `bytes` more.
ENTRY static_bytes(int bytes) { return run(static_bytes_kernel, 1, 32, bytes); }

// out[i] = 2 in[i + shift]
__global__ void twice_kernel(const float* in, float* out, int count, int in_shift, int out_shift) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count) out[i + out_shift] = 2.0f * __ldg(in + i + in_shift);
}

ENTRY twice(const float* in, float* out, int count, int in_shift, int out_shift) {
    return run(twice_kernel, (count + 63) / 64, 64, 0, in, out, count, in_shift, out_shift);
}

__global__ void vector_kernel(const float* in, float* out, int start) {
    const float4 v = *reinterpret_cast<const float4*>(in + start);
    *out = v.x + v.y + v.z + v.w;
}

ENTRY vector_load(const float* in, float* out, int start) { return run(vector_kernel, 1, 1, 0, in, out, start); }

__global__ void local_kernel(const int* indices, int count, float* out) {
    float squares[4] = {0.0f, 1.0f, 4.0f, 9.0f};
    for (int i = 0; i < count; ++i) out[i] = squares[indices[i]];
}

ENTRY local_index(const int* indices, int count, float* out) { return run(local_kernel, 1, 1, 0, indices, count, out); }

__global__ void divide_kernel(int by, int* out) { *out = 12 / by; }

ENTRY divide(int by, int* out) { return run(divide_kernel, 1, 1, 0, by, out); }

__device__ __noinline__ int deep(int depth) {
    volatile int room[256] = {};
    room[depth % 256] = depth;
    return depth == 0 ? 0 : 1 + deep(depth - 1) + room[depth % 256] - depth;
}

__global__ void stack_kernel(int depth, int* out) { *out = deep(depth); }

ENTRY stack(int depth, int* out) { return run(stack_kernel, 1, 1, 0, depth, out); }
