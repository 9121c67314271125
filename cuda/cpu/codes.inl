// Sparse-code splatting (LangSplatV2, section 3.3): each splat touches levels * nonzeros of the
// levels * atoms accumulators of a pixel, whatever the dimension of the features behind the atoms.
#pragma once

#include <sys/mman.h>

#include <memory>
#include <new>

#include "splat_blocks.h"

namespace dictsplat::DS_ISA {

// Fresh memory for a code map is hundreds of megabytes; touching it page by 4-KiB page costs more than
// splatting into it.
static void prefer_huge_pages(void* start, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
    constexpr uintptr_t kPage = 4096;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(start) + kPage - 1) / kPage * kPage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(start) + bytes) / kPage * kPage;
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Code maps of one tile. The accumulators of a whole tile do not fit the first-level cache but those of a block
// do, so blending weights are queued per block, and one block after the other is added up and handed on while it
// is at hand. One per thread, reused.
class CodeTile {
  public:
    explicit CodeTile(const Codes& codes)
        : codes_(codes),
          channels_(codes.levels * codes.atoms),
          per_splat_(codes.levels * codes.nonzeros),
          stride_((per_splat_ + kWide - 1) / kWide * kWide),
          maps_(allocate<Wide>(static_cast<size_t>(kBlocks) * (channels_ + 1))),
          queues_(allocate<Queue>(kBlocks)),
          offsets_(allocate<int32_t>(static_cast<size_t>(kQueue) * stride_)),
          values_(allocate<float>(static_cast<size_t>(kQueue) * stride_)),
          first_channel_(new int32_t[stride_]) {
        for (int i = 0; i < stride_; ++i) first_channel_[i] = i < per_splat_ ? i / codes.nonzeros * codes.atoms : channels_;
    }
    ~CodeTile() {
        release(maps_);
        release(queues_);
        release(offsets_);
        release(values_);
    }
    CodeTile(const CodeTile&) = delete;
    CodeTile& operator=(const CodeTile&) = delete;

    // Splats the codes and sums the weights up in `coverage`. `note(channel)` is called for every nonzero of the
    // splats that reach the tile, before consume(block, map [channels]) for each block.
    template <class Note, class Consume>
    void splat_codes(const TileLists& lists, const Splat* splats, const Tile& tile, Wide* coverage, Note&& note,
                     Consume&& consume) {
        fresh_ = true;
        clear_queues();
        const int64_t first_id = tile.camera * codes_.gaussians;
        auto ask = [&](int32_t id) {        // codes lie anywhere in memory
            const int64_t code = (id - first_id) * per_splat_, last = code + per_splat_ - 1;
            __builtin_prefetch(codes_.weights + code);
            __builtin_prefetch(codes_.weights + last);
            __builtin_prefetch(codes_.indices + code);
            __builtin_prefetch(codes_.indices + last);
        };
        walk_tile(lists, splats, tile, ask, [&](const TileSplat& s, auto&& sample) {
            decode(s.id - first_id);
            s.for_each_block([&](unsigned block) {
                const Wide weight = sample(block).weight;
                coverage[block] += weight;
                Queue& queue = queues_[block];
                queue.weight[queue.count] = weight;
                queue.code[queue.count] = decoded_;
                queue.count += any_above(weight, 0.0f);
            });
            if (++decoded_ == kQueue) flush(false, tile, note, consume);
        });
        flush(true, tile, note, consume);
    }

  private:
    static constexpr int kQueue = 256, kUnroll = 4;
    struct alignas(64) Queue {
        Wide weight[kQueue + 1];    // the last is never counted
        int code[kQueue + 1];       // which of the decoded codes
        int count;
    };

    template <class T>
    static T* allocate(size_t count) {
        return static_cast<T*>(::operator new[](count * sizeof(T), std::align_val_t(64)));
    }

    static void release(void* memory) { ::operator delete[](memory, std::align_val_t(64)); }

    void clear_queues() {
        for (int block = 0; block < kBlocks; ++block) queues_[block].count = 0;
        decoded_ = 0;
    }

    // Once per splat and tile; its blocks use it. Padded by zeros for a channel behind the last.
    void decode(int64_t n) {
        const int64_t at = static_cast<int64_t>(decoded_) * stride_;
        const float* const values = codes_.weights + n * per_splat_;
        const uint8_t* const indices = codes_.indices + n * per_splat_;
        for (int i = 0; i < per_splat_; i += kWide) {
            const int count = per_splat_ - i < kWide ? per_splat_ - i : kWide;
            WideInt channel;
            __builtin_memcpy(&channel, first_channel_.get() + i, sizeof(channel));
            channel = (channel + load_bytes(indices + i, count)) * static_cast<int>(sizeof(Wide));
            const Wide value = load_floats(values + i, count);
            __builtin_memcpy(offsets_ + at + i, &channel, sizeof(channel));
            __builtin_memcpy(values_ + at + i, &value, sizeof(value));
        }
    }

    template <class Note, class Consume>
    void flush(bool last, const Tile& tile, Note&& note, Consume&& consume) {
        for (int i = 0; i < decoded_; ++i)
            for (int k = 0; k < per_splat_; ++k) note(offsets_[i * stride_ + k] / static_cast<int>(sizeof(Wide)));
        const bool whole = fresh_ && last;      // nearly always
        for (int block = 0; block < kBlocks; ++block) {
            if (block / kAcross * kEdge >= tile.rows || block % kAcross * kEdge >= tile.columns) continue;
            Wide* const map = maps_ + (whole ? 0 : static_cast<int64_t>(block) * (channels_ + 1));
            if (fresh_)
                for (int channel = 0; channel <= channels_; ++channel) map[channel] = Wide{};
            add(queues_[block], map);
            if (last) consume(block, static_cast<const Wide*>(map));
        }
        fresh_ = false;
        clear_queues();
    }

