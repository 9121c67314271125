// Blends one patch of a tile, a thread per pixel, and hands every weight alpha_i prod_{j<i} (1 - alpha_j) to a
// visitor. All kernels go through here, so all see the same weights, by the rules of gsplat's rasteriser.
#pragma once

#include "device.cuh"
#include "dictsplat/math.h"

namespace dictsplat::gpu {

// A patch is what a block works on: a tile is cut into patches so that the accumulators of all its pixels fit
// shared memory. A warp covers 8 x 4 pixels, because compact warps have more splats that touch none of them.
template <int kPixels>
struct Patch {
    static constexpr int kWidth = kPixels >= 128 ? 16 : 8, kHeight = kPixels / kWidth;
    static constexpr int kPerTile = kTile * kTile / kPixels;

    int camera, left, top;      // pixel of the first corner
    int begin, end;             // range in flatten_ids

    __device__ __forceinline__ explicit Patch(const SplatLists& s) {
        const int tiles_x = (s.width + kTile - 1) / kTile, tiles_y = (s.height + kTile - 1) / kTile;
        const int tile = blockIdx.x / kPerTile, part = blockIdx.x % kPerTile;
        camera = blockIdx.z;
        left = tile % tiles_x * kTile + part % (kTile / kWidth) * kWidth;
        top = tile / tiles_x * kTile + part / (kTile / kWidth) * kHeight;
        const int at = camera * tiles_x * tiles_y + tile;
        begin = s.isect_offsets[at];
        end = at + 1 < s.cameras * tiles_x * tiles_y ? s.isect_offsets[at + 1] : static_cast<int>(s.intersections);
    }

    // Pixel of a thread, relative to the corner.
    __device__ __forceinline__ static int x_of(int thread) { return thread / 32 % (kWidth / 8) * 8 + thread % 8; }
    __device__ __forceinline__ static int y_of(int thread) { return thread / 32 / (kWidth / 8) * 4 + thread % 32 / 8; }

    __device__ __forceinline__ bool inside(const SplatLists& s, int thread) const {
        return left + x_of(thread) < s.width && top + y_of(thread) < s.height;
    }
    // Index of the thread's pixel in an image [C, H, W].
    __device__ __forceinline__ int64_t pixel(const SplatLists& s, int thread) const {
        return (static_cast<int64_t>(camera) * s.height + top + y_of(thread)) * s.width + left + x_of(thread);
    }
};

// One block per patch, `layers` times over: of levels, or of groups of channels.
template <int kPixels>
dim3 patch_grid(const SplatLists& s, int layers) {
    const unsigned tiles = ((s.width + kTile - 1) / kTile) * ((s.height + kTile - 1) / kTile);
    return dim3(tiles * Patch<kPixels>::kPerTile, layers, s.cameras);
}

// The splats of a batch that reach the patch, in shared memory.
template <int kPixels>
struct Staging {
    static constexpr int kBatch = kPixels < 64 ? kPixels : 64;
    static constexpr size_t kBytes =
        shared_bytes<float4>(kBatch) + shared_bytes<float2>(kBatch) +
                                     2 * shared_bytes<int>(kBatch) + shared_bytes<int>(kBatch / 32);

    Shared<float4> ellipse;     // x, y, -a / 2, -b of the conic
    Shared<float2> rest;        // -c / 2, log of the opacity
    Shared<int> gaussian;
    Shared<unsigned> warps;     // that it reaches
    Shared<int> kept;           // per warp

    __device__ __forceinline__ explicit Staging(SharedArena& arena)
        : ellipse(arena.take<float4>(kBatch)),
          rest(arena.take<float2>(kBatch)),
          gaussian(arena.take<int>(kBatch)),
          warps(arena.take<unsigned>(kBatch)),
          kept(arena.take<int>(kBatch / 32)) {}
};

// For which warps of the patch alpha can reach 1/255, as bits; 0 for NaN positions and opacities. On the ellipse
// sigma = ln(255 o), |dx|^2 <= 2 sigma c / det and |dy|^2 <= 2 sigma a / det; a little more, because of rounding.
template <int kPixels>
__device__ __forceinline__ unsigned reached_warps(const Patch<kPixels>& patch, float mean_x, float mean_y, float a, float b,
                                                  float c, float opacity) {
    if (!(opacity >= kAlphaThreshold)) return 0;
    const float sigma = 2.0f * logf(opacity / kAlphaThreshold) + 1e-3f;
    // a c - b^2 without cancellation (Kahan): needles hundreds of pixels long would lose their tips.
    const float square = b * b;
    const float det = fmaf(a, c, -square) + fmaf(-b, b, square);
    float reach_x = 1e9f, reach_y = 1e9f;
    if (det > 1e-6f * a * c) {
        reach_x = sqrtf(sigma * c / det) * 1.0001f + 1e-3f;
        reach_y = sqrtf(sigma * a / det) * 1.0001f + 1e-3f;
    }
    const float x = mean_x - (patch.left + 0.5f), y = mean_y - (patch.top + 0.5f);
    unsigned warps = 0;
#pragma unroll
    for (int warp = 0; warp < kPixels / 32; ++warp) {
        const int left = Patch<kPixels>::x_of(32 * warp), top = Patch<kPixels>::y_of(32 * warp);
        if (x + reach_x >= left && x - reach_x <= left + 7 && y + reach_y >= top && y - reach_y <= top + 3) warps |= 1u << warp;
    }
    return warps;
}

// The light that is left for one pixel.
struct Ray {
    float x, y;             // pixel centre
    float light;            // transmittance; negative once the pixel takes no more, as outside the image

