// Real spherical harmonics up to degree 3 (P.-P. Sloan, "Efficient Spherical Harmonic Evaluation", JCGT
// 2013; the sign convention of 3DGS) and the derivative of each basis function in the direction.
#pragma once

#include "dictsplat/math.h"

namespace dictsplat {

constexpr int kMaxBases = 16;

DS_HD void sh_bases(int degree, Vec3 d, float* basis) {
    basis[0] = 0.2820947917738781f;
    if (degree < 1) return;
    const float x = d.x, y = d.y, z = d.z;
    basis[1] = -0.48860251190292f * y;
    basis[2] = 0.48860251190292f * z;
    basis[3] = -0.48860251190292f * x;
    if (degree < 2) return;
    const float z2 = z * z, b = -1.092548430592079f * z, a = 0.5462742152960395f;
    const float c1 = x * x - y * y, s1 = 2 * x * y;
    basis[4] = a * s1;
    basis[5] = b * y;
    basis[6] = 0.9461746957575601f * z2 - 0.3153915652525201f;
    basis[7] = b * x;
    basis[8] = a * c1;
    if (degree < 3) return;
    const float c = -2.285228997322329f * z2 + 0.4570457994644658f, e = 1.445305721320277f * z;
    const float f = -0.5900435899266435f;
    basis[9] = f * (x * s1 + y * c1);
    basis[10] = e * s1;
    basis[11] = c * y;
    basis[12] = z * (1.865881662950577f * z2 - 1.119528997770346f);
    basis[13] = c * x;
    basis[14] = e * c1;
    basis[15] = f * (x * c1 - y * s1);
}

// Gradient of sum_k v[k] basis_k(d) in d, treating the components of d as free.
DS_HD Vec3 sh_bases_vjp(int degree, Vec3 d, const float* v) {
    Vec3 g = {0, 0, 0};
    if (degree < 1) return g;
    const float x = d.x, y = d.y, z = d.z;
    g.y -= 0.48860251190292f * v[1];
    g.z += 0.48860251190292f * v[2];
    g.x -= 0.48860251190292f * v[3];
    if (degree < 2) return g;
    const float b = -1.092548430592079f, a = 0.5462742152960395f;
    const float c1 = x * x - y * y, s1 = 2 * x * y, z2 = z * z;
    g.x += 2 * a * y * v[4] + b * z * v[7] + 2 * a * x * v[8];
    g.y += 2 * a * x * v[4] + b * z * v[5] - 2 * a * y * v[8];
    g.z += b * y * v[5] + 2 * 0.9461746957575601f * z * v[6] + b * x * v[7];
    if (degree < 3) return g;
    const float c = -2.285228997322329f * z2 + 0.4570457994644658f, dc = -2 * 2.285228997322329f * z;
    const float e = 1.445305721320277f, f = -0.5900435899266435f;
    g.x += f * 3 * s1 * v[9] + 2 * e * z * y * v[10] + c * v[13] + 2 * e * z * x * v[14] + f * 3 * c1 * v[15];
    g.y += f * 3 * c1 * v[9] + 2 * e * z * x * v[10] + c * v[11] - 2 * e * z * y * v[14] - f * 3 * s1 * v[15];
    g.z += e * s1 * v[10] + dc * y * v[11] + (3 * 1.865881662950577f * z2 - 1.119528997770346f) * v[12] +
           dc * x * v[13] + e * c1 * v[14];
    return g;
}

}  // namespace dictsplat
