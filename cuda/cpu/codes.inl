// Sparse-code splatting (LangSplatV2, section 3.3): each splat touches levels * nonzeros of the
// levels * atoms accumulators of a pixel, whatever the dimension of the features behind the atoms.
#pragma once

#include <algorithm>
#include <memory>
#include <new>

#include "buffer.h"
#include "splat_blocks.h"

namespace dictsplat::DS_ISA {

// A code per Gaussian in as few cache lines as it fits: the values, then the indices. Every tile that a splat
// reaches reads its code, from anywhere in memory, and lines come more slowly than splats are blended.
class PackedCodes {
  public:
    explicit PackedCodes(const Codes& codes)
        : per_splat_(static_cast<int64_t>(codes.levels) * codes.nonzeros),
          stride_((per_splat_ * 5 + kLine - 1) / kLine * kLine),
          data_(codes.gaussians * stride_) {
#pragma omp parallel for schedule(static)
        for (int64_t n = 0; n < codes.gaussians; ++n) {
            char* const code = data_.data() + n * stride_;
            __builtin_memcpy(code, codes.weights + n * per_splat_, per_splat_ * sizeof(float));
            __builtin_memcpy(code + per_splat_ * sizeof(float), codes.indices + n * per_splat_, per_splat_);
        }
    }

    void ask(int64_t n) const {
        for (int64_t at = 0; at < stride_; at += kLine) __builtin_prefetch(data_.data() + n * stride_ + at);
    }
    const float* values(int64_t n) const { return reinterpret_cast<const float*>(data_.data() + n * stride_); }
    const uint8_t* indices(int64_t n) const { return reinterpret_cast<const uint8_t*>(values(n) + per_splat_); }

  private:
    static constexpr int64_t kLine = 64;
    int64_t per_splat_, stride_;
    Buffer<char> data_;
};

// Code maps of one tile. The accumulators of a whole tile do not fit the first-level cache but those of a block
// do, so blending weights are queued per block, and one block after the other is added up and handed on while it
// is at hand. One per thread, reused.
class CodeTile {
  public:
    CodeTile(const Codes& codes, const PackedCodes& packed)
        : codes_(codes),
          packed_(packed),
          channels_(codes.levels * codes.atoms),
          per_splat_(codes.levels * codes.nonzeros),
          stride_((per_splat_ + kWide - 1) / kWide * kWide),
          maps_(allocate<Wide>(static_cast<size_t>(kBlocks) * (channels_ + 1))),
          queues_(allocate<Queue>(kBlocks)),
          nonzero_channels_(allocate<uint16_t>(static_cast<size_t>(kQueue) * stride_)),
          values_(allocate<float>(static_cast<size_t>(kQueue) * stride_)),
          first_channel_(new int32_t[stride_]) {
        std::fill_n(maps_, static_cast<size_t>(kBlocks) * (channels_ + 1), Wide{});
        for (int i = 0; i < stride_; ++i) first_channel_[i] = i < per_splat_ ? i / codes.nonzeros * codes.atoms : channels_;
    }
    ~CodeTile() {
        release(maps_);
        release(queues_);
        release(nonzero_channels_);
        release(values_);
    }
    CodeTile(const CodeTile&) = delete;
    CodeTile& operator=(const CodeTile&) = delete;

    // Splats the codes and sums the weights up in `coverage`. `note(channel)` is called for every nonzero of the
    // splats that reach the tile, before consume(block, map [channels]) for each block, which must leave the map zero,
    // and until then may do so bit by bit when its `meanwhile` is called.
    template <class Note, class Consume>
    void splat_codes(const TileLists& lists, const Splat* splats, const Tile& tile, Wide* coverage, Note&& note,
                     Consume&& consume) {
        fresh_ = true;
        clear_queues();
        const int64_t first_id = tile.camera * codes_.gaussians;
        auto ask = [&](int64_t, int32_t id) { packed_.ask(id - first_id); };
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
        const float* const values = packed_.values(n);
        const uint8_t* const indices = packed_.indices(n);
        for (int i = 0; i < per_splat_; i += kWide) {
            const int count = per_splat_ - i < kWide ? per_splat_ - i : kWide;
            WideInt channel;
            __builtin_memcpy(&channel, first_channel_.get() + i, sizeof(channel));
            channel += load_bytes(indices + i, count);
            const Wide value = load_floats(values + i, count);
            store_shorts(nonzero_channels_ + at + i, channel);
            __builtin_memcpy(values_ + at + i, &value, sizeof(value));
        }
    }

    template <class Note, class Consume>
    void flush(bool last, const Tile& tile, Note&& note, Consume&& consume) {
        for (int i = 0; i < decoded_; ++i)
            for (int k = 0; k < per_splat_; ++k) note(nonzero_channels_[i * stride_ + k]);
        const bool whole = fresh_ && last;      // nearly always
        int turn = 0;       // of two maps: one is added up while the other, that of the last block inside, is handed on
        for (int block = 0; block < kBlocks; ++block) {
            if (block / kAcross * kEdge >= tile.rows || block % kAcross * kEdge >= tile.columns) continue;
            Wide* const map = maps_ + static_cast<int64_t>(whole ? turn++ % 2 : block) * (channels_ + 1);
            add(queues_[block], map, consume);
            if (last) consume(block, map);
        }
        fresh_ = false;
        clear_queues();
    }

