// The adjoint of blending in the values: sums[i] = sum_p w_pi values[p], mass[i] = sum_p w_pi.
#include <omp.h>

#include <algorithm>

#include "splat_blocks.h"

namespace dictsplat::DS_ISA {

constexpr int kMaxGroup = 256;      // channels one pass keeps in a local buffer

// Threads share the channels, not the tiles: every output has one writer that visits the tiles in order,
// so the result does not depend on the number of threads and needs no memory per thread. Walking the
// tiles once per group costs little beside `channels` multiply-adds per pixel and splat.
static void lift(const TileLists& lists, const Splat* splats, int64_t gaussians, int channels, const float* values,
                 float* sums, float* mass) {
    const int wanted = std::max((channels + kMaxGroup - 1) / kMaxGroup, std::min(omp_get_max_threads(), (channels + 31) / 32));
    const int groups = std::max(1, wanted);
    const int step = ((channels + groups - 1) / groups + kWide - 1) / kWide * kWide;
#pragma omp parallel for schedule(dynamic, 1)
    for (int group = 0; group < groups; ++group) {
        const int start = std::min(group * step, channels), width = std::min(step, channels - start);
        if (width <= 0 && group > 0) continue;
        for (int64_t index = 0; index < tile_count(lists); ++index) {
            const Tile tile = tile_at(lists, index);
            walk_tile(lists, splats, tile, ask_nothing, [&](const TileSplat& s, auto&& sample) {
                alignas(64) float total[kMaxGroup + kWide] = {};
                float total_mass = 0;
                s.for_each_block([&](unsigned block) {
                    const Wide weight = sample(block).weight;
                    if (!any_above(weight, 0.0f)) return;
                    const int first_row = block / kAcross * kEdge, first_column = block % kAcross * kEdge;
                    for (int lane = 0; lane < kWide; ++lane) {
                        const float w = weight[lane];
                        if (w == 0.0f) continue;
                        total_mass += w;
                        const int64_t at = pixel_at(lists, tile, first_row + lane / kEdge) + first_column + lane % kEdge;
                        const float* pixel = values + at * channels + start;
                        for (int c = 0; c < width; ++c) total[c] += w * pixel[c];
                    }
                });
                if (total_mass == 0.0f) return;
                const int64_t n = s.id - tile.camera * gaussians;
                float* out = sums + n * channels + start;
                for (int c = 0; c < width; ++c) out[c] += total[c];
                if (group == 0) mass[n] += total_mass;
            });
        }
    }
}

}  // namespace dictsplat::DS_ISA