    template <int kPixels>
    __device__ __forceinline__ Ray(const SplatLists& s, const Patch<kPixels>& patch, int thread)
        : x(patch.left + Patch<kPixels>::x_of(thread) + 0.5f),
          y(patch.top + Patch<kPixels>::y_of(thread) + 0.5f),
          light(patch.inside(s, thread) ? 1.0f : -1.0f) {}

    __device__ __forceinline__ bool done() const { return light < 0.0f; }
    __device__ __forceinline__ float alpha() const { return 1.0f - fabsf(light); }

    // Blending weight of the next staged splat, front to back. Without branches: most warps hold all cases.
    __device__ __forceinline__ float pass(float4 ellipse, float2 rest) {
        const float dx = ellipse.x - x, dy = ellipse.y - y;
        const float power = dx * (ellipse.z * dx + ellipse.w * dy) + rest.x * dy * dy;
        const float alpha = fminf(kAlphaMax, __expf(power + rest.y));
        const bool counts = power <= 0.0f && alpha >= kAlphaThreshold;      // not where power is NaN
        const float next = light * (1.0f - alpha);
        const bool goes_on = next > kTransmittanceStop;
        const float weight = counts && goes_on ? light * alpha : 0.0f;
        if (counts) light = goes_on ? next : -fabsf(light);
        return weight;
    }
};

// Walks the tile's list in batches. `stage(slot, gaussian)` is called by one thread per splat that reaches the
// patch, to bring what the visitor needs into shared memory; `visit(count)` by all threads once `count` splats
// are staged. Ends when the list does or no pixel takes light any more.
template <int kPixels, class Stage, class Visit>
__device__ __forceinline__ void walk_batches(const SplatLists& s, const Patch<kPixels>& patch, const Staging<kPixels>& staging,
                                             const Ray& ray, Stage&& stage, Visit&& visit) {
    constexpr int kBatch = Staging<kPixels>::kBatch;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    for (int start = patch.begin; start < patch.end; start += kBatch) {
        // The last batch's splats may still be read here: nothing of theirs is written until the next barrier.
        if (__syncthreads_and(ray.done())) return;
        float4 ellipse = {};
        float2 rest = {};
        int gaussian = 0, rank = 0;
        unsigned warps = 0;
        if (thread < kBatch) {
            if (start + thread < patch.end) {
                const int64_t splat = s.flatten_ids[start + thread];
                const float x = s.means2d[2 * splat], y = s.means2d[2 * splat + 1], opacity = s.opacities[splat];
                const float a = s.conics[3 * splat], b = s.conics[3 * splat + 1], c = s.conics[3 * splat + 2];
                ellipse = make_float4(x, y, -0.5f * a, -b);
                rest = make_float2(-0.5f * c, logf(opacity));
                gaussian = s.gaussian_ids != nullptr ? s.gaussian_ids[splat]
                                                     : static_cast<int>(splat - patch.camera * s.gaussians);
                warps = reached_warps(patch, x, y, a, b, c, opacity);
            }
            const unsigned keepers = __ballot_sync(kAllLanes, warps != 0);
            rank = __popc(keepers & ((1u << lane) - 1));
            if (lane == 0) staging.kept[warp] = __popc(keepers);
        }
        __syncthreads();
        int count = 0, before = 0;
        for (int w = 0; w < kBatch / 32; ++w) {
            if (w == warp) before = count;
            count += staging.kept[w];
        }
        if (warps != 0) {
            const int slot = before + rank;
            staging.ellipse[slot] = ellipse;
            staging.rest[slot] = rest;
            staging.gaussian[slot] = gaussian;
            staging.warps[slot] = warps;
            stage(slot, gaussian);
        }
        __syncthreads();
        visit(count);
    }
}

// As `walk_batches`, one splat at a time: `visit(slot, weight)` is called by all threads of a warp together, and
// only when at least one of them has a weight.
template <int kPixels, class Stage, class Visit>
__device__ __forceinline__ void walk_splats(const SplatLists& s, const Patch<kPixels>& patch, const Staging<kPixels>& staging,
                                            Ray& ray, Stage&& stage, Visit&& visit) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    walk_batches(s, patch, staging, ray, stage, [&](int count) {
        for (int first = 0; first < count; first += 32) {
            const bool mine = first + lane < count && (staging.warps[first + lane] >> warp & 1u);
            for (unsigned todo = __ballot_sync(kAllLanes, mine); todo != 0; todo &= todo - 1) {
                const int slot = first + __ffs(todo) - 1;
                const float weight = ray.pass(staging.ellipse[slot], staging.rest[slot]);
                if (__any_sync(kAllLanes, weight > 0.0f)) visit(slot, weight);
            }
        }
    });
}

}  // namespace dictsplat::gpu
