#include "geometry.h"

#include <algorithm>
#include <cmath>

#include "dictsplat/projection.h"
#include "dictsplat/sh.h"

namespace dictsplat {

constexpr float kLog2E = 1.44269504088896341f;

static Camera camera_of(const Views& views, int c) {
    return make_camera(views.viewmats + 16 * c, views.Ks + 9 * c, views.width, views.height);
}

void project_all(const Views& views, const Shapes& shapes, const float* opacities, float eps2d, float near_plane,
                 float far_plane, int32_t* radii, float* means2d, float* depths, float* conics) {
    const ProjectionSettings settings = {eps2d, near_plane, far_plane};
    for (int c = 0; c < views.cameras; ++c) {
        const Camera camera = camera_of(views, c);
#pragma omp parallel for schedule(static)
        for (int64_t n = 0; n < shapes.count; ++n) {
            const Projected p = project(camera, shapes.means + 3 * n, shapes.quats + 4 * n, shapes.scales + 3 * n,
                                        opacities ? opacities[n] : 1.0f, settings);
            const int64_t at = c * shapes.count + n;
            radii[2 * at] = p.visible ? static_cast<int32_t>(p.radius_x) : 0;
            radii[2 * at + 1] = p.visible ? static_cast<int32_t>(p.radius_y) : 0;
            means2d[2 * at] = p.x;
            means2d[2 * at + 1] = p.y;
            depths[at] = p.depth;
            conics[3 * at] = p.a;
            conics[3 * at + 1] = p.b;
            conics[3 * at + 2] = p.c;
        }
    }
}

void project_all_vjp(const Views& views, const Shapes& shapes, float eps2d, const int32_t* radii, const float* v_means2d,
                     const float* v_depths, const float* v_conics, float* v_means, float* v_quats, float* v_scales) {
    std::fill_n(v_means, 3 * shapes.count, 0.0f);
    std::fill_n(v_quats, 4 * shapes.count, 0.0f);
    std::fill_n(v_scales, 3 * shapes.count, 0.0f);
    for (int c = 0; c < views.cameras; ++c) {
        const Camera camera = camera_of(views, c);
#pragma omp parallel for schedule(static)
        for (int64_t n = 0; n < shapes.count; ++n) {
            const int64_t at = c * shapes.count + n;
            if (radii[2 * at] == 0) continue;
            const ProjectionGradient g =
                project_vjp(camera, shapes.means + 3 * n, shapes.quats + 4 * n, shapes.scales + 3 * n, eps2d,
                            v_means2d[2 * at], v_means2d[2 * at + 1], v_depths[at], v_conics[3 * at],
                            v_conics[3 * at + 1], v_conics[3 * at + 2]);
            v_means[3 * n] += g.mean.x;
            v_means[3 * n + 1] += g.mean.y;
            v_means[3 * n + 2] += g.mean.z;
            for (int k = 0; k < 4; ++k) v_quats[4 * n + k] += g.quat[k];
            v_scales[3 * n] += g.scale.x;
            v_scales[3 * n + 1] += g.scale.y;
            v_scales[3 * n + 2] += g.scale.z;
        }
    }
}

static Vec3 direction(Vec3 center, const float* mean, float* inverse_length) {
    const Vec3 offset = Vec3{mean[0], mean[1], mean[2]} - center;
    *inverse_length = 1.0f / std::sqrt(std::max(dot(offset, offset), 1e-20f));
    return *inverse_length * offset;
}

void shade_all(const Views& views, const float* means, const float* sh, int64_t count, int bases, int degree,
               const int32_t* radii, float* colors) {
    const int used = (degree + 1) * (degree + 1);
    for (int c = 0; c < views.cameras; ++c) {
        const Vec3 center = camera_center(camera_of(views, c));
#pragma omp parallel for schedule(static)
        for (int64_t n = 0; n < count; ++n) {
            const int64_t at = c * count + n;
            float color[3] = {0, 0, 0};
            if (radii[2 * at] > 0) {
                float basis[kMaxBases], inverse_length;
                sh_bases(degree, direction(center, means + 3 * n, &inverse_length), basis);
                const float* coefficients = sh + n * bases * 3;
                for (int k = 0; k < used; ++k)
                    for (int ch = 0; ch < 3; ++ch) color[ch] += basis[k] * coefficients[3 * k + ch];
                for (float& ch : color) ch = std::max(ch + 0.5f, 0.0f);
            }
            for (int ch = 0; ch < 3; ++ch) colors[3 * at + ch] = color[ch];
        }
    }
}

void shade_all_vjp(const Views& views, const float* means, const float* sh, int64_t count, int bases, int degree,
                   const int32_t* radii, const float* colors, const float* v_colors, float* v_means, float* v_sh) {
    const int used = (degree + 1) * (degree + 1);
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < count; ++n) {
        std::fill_n(v_sh + n * bases * 3, bases * 3, 0.0f);
        std::fill_n(v_means + 3 * n, 3, 0.0f);
    }
    for (int c = 0; c < views.cameras; ++c) {
        const Vec3 center = camera_center(camera_of(views, c));
#pragma omp parallel for schedule(static)
        for (int64_t n = 0; n < count; ++n) {
            const int64_t at = c * count + n;
            if (radii[2 * at] == 0) continue;
            float v[3];
            for (int ch = 0; ch < 3; ++ch) v[ch] = colors[3 * at + ch] > 0 ? v_colors[3 * at + ch] : 0.0f;
            if (v[0] == 0 && v[1] == 0 && v[2] == 0) continue;
            float basis[kMaxBases], v_basis[kMaxBases] = {}, inverse_length;
            const Vec3 d = direction(center, means + 3 * n, &inverse_length);
            sh_bases(degree, d, basis);
            const float* coefficients = sh + n * bases * 3;
            float* v_coefficients = v_sh + n * bases * 3;
            for (int k = 0; k < used; ++k) {
                for (int ch = 0; ch < 3; ++ch) {
                    v_coefficients[3 * k + ch] += basis[k] * v[ch];
                    v_basis[k] += coefficients[3 * k + ch] * v[ch];
                }
            }
            const Vec3 v_d = sh_bases_vjp(degree, d, v_basis);
            const Vec3 v_mean = inverse_length * (v_d - dot(v_d, d) * d);
            v_means[3 * n] += v_mean.x;
            v_means[3 * n + 1] += v_mean.y;
            v_means[3 * n + 2] += v_mean.z;
        }
    }
}

