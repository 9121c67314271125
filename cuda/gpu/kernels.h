// The CUDA kernels, as plain functions over device pointers and a stream. All arrays are contiguous; shapes in
// brackets; C cameras, N Gaussians, S splats (C * N, or those gsplat kept in packed mode), I intersections of a
// splat with a 16 x 16 tile. Every function only queues work and throws std::runtime_error if CUDA refuses it.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace dictsplat::gpu {

// What gsplat's projection and tile intersection return.
struct SplatLists {
    const float* means2d;           // [S, 2] pixels
    const float* conics;            // [S, 3]
    const float* opacities;         // [S]
    const int32_t* isect_offsets;   // [C, tiles_y, tiles_x]
    const int32_t* flatten_ids;     // [I], front to back within a tile
    const int32_t* gaussian_ids;    // [S] in packed mode, else null: splat s is Gaussian s % N
    int64_t gaussians;              // N
    int64_t intersections;          // I
    int cameras, width, height;
};

struct Codes {
    const uint8_t* indices;         // [N, levels, nonzeros]; one that is not below `atoms` counts as no code
    const float* weights;           // [N, levels, nonzeros]
    int levels, nonzeros, atoms;
};

struct RelevancyQuery {
    const float* scores;            // [levels, texts, atoms], phrases first, then negatives
    const float* gram;              // [levels, atoms, atoms], symmetric
    int phrases, texts;
    float temperature;
};

// What one block of a kernel takes: with the registers in budget.json it tells how many run at a time.
struct BlockShape {
    int threads;
    size_t shared_bytes;
};

constexpr int kMaxAtoms = 256;

// out [C, H, W, levels * atoms], alphas [C, H, W].
void splat_codes(const SplatLists&, const Codes&, float* out, float* alphas, cudaStream_t);

// Adds the gradient in the weights [N, levels, nonzeros], given that in `out`. `codes.weights` is not read.
void splat_codes_vjp(const SplatLists&, const Codes&, const float* v_out, float* v_weights, cudaStream_t);

// Adds sum_p w_pi values[p] to sums [N, channels] and sum_p w_pi to mass [N]. `values` [C, H, W, channels] must be finite.
void lift(const SplatLists&, int channels, const float* values, float* sums, float* mass, cudaStream_t);

// out [C, phrases, levels, H, W], alphas [C, H, W].
void relevancy(const SplatLists&, const Codes&, const RelevancyQuery&, float* out, float* alphas, cudaStream_t);

// Why these kernels do not run on a CUDA device, in CUDA's words, or "" if they do: too old a driver, no code for it.
const char* obstacle(int device);

BlockShape codes_block(const Codes&);       // forward and gradient
BlockShape lift_block();
BlockShape relevancy_block(const Codes&);

}  // namespace dictsplat::gpu
