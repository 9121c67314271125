// The code map of one patch at one level, in shared memory: `atoms` accumulators per pixel.
#pragma once

#include "walk.cuh"

namespace dictsplat::gpu {

// Blocks are as large as their accumulators allow: 33 KB whatever the number of atoms, so that at least two
// blocks fit a multiprocessor of every architecture since sm_80 (docs/kernels.md).
constexpr int pixels_for(int atoms) { return atoms <= 64 ? 128 : atoms <= 128 ? 64 : 32; }

// Nonzeros of staged splats in groups of four, which are added together: four loads, four multiply-adds, four stores.
// Row offsets within a group differ, or lie in the spare row, so that the order within a group does not matter.
template <int kPixels>
class CodeMap {
  public:
    static constexpr int kStride = kPixels + 1;     // odd: no bank conflicts along pixels nor along atoms

    static size_t bytes(const Codes& codes) {
        const size_t groups = (codes.nonzeros + 3) / 4, staged = Staging<kPixels>::kBatch * groups;
        return shared_bytes<float4>(staged) + shared_bytes<int4>(staged) +
               shared_bytes<float>(static_cast<size_t>(codes.atoms + 1) * kStride);
    }

    __device__ __forceinline__ CodeMap(SharedArena& arena, const Codes& codes, int level)
        : codes_(codes),
          level_(level),
          groups_((codes.nonzeros + 3) / 4),
          weights_(arena.take<float4>(Staging<kPixels>::kBatch * groups_)),
          rows_(arena.take<int4>(Staging<kPixels>::kBatch * groups_)),
          sums_(arena.take<float>((codes.atoms + 1) * kStride)) {}

    __device__ __forceinline__ int groups() const { return groups_; }
    __device__ __forceinline__ int4 rows(int slot, int group) const { return rows_[slot * groups_ + group]; }
    __device__ __forceinline__ float get(int atom, int pixel) const { return sums_[atom * kStride + pixel]; }
    __device__ __forceinline__ float at(int row, int pixel) const { return sums_[row + pixel]; }
    __device__ __forceinline__ void set(int atom, int pixel, float value) { sums_[atom * kStride + pixel] = value; }

    // Each thread owns its pixel's column; the spare row takes what counts for nothing.
    __device__ __forceinline__ void clear(int pixel) {
        for (int atom = 0; atom <= codes_.atoms; ++atom) set(atom, pixel, 0.0f);
    }

    // Shares f(pixel, atom) for all cells among the threads, so that neighbours take neighbouring atoms of one pixel,
    // as code maps lie in memory. Steps instead of dividing: the number of atoms is known at run time only.
    template <class F>
    __device__ __forceinline__ void for_each_cell(F&& f) const {
        const int atoms = codes_.atoms, pixel_step = kPixels / atoms, atom_step = kPixels % atoms;
        int pixel = threadIdx.x / atoms, atom = threadIdx.x % atoms;
        while (pixel < kPixels) {
            f(pixel, atom);
            pixel += pixel_step;
            atom += atom_step;
            if (atom >= atoms) {
                atom -= atoms;
                ++pixel;
            }
        }
    }

    // Brings a splat's rows to shared memory, and with kWeights its weights, repeated atoms merged.
    template <bool kWeights>
    __device__ __forceinline__ void stage(int slot, int gaussian) {
        const int64_t first = (static_cast<int64_t>(gaussian) * codes_.levels + level_) * codes_.nonzeros;
        const int spare = codes_.atoms * kStride;
        for (int group = 0; group < groups_; ++group) {
            int row[4];
            float weight[4];
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const bool real = 4 * group + k < codes_.nonzeros;
                const int atom = real ? codes_.indices[first + 4 * group + k] : codes_.atoms;
                row[k] = atom < codes_.atoms ? atom * kStride : spare;
                weight[k] = kWeights && real && atom < codes_.atoms ? codes_.weights[first + 4 * group + k] : 0.0f;
            }
            if (kWeights) {
#pragma unroll
                for (int k = 1; k < 4; ++k)
#pragma unroll
                    for (int earlier = 0; earlier < k; ++earlier)
                        if (row[k] == row[earlier] && row[k] != spare) {
                            weight[earlier] += weight[k];
                            weight[k] = 0.0f;
                            row[k] = spare;
                        }
                weights_[slot * groups_ + group] = make_float4(weight[0], weight[1], weight[2], weight[3]);
            }
            rows_[slot * groups_ + group] = make_int4(row[0], row[1], row[2], row[3]);
        }
    }

    __device__ __forceinline__ void add(int slot, int pixel, float weight) {
        for (int group = 0; group < groups_; ++group) {
            const float4 value = weights_[slot * groups_ + group];
            const int4 row = rows_[slot * groups_ + group];
            const float s0 = sums_[row.x + pixel], s1 = sums_[row.y + pixel];
            const float s2 = sums_[row.z + pixel], s3 = sums_[row.w + pixel];
            sums_[row.x + pixel] = s0 + weight * value.x;
            sums_[row.y + pixel] = s1 + weight * value.y;
            sums_[row.z + pixel] = s2 + weight * value.z;
            sums_[row.w + pixel] = s3 + weight * value.w;
        }
    }

    // W_p of every pixel of the patch; returns the alpha of the thread's own.
    __device__ __forceinline__ float splat(const SplatLists& s, const Patch<kPixels>& patch, const Staging<kPixels>& staging) {
        const int thread = threadIdx.x;
        clear(thread);
        Ray ray(s, patch, thread);
        walk_splats(s, patch, staging, ray, [&](int slot, int gaussian) { stage<true>(slot, gaussian); },
                    [&](int slot, float weight) { add(slot, thread, weight); });
        return ray.alpha();
    }

  private:
    const Codes& codes_;
    int level_, groups_;
    Shared<float4> weights_;
    Shared<int4> rows_;
    Shared<float> sums_;
};

}  // namespace dictsplat::gpu