    template <class Consume>
    void add(const Queue& queue, Wide* map, Consume&& consume) {
        for (int i = 0; i < queue.count; ++i) {
            const Wide weight = queue.weight[i];
            const int64_t at = static_cast<int64_t>(queue.code[i]) * stride_;
            const uint16_t* const channel = nonzero_channels_ + at;
            const float* const value = values_ + at;
            // Bound by loads: four channels come with one.
            for (int k = 0; k < per_splat_; k += kUnroll) {
                uint64_t four;
                __builtin_memcpy(&four, channel + k, sizeof(four));
#pragma GCC unroll 4
                for (int j = k; j < k + kUnroll; ++j, four >>= 16) map[four & 0xFFFF] += weight * value[j];
            }
            consume.meanwhile();
        }
    }

    const Codes& codes_;
    const PackedCodes& packed_;
    int channels_, per_splat_, stride_;
    Wide* maps_;                                // [kBlocks][channels + 1]; the first two alone when one flush is enough
    Queue* queues_;
    uint16_t* nonzero_channels_;                // [kQueue][stride_]
    float* values_;                             // [kQueue][stride_]
    std::unique_ptr<int32_t[]> first_channel_;  // [stride_], of each nonzero's level
    int decoded_ = 0;
    bool fresh_ = true;                         // nothing of this tile has been added up yet
};

// Writes the maps of one block after the other to memory. Memory takes them more slowly than they are made, so it is
// fed while the next block is added up.
class MapWriter {
  public:
    MapWriter(const TileLists& lists, int channels, float* out) : lists_(lists), channels_(channels), out_(out) {}

    void begin(const Tile& tile) { tile_ = tile; }

    void operator()(int block, Wide* map) {
        finish();
        map_ = map;
        next_ = 0;
        const int row = block / kAcross * kEdge, column = block % kAcross * kEdge;
        rows_ = std::min(kEdge, tile_.rows - row);
        columns_ = std::min(kEdge, tile_.columns - column);
        first_ = out_ + (pixel_at(lists_, tile_, row) + column) * channels_;
        streams_ = rows_ == kEdge && columns_ == kEdge && channels_ % kWide == 0 &&
                   reinterpret_cast<uintptr_t>(out_) % sizeof(Wide) == 0;
    }

    void meanwhile() {
        if (next_ < channels_) write();
    }

    void finish() {
        while (next_ < channels_) write();
    }

  private:
    void write() {
        const int64_t row_stride = static_cast<int64_t>(lists_.width) * channels_;
        if (!streams_) {
            for (int lane = 0; lane < kWide; ++lane) {
                if (lane / kEdge >= rows_ || lane % kEdge >= columns_) continue;
                float* const pixel = first_ + lane / kEdge * row_stride + lane % kEdge * channels_;
                for (int c = 0; c < channels_; ++c) pixel[c] = map_[c][lane];
            }
            std::fill_n(map_, channels_, Wide{});
            next_ = channels_;
        } else if (channels_ - next_ >= 2 * kWide) {
            stream<2>(row_stride);
        } else {
            stream<1>(row_stride);
        }
    }

    // Some cache lines of four pixels: memory takes pairs half as fast again as single ones, and few at a time.
    template <int kLines>
    void stream(int64_t row_stride) {
        Wide* const from = map_ + next_;
        Wide lines[kLines][kEdge];
        for (int line = 0; line < kLines; ++line) transpose_row(from + line * kWide, row_ * kEdge, lines[line]);
        float* const to = first_ + row_ * row_stride + next_;
        for (int column = 0; column < kEdge; ++column)
            for (int line = 0; line < kLines; ++line)
                store_streaming(to + column * channels_ + line * kWide, lines[line][column]);
        if (++row_ < kEdge) return;
        row_ = 0;
        next_ += kLines * kWide;
        for (int i = 0; i < kLines * kWide; ++i) {
            from[i] = Wide{};
            asm volatile("" : : "r"(from) : "memory");      // or else a call of memset, which takes longer
        }
    }

    const TileLists& lists_;
    int channels_;
    float* out_;
    Tile tile_ = {};
    Wide* map_ = nullptr;
    float* first_ = nullptr;    // pixel of the block
    int next_ = 1 << 30;        // channel of the map to write
    int row_ = 0;               // of the block to write
    int rows_ = 0, columns_ = 0;        // of the block, inside the image
    bool streams_ = false;
};

static void codes(const TileLists& lists, const Splat* splats, const Codes& codes, float* out, float* alpha) {
    const int channels = codes.levels * codes.atoms;
    const PackedCodes packed(codes);
#pragma omp parallel
    {
        CodeTile maps(codes, packed);
        MapWriter writer(lists, channels, out);
#pragma omp for schedule(dynamic, 4)
        for (int64_t index = 0; index < tile_count(lists); ++index) {
            const Tile tile = tile_at(lists, index);
            alignas(64) Wide coverage[kBlocks] = {};
            writer.begin(tile);
            maps.splat_codes(lists, splats, tile, coverage, [](int) {}, writer);
            writer.finish();
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
            auto ask = [&](int64_t position, int32_t id) {
                const float* v = v_intersections + static_cast<int64_t>(lists.slots[position]) * per_splat;
                __builtin_prefetch(v, 1);
                __builtin_prefetch(v + per_splat - 1, 1);
                __builtin_prefetch(codes.indices + (id - tile.camera * codes.gaussians) * per_splat);
            };
            walk_tile(lists, splats, tile, ask, [&](const TileSplat& s, auto&& sample) {
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