void prepare_splats(const int32_t* radii, const float* means2d, const float* conics, const float* opacities,
                    bool per_camera, int cameras, int64_t count, Splat* splats) {
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < cameras * count; ++at) {
        const float opacity = opacities[per_camera ? at : at % count];
        const float a = conics[3 * at], b = conics[3 * at + 1], c = conics[3 * at + 2];
        Splat s = {means2d[2 * at], means2d[2 * at + 1], -0.5f * kLog2E * a, -kLog2E * b, -0.5f * kLog2E * c, 0, -1, -1};
        if ((radii == nullptr || radii[2 * at] > 0) && opacity >= kAlphaThreshold) {
            s.log_opacity = std::log2(opacity);
            // Along the ellipse sigma = ln(255 o): |dx|^2 <= 2 sigma c / det, |dy|^2 <= 2 sigma a / det.
            // A little more than that, because rounding may put alpha just above the threshold.
            const float sigma = 2.0f / kLog2E * (s.log_opacity - std::log2(kAlphaThreshold)) + 1e-3f;
            const float det = a * c - b * b;
            s.reach_x = std::sqrt(sigma * c / det) * 1.0001f + 1e-3f;
            s.reach_y = std::sqrt(sigma * a / det) * 1.0001f + 1e-3f;
            // No ellipse, or one so thin that its determinant is lost to rounding: fall back to the tiles' own reach.
            if (!(a > 0 && det > 1e-6f * a * c)) s.reach_x = s.reach_y = 1e9f;
        }
        splats[at] = s;
    }
}

void fill_zero(float* values, int64_t count) {
    constexpr int64_t kPiece = 1 << 16;
#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < count; begin += kPiece) std::fill_n(values + begin, std::min(kPiece, count - begin), 0.0f);
}

void sum_segments(const float* v, const int32_t* starts, int64_t groups, int width, float* out) {
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < groups; ++j) {
        float* total = out + j * width;
        std::fill_n(total, width, 0.0f);
        for (int64_t i = starts[j]; i < starts[j + 1]; ++i)
            for (int k = 0; k < width; ++k) total[k] += v[i * width + k];
    }
}

void splat_gradients(const float* sums, const int32_t* starts, const Splat* splats, int64_t all, float* out) {
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < all; ++j) {
        float* v = out + j * kBlendSums;
        std::fill_n(v, kBlendSums, 0.0f);
        if (starts[j] == starts[j + 1]) continue;
        for (int64_t i = starts[j]; i < starts[j + 1]; ++i)
            for (int k = 0; k < kBlendSums; ++k) v[k] += sums[i * kBlendSums + k];
        const Splat& s = splats[j];
        const float a = -2 / kLog2E * s.a, b = -1 / kLog2E * s.b, c = -2 / kLog2E * s.c;
        const float v_x = a * v[0] + b * v[1], v_y = b * v[0] + c * v[1];
        v[0] = v_x;
        v[1] = v_y;
        v[2] *= 0.5f;
        v[4] *= 0.5f;
        v[5] *= -std::exp2(-s.log_opacity);
    }
}

}  // namespace dictsplat
