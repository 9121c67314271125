// The adjoint of blending in the values: sums[i] += sum_p w_pi values[p], mass[i] += sum_p w_pi. For sixteen
// splats at a time a block multiplies their weights [splats, pixels] with its patch's values [pixels, channels].
#include "walk.cuh"

namespace dictsplat::gpu {

constexpr int kPixels = 128;
constexpr int kChannels = 64;                       // of one block; more are other blocks' (grid.y)
constexpr int kSplats = 16;                         // per product
constexpr int kQuads = kChannels / 4, kPairs = kSplats / 2;
static_assert(kQuads * kPairs == kPixels, "a thread sums two splats by four channels");

__global__ void __launch_bounds__(kPixels, 4) lift_kernel(SplatLists s, int channels, const float* __restrict__ values,
                                                       float* __restrict__ sums, float* __restrict__ mass) {
    SharedArena arena;
    const Staging<kPixels> staging(arena);
    Shared<float4> patch_values = arena.take<float4>(kPixels * kQuads);         // [pixel, quad of channels]
    Shared<float2> weights = arena.take<float2>(kPixels * (kPairs + 1));        // [pixel, pair of splats]
    const Patch<kPixels> patch(s);
    if (patch.begin == patch.end) return;
    const int thread = threadIdx.x, first_channel = blockIdx.y * kChannels;
    for (int i = thread; i < kPixels * kQuads; i += kPixels) {
        const int pixel = i / kQuads, channel = first_channel + i % kQuads * 4;
        float quad[4] = {};
        if (patch.inside(s, pixel)) {
            const float* const from = values + patch.pixel(s, pixel) * channels;
#pragma unroll
            for (int c = 0; c < 4; ++c)
                if (channel + c < channels) quad[c] = from[channel + c];
        }
        patch_values[i] = make_float4(quad[0], quad[1], quad[2], quad[3]);
    }
    const int quad = thread % kQuads, pair = thread / kQuads, channel = first_channel + quad * 4;
    Ray ray(s, patch, thread);
    walk_batches(s, patch, staging, ray, [](int, int) {}, [&](int count) {
        for (int base = 0; base < count; base += kSplats) {
            bool any = false;
#pragma unroll
            for (int p = 0; p < kPairs; ++p) {
                float two[2] = {};
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const int slot = base + 2 * p + h;
                    if (slot < count) two[h] = ray.pass(staging.ellipse[slot], staging.rest[slot]);
                }
                any |= two[0] > 0.0f || two[1] > 0.0f;
                weights[thread * (kPairs + 1) + p] = make_float2(two[0], two[1]);
            }
            if (!__syncthreads_or(any)) continue;   // nobody reads the weights before the next barrier
            float4 first = {}, second = {};
            float2 total = {};
            for (int pixel = 0; pixel < kPixels; ++pixel) {
                const float4 v = patch_values[pixel * kQuads + quad];
                const float2 w = weights[pixel * (kPairs + 1) + pair];
                first.x += w.x * v.x, first.y += w.x * v.y, first.z += w.x * v.z, first.w += w.x * v.w;
                second.x += w.y * v.x, second.y += w.y * v.y, second.z += w.y * v.z, second.w += w.y * v.w;
                total.x += w.x;
                total.y += w.y;
            }
            auto add = [&](int slot, float weight, float4 sum) {
                if (slot >= count || weight == 0.0f) return;
                const int64_t gaussian = staging.gaussian[slot];
                float* const to = sums + gaussian * channels + channel;
                if (channel < channels) atomicAdd(to, sum.x);
                if (channel + 1 < channels) atomicAdd(to + 1, sum.y);
                if (channel + 2 < channels) atomicAdd(to + 2, sum.z);
                if (channel + 3 < channels) atomicAdd(to + 3, sum.w);
                if (quad == 0 && blockIdx.y == 0) atomicAdd(mass + gaussian, weight);
            };
            add(base + 2 * pair, total.x, first);
            add(base + 2 * pair + 1, total.y, second);
            __syncthreads();        // before the next weights overwrite these
        }
    });
}

BlockShape lift_block() {
    return {kPixels, Staging<kPixels>::kBytes + shared_bytes<float4>(kPixels * kQuads) + shared_bytes<float2>(kPixels * (kPairs + 1))};
}

void lift(const SplatLists& s, int channels, const float* values, float* sums, float* mass, cudaStream_t stream) {
    const int layers = channels > 0 ? (channels + kChannels - 1) / kChannels : 1;
    launch("lifting values", lift_kernel, patch_grid<kPixels>(s, layers), lift_block(), stream, s, channels, values, sums, mass);
}

}  // namespace dictsplat::gpu
