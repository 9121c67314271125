// EWA projection of one 3D Gaussian onto one pinhole camera, and its vector-Jacobian product.
//
// Same maths and conventions as gsplat's fully fused projection: world-to-camera `viewmat` in OpenCV
// axes, quaternions (w, x, y, z) of any length, the affine Jacobian evaluated inside 1.3x the field of
// view, `eps2d` added to the diagonal of the image covariance.
#pragma once

#include "dictsplat/math.h"

namespace dictsplat {

struct Camera {
    Mat3 rotation;      // world -> camera
    Vec3 translation;
    float fx, fy, cx, cy;
    int width, height;
    float low_x, high_x, low_y, high_y;     // slopes x/z and y/z between which the Jacobian is evaluated
};

DS_HD Camera make_camera(const float* viewmat, const float* K, int width, int height) {
    Camera camera;
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) camera.rotation.m[i][j] = viewmat[4 * i + j];
    camera.translation = {viewmat[3], viewmat[7], viewmat[11]};
    camera.fx = K[0];
    camera.fy = K[4];
    camera.cx = K[2];
    camera.cy = K[5];
    camera.width = width;
    camera.height = height;
    const float margin_x = 0.15f * width / camera.fx, margin_y = 0.15f * height / camera.fy;
    camera.low_x = -(camera.cx / camera.fx + margin_x);
    camera.high_x = (width - camera.cx) / camera.fx + margin_x;
    camera.low_y = -(camera.cy / camera.fy + margin_y);
    camera.high_y = (height - camera.cy) / camera.fy + margin_y;
    return camera;
}

// Position of the camera in the world: -R^T t.
DS_HD Vec3 camera_center(const Camera& camera) {
    return -1.0f * mul_transposed(camera.rotation, camera.translation);
}

struct Projected {
    float x, y;         // image position in pixels, the first pixel's centre is (0.5, 0.5)
    float depth;        // z in camera space
    float a, b, c;      // conic: inverse image covariance [[a, b], [b, c]]
    float radius_x, radius_y;
    bool visible;
};

struct ProjectionSettings {
    float eps2d;
    float near_plane;
    float far_plane;
};

DS_HD Mat3 rotation_of_quat(const float* quat, float* inverse_norm) {
    const float inv = 1.0f / std::sqrt(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3]);
    const float w = quat[0] * inv, x = quat[1] * inv, y = quat[2] * inv, z = quat[3] * inv;
    *inverse_norm = inv;
    return {{{1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)},
             {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)},
             {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)}}};
}

// What forward and backward both need: camera-space mean, clamped slopes and U = J R M (2x3), with
// image covariance U U^T + eps I.
struct ProjectionTerms {
    Vec3 p;                 // camera space
    float slope_x, slope_y; // clamped x/z, y/z
    bool free_x, free_y;    // the clamp did not act
    Mat3 rotation;          // of the Gaussian
    float inverse_norm;     // of its quaternion
    float T[2][3];          // J R
    float U[2][3];          // J R M, M = rotation * diag(scale)
    float cov_xx, cov_xy, cov_yy, det;
};

DS_HD float clamp(float value, float low, float high) { return value < low ? low : (value > high ? high : value); }

