// Sparse-code splatting (LangSplatV2, section 3.3) and its adjoint in the weights. A block splats one patch at
// one level, because the accumulators of three levels would leave room for a third of the warps.
#include "code_map.cuh"

namespace dictsplat::gpu {

template <int kPixels>
__global__ void __launch_bounds__(kPixels, 4) codes_kernel(SplatLists s, Codes codes, float* __restrict__ out,
                                                        float* __restrict__ alphas) {
    SharedArena arena;
    const Staging<kPixels> staging(arena);
    const int level = blockIdx.y, thread = threadIdx.x;
    CodeMap<kPixels> map(arena, codes, level);
    const Patch<kPixels> patch(s);
    const float alpha = map.splat(s, patch, staging);
    if (level == 0 && patch.inside(s, thread)) alphas[patch.pixel(s, thread)] = alpha;

    __syncthreads();
    map.for_each_cell([&](int pixel, int atom) {
        if (patch.inside(s, pixel))
            out[(patch.pixel(s, pixel) * codes.levels + level) * codes.atoms + atom] = map.get(atom, pixel);
    });
}

// Sums of four values over the warp: lane l returns the sum of value l % 4.
__device__ __forceinline__ float sum_four(float v0, float v1, float v2, float v3, int lane) {
    const bool odd = lane & 1, upper = lane & 2;
    const float even_pair = (odd ? v1 : v0) + __shfl_xor_sync(kAllLanes, odd ? v0 : v1, 1);
    const float odd_pair = (odd ? v3 : v2) + __shfl_xor_sync(kAllLanes, odd ? v2 : v3, 1);
    float total = (upper ? odd_pair : even_pair) + __shfl_xor_sync(kAllLanes, upper ? even_pair : odd_pair, 2);
    for (int distance = 4; distance < 32; distance *= 2) total += __shfl_xor_sync(kAllLanes, total, distance);
    return total;
}

template <int kPixels>
__global__ void __launch_bounds__(kPixels, 4) codes_vjp_kernel(SplatLists s, Codes codes, const float* __restrict__ v_out,
                                                            float* __restrict__ v_weights) {
    SharedArena arena;
    const Staging<kPixels> staging(arena);
    const int level = blockIdx.y, thread = threadIdx.x, lane = thread % 32;
    CodeMap<kPixels> map(arena, codes, level);
    const Patch<kPixels> patch(s);
    if (patch.begin == patch.end) return;
    map.for_each_cell([&](int pixel, int atom) {
        map.set(atom, pixel, patch.inside(s, pixel) ? v_out[(patch.pixel(s, pixel) * codes.levels + level) * codes.atoms + atom]
                                                    : 0.0f);
    });
    map.set(codes.atoms, thread, 0.0f);
    // The walk begins with a barrier, after which all of the gradient is in place.
    Ray ray(s, patch, thread);
    walk_splats(s, patch, staging, ray, [&](int slot, int gaussian) { map.template stage<false>(slot, gaussian); },
                [&](int slot, float weight) {
                    const int64_t first = (static_cast<int64_t>(staging.gaussian[slot]) * codes.levels + level) * codes.nonzeros;
                    for (int group = 0; group < map.groups(); ++group) {
                        const int4 row = map.rows(slot, group);
                        const float total = sum_four(weight * map.at(row.x, thread), weight * map.at(row.y, thread),
                                                     weight * map.at(row.z, thread), weight * map.at(row.w, thread), lane);
                        const int k = 4 * group + lane;
                        if (lane < 4 && k < codes.nonzeros) atomicAdd(v_weights + first + k, total);
                    }
                });
}

template <int kPixels>
static BlockShape shape_of(const Codes& codes) {
    return {kPixels, Staging<kPixels>::kBytes + CodeMap<kPixels>::bytes(codes)};
}

template <int kPixels>
static void launch_codes(const SplatLists& s, const Codes& codes, float* out, float* alphas, cudaStream_t stream) {
    launch("splatting codes", codes_kernel<kPixels>, patch_grid<kPixels>(s, codes.levels), shape_of<kPixels>(codes), stream,
           s, codes, out, alphas);
}

template <int kPixels>
static void launch_vjp(const SplatLists& s, const Codes& codes, const float* v_out, float* v_weights, cudaStream_t stream) {
    launch("the gradient of splatting codes", codes_vjp_kernel<kPixels>, patch_grid<kPixels>(s, codes.levels),
           shape_of<kPixels>(codes), stream, s, codes, v_out, v_weights);
}

void splat_codes(const SplatLists& s, const Codes& codes, float* out, float* alphas, cudaStream_t stream) {
    switch (pixels_for(codes.atoms)) {
        case 128: return launch_codes<128>(s, codes, out, alphas, stream);
        case 64: return launch_codes<64>(s, codes, out, alphas, stream);
        default: return launch_codes<32>(s, codes, out, alphas, stream);
    }
}

void splat_codes_vjp(const SplatLists& s, const Codes& codes, const float* v_out, float* v_weights, cudaStream_t stream) {
    switch (pixels_for(codes.atoms)) {
        case 128: return launch_vjp<128>(s, codes, v_out, v_weights, stream);
        case 64: return launch_vjp<64>(s, codes, v_out, v_weights, stream);
        default: return launch_vjp<32>(s, codes, v_out, v_weights, stream);
    }
}

const char* obstacle(int device) {
    int previous = 0;
    cudaError_t status = cudaGetDevice(&previous);
    if (status == cudaSuccess) status = cudaSetDevice(device);
    cudaFuncAttributes attributes;
    if (status == cudaSuccess) status = cudaFuncGetAttributes(&attributes, codes_kernel<128>);
    cudaSetDevice(previous);
    cudaGetLastError();     // a reason that was told is not to be met again
    return status == cudaSuccess ? "" : cudaGetErrorString(status);
}

BlockShape codes_block(const Codes& codes) {
    switch (pixels_for(codes.atoms)) {
        case 128: return shape_of<128>(codes);
        case 64: return shape_of<64>(codes);
        default: return shape_of<32>(codes);
    }
}

}  // namespace dictsplat::gpu
