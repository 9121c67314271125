// Sparse-code splatting (LangSplatV2, section 3.3): each splat touches levels * nonzeros of the
// levels * atoms accumulators of a pixel, whatever the dimension of the features behind the atoms.
#pragma once

#include <memory>

#include "splat_rows.h"

namespace dictsplat::DS_ISA {

// Code maps of one tile, channel-major: [levels * atoms][16 rows]. One per thread, reused.
struct CodeTile {
    explicit CodeTile(const Codes& codes)
        : channels(codes.levels * codes.atoms), rows(new (std::align_val_t(64)) Row[static_cast<size_t>(channels) * kTile]) {}
    ~CodeTile() { ::operator delete[](rows, std::align_val_t(64)); }
    CodeTile(const CodeTile&) = delete;
    CodeTile& operator=(const CodeTile&) = delete;
    Row* channel(int c) { return rows + static_cast<int64_t>(c) * kTile; }

    int channels;
    Row* rows;
};

// Splats the codes into `out` and the weights' sum into `coverage`; `used[c]` tells the channels touched.
static void splat_codes(const TileLists& lists, const Splat* splats, const Codes& codes, const Tile& tile, CodeTile& out,
                        Row* coverage, uint8_t* used) {
    const int per_splat = codes.levels * codes.nonzeros;
    walk_tile(lists, splats, tile, [&](int64_t, int32_t id, int first, int last, auto&& sample) {
        alignas(64) Row weight[kTile];
        Row total = {};
        for (int row = first; row <= last; ++row) {
            weight[row] = sample(row).weight;
            coverage[row] += weight[row];
            total += weight[row];
        }
        if (!any_positive(total)) return;
        const int64_t entry = id % codes.gaussians * per_splat;
        for (int level = 0; level < codes.levels; ++level)
            for (int k = 0; k < codes.nonzeros; ++k) {
                const int64_t at = entry + level * codes.nonzeros + k;
                const int c = level * codes.atoms + codes.indices[at];
                const float value = codes.weights[at];
                if (value == 0.0f) continue;
                Row* channel = out.channel(c);
                if (!used[c]) {         // cleared on first use: most tiles use few atoms
                    used[c] = 1;
                    for (int row = 0; row < kTile; ++row) channel[row] = Row{};
                }
                for (int row = first; row <= last; ++row) channel[row] += weight[row] * value;
            }
    });
}

static void store_coverage(const TileLists& lists, const Tile& tile, const Row* coverage, float* alpha) {
    for (int row = 0; row < tile.rows; ++row)
        __builtin_memcpy(alpha + pixel_at(lists, tile, row), &coverage[row], tile.columns * sizeof(float));
}

static void codes(const TileLists& lists, const Splat* splats, const Codes& codes, float* out, float* alpha) {
    const int channels = codes.levels * codes.atoms;
#pragma omp parallel
    {
        CodeTile maps(codes);
        std::unique_ptr<uint8_t[]> used(new uint8_t[channels]);
#pragma omp for schedule(dynamic, 4)
        for (int64_t index = 0; index < tile_count(lists); ++index) {
            const Tile tile = tile_at(lists, index);
            alignas(64) Row coverage[kTile] = {};
            __builtin_memset(used.get(), 0, channels);
            splat_codes(lists, splats, codes, tile, maps, coverage, used.get());
            const Row zero = {};
            for (int row = 0; row < tile.rows; ++row) {
                float* pixels = out + pixel_at(lists, tile, row) * channels;
                int c = 0;
                for (; c + kTile <= channels; c += kTile) {
                    const Row* block[kTile];
                    for (int i = 0; i < kTile; ++i) block[i] = used[c + i] ? maps.channel(c + i) + row : &zero;
                    transpose_store(block, pixels + c, channels, tile.columns);
                }
                for (; c < channels; ++c)
                    for (int column = 0; column < tile.columns; ++column)
                        pixels[static_cast<int64_t>(column) * channels + c] = used[c] ? maps.channel(c)[row][column] : 0.0f;
            }
            store_coverage(lists, tile, coverage, alpha);
        }
    }
}

// Adjoint in the weights: v_intersections [I, levels * nonzeros].
static void codes_vjp(const TileLists& lists, const Splat* splats, const Codes& codes, const float* v_out,
                      float* v_intersections) {
    const int channels = codes.levels * codes.atoms, per_splat = codes.levels * codes.nonzeros;
#pragma omp parallel
    {
        CodeTile maps(codes);
#pragma omp for schedule(dynamic, 4)
        for (int64_t index = 0; index < tile_count(lists); ++index) {
            const Tile tile = tile_at(lists, index);
            if (tile.begin == tile.end) continue;
            __builtin_memset(static_cast<void*>(maps.rows), 0, sizeof(Row) * kTile * channels);
            for (int row = 0; row < tile.rows; ++row)
                for (int column = 0; column < tile.columns; ++column) {
                    const float* pixel = v_out + (pixel_at(lists, tile, row) + column) * channels;
                    for (int c = 0; c < channels; ++c) maps.channel(c)[row][column] = pixel[c];
                }
            walk_tile(lists, splats, tile, [&](int64_t position, int32_t id, int first, int last, auto&& sample) {
                alignas(64) Row weight[kTile];
                for (int row = first; row <= last; ++row) weight[row] = sample(row).weight;
                const uint8_t* indices = codes.indices + id % codes.gaussians * per_splat;
                float* v = v_intersections + static_cast<int64_t>(lists.slots[position]) * per_splat;
                for (int level = 0; level < codes.levels; ++level)
                    for (int k = 0; k < codes.nonzeros; ++k) {
                        const Row* channel = maps.channel(level * codes.atoms + indices[level * codes.nonzeros + k]);
                        Row total = {};
                        for (int row = first; row <= last; ++row) total += weight[row] * channel[row];
                        v[level * codes.nonzeros + k] = sum(total);
                    }
            });
        }
    }
}

}  // namespace dictsplat::DS_ISA
