// Walks one tile front to back and hands every blending weight, a block of 4 x 4 pixels at a time, to a
// visitor. Forward, backward, codes, lift and query all go through here, so all see the same weights.
#pragma once

#include <cmath>

#include "kernels.h"
#include "simd.h"

namespace dictsplat::DS_ISA {

constexpr float kLogAlphaThreshold = -7.99435344f;  // log2(1 / 255)
constexpr float kLogRounding = 1e-5f;               // more than rounding adds to a log2(alpha) near 0

constexpr int kEdge = 4, kAcross = kTile / kEdge, kBlocks = kAcross * kAcross;      // block = 4 * (row / 4) + column / 4

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

// Where the pixel of a tile is: a block, and a lane of it.
DS_HD int block_of(int row, int column) { return row / kEdge * kAcross + column / kEdge; }
DS_HD int lane_of(int row, int column) { return row % kEdge * kEdge + column % kEdge; }

// Writes one value per pixel of a tile, `blocks` [16] being `stride` apart, into an image of one channel.
inline void store_tile(const TileLists& lists, const Tile& tile, const Wide* blocks, int stride, float* image) {
    for (int row = 0; row < tile.rows; ++row) {
        alignas(64) float line[kTile];
        for (int column = 0; column < kTile; column += kEdge)
            __builtin_memcpy(line + column,
                             reinterpret_cast<const float*>(blocks + block_of(row, column) * stride) + lane_of(row, column),
                             kEdge * sizeof(float));
        __builtin_memcpy(image + pixel_at(lists, tile, row), line, tile.columns * sizeof(float));
    }
}

// Sixteen splats before they are visited: where they are, from the centre of the tile's first pixel, the block
// nearest to that, and the blocks they may reach: none where anything is NaN.
struct Sifted {
    alignas(64) Wide x, y;
    alignas(64) WideInt home_column, home_row, blocks;
};

DS_HD Sifted sift(const Splat* splats, const int32_t* ids, int count, const Tile& tile) {
    Sifted s;
    Wide reach_x, reach_y;
    for (int i = 0; i < kWide; ++i) {
        const Splat& g = splats[ids[i < count ? i : 0]];
        s.x[i] = g.x;
        s.y[i] = g.y;
        reach_x[i] = g.reach_x;
        reach_y[i] = g.reach_y;
    }
    s.x -= tile.x + 0.5f;
    s.y -= tile.y + 0.5f;
    const Wide end_x = splat(tile.columns - 1.0f), end_y = splat(tile.rows - 1.0f);
    auto inside = [](Wide v, Wide end) { return lower(higher(v, Wide{}), end); };       // 0 for NaN
    const Wide left = s.x - reach_x, right = s.x + reach_x, top = s.y - reach_y, bottom = s.y + reach_y;
    const WideInt first_column = -floor_to_int(-inside(left, end_x)), last_column = floor_to_int(inside(right, end_x));
    const WideInt first_row = -floor_to_int(-inside(top, end_y)), last_row = floor_to_int(inside(bottom, end_y));
    const WideInt hits = (left <= end_x) & (right >= 0.0f) & (top <= end_y) & (bottom >= 0.0f) &
                         (first_column <= last_column) & (first_row <= last_row);
    const WideInt across = (2 << (last_column >> 2)) - (1 << (first_column >> 2));
    const WideInt down = (0x1111 << (first_row & ~3)) & (0x1111 >> (12 - (last_row & ~3)));
    s.blocks = across * down & hits;
    s.home_column = floor_to_int(inside(s.x, end_x)) >> 2;
    s.home_row = floor_to_int(inside(s.y, end_y)) >> 2;
    return s;
}

// What a visitor learns about a splat in one block: alpha, 0 where it does not count, and weight = alpha *
// transmittance, 0 also once a pixel is finished.
struct Sample {
    Wide weight, alpha, transmittance;
};

// A splat on its way through a tile. Its distance from a pixel, splat - pixel, is (dx + step_x[block], dy +
// step_y[block]), where dx and dy are those in the block nearest to its centre.
struct TileSplat {
    int64_t position;       // in the lists
    int32_t id;
    unsigned blocks;        // that it may reach, as bits
    Wide dx, dy;
    alignas(64) float step_x[kBlocks], step_y[kBlocks];

