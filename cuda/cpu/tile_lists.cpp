// Tile lists by two stable sorts: a radix sort of the visible Gaussians by depth, then a counting sort by
// tile. The same order as sorting (tile, depth) keys, for a fraction of the work: there are several times
// more intersections than Gaussians, and only the Gaussians go through the radix passes.
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "dictsplat/tiles.h"
#include "geometry.h"

namespace dictsplat {

static int tiles_across(int pixels) { return (pixels + kTile - 1) / kTile; }

// Counting and filling must agree on this, or the lists overflow.
static bool visible(const int32_t* radii, int64_t at) { return radii[2 * at] > 0 && radii[2 * at + 1] > 0; }

static TileRange range_at(const int32_t* radii, const float* means2d, int64_t at, int tiles_x, int tiles_y) {
    return tile_range(means2d[2 * at], means2d[2 * at + 1], radii[2 * at], radii[2 * at + 1], tiles_x, tiles_y);
}

int64_t count_intersections(const int32_t* radii, const float* means2d, int cameras, int64_t count, int width, int height,
                            int32_t* starts) {
    const int tiles_x = tiles_across(width), tiles_y = tiles_across(height);
    int64_t total = 0;
    for (int64_t at = 0; at < cameras * count; ++at) {
        starts[at] = static_cast<int32_t>(total);
        if (!visible(radii, at)) continue;
        const TileRange r = range_at(radii, means2d, at, tiles_x, tiles_y);
        total += static_cast<int64_t>(r.x1 - r.x0) * (r.y1 - r.y0);
        if (total > INT32_MAX) return total;        // the caller refuses
    }
    starts[cameras * count] = static_cast<int32_t>(total);
    return total;
}

// Indices of the visible Gaussians of one camera, nearest first; equal depths keep their order.
static std::vector<int32_t> sort_by_depth(const int32_t* radii, const float* depths, int64_t count) {
    struct Item {
        uint32_t key;
        int32_t id;
    };
    std::vector<Item> items;
    items.reserve(count);
    for (int64_t n = 0; n < count; ++n) {
        if (!visible(radii, n)) continue;
        uint32_t key;
        std::memcpy(&key, depths + n, sizeof(key));     // positive floats order like their bits
        items.push_back({key, static_cast<int32_t>(n)});
    }
    constexpr int kBits = 11, kBuckets = 1 << kBits;
    std::vector<Item> other(items.size());
    for (int shift = 0; shift < 32; shift += kBits) {
        size_t start[kBuckets] = {};
        for (const Item& item : items) ++start[item.key >> shift & (kBuckets - 1)];
        size_t total = 0;
        for (size_t& s : start) {
            const size_t here = s;
            s = total;
            total += here;
        }
        for (const Item& item : items) other[start[item.key >> shift & (kBuckets - 1)]++] = item;
        items.swap(other);
    }
    std::vector<int32_t> order(items.size());
    for (size_t i = 0; i < items.size(); ++i) order[i] = items[i].id;
    return order;
}

void fill_tile_lists(const int32_t* radii, const float* means2d, const float* depths, const int32_t* starts, int cameras,
                     int64_t count, int width, int height, int32_t* offsets, int32_t* ids, int32_t* slots) {
    const int tiles_x = tiles_across(width), tiles_y = tiles_across(height), tiles = tiles_x * tiles_y;
    int32_t base = 0;
    for (int c = 0; c < cameras; ++c) {
        const std::vector<int32_t> order = sort_by_depth(radii + 2 * c * count, depths + c * count, count);
        const int chunks = std::max(1, std::min<int>(omp_get_max_threads(), static_cast<int>(order.size() / 4096)));
        // Consecutive chunks of the depth order, counted and filled apart: the result is the same for any
        // number of chunks.
        std::vector<int32_t> next(static_cast<size_t>(chunks) * tiles, 0);
        auto for_each_tile = [&](int chunk, auto&& visit) {
            const size_t begin = order.size() * chunk / chunks, end = order.size() * (chunk + 1) / chunks;
            for (size_t i = begin; i < end; ++i) {
                const int64_t at = c * count + order[i];
                const TileRange r = range_at(radii, means2d, at, tiles_x, tiles_y);
                int32_t slot = starts[at];
                for (int y = r.y0; y < r.y1; ++y)
                    for (int x = r.x0; x < r.x1; ++x) visit(y * tiles_x + x, static_cast<int32_t>(at), slot++);
            }
        };
#pragma omp parallel for schedule(static, 1)
        for (int chunk = 0; chunk < chunks; ++chunk)
            for_each_tile(chunk, [&](int tile, int32_t, int32_t) { ++next[static_cast<size_t>(chunk) * tiles + tile]; });
        for (int tile = 0; tile < tiles; ++tile) {
            offsets[static_cast<int64_t>(c) * tiles + tile] = base;
            for (int chunk = 0; chunk < chunks; ++chunk) {
                int32_t& entry = next[static_cast<size_t>(chunk) * tiles + tile];
                const int32_t here = entry;
                entry = base;
                base += here;
            }
        }
#pragma omp parallel for schedule(static, 1)
        for (int chunk = 0; chunk < chunks; ++chunk)
            for_each_tile(chunk, [&](int tile, int32_t at, int32_t slot) {
                const int32_t position = next[static_cast<size_t>(chunk) * tiles + tile]++;
                ids[position] = at;
                slots[position] = slot;
            });
    }
}

const char* fault_in_tile_lists(const int32_t* offsets, const int32_t* ids, int64_t intersections, int cameras,
                                int64_t count, int width, int height) {
    const int64_t per_camera = static_cast<int64_t>(tiles_across(width)) * tiles_across(height), tiles = cameras * per_camera;
    if (offsets[0] != 0) return "isect_offsets do not start at 0";
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t end = tile + 1 < tiles ? offsets[tile + 1] : intersections;
        if (offsets[tile] > intersections || end > intersections) return "isect_offsets reach beyond flatten_ids";
        if (offsets[tile] > end) return "isect_offsets decrease";
        const int64_t low = tile / per_camera * count, high = low + count;
        for (int64_t i = offsets[tile]; i < end; ++i)
            if (ids[i] < low || ids[i] >= high) return "flatten_ids has an id that is no Gaussian of its tile's camera";
    }
    return nullptr;
}

void number_intersections(const int32_t* ids, int64_t intersections, int64_t all, int32_t* starts, int32_t* slots) {
    std::fill_n(starts, all + 1, 0);
    for (int64_t i = 0; i < intersections; ++i) slots[i] = starts[ids[i] + 1]++;
    for (int64_t at = 0; at < all; ++at) starts[at + 1] += starts[at];
    for (int64_t i = 0; i < intersections; ++i) slots[i] += starts[ids[i]];
}

}  // namespace dictsplat