DS_HD ProjectionTerms projection_terms(const Camera& camera, const float* mean, const float* quat, const float* scale,
                                       float eps2d) {
    ProjectionTerms t;
    t.p = mul(camera.rotation, {mean[0], mean[1], mean[2]}) + camera.translation;
    const float inv_z = 1.0f / t.p.z;
    const float slope_x = t.p.x * inv_z, slope_y = t.p.y * inv_z;
    t.slope_x = clamp(slope_x, camera.low_x, camera.high_x);
    t.slope_y = clamp(slope_y, camera.low_y, camera.high_y);
    t.free_x = t.slope_x == slope_x;
    t.free_y = t.slope_y == slope_y;
    t.rotation = rotation_of_quat(quat, &t.inverse_norm);
    const float j00 = camera.fx * inv_z, j02 = -j00 * t.slope_x;
    const float j11 = camera.fy * inv_z, j12 = -j11 * t.slope_y;
    for (int k = 0; k < 3; ++k) {
        t.T[0][k] = j00 * camera.rotation.m[0][k] + j02 * camera.rotation.m[2][k];
        t.T[1][k] = j11 * camera.rotation.m[1][k] + j12 * camera.rotation.m[2][k];
    }
    for (int i = 0; i < 2; ++i)
        for (int k = 0; k < 3; ++k)
            t.U[i][k] = scale[k] * (t.T[i][0] * t.rotation.m[0][k] + t.T[i][1] * t.rotation.m[1][k] +
                                    t.T[i][2] * t.rotation.m[2][k]);
    t.cov_xx = t.U[0][0] * t.U[0][0] + t.U[0][1] * t.U[0][1] + t.U[0][2] * t.U[0][2] + eps2d;
    t.cov_xy = t.U[0][0] * t.U[1][0] + t.U[0][1] * t.U[1][1] + t.U[0][2] * t.U[1][2];
    t.cov_yy = t.U[1][0] * t.U[1][0] + t.U[1][1] * t.U[1][1] + t.U[1][2] * t.U[1][2] + eps2d;
    const float det = t.cov_xx * t.cov_yy - t.cov_xy * t.cov_xy;
    t.det = det > 1e-10f ? det : 1e-10f;
    return t;
}

// `opacity` tightens the radius to where alpha falls below 1/255; pass 1 for the plain 3.33 sigma.
DS_HD Projected project(const Camera& camera, const float* mean, const float* quat, const float* scale, float opacity,
                        const ProjectionSettings& settings) {
    Projected out = {};
    const float depth = camera.rotation.m[2][0] * mean[0] + camera.rotation.m[2][1] * mean[1] +
                        camera.rotation.m[2][2] * mean[2] + camera.translation.z;
    if (!(depth > settings.near_plane && depth < settings.far_plane) || !(opacity >= kAlphaThreshold)) return out;
    const ProjectionTerms t = projection_terms(camera, mean, quat, scale, settings.eps2d);
    out.depth = t.p.z;
    const float inv_z = 1.0f / t.p.z, inv_det = 1.0f / t.det;
    out.x = camera.fx * t.p.x * inv_z + camera.cx;
    out.y = camera.fy * t.p.y * inv_z + camera.cy;
    out.a = t.cov_yy * inv_det;
    out.b = -t.cov_xy * inv_det;
    out.c = t.cov_xx * inv_det;
    float extent = kExtentSigmas;
    if (opacity < 1.0f) {
        const float reach = std::sqrt(2.0f * std::log(opacity / kAlphaThreshold));
        extent = reach < extent ? reach : extent;
    }
    out.radius_x = std::ceil(extent * std::sqrt(t.cov_xx));
    out.radius_y = std::ceil(extent * std::sqrt(t.cov_yy));
    // Written so that a NaN anywhere makes the Gaussian invisible.
    out.visible = out.radius_x > 0 && out.radius_y > 0 && out.x + out.radius_x > 0 && out.y + out.radius_y > 0 &&
                  out.x - out.radius_x < camera.width && out.y - out.radius_y < camera.height &&
                  out.radius_x < 1e6f && out.radius_y < 1e6f;
    return out;
}

struct ProjectionGradient {
    Vec3 mean;
    float quat[4];
    Vec3 scale;
};

