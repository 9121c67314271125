// Sparse-code splatting (LangSplatV2, section 3.3): each splat touches levels * nonzeros of the
// levels * atoms accumulators of a pixel, whatever the dimension of the features behind the atoms.
#pragma once

#include <sys/mman.h>

#include <memory>

#include "splat_rows.h"

namespace dictsplat::DS_ISA {

constexpr int kBandRows = 4, kBands = kTile / kBandRows;

// Code maps of one tile. The accumulators of all levels do not fit the first-level cache for a whole tile
// but do for four rows, so a tile is kept as four bands: blending weights are queued per band and added
// many splats at a time. One per thread, reused.
class CodeTile {
  public:
    explicit CodeTile(const Codes& codes)
        : codes_(codes),
          channels_(codes.levels * codes.atoms),
          rows_(allocate<Row>(static_cast<size_t>(kBands) * channels_ * kBandRows)),
          queues_(allocate<Queue>(kBands)),
          used_(new uint8_t[channels_]),
          decoded_(new Nonzero[static_cast<size_t>(codes.levels) * codes.nonzeros * kDecoded]) {
        for (int band = 0; band < kBands; ++band) queues_[band].count = 0;
    }
    ~CodeTile() {
        ::operator delete[](rows_, std::align_val_t(64));
        ::operator delete[](queues_, std::align_val_t(64));
    }
    CodeTile(const CodeTile&) = delete;
    CodeTile& operator=(const CodeTile&) = delete;

    // Four rows of one channel.
    Row* at(int band, int channel) { return rows_ + (static_cast<int64_t>(band) * channels_ + channel) * kBandRows; }
    bool used(int channel) const { return used_[channel] != 0; }
    int channels() const { return channels_; }

    // Splats the codes, and the weights' sum into `coverage`; channels not `used` afterwards hold garbage.
    void splat_codes(const TileLists& lists, const Splat* splats, const Tile& tile, Row* coverage) {
        __builtin_memset(used_.get(), 0, channels_);
        const int per_splat = codes_.levels * codes_.nonzeros;
        const int64_t first_id = tile.camera * codes_.gaussians;
        walk_tile(lists, splats, tile, [&](int64_t position, int32_t id, int first, int last, auto&& sample) {
            // Codes lie anywhere in memory: ask for those of a later splat now.
            const int64_t later = (lists.ids[position + kAhead < tile.end ? position + kAhead : position] - first_id) * per_splat;
            __builtin_prefetch(codes_.weights + later);
            __builtin_prefetch(codes_.indices + later);
            const int first_band = first / kBandRows, last_band = last / kBandRows;
            alignas(64) Row weight[kTile];
            for (int row = first_band * kBandRows; row < first; ++row) weight[row] = Row{};
            for (int row = last + 1; row < (last_band + 1) * kBandRows; ++row) weight[row] = Row{};
            for (int row = first; row <= last; ++row) {
                weight[row] = sample(row).weight;
                coverage[row] += weight[row];
            }
            decode((id - first_id) * per_splat);
            for (int band = first_band; band <= last_band; ++band) {
                const Row* w = weight + band * kBandRows;
                if (!any_positive((w[0] + w[1]) + (w[2] + w[3]))) continue;
                Queue& queue = queues_[band];
                for (int r = 0; r < kBandRows; ++r) queue.weight[queue.count][r] = w[r];
                queue.code[queue.count] = decoded_count_;
                if (++queue.count == kQueue) flush(band);
            }
            if (++decoded_count_ == kDecoded) flush();
        });
        flush();
    }

  private:
    static constexpr int kQueue = 64, kDecoded = 128, kAhead = 4;
    struct alignas(64) Queue {
        Row weight[kQueue][kBandRows];
        int code[kQueue];       // which of the decoded codes
        int count;
    };
    struct Nonzero {
        int32_t offset;         // of the channel, in rows
        float value;
    };

    template <class T>
    static T* allocate(size_t count) {
        return static_cast<T*>(::operator new[](count * sizeof(T), std::align_val_t(64)));
    }

    // Once per splat and tile, while its weights are at hand; up to four bands use it. Level-major.
    void decode(int64_t entry) {
        Nonzero* nonzero = decoded_.get() + static_cast<int64_t>(decoded_count_) * codes_.levels * codes_.nonzeros;
        int first_channel = 0;
        for (int level = 0; level < codes_.levels; ++level, first_channel += codes_.atoms)
            for (int k = 0; k < codes_.nonzeros; ++k, ++entry) {
                const int channel = first_channel + codes_.indices[entry];
                if (!used_[channel]) clear(channel);
                *nonzero++ = {channel * kBandRows, codes_.weights[entry]};
            }
    }

    void flush() {
        for (int band = 0; band < kBands; ++band) flush(band);
        decoded_count_ = 0;
    }

