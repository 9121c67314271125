// Everything before and after blending, over all Gaussians: projection, spherical harmonics, tile lists,
// and the reduction of per-intersection gradients. Shapes as in kernels.h.
#pragma once

#include <cstdint>

#include "dictsplat/tiles.h"
#include "kernels.h"

namespace dictsplat {

struct Views {
    const float* viewmats;      // [C, 4, 4] world -> camera
    const float* Ks;            // [C, 3, 3]
    int cameras, width, height;
};

struct Shapes {
    const float* means;         // [N, 3]
    const float* quats;         // [N, 4]
    const float* scales;        // [N, 3]
    int64_t count;
};

// radii [C, N, 2] (0 = not visible), means2d [C, N, 2], depths [C, N], conics [C, N, 3]. `opacities` [N]
// tightens the radii; null for the plain 3.33 sigma.
void project_all(const Views&, const Shapes&, const float* opacities, float eps2d, float near_plane, float far_plane,
                 int32_t* radii, float* means2d, float* depths, float* conics);

// Sums over the cameras into v_means [N, 3], v_quats [N, 4], v_scales [N, 3].
void project_all_vjp(const Views&, const Shapes&, float eps2d, const int32_t* radii, const float* v_means2d,
                     const float* v_depths, const float* v_conics, float* v_means, float* v_quats, float* v_scales);

// colors [C, N, 3] = max(SH(direction from the camera) + 0.5, 0) for visible Gaussians, else 0.
// `sh` [N, bases, 3] with bases >= (degree + 1)^2.
void shade_all(const Views&, const float* means, const float* sh, int64_t count, int bases, int degree,
               const int32_t* radii, float* colors);
void shade_all_vjp(const Views&, const float* means, const float* sh, int64_t count, int bases, int degree,
                   const int32_t* radii, const float* colors, const float* v_colors, float* v_means, float* v_sh);

// Number of tile intersections, and where each Gaussian's start: starts [all + 1], ranges [all], all = C * N. More
// than 2^31 are only counted.
int64_t count_intersections(const int32_t* radii, const float* means2d, int64_t all, int width, int height,
                            TileRange* ranges, int32_t* starts);

// Tile lists sorted by depth (ties by index), as gsplat's isect_tiles + isect_offset_encode.
void fill_tile_lists(const TileRange* ranges, const float* depths, const int32_t* starts, int cameras, int64_t count,
                     int width, int height, int32_t* offsets, int32_t* ids, int32_t* slots);

// Lists made elsewhere, by gsplat's functions: what is wrong with them, null if nothing. Checks that the tiles' ranges
// are in order and inside the list, and that every id is a Gaussian of the tile's camera.
const char* fault_in_tile_lists(const int32_t* offsets, const int32_t* ids, int64_t intersections, int cameras,
                                int64_t count, int width, int height);

// starts [C * N + 1] and slots [I] of such lists.
void number_intersections(const int32_t* ids, int64_t intersections, int64_t all, int32_t* starts, int32_t* slots);

// `opacities` [N], or [C, N] with `per_camera`. Null `radii`: all are visible that are opaque enough.
void prepare_splats(const int32_t* radii, const float* means2d, const float* conics, const float* opacities,
                    bool per_camera, int cameras, int64_t count, Splat* splats);

// By all threads.
void fill_zero(float* values, int64_t count);

// out[j, :] = sum of v[starts[j] .. starts[j + 1], :] for j in [0, groups).
void sum_segments(const float* v, const int32_t* starts, int64_t groups, int width, float* out);

// Gradients [all, 10] in x, y, a, b, c (the conic), opacity, red, green, blue and depth, from blend_vjp's sums per
// intersection.
void splat_gradients(const float* sums, const int32_t* starts, const Splat* splats, int64_t all, float* out);

}  // namespace dictsplat