    template <class F>
    DS_HD void for_each_block(F&& f) const {
        for (unsigned left = blocks; left != 0; left &= left - 1) f(static_cast<unsigned>(__builtin_ctz(left)));
    }
};

constexpr auto ask_nothing = [](int64_t, int32_t) {};

// Visits the splats of a tile front to back. `ask(position, id)` is called some splats ahead, for prefetching; then
// visit(TileSplat, sample) with sample(block) -> Sample, which must be called once for every block of the splat,
// because sampling advances the transmittance.
template <class Ask, class Visitor>
DS_HD void walk_tile(const TileLists& lists, const Splat* splats, const Tile& tile, Ask&& ask, Visitor&& visit) {
    // The lanes of a block are arranged like the blocks of a tile.
    const Wide column = to_float(lanes() % kEdge), row = to_float(lanes() / kEdge);
    alignas(64) Wide transmittance[kBlocks];
    for (int k = 0; k < kBlocks; ++k) {
        const WideInt inside = (column + 1.0f * (k % kAcross * kEdge) < splat(1.0f * tile.columns)) &
                               (row + 1.0f * (k / kAcross * kEdge) < splat(1.0f * tile.rows));
        transmittance[k] = select(inside, splat(1.0f), Wide{});
    }
    for (int64_t start = tile.begin; start < tile.end; start += kWide) {
        unsigned live = 0;      // blocks that still take light
        for (int k = 0; k < kBlocks; ++k) live |= static_cast<unsigned>(any_above(transmittance[k], kTransmittanceStop)) << k;
        if (live == 0) return;
        const int count = tile.end - start < kWide ? static_cast<int>(tile.end - start) : kWide;
        const int32_t* const ids = lists.ids + start;
        // They lie anywhere in memory.
        for (int64_t i = start + 2 * kWide; i < start + 3 * kWide && i < tile.end; ++i)
            __builtin_prefetch(splats + lists.ids[i]);
        const Sifted sifted = sift(splats, ids, count, tile);
        for (int i = 0; i < count; ++i) {
            TileSplat s;
            s.blocks = static_cast<unsigned>(sifted.blocks[i]) & live;
            if (s.blocks == 0) continue;
            const int later = start + i + kWide < tile.end ? i + kWide : i;
            ask(start + later, ids[later]);
            s.position = start + i;
            s.id = ids[i];
            const Splat& g = splats[s.id];
            // log2(alpha) is a quadratic function of the pixel: its level and its slopes in the block nearest to the
            // centre, and by how much it leaves the tangent in each other.
            const float home_x = sifted.home_column[i] * kEdge, home_y = sifted.home_row[i] * kEdge;
            s.dx = (sifted.x[i] - home_x) - column;
            s.dy = (sifted.y[i] - home_y) - row;
            const Wide slope_x = s.dx * (2.0f * g.a) + s.dy * g.b, slope_y = s.dx * g.b + s.dy * (2.0f * g.c);
            const Wide level = (s.dx * slope_x + s.dy * slope_y) * 0.5f + g.log_opacity;
            const Wide step_x = home_x - column * kEdge, step_y = home_y - row * kEdge;
            alignas(64) const Wide bend = step_x * (step_x * g.a + step_y * g.b) + step_y * step_y * g.c;
            __builtin_memcpy(s.step_x, &step_x, sizeof(step_x));
            __builtin_memcpy(s.step_y, &step_y, sizeof(step_y));
            // Beyond the centre's alpha there is nothing but rounding, and conics that are no ellipses.
            const float highest = g.log_opacity + kLogRounding;
            auto sample = [&](unsigned block) __attribute__((always_inline)) {
                Sample q;
                const Wide log_alpha = (level + bend[block]) + slope_x * s.step_x[block] + slope_y * s.step_y[block];
                const WideInt counts = (log_alpha >= kLogAlphaThreshold) & (log_alpha <= highest);
                q.alpha = select(counts, lower(exp2_small(log_alpha), splat(kAlphaMax)), Wide{});
                q.transmittance = transmittance[block];
                const Wide added = q.transmittance * q.alpha, next = q.transmittance - q.transmittance * q.alpha;
                // A pixel stops before the splat that would take it to 1e-4, and stays below: `next` never grows.
                q.weight = select(next > kTransmittanceStop, added, Wide{});
                transmittance[block] = next;
                return q;
            };
            visit(s, sample);
        }
    }
}

}  // namespace dictsplat::DS_ISA
