// The native CPU kernels, as plain functions over raw pointers. All arrays are contiguous; shapes in
// brackets; C cameras, N Gaussians, I intersections of a Gaussian with a tile.
#pragma once

#include <cstdint>

namespace dictsplat {

// Geometry of a splat as the blending kernels read it: what `prepare_splats` packs per camera and Gaussian.
// log2(alpha) = a dx^2 + b dx dy + c dy^2 + log_opacity, so the conic is scaled by -log2(e) (and halved).
struct Splat {
    float x, y;             // pixels
    float a, b, c;
    float log_opacity;      // log2
    float reach_x, reach_y; // half extents of the ellipse where alpha >= 1/255; negative when nowhere
};

// Per-tile lists, front to back: `ids` [I] index into [C * N], `offsets` [C, tiles_y, tiles_x],
// `slots` [I] where a per-intersection result goes so that those of one Gaussian are adjacent.
struct TileLists {
    const int32_t* offsets;
    const int32_t* ids;
    const int32_t* slots;
    int64_t count;
    int cameras, width, height;
};

struct Codes {
    const uint8_t* indices;     // [N, levels, nonzeros]
    const float* weights;       // [N, levels, nonzeros]
    int64_t gaussians;
    int levels, nonzeros, atoms;
};

struct RelevancyQuery {
    const float* scores;        // [levels, texts, atoms], phrases first, then negatives
    const float* gram;          // [levels, atoms, atoms]
    int phrases, texts;
    float temperature;
};

// One table of entry points per instruction set.
struct Kernels {
    const char* isa;
    void (*blend)(const TileLists&, const Splat*, const float* colors, const float* depths, float* rgb, float* depth,
                  float* alpha);
    void (*blend_vjp)(const TileLists&, const Splat*, const float* colors, const float* depths, const float* rgb,
                      const float* depth, const float* alpha, const float* v_rgb, const float* v_depth,
                      const float* v_alpha, float* sums);
    void (*codes)(const TileLists&, const Splat*, const Codes&, float* out, float* alpha);
    void (*codes_vjp)(const TileLists&, const Splat*, const Codes&, const float* v_out, float* v_intersections);
    void (*features)(const TileLists&, const Splat*, int64_t gaussians, const float* features, int channels, float* out,
                     float* alpha);
    void (*lift)(const TileLists&, const Splat*, int64_t gaussians, int channels, const float* values, float* sums,
                 float* mass);
    void (*relevancy)(const TileLists&, const Splat*, const Codes&, const RelevancyQuery&, float* out, float* alpha);
};

// Sums over the pixels of one splat and tile, with v the gradient in sigma = ln(opacity / alpha):
// v dx, v dy, v dx^2, v dx dy, v dy^2, v, red, green, blue, depth.
constexpr int kBlendSums = 10;

const Kernels& kernels();               // the best table this processor can run

}  // namespace dictsplat
