// RGB, depth and alpha of every pixel, and the adjoint.
#include "splat_blocks.h"

namespace dictsplat::DS_ISA {

// What blending reads of a splat, and the gradient writes: asked for ahead, because they lie anywhere in memory.
struct Ask {
    const TileLists& lists;
    const float* colors;
    const float* depths;
    const float* sums = nullptr;

    void operator()(int64_t position, int32_t id) const {
        __builtin_prefetch(colors + 3 * static_cast<int64_t>(id));
        __builtin_prefetch(depths + id);
        if (sums == nullptr) return;
        const float* sum = sums + static_cast<int64_t>(lists.slots[position]) * kBlendSums;
        __builtin_prefetch(sum, 1);
        __builtin_prefetch(sum + kBlendSums - 1, 1);
    }
};

static void blend(const TileLists& lists, const Splat* splats, const float* colors, const float* depths, float* rgb,
                  float* depth, float* alpha) {
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t index = 0; index < tile_count(lists); ++index) {
        const Tile tile = tile_at(lists, index);
        // Side by side per block: five arrays would lie a multiple of 4 KiB apart, which stalls loads behind stores.
        struct Sums {
            Wide red, green, blue, depth, coverage;
        } sums[kBlocks] = {};
        walk_tile(lists, splats, tile, Ask{lists, colors, depths}, [&](const TileSplat& s, auto&& sample) {
            const float* color = colors + 3 * static_cast<int64_t>(s.id);
            const float red = color[0], green = color[1], blue = color[2], distance = depths[s.id];
            s.for_each_block([&](unsigned block) {
                const Wide weight = sample(block).weight;
                Sums& sum = sums[block];
                sum.red += weight * red;
                sum.green += weight * green;
                sum.blue += weight * blue;
                sum.depth += weight * distance;
                sum.coverage += weight;
            });
        });
        for (int row = 0; row < tile.rows; ++row) {
            float* pixel = rgb + 3 * pixel_at(lists, tile, row);
            for (int column = 0; column < tile.columns; ++column, pixel += 3) {
                const Sums& sum = sums[block_of(row, column)];
                const int lane = lane_of(row, column);
                pixel[0] = sum.red[lane];
                pixel[1] = sum.green[lane];
                pixel[2] = sum.blue[lane];
            }
        }
        constexpr int kStride = sizeof(Sums) / sizeof(Wide);
        store_tile(lists, tile, &sums[0].depth, kStride, depth);
        store_tile(lists, tile, &sums[0].coverage, kStride, alpha);
    }
}

// Front to back like the forward pass: what lies behind a splat is the pixel's total minus what has been
// passed, so neither the order nor the final transmittance needs to be stored.
static void blend_vjp(const TileLists& lists, const Splat* splats, const float* colors, const float* depths,
                      const float* rgb, const float* depth, const float* alpha, const float* v_rgb,
                      const float* v_depth, const float* v_alpha, float* sums) {
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t index = 0; index < tile_count(lists); ++index) {
        const Tile tile = tile_at(lists, index);
        struct Pixels {
            Wide v_red, v_green, v_blue, v_depth, v_alpha, behind;
        } pixels[kBlocks] = {};
        for (int row = 0; row < tile.rows; ++row) {
            int64_t p = pixel_at(lists, tile, row);
            for (int column = 0; column < tile.columns; ++column, ++p) {
                Pixels& q = pixels[block_of(row, column)];
                const int lane = lane_of(row, column);
                q.v_red[lane] = v_rgb[3 * p];
                q.v_green[lane] = v_rgb[3 * p + 1];
                q.v_blue[lane] = v_rgb[3 * p + 2];
                q.v_depth[lane] = v_depth[p];
                q.v_alpha[lane] = v_alpha[p];
                q.behind[lane] = rgb[3 * p] * v_rgb[3 * p] + rgb[3 * p + 1] * v_rgb[3 * p + 1] +
                                 rgb[3 * p + 2] * v_rgb[3 * p + 2] + depth[p] * v_depth[p] + alpha[p] * v_alpha[p];
            }
        }
        walk_tile(lists, splats, tile, Ask{lists, colors, depths, sums}, [&](const TileSplat& s, auto&& sample) {
            const float* color = colors + 3 * static_cast<int64_t>(s.id);
            const float red = color[0], green = color[1], blue = color[2], distance = depths[s.id];
            Wide step_x, step_y;
            __builtin_memcpy(&step_x, s.step_x, sizeof(step_x));
            __builtin_memcpy(&step_y, s.step_y, sizeof(step_y));
            alignas(64) const Wide step_xx = step_x * step_x, step_xy = step_x * step_y, step_yy = step_y * step_y;
            // Moments of v in steps between blocks.
            Wide v = {}, v_x = {}, v_y = {}, v_xx = {}, v_xy = {}, v_yy = {};
            Wide v_red = {}, v_green = {}, v_blue = {}, v_distance = {};
            s.for_each_block([&](unsigned block) {
                const Sample q = sample(block);
                Pixels& pixel = pixels[block];
                const Wide gain = pixel.v_red * red + pixel.v_green * green + pixel.v_blue * blue +
                                  pixel.v_depth * distance + pixel.v_alpha;
                const Wide behind = pixel.behind - q.weight * gain;
                pixel.behind = behind;
                const Wide v_alpha_here = q.transmittance * gain - behind * reciprocal(1.0f - q.alpha);
                // Zero where the splat does not count or where alpha is held at its maximum.
                const WideInt moves = (q.weight > 0.0f) & (q.alpha < kAlphaMax);
                const Wide v_sigma = select(moves, -q.alpha * v_alpha_here, Wide{});
                v += v_sigma;
                v_x += v_sigma * s.step_x[block];
                v_y += v_sigma * s.step_y[block];
                v_xx += v_sigma * step_xx[block];
                v_xy += v_sigma * step_xy[block];
                v_yy += v_sigma * step_yy[block];
                v_red += q.weight * pixel.v_red;
                v_green += q.weight * pixel.v_green;
                v_blue += q.weight * pixel.v_blue;
                v_distance += q.weight * pixel.v_depth;
            });
            const Wide v_dx = v * s.dx + v_x, v_dy = v * s.dy + v_y;
            const Wide totals = lane_sums({v_dx, v_dy, (v_dx + v_x) * s.dx + v_xx, v_dx * s.dy + (v_y * s.dx + v_xy),
                                           (v_dy + v_y) * s.dy + v_yy, v, v_red, v_green, v_blue, v_distance});
            __builtin_memcpy(sums + static_cast<int64_t>(lists.slots[s.position]) * kBlendSums, &totals,
                             kBlendSums * sizeof(float));
        });
    }
}

}  // namespace dictsplat::DS_ISA