    void flush(int band) {
        Queue& queue = queues_[band];
        Row* const sums = at(band, 0);
        // One level after the other, so that its accumulators stay in the first-level cache.
        for (int level = 0; level < codes_.levels; ++level)
            for (int i = 0; i < queue.count; ++i) {
                const Row w0 = queue.weight[i][0], w1 = queue.weight[i][1], w2 = queue.weight[i][2], w3 = queue.weight[i][3];
                const Nonzero* nonzero = decoded_.get() + (static_cast<int64_t>(queue.code[i]) * codes_.levels + level) * codes_.nonzeros;
                for (int k = 0; k < codes_.nonzeros; ++k, ++nonzero) {
                    Row* sum = sums + nonzero->offset;
                    const float value = nonzero->value;
                    sum[0] += w0 * value;
                    sum[1] += w1 * value;
                    sum[2] += w2 * value;
                    sum[3] += w3 * value;
                }
            }
        queue.count = 0;
    }

    // On first use, because most tiles use few atoms.
    void clear(int channel) {
        used_[channel] = 1;
        for (int band = 0; band < kBands; ++band)
            for (int r = 0; r < kBandRows; ++r) at(band, channel)[r] = Row{};
    }

    const Codes& codes_;
    int channels_;
    Row* rows_;
    Queue* queues_;
    std::unique_ptr<uint8_t[]> used_;
    std::unique_ptr<Nonzero[]> decoded_;     // [kDecoded][levels * nonzeros]
    int decoded_count_ = 0;
};

// Fresh memory for a code map is hundreds of megabytes; touching it page by 4-KiB page costs more than
// splatting into it.
static void prefer_huge_pages(float* start, int64_t count) {
#if defined(MADV_HUGEPAGE)
    constexpr uintptr_t kPage = 4096;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(start) + kPage - 1) / kPage * kPage;
    const uintptr_t end = reinterpret_cast<uintptr_t>(start + count) / kPage * kPage;
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

static void codes(const TileLists& lists, const Splat* splats, const Codes& codes, float* out, float* alpha) {
    const int channels = codes.levels * codes.atoms;
    prefer_huge_pages(out, static_cast<int64_t>(lists.cameras) * lists.width * lists.height * channels);
#pragma omp parallel
    {
        CodeTile maps(codes);
#pragma omp for schedule(dynamic, 4)
        for (int64_t index = 0; index < tile_count(lists); ++index) {
            const Tile tile = tile_at(lists, index);
            alignas(64) Row coverage[kTile] = {};
            maps.splat_codes(lists, splats, tile, coverage);
            const Row zero = {};
            for (int row = 0; row < tile.rows; ++row) {
                const int band = row / kBandRows, in_band = row % kBandRows;
                float* pixels = out + pixel_at(lists, tile, row) * channels;
                int c = 0;
                for (; c + kTile <= channels; c += kTile) {
                    const Row* block[kTile];
                    for (int i = 0; i < kTile; ++i) block[i] = maps.used(c + i) ? maps.at(band, c + i) + in_band : &zero;
                    transpose_store(block, pixels + c, channels, tile.columns);
                }
                for (; c < channels; ++c)
                    for (int column = 0; column < tile.columns; ++column)
                        pixels[static_cast<int64_t>(column) * channels + c] =
                            maps.used(c) ? maps.at(band, c)[in_band][column] : 0.0f;
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
        std::unique_ptr<Row[]> maps(new Row[static_cast<size_t>(channels) * kTile]());
#pragma omp for schedule(dynamic, 4)
        for (int64_t index = 0; index < tile_count(lists); ++index) {
            const Tile tile = tile_at(lists, index);
            if (tile.begin == tile.end) continue;
            // Rows and columns outside the image keep stale finite values; their weights are zero.
            for (int row = 0; row < tile.rows; ++row)
                for (int column = 0; column < tile.columns; ++column) {
                    const float* pixel = v_out + (pixel_at(lists, tile, row) + column) * channels;
                    for (int c = 0; c < channels; ++c) maps[c * kTile + row][column] = pixel[c];
                }
            walk_tile(lists, splats, tile, [&](int64_t position, int32_t id, int first, int last, auto&& sample) {
                alignas(64) Row weight[kTile];
                for (int row = first; row <= last; ++row) weight[row] = sample(row).weight;
                const uint8_t* indices = codes.indices + (id - tile.camera * codes.gaussians) * per_splat;
                float* v = v_intersections + static_cast<int64_t>(lists.slots[position]) * per_splat;
                for (int level = 0; level < codes.levels; ++level)
                    for (int k = 0; k < codes.nonzeros; ++k) {
                        const Row* channel = &maps[(level * codes.atoms + indices[level * codes.nonzeros + k]) * kTile];
                        Row total = {};
                        for (int row = first; row <= last; ++row) total += weight[row] * channel[row];
                        v[level * codes.nonzeros + k] = sum(total);
                    }
            });
        }
    }
}

}  // namespace dictsplat::DS_ISA
