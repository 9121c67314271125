// Dense splatting of any number of channels, the way feature fields are rendered without codes. What sparse codes
// are timed against, so it is built to be bound by its multiply-adds.
#pragma once

#include <algorithm>
#include <memory>

#include "splat_blocks.h"

namespace dictsplat::DS_ISA {

// The blending weights of one tile as a sparse matrix, and its product with the features of the tile's splats.
// Weights are kept per group of neighbouring pixels, because these are lit by nearly the same splats; a block of
// group x channels stays in registers while the splats of the group go by. One per thread, reused.
class FeatureTile {
  public:
    FeatureTile(const TileLists& lists, int64_t gaussians, const float* features, int channels, float* out)
        : lists_(lists), gaussians_(gaussians), features_(features), channels_(channels), out_(out),
          groups_(new Group[kGroups]), packed_(new Wide[static_cast<size_t>(kQueue) * kVectors]) {}

    void splat_features(const Splat* splats, const Tile& tile, Wide* coverage) {
        tile_ = tile;
        fresh_ = true;
        clear();
        walk_tile(lists_, splats, tile, ask_nothing, [&](const TileSplat& s, auto&& sample) {
            s.for_each_block([&](unsigned block) {
                const Wide weight = sample(block).weight;
                coverage[block] += weight;
                if (!any_above(weight, 0.0f)) return;
                alignas(64) float lane[kWide];
                __builtin_memcpy(lane, &weight, sizeof(lane));
                for (int part = 0; part < kParts; ++part) {
                    const float* w = lane + part * kPixels;
                    float total = 0;
                    for (int p = 0; p < kPixels; ++p) total += w[p];
                    if (total == 0.0f) continue;
                    Group& group = groups_[block * kParts + part];
                    __builtin_memcpy(group.weight[group.count], w, sizeof(group.weight[0]));
                    group.splat[group.count++] = count_;
                }
            });
            ids_[count_] = s.id;
            if (++count_ == kQueue) flush(false);
        });
        flush(true);
    }

  private:
    // What fits the registers: 24 of 32 with AVX-512, 8 of 16 (a Wide is two of them) without.
#if defined(__AVX512F__)
    static constexpr int kPixels = 8, kVectors = 3;
#else
    static constexpr int kPixels = 4, kVectors = 1;
#endif
    static constexpr int kParts = kWide / kPixels, kGroups = kBlocks * kParts, kPartRows = kPixels / kEdge, kQueue = 512;
    struct Group {
        int count;
        int splat[kQueue];              // which of the queued splats
        float weight[kQueue][kPixels];
    };

    void clear() {
        for (int group = 0; group < kGroups; ++group) groups_[group].count = 0;
        count_ = 0;
    }

    void flush(bool last) {
        int channel = 0;
        for (; channels_ - channel >= kVectors * kWide; channel += kVectors * kWide) multiply<kVectors>(channel, last);
        if (kVectors > 2 && channels_ - channel > kWide) {
            multiply<2>(channel, last);
            channel += 2 * kWide;
        }
        for (; channel < channels_; channel += kWide) multiply<1>(channel, last);
        fresh_ = false;
        clear();
    }

    // Channels from `first` on of all pixels. Features are copied side by side first: rows of the array lie a page
    // or more apart and are used by many groups.
    template <int kVecs>
    void multiply(int first, bool last) {
        const int width = std::min(kVecs * kWide, channels_ - first);
        Wide* const packed = packed_.get();
        for (int i = 0; i < count_; ++i) {
            const float* from = features_ + (ids_[i] - tile_.camera * gaussians_) * channels_ + first;
            Wide* const to = packed + i * kVecs;
            if (i + kAhead < count_)
                __builtin_prefetch(features_ + (ids_[i + kAhead] - tile_.camera * gaussians_) * channels_ + first);
            if (width < kVecs * kWide) to[kVecs - 1] = Wide{};
            __builtin_memcpy(to, from, width * sizeof(float));
        }
        const bool streaming = fresh_ && last && width == kVecs * kWide && channels_ % kWide == 0 &&
                               reinterpret_cast<uintptr_t>(out_) % sizeof(Wide) == 0;
        for (int index = 0; index < kGroups; ++index) {
            const Group& group = groups_[index];
            const int block = index / kParts, first_row = block / kAcross * kEdge + index % kParts * kPartRows;
            const int first_column = block % kAcross * kEdge;
            float* pixels[kPixels];         // null outside the image
            for (int p = 0; p < kPixels; ++p) {
                const int row = first_row + p / kEdge, column = first_column + p % kEdge;
                const bool inside = row < tile_.rows && column < tile_.columns;
                pixels[p] = inside ? out_ + (pixel_at(lists_, tile_, row) + column) * channels_ + first : nullptr;
            }
            Wide sums[kPixels][kVecs] = {};
            if (!fresh_)
                for (int p = 0; p < kPixels; ++p)
                    if (pixels[p] != nullptr) __builtin_memcpy(sums[p], pixels[p], width * sizeof(float));
            for (int i = 0; i < group.count; ++i) {
                const Wide* const feature = packed + group.splat[i] * kVecs;
                const float* const weight = group.weight[i];
#pragma GCC unroll 8
                for (int p = 0; p < kPixels; ++p)
#pragma GCC unroll 3
                    for (int v = 0; v < kVecs; ++v) sums[p][v] += feature[v] * weight[p];
            }
            for (int p = 0; p < kPixels; ++p) {
                if (pixels[p] == nullptr) continue;
                if (streaming)
                    for (int v = 0; v < kVecs; ++v) store_streaming(pixels[p] + v * kWide, sums[p][v]);
                else
                    __builtin_memcpy(pixels[p], sums[p], width * sizeof(float));
            }
        }
    }

    static constexpr int kAhead = 8;
    const TileLists& lists_;
    int64_t gaussians_;
    const float* features_;
    int channels_;
    float* out_;
    std::unique_ptr<Group[]> groups_;
    std::unique_ptr<Wide[]> packed_;     // [count_][vectors of one pass]
    int32_t ids_[kQueue];
    int count_ = 0;
    Tile tile_ = {};
    bool fresh_ = true;                 // nothing of this tile has been written yet
};

static void features(const TileLists& lists, const Splat* splats, int64_t gaussians, const float* values, int channels,
                     float* out, float* alpha) {
#pragma omp parallel
    {
        FeatureTile maps(lists, gaussians, values, channels, out);
#pragma omp for schedule(dynamic, 4)
        for (int64_t index = 0; index < tile_count(lists); ++index) {
            const Tile tile = tile_at(lists, index);
            alignas(64) Wide coverage[kBlocks] = {};
            maps.splat_features(splats, tile, coverage);
            store_tile(lists, tile, coverage, 1, alpha);
        }
    }
}

}  // namespace dictsplat::DS_ISA