    void add(const Queue& queue, Wide* map) {
        for (int i = 0; i < queue.count; ++i) {
            const Wide weight = queue.weight[i];
            const int64_t at = static_cast<int64_t>(queue.code[i]) * stride_;
            const int32_t* const offset = offsets_ + at;
            const float* const value = values_ + at;
            for (int k = 0; k < per_splat_; k += kUnroll)
#pragma GCC unroll 4
                for (int j = k; j < k + kUnroll; ++j)
                    *reinterpret_cast<Wide*>(reinterpret_cast<char*>(map) + offset[j]) += weight * value[j];
        }
    }

    const Codes& codes_;
    int channels_, per_splat_, stride_;
    Wide* maps_;                                // [kBlocks][channels + 1]; the first alone when one flush is enough
    Queue* queues_;
    int32_t* offsets_;                          // [kQueue][stride_], of channels in a map, in bytes
    float* values_;                             // [kQueue][stride_]
    std::unique_ptr<int32_t[]> first_channel_;  // [stride_], of each nonzero's level
    int decoded_ = 0;
    bool fresh_ = true;                         // nothing of this tile has been added up yet
};

static void codes(const TileLists& lists, const Splat* splats, const Codes& codes, float* out, float* alpha) {
    const int channels = codes.levels * codes.atoms;
    prefer_huge_pages(out, static_cast<int64_t>(lists.cameras) * lists.width * lists.height * channels * sizeof(float));
#pragma omp parallel
    {
        CodeTile maps(codes);
#pragma omp for schedule(dynamic, 4)
        for (int64_t index = 0; index < tile_count(lists); ++index) {
            const Tile tile = tile_at(lists, index);
            alignas(64) Wide coverage[kBlocks] = {};
            maps.splat_codes(lists, splats, tile, coverage, [](int) {}, [&](int block, const Wide* map) {
                const int first_row = block / kAcross * kEdge, first_column = block % kAcross * kEdge;
                float* pixels[kWide];       // null outside the image
                for (int lane = 0; lane < kWide; ++lane) {
                    const int row = first_row + lane / kEdge, column = first_column + lane % kEdge;
                    const bool inside = row < tile.rows && column < tile.columns;
                    pixels[lane] = inside ? out + (pixel_at(lists, tile, row) + column) * channels : nullptr;
                }
                int c = 0;
                // Two cache lines of a pixel at a time: memory takes pairs half as fast again as single ones.
                for (; c + kWide <= channels; c += 2 * kWide) {
                    Wide lines[2][kWide];
                    const int count = c + 2 * kWide <= channels ? 2 : 1;
                    for (int line = 0; line < count; ++line) {
                        const Wide* from[kWide];
                        for (int i = 0; i < kWide; ++i) from[i] = map + c + line * kWide + i;
                        transpose(from, lines[line]);
                    }
                    for (int lane = 0; lane < kWide; ++lane)
                        if (pixels[lane] != nullptr)
                            for (int line = 0; line < count; ++line) store_streaming(pixels[lane] + c + line * kWide, lines[line][lane]);
                }
                for (c = channels / kWide * kWide; c < channels; ++c)
                    for (int lane = 0; lane < kWide; ++lane)
                        if (pixels[lane] != nullptr) pixels[lane][c] = map[c][lane];
            });
            store_tile(lists, tile, coverage, 1, alpha);
        }
    }
}

// Adjoint in the weights: v_intersections [I, levels * nonzeros].
static void codes_vjp(const TileLists& lists, const Splat* splats, const Codes& codes, const float* v_out,
                      float* v_intersections) {
    const int channels = codes.levels * codes.atoms, per_splat = codes.levels * codes.nonzeros;
#pragma omp parallel
    {
        std::unique_ptr<Wide[]> maps(new Wide[static_cast<size_t>(channels) * kBlocks]());
#pragma omp for schedule(dynamic, 4)
        for (int64_t index = 0; index < tile_count(lists); ++index) {
            const Tile tile = tile_at(lists, index);
            if (tile.begin == tile.end) continue;
            // Pixels outside the image keep stale finite values; their weights are zero.
            for (int row = 0; row < tile.rows; ++row)
                for (int column = 0; column < tile.columns; ++column) {
                    const float* pixel = v_out + (pixel_at(lists, tile, row) + column) * channels;
                    Wide* const map = &maps[block_of(row, column)];
                    for (int c = 0; c < channels; ++c) map[c * kBlocks][lane_of(row, column)] = pixel[c];
                }
            walk_tile(lists, splats, tile, ask_nothing, [&](const TileSplat& s, auto&& sample) {
                alignas(64) Wide weight[kBlocks];
                s.for_each_block([&](unsigned block) { weight[block] = sample(block).weight; });
                const uint8_t* indices = codes.indices + (s.id - tile.camera * codes.gaussians) * per_splat;
                float* v = v_intersections + static_cast<int64_t>(lists.slots[s.position]) * per_splat;
                for (int level = 0; level < codes.levels; ++level)
                    for (int k = 0; k < codes.nonzeros; ++k) {
                        const Wide* channel = &maps[(level * codes.atoms + indices[level * codes.nonzeros + k]) * kBlocks];
                        Wide total = {};
                        s.for_each_block([&](unsigned block) { total += weight[block] * channel[block]; });
                        v[level * codes.nonzeros + k] = sum(total);
                    }
            });
        }
    }
}

}  // namespace dictsplat::DS_ISA
