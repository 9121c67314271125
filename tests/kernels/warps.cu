// What the lanes of a warp do together.
#include "entry.h"

constexpr unsigned kAll = 0xffffffffu;

// sums[w] of 32 values per warp.
template <class T>
__global__ void warp_sum_kernel(const T* values, T* sums) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    T total = values[i];
    for (int distance = 16; distance > 0; distance /= 2) total += __shfl_down_sync(kAll, total, distance);
    total = __shfl_sync(kAll, total, 0);
    if (threadIdx.x % 32 == i / 32 % 32u) sums[i / 32] = total;
}

ENTRY warp_sum_float(const float* values, float* sums, int blocks, int threads) {
    return run(warp_sum_kernel<float>, blocks, threads, 0, values, sums);
}
ENTRY warp_sum_double(const double* values, double* sums, int blocks, int threads) {
    return run(warp_sum_kernel<double>, blocks, threads, 0, values, sums);
}

// What each of the four shuffles gives, with segments of `width` lanes: out [4, 32].
__global__ void shuffles_kernel(int operand, int width, int* out) {
    const int lane = threadIdx.x;
    out[lane] = __shfl_sync(kAll, lane, operand, width);
    out[32 + lane] = __shfl_up_sync(kAll, lane, operand, width);
    out[64 + lane] = __shfl_down_sync(kAll, lane, operand, width);
    out[96 + lane] = __shfl_xor_sync(kAll, lane, operand, width);
}

ENTRY shuffles(int operand, int width, int* out) { return run(shuffles_kernel, 1, 32, 0, operand, width, out); }

// Keeps the positive values of a block in order.
__global__ void compact_kernel(const float* values, int count, float* out, int* kept) {
    DS_SHARED(int, per_warp, 32);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, warps = blockDim.x / 32;
    const bool keep = thread < count && values[thread] > 0.0f;
    const unsigned votes = __ballot_sync(kAll, keep);
    if (lane == 0) per_warp[warp] = __popc(votes);
    __syncthreads();
    int before = __popc(votes & ((1u << lane) - 1));
    for (int w = 0; w < warp; ++w) before += per_warp[w];
    if (keep) out[before] = values[thread];
    if (thread == 0) {
        *kept = 0;
        for (int w = 0; w < warps; ++w) *kept += per_warp[w];
    }
}

ENTRY compact(const float* values, int count, int threads, float* out, int* kept) {
    return run(compact_kernel, 1, threads, 0, values, count, out, kept);
}

// Lanes below `stay` go on; they shuffle with `mask` from lane `source`.
__global__ void partial_kernel(int stay, unsigned mask, int source, int* out) {
    const int lane = threadIdx.x;
    if (lane >= stay) return;
    out[lane] = __shfl_sync(mask, 100 + lane, source);
}

ENTRY partial(int threads, int stay, unsigned mask, int source, int* out) {
    return run(partial_kernel, 1, threads, 0, stay, mask, source, out);
}

// The halves of a warp vote at different places, each by itself or with all lanes in the mask.
__global__ void halves_kernel(int together, unsigned* out) {
    const int lane = threadIdx.x;
    if (lane < 16) {
        out[lane] = __ballot_sync(together ? kAll : 0x0000ffffu, lane % 2);
    } else {
        out[lane] = __ballot_sync(together ? kAll : 0xffff0000u, lane % 2);
    }
}

ENTRY halves(int together, unsigned* out) { return run(halves_kernel, 1, 32, 0, together, out); }

// One place, two masks.
__global__ void masks_kernel(unsigned low, unsigned high, int* out) {
    out[threadIdx.x] = __any_sync(threadIdx.x < 16 ? low : high, threadIdx.x == 20);
}

ENTRY masks(unsigned low, unsigned high, int* out) { return run(masks_kernel, 1, 32, 0, low, high, out); }

// Neighbours within a warp swap values through shared memory; kSync: 0 nothing, 1 a vote, 2 __syncwarp between.
template <int kSync>
__global__ void neighbours_kernel(int* out) {
    SharedArena arena;
    const Shared<int> held = arena.take<int>(blockDim.x);
    const int thread = threadIdx.x;
    held[thread] = thread * thread;
    if (kSync == 1 && !__all_sync(kAll, thread >= 0)) return;
    if (kSync == 2) __syncwarp();
    out[thread] = held[thread ^ 1];
}

ENTRY neighbours(int sync, int* out) {
    const auto kernel = sync == 0 ? neighbours_kernel<0> : sync == 1 ? neighbours_kernel<1> : neighbours_kernel<2>;
    return run(kernel, 1, 64, 64 * sizeof(int), out);
}

// __syncwarp of half a warp orders that half only. Thread `reader` reads what thread 0 wrote.
__global__ void half_sync_kernel(int reader, int* out) {
    DS_SHARED(int, held, 1);
    const int thread = threadIdx.x;
    if (thread == 0) held[0] = 7;
    if (thread < 16) __syncwarp(0x0000ffffu);
    __any_sync(kAll, true);
    if (thread == reader) *out = held[0];
}

ENTRY half_sync(int reader, int* out) { return run(half_sync_kernel, 1, 64, 0, reader, out); }

__global__ void many_shuffles_kernel(int count, float* out) {
    float value = threadIdx.x;
    for (int i = 0; i < count; ++i) value = __shfl_xor_sync(kAll, value, 1 + i % 31);
    out[threadIdx.x] = value;
}

ENTRY many_shuffles(int threads, int count, float* out) { return run(many_shuffles_kernel, 1, threads, 0, count, out); }
