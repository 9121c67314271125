// Tile lists by two stable sorts: a radix sort of the visible Gaussians by depth, then a counting sort by
// tile. The same order as sorting (tile, depth) keys, for a fraction of the work: there are several times
// more intersections than Gaussians, and only the Gaussians go through the radix passes.
//
// Threads take consecutive chunks, count them apart and write them where the counts before them say, so the
// result is the same for any number of chunks.
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "buffer.h"
#include "geometry.h"

namespace dictsplat {

static int tiles_across(int pixels) { return (pixels + kTile - 1) / kTile; }

static int chunks_of(int64_t count) {
    return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(omp_get_max_threads(), count / 4096)));
}

// f(chunk, begin, end)
template <class F>
static void for_each_chunk(int64_t count, int chunks, F&& f) {
#pragma omp parallel for schedule(static, 1)
    for (int chunk = 0; chunk < chunks; ++chunk) f(chunk, count * chunk / chunks, count * (chunk + 1) / chunks);
}

int64_t count_intersections(const int32_t* radii, const float* means2d, int64_t all, int width, int height,
                            TileRange* ranges, int32_t* starts) {
    const int tiles_x = tiles_across(width), tiles_y = tiles_across(height), chunks = chunks_of(all);
    std::vector<int64_t> before(chunks + 1, 0);
    for_each_chunk(all, chunks, [&](int chunk, int64_t begin, int64_t end) {
        int64_t total = 0;
        for (int64_t at = begin; at < end; ++at) {
            starts[at] = static_cast<int32_t>(total);       // wraps only where the caller refuses
            const int32_t radius_x = radii[2 * at], radius_y = radii[2 * at + 1];
            ranges[at] = radius_x > 0 && radius_y > 0
                             ? tile_range(means2d[2 * at], means2d[2 * at + 1], radius_x, radius_y, tiles_x, tiles_y)
                             : TileRange{0, 0, 0, 0};
            total += static_cast<int64_t>(ranges[at].x1 - ranges[at].x0) * (ranges[at].y1 - ranges[at].y0);
        }
        before[chunk + 1] = total;
    });
    for (int chunk = 0; chunk < chunks; ++chunk) before[chunk + 1] += before[chunk];
    if (before[chunks] > INT32_MAX) return before[chunks];
    for_each_chunk(all, chunks, [&](int chunk, int64_t begin, int64_t end) {
        for (int64_t at = begin; at < end; ++at) starts[at] += static_cast<int32_t>(before[chunk]);
    });
    starts[all] = static_cast<int32_t>(before[chunks]);
    return before[chunks];
}

namespace {

struct DepthItem {
    uint32_t key;
    int32_t id;
};

}  // namespace

// The Gaussians of one camera that touch a tile, nearest first; equal depths keep their order.
static Buffer<DepthItem> sort_by_depth(const TileRange* ranges, const float* depths, int64_t count) {
    auto touches = [&](int64_t n) { return ranges[n].x1 > ranges[n].x0 && ranges[n].y1 > ranges[n].y0; };
    const int gather_chunks = chunks_of(count);
    std::vector<int64_t> before(gather_chunks + 1, 0);
    for_each_chunk(count, gather_chunks, [&](int chunk, int64_t begin, int64_t end) {
        int64_t total = 0;
        for (int64_t n = begin; n < end; ++n) total += touches(n);
        before[chunk + 1] = total;
    });
    for (int chunk = 0; chunk < gather_chunks; ++chunk) before[chunk + 1] += before[chunk];
    Buffer<DepthItem> items(before[gather_chunks]), other(items.size());
    for_each_chunk(count, gather_chunks, [&](int chunk, int64_t begin, int64_t end) {
        DepthItem* to = items.data() + before[chunk];
        for (int64_t n = begin; n < end; ++n) {
            if (!touches(n)) continue;
            uint32_t key;
            std::memcpy(&key, depths + n, sizeof(key));     // positive floats order like their bits
            *to++ = {key, static_cast<int32_t>(n)};
        }
    });

    constexpr int kBits = 11, kBuckets = 1 << kBits;
    const int64_t size = static_cast<int64_t>(items.size());
    const int chunks = chunks_of(size);
    std::vector<int64_t> next(static_cast<size_t>(chunks) * kBuckets);
    for (int shift = 0; shift < 32; shift += kBits) {
        std::fill(next.begin(), next.end(), 0);
        auto bucket = [&](int chunk, const DepthItem& item) -> int64_t& {
            return next[static_cast<size_t>(chunk) * kBuckets + (item.key >> shift & (kBuckets - 1))];
        };
        for_each_chunk(size, chunks, [&](int chunk, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) ++bucket(chunk, items.data()[i]);
        });
        int64_t total = 0;
        for (int b = 0; b < kBuckets; ++b)
            for (int chunk = 0; chunk < chunks; ++chunk) {
                int64_t& entry = next[static_cast<size_t>(chunk) * kBuckets + b];
                const int64_t here = entry;
                entry = total;
                total += here;
            }
        for_each_chunk(size, chunks, [&](int chunk, int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) other.data()[bucket(chunk, items.data()[i])++] = items.data()[i];
        });
        std::swap(items, other);
    }
    return items;
}

void fill_tile_lists(const TileRange* ranges, const float* depths, const int32_t* starts, int cameras, int64_t count,
                     int width, int height, int32_t* offsets, int32_t* ids, int32_t* slots) {
    const int tiles_x = tiles_across(width), tiles = tiles_x * tiles_across(height);
    int32_t base = 0;
    for (int c = 0; c < cameras; ++c) {
        const Buffer<DepthItem> order = sort_by_depth(ranges + c * count, depths + c * count, count);
        const int64_t size = static_cast<int64_t>(order.size());
        const int chunks = chunks_of(size);
        std::vector<int32_t> next(static_cast<size_t>(chunks) * tiles, 0);
        auto for_each_tile = [&](int chunk, int64_t begin, int64_t end, auto&& visit) {
            int32_t* const of_tile = next.data() + static_cast<size_t>(chunk) * tiles;
            for (int64_t i = begin; i < end; ++i) {
                const int64_t at = c * count + order.data()[i].id;
                const TileRange r = ranges[at];
                int32_t slot = starts[at];
                for (int y = r.y0; y < r.y1; ++y)
                    for (int x = r.x0; x < r.x1; ++x) visit(of_tile[y * tiles_x + x], static_cast<int32_t>(at), slot++);
            }
        };
        for_each_chunk(size, chunks, [&](int chunk, int64_t begin, int64_t end) {
            for_each_tile(chunk, begin, end, [](int32_t& entry, int32_t, int32_t) { ++entry; });
        });
        for (int tile = 0; tile < tiles; ++tile) {
            offsets[static_cast<int64_t>(c) * tiles + tile] = base;
            for (int chunk = 0; chunk < chunks; ++chunk) {
                int32_t& entry = next[static_cast<size_t>(chunk) * tiles + tile];
                const int32_t here = entry;
                entry = base;
                base += here;
            }
        }
        for_each_chunk(size, chunks, [&](int chunk, int64_t begin, int64_t end) {
            for_each_tile(chunk, begin, end, [&](int32_t& entry, int32_t at, int32_t slot) {
                const int32_t position = entry++;
                ids[position] = at;
                slots[position] = slot;
            });
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
