// Small vectors and the constants of 3D Gaussian splatting, usable from host and device code.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define DS_HD __host__ __device__ __forceinline__
#else
#define DS_HD inline __attribute__((always_inline))
#endif

namespace dictsplat {

constexpr int kTile = 16;                       // tile edge in pixels, as gsplat
constexpr float kAlphaThreshold = 1.0f / 255;   // fainter contributions are skipped
constexpr float kAlphaMax = 0.999f;             // keeps 1 - alpha invertible
constexpr float kTransmittanceStop = 1e-4f;     // a pixel is finished below this
constexpr float kExtentSigmas = 3.33f;          // sqrt(2 ln 255): where alpha reaches 1/255

struct Vec3 {
    float x, y, z;
};

DS_HD Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
DS_HD Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
DS_HD Vec3 operator*(float s, Vec3 a) { return {s * a.x, s * a.y, s * a.z}; }
DS_HD float dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

struct Mat3 {
    float m[3][3];
};

DS_HD Vec3 mul(const Mat3& a, Vec3 v) {
    return {a.m[0][0] * v.x + a.m[0][1] * v.y + a.m[0][2] * v.z,
            a.m[1][0] * v.x + a.m[1][1] * v.y + a.m[1][2] * v.z,
            a.m[2][0] * v.x + a.m[2][1] * v.y + a.m[2][2] * v.z};
}

DS_HD Vec3 mul_transposed(const Mat3& a, Vec3 v) {
    return {a.m[0][0] * v.x + a.m[1][0] * v.y + a.m[2][0] * v.z,
            a.m[0][1] * v.x + a.m[1][1] * v.y + a.m[2][1] * v.z,
            a.m[0][2] * v.x + a.m[1][2] * v.y + a.m[2][2] * v.z};
}

}  // namespace dictsplat