// Adjoint of `project` for a visible Gaussian: gradients of (x, y), depth and the conic (a, b, c), where
// the quadratic form is a dx^2 / 2 + b dx dy + c dy^2 / 2.
DS_HD ProjectionGradient project_vjp(const Camera& camera, const float* mean, const float* quat, const float* scale,
                                     float eps2d, float v_x, float v_y, float v_depth, float v_a, float v_b, float v_c) {
    const ProjectionTerms t = projection_terms(camera, mean, quat, scale, eps2d);
    const float a = t.cov_yy / t.det, b = -t.cov_xy / t.det, c = t.cov_xx / t.det;
    // d(inverse) = -Q dC Q with Q the conic; V is the symmetric gradient of Q.
    const float half_b = 0.5f * v_b;
    const float q00 = a * v_a + b * half_b, q01 = a * half_b + b * v_c;
    const float q10 = b * v_a + c * half_b, q11 = b * half_b + c * v_c;
    const float g_xx = -(q00 * a + q01 * b), g_xy = -(q00 * b + q01 * c), g_yy = -(q10 * b + q11 * c);

    // cov = U U^T
    float v_U[2][3];
    for (int k = 0; k < 3; ++k) {
        v_U[0][k] = 2.0f * (g_xx * t.U[0][k] + g_xy * t.U[1][k]);
        v_U[1][k] = 2.0f * (g_xy * t.U[0][k] + g_yy * t.U[1][k]);
    }
    // U = T M, M = rotation * diag(scale)
    float v_T[2][3] = {}, v_R[3][3];
    float v_scale[3] = {};
    for (int k = 0; k < 3; ++k) {
        for (int r = 0; r < 3; ++r) {
            v_T[0][r] += v_U[0][k] * t.rotation.m[r][k] * scale[k];
            v_T[1][r] += v_U[1][k] * t.rotation.m[r][k] * scale[k];
            const float v_M = t.T[0][r] * v_U[0][k] + t.T[1][r] * v_U[1][k];
            v_R[r][k] = v_M * scale[k];
            v_scale[k] += v_M * t.rotation.m[r][k];
        }
    }
    // T = J R_camera
    float v_j00 = 0, v_j02 = 0, v_j11 = 0, v_j12 = 0;
    for (int k = 0; k < 3; ++k) {
        v_j00 += v_T[0][k] * camera.rotation.m[0][k];
        v_j02 += v_T[0][k] * camera.rotation.m[2][k];
        v_j11 += v_T[1][k] * camera.rotation.m[1][k];
        v_j12 += v_T[1][k] * camera.rotation.m[2][k];
    }
    const float inv_z = 1.0f / t.p.z, inv_z2 = inv_z * inv_z;
    const float fx = camera.fx, fy = camera.fy;
    Vec3 v_p;
    v_p.x = fx * inv_z * v_x;
    v_p.y = fy * inv_z * v_y;
    v_p.z = v_depth - (fx * t.p.x * v_x + fy * t.p.y * v_y) * inv_z2;
    v_p.z -= (fx * v_j00 + fy * v_j11) * inv_z2;
    // j02 = -fx slope_x / z with slope_x = x / z where free, else constant.
    v_p.z += (fx * t.slope_x * v_j02 + fy * t.slope_y * v_j12) * inv_z2;
    if (t.free_x) {
        v_p.x -= fx * inv_z2 * v_j02;
        v_p.z += fx * t.slope_x * inv_z2 * v_j02;
    }
    if (t.free_y) {
        v_p.y -= fy * inv_z2 * v_j12;
        v_p.z += fy * t.slope_y * inv_z2 * v_j12;
    }

    ProjectionGradient out;
    out.mean = mul_transposed(camera.rotation, v_p);
    out.scale = {v_scale[0], v_scale[1], v_scale[2]};
    const float w = quat[0] * t.inverse_norm, x = quat[1] * t.inverse_norm;
    const float y = quat[2] * t.inverse_norm, z = quat[3] * t.inverse_norm;
    const float g[4] = {
        2 * (x * (v_R[2][1] - v_R[1][2]) + y * (v_R[0][2] - v_R[2][0]) + z * (v_R[1][0] - v_R[0][1])),
        2 * (-2 * x * (v_R[1][1] + v_R[2][2]) + y * (v_R[0][1] + v_R[1][0]) + z * (v_R[0][2] + v_R[2][0]) +
             w * (v_R[2][1] - v_R[1][2])),
        2 * (x * (v_R[0][1] + v_R[1][0]) - 2 * y * (v_R[0][0] + v_R[2][2]) + z * (v_R[1][2] + v_R[2][1]) +
             w * (v_R[0][2] - v_R[2][0])),
        2 * (x * (v_R[0][2] + v_R[2][0]) + y * (v_R[1][2] + v_R[2][1]) - 2 * z * (v_R[0][0] + v_R[1][1]) +
             w * (v_R[1][0] - v_R[0][1]))};
    // Through the normalisation of the quaternion.
    const float along = w * g[0] + x * g[1] + y * g[2] + z * g[3];
    const float unit[4] = {w, x, y, z};
    for (int i = 0; i < 4; ++i) out.quat[i] = (g[i] - along * unit[i]) * t.inverse_norm;
    return out;
}

}  // namespace dictsplat
