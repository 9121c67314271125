// RGB, depth and alpha of every pixel, and the adjoint.
#include "splat_rows.h"

namespace dictsplat::DS_ISA {

static void blend(const TileLists& lists, const Splat* splats, const float* colors, const float* depths, float* rgb,
                  float* depth, float* alpha) {
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t index = 0; index < tile_count(lists); ++index) {
        const Tile tile = tile_at(lists, index);
        alignas(64) Row r[kTile] = {}, g[kTile] = {}, b[kTile] = {}, z[kTile] = {}, coverage[kTile] = {};
        walk_tile(lists, splats, tile, [&](int64_t, int32_t id, int first, int last, auto&& sample) {
            const float* color = colors + 3 * static_cast<int64_t>(id);
            const float red = color[0], green = color[1], blue = color[2], distance = depths[id];
            for (int row = first; row <= last; ++row) {
                const Row weight = sample(row).weight;
                r[row] += weight * red;
                g[row] += weight * green;
                b[row] += weight * blue;
                z[row] += weight * distance;
                coverage[row] += weight;
            }
        });
        for (int row = 0; row < tile.rows; ++row) {
            const int64_t pixel = pixel_at(lists, tile, row);
            for (int column = 0; column < tile.columns; ++column) {
                rgb[3 * (pixel + column)] = r[row][column];
                rgb[3 * (pixel + column) + 1] = g[row][column];
                rgb[3 * (pixel + column) + 2] = b[row][column];
                depth[pixel + column] = z[row][column];
                alpha[pixel + column] = coverage[row][column];
            }
        }
    }
}

// Front to back like the forward pass: what lies behind a splat is the pixel's total minus what has been
// passed, so neither the order nor the final transmittance needs to be stored.
static void blend_vjp(const TileLists& lists, const Splat* splats, const float* colors, const float* depths,
                      const float* rgb, const float* depth, const float* alpha, const float* v_rgb,
                      const float* v_depth, const float* v_alpha, float* v_intersections) {
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t index = 0; index < tile_count(lists); ++index) {
        const Tile tile = tile_at(lists, index);
        alignas(64) Row vr[kTile] = {}, vg[kTile] = {}, vb[kTile] = {}, vz[kTile] = {}, va[kTile] = {}, behind[kTile] = {};
        for (int row = 0; row < tile.rows; ++row) {
            const int64_t start = pixel_at(lists, tile, row);
            for (int column = 0; column < tile.columns; ++column) {
                const int64_t p = start + column;
                vr[row][column] = v_rgb[3 * p];
                vg[row][column] = v_rgb[3 * p + 1];
                vb[row][column] = v_rgb[3 * p + 2];
                vz[row][column] = v_depth[p];
                va[row][column] = v_alpha[p];
                behind[row][column] = rgb[3 * p] * v_rgb[3 * p] + rgb[3 * p + 1] * v_rgb[3 * p + 1] +
                                      rgb[3 * p + 2] * v_rgb[3 * p + 2] + depth[p] * v_depth[p] + alpha[p] * v_alpha[p];
            }
        }
        walk_tile(lists, splats, tile, [&](int64_t position, int32_t id, int first, int last, auto&& sample) {
            const float* color = colors + 3 * static_cast<int64_t>(id);
            const float red = color[0], green = color[1], blue = color[2], distance = depths[id];
            const float opacity = splats[id].opacity;
            Row s = {}, sx = {}, sy = {}, sxx = {}, sxy = {}, syy = {}, gr = {}, gg = {}, gb = {}, gz = {};
            for (int row = first; row <= last; ++row) {
                const RowSample q = sample(row);
                const Row gain = vr[row] * red + vg[row] * green + vb[row] * blue + vz[row] * distance + va[row];
                behind[row] -= q.weight * gain;
                const Row v_alpha_here = q.transmittance * gain - behind[row] / (1.0f - q.alpha);
                // Zero where the splat does not count or where alpha is held at its maximum.
                const RowMask moves = (q.weight > 0.0f) & (q.visibility * opacity <= kAlphaMax);
                const Row v_sigma = moves ? -(q.visibility * opacity) * v_alpha_here : splat(0.0f);
                s += v_sigma;
                sx += v_sigma * q.dx;
                sy += v_sigma * q.dy;
                sxx += v_sigma * q.dx * q.dx;
                sxy += v_sigma * q.dx * q.dy;
                syy += v_sigma * (q.dy * q.dy);
                gr += q.weight * vr[row];
                gg += q.weight * vg[row];
                gb += q.weight * vb[row];
                gz += q.weight * vz[row];
            }
            const Splat& g = splats[id];
            const float sum_x = sum(sx), sum_y = sum(sy);
            float* out = v_intersections + static_cast<int64_t>(lists.slots[position]) * kBlendGradients;
            out[0] = g.a * sum_x + g.b * sum_y;
            out[1] = g.b * sum_x + g.c * sum_y;
            out[2] = 0.5f * sum(sxx);
            out[3] = sum(sxy);
            out[4] = 0.5f * sum(syy);
            out[5] = -sum(s) / g.opacity;
            out[6] = sum(gr);
            out[7] = sum(gg);
            out[8] = sum(gb);
            out[9] = sum(gz);
        });
    }
}

}  // namespace dictsplat::DS_ISA
