// Walks one tile front to back and hands every blending weight, a row of sixteen pixels at a time, to a
// visitor. Forward, backward, codes, lift and query all go through here, so all see the same weights.
#pragma once

#include <cmath>

#include "kernels.h"
#include "simd.h"

namespace dictsplat::DS_ISA {

struct Tile {
    int camera, x, y;           // pixel of its first corner
    int columns, rows;          // inside the image
    int64_t begin, end;         // range in the lists
};

DS_HD Tile tile_at(const TileLists& lists, int64_t index) {
    const int tiles_x = (lists.width + kTile - 1) / kTile, tiles_y = (lists.height + kTile - 1) / kTile;
    const int64_t per_camera = static_cast<int64_t>(tiles_x) * tiles_y;
    Tile tile;
    tile.camera = static_cast<int>(index / per_camera);
    const int in_camera = static_cast<int>(index % per_camera);
    tile.x = in_camera % tiles_x * kTile;
    tile.y = in_camera / tiles_x * kTile;
    tile.columns = lists.width - tile.x < kTile ? lists.width - tile.x : kTile;
    tile.rows = lists.height - tile.y < kTile ? lists.height - tile.y : kTile;
    tile.begin = lists.offsets[index];
    tile.end = index + 1 < lists.cameras * per_camera ? lists.offsets[index + 1] : lists.count;
    return tile;
}

inline int64_t tile_count(const TileLists& lists) {
    return static_cast<int64_t>(lists.cameras) * ((lists.width + kTile - 1) / kTile) *
           ((lists.height + kTile - 1) / kTile);
}

DS_HD int64_t pixel_at(const TileLists& lists, const Tile& tile, int row) {
    return (static_cast<int64_t>(tile.camera) * lists.height + tile.y + row) * lists.width + tile.x;
}

inline void store_coverage(const TileLists& lists, const Tile& tile, const Row* coverage, float* alpha) {
    for (int row = 0; row < tile.rows; ++row)
        __builtin_memcpy(alpha + pixel_at(lists, tile, row), &coverage[row], tile.columns * sizeof(float));
}

// What a visitor learns about one row. `weight` is alpha * transmittance where the splat contributes
// and 0 elsewhere.
struct RowSample {
    Row dx, weight, visibility, alpha, transmittance;
    float dy;
};

// visit(list position, splat id, first row, last row, sample) with sample(row) -> RowSample; it must
// call sample once for every row of the range, because sampling advances the transmittance.
template <class Visitor>
DS_HD void walk_tile(const TileLists& lists, const Splat* splats, const Tile& tile, Visitor&& visit) {
    alignas(64) Row transmittance[kTile];       // 0 once a pixel is finished
    for (int row = 0; row < kTile; ++row) transmittance[row] = splat(row < tile.rows ? 1.0f : 0.0f);
    const Row inside = lanes() < static_cast<float>(tile.columns) ? splat(1.0f) : splat(0.0f);
    for (int row = 0; row < tile.rows; ++row) transmittance[row] *= inside;
    const Row pixel_x = lanes() + (tile.x + 0.5f);

    constexpr int kAhead = 12;      // splats are scattered in memory
    int first_live = 0, last_live = tile.rows - 1;
    for (int64_t i = tile.begin; i < tile.end; ++i) {
        if (((i - tile.begin) & 15) == 15) {     // shrink the band of rows that still take light
            while (first_live <= last_live && !any_positive(transmittance[first_live])) ++first_live;
            while (first_live <= last_live && !any_positive(transmittance[last_live])) --last_live;
            if (first_live > last_live) return;
        }
        const int32_t id = lists.ids[i];
        __builtin_prefetch(&splats[lists.ids[i + kAhead < tile.end ? i + kAhead : i]]);
        const Splat& g = splats[id];
        const float centre_y = g.y - tile.y - 0.5f, centre_x = g.x - tile.x - 0.5f;
        // Written so that a NaN reach keeps nothing.
        if (!(centre_x + g.reach_x >= 0 && centre_x - g.reach_x <= tile.columns - 1)) continue;
        const float top = centre_y - g.reach_y, bottom = centre_y + g.reach_y;
        if (!(bottom >= first_live && top <= last_live)) continue;
        const int first = top <= first_live ? first_live : static_cast<int>(std::ceil(top));
        const int last = bottom >= last_live ? last_live : static_cast<int>(bottom);
        if (first > last) continue;

        const Row dx = g.x - pixel_x;
        const Row quadratic = dx * dx * (0.5f * g.a);
        const Row linear = dx * g.b;
        auto sample = [&](int row) __attribute__((always_inline)) {
            RowSample s;
            s.dx = dx;
            s.dy = g.y - (tile.y + row + 0.5f);
            const Row sigma = quadratic + (linear * s.dy + (0.5f * g.c * s.dy * s.dy));
            const Row clamped = sigma > 0.0f ? sigma : splat(0.0f);
            s.visibility = exp_negative(clamped);
            const Row raw = s.visibility * g.opacity;
            s.alpha = raw < kAlphaMax ? raw : splat(kAlphaMax);
            const RowMask counts = (s.alpha >= kAlphaThreshold) & (sigma >= 0.0f);
            s.alpha = counts ? s.alpha : splat(0.0f);
            s.transmittance = transmittance[row];
            const Row next = s.transmittance * (1.0f - s.alpha);
            // A pixel stops before the splat that would take it to 1e-4; splats it skips do not stop it.
            const RowMask goes_on = next > kTransmittanceStop;
            s.weight = goes_on ? s.transmittance * s.alpha : splat(0.0f);
            transmittance[row] = goes_on ? next : splat(0.0f);
            return s;
        };
        visit(i, id, first, last, sample);
    }
}

}  // namespace dictsplat::DS_ISA
