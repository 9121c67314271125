#include "photometric.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace dictsplat {

namespace {

constexpr int kRadius = 5, kTaps = 2 * kRadius + 1, kBlock = 256;
constexpr float kC1 = 0.01f * 0.01f, kC2 = 0.03f * 0.03f;

struct Window {
    float tap[kTaps];
    Window() {
        double total = 0, value[kTaps];
        for (int i = 0; i < kTaps; ++i) total += value[i] = std::exp(-(i - kRadius) * (i - kRadius) / (2 * 1.5 * 1.5));
        for (int i = 0; i < kTaps; ++i) tap[i] = static_cast<float>(value[i] / total);
    }
};

// `rows` maps of the image's size, one after the other.
struct Maps {
    Maps(int maps, int height, int width) : stride(static_cast<int64_t>(height) * width), row(width), data(maps * stride) {}
    float* at(int map, int y) { return data.data() + map * stride + static_cast<int64_t>(y) * row; }
    int64_t stride, row;
    std::vector<float> data;
};

// Channels are interleaved, so a horizontal tap is `channels` floats away. `padded` has room for the taps
// on both sides.
void blur_row(const Window& window, const float* padded, int width, int channels, float* out) {
    for (int x = 0; x < width; ++x) {
        float total = 0;
        for (int k = 0; k < kTaps; ++k) total += window.tap[k] * padded[x + k * channels];
        out[x] = total;
    }
}

// Vertical blur of a block of one row of one map into `out`.
void blur_column(const Window& window, Maps& maps, int map, int y, int height, int start, int width, float* out) {
    std::fill_n(out, width, 0.0f);
    const int first = std::max(0, kRadius - y), last = std::min(kTaps - 1, height - 1 - y + kRadius);
    for (int k = first; k <= last; ++k) {
        const float* in = maps.at(map, y + k - kRadius) + start;
        const float tap = window.tap[k];
        for (int x = 0; x < width; ++x) out[x] += tap * in[x];
    }
}

}  // namespace

PhotometricLoss photometric(const float* image, const float* truth, int height, int width, int channels,
                            float ssim_weight, float* gradient) {
    static const Window window;
    const int row = width * channels, margin = kRadius * channels;
    const double count = static_cast<double>(height) * row;
    Maps blurred(5, height, row), partial(3, height, row);
    std::vector<double> l1(height), similarity(height);

    // a, b, a^2, b^2, ab, blurred along the rows.
#pragma omp parallel
    {
        std::vector<float> padded(static_cast<size_t>(5) * (row + 2 * margin), 0.0f);
#pragma omp for schedule(static)
        for (int y = 0; y < height; ++y) {
            const float* a = image + static_cast<int64_t>(y) * row;
            const float* b = truth + static_cast<int64_t>(y) * row;
            float* line[5];
            for (int m = 0; m < 5; ++m) line[m] = padded.data() + m * (row + 2 * margin) + margin;
            float difference = 0;
            for (int x = 0; x < row; ++x) {
                line[0][x] = a[x];
                line[1][x] = b[x];
                line[2][x] = a[x] * a[x];
                line[3][x] = b[x] * b[x];
                line[4][x] = a[x] * b[x];
            }
            for (int x = 0; x < row; ++x) difference += std::fabs(a[x] - b[x]);
            l1[y] = difference;
            for (int m = 0; m < 5; ++m) blur_row(window, line[m] - margin, row, channels, blurred.at(m, y));
        }
    }
    // Along the columns; the similarity S and its partial derivatives in mean(a), mean(a^2), mean(ab).
#pragma omp parallel for schedule(static)
    for (int y = 0; y < height; ++y) {
        double total = 0;
        for (int start = 0; start < row; start += kBlock) {
            const int block = std::min(kBlock, row - start);
            alignas(64) float m[5][kBlock], s[kBlock];
            for (int k = 0; k < 5; ++k) blur_column(window, blurred, k, y, height, start, block, m[k]);
            float* in_mean = partial.at(0, y) + start;
            float* in_square = partial.at(1, y) + start;
            float* in_product = partial.at(2, y) + start;
            for (int x = 0; x < block; ++x) {
                const float a = m[0][x], b = m[1][x];
                const float A1 = 2 * a * b + kC1, A2 = 2 * (m[4][x] - a * b) + kC2;
                const float B1 = a * a + b * b + kC1, B2 = m[2][x] - a * a + m[3][x] - b * b + kC2;
                const float inverse = 1.0f / (B1 * B2);
                s[x] = A1 * A2 * inverse;
                in_mean[x] = 2 * b * (A2 - A1) * inverse + 2 * a * s[x] * (1.0f / B2 - 1.0f / B1);
                in_square[x] = -s[x] / B2;
                in_product[x] = 2 * A1 * inverse;
            }
            float sum = 0;
            for (int x = 0; x < block; ++x) sum += s[x];
            total += sum;
        }
        similarity[y] = total;
    }
    // The adjoint of a symmetric window with zero padding is itself.
#pragma omp parallel
    {
        std::vector<float> padded(row + 2 * margin, 0.0f);
#pragma omp for schedule(static)
        for (int y = 0; y < height; ++y)
            for (int k = 0; k < 3; ++k) {
                std::copy_n(partial.at(k, y), row, padded.data() + margin);
                blur_row(window, padded.data(), row, channels, blurred.at(k, y));
            }
    }
    const float similarity_scale = static_cast<float>(-ssim_weight / count);
    const float l1_scale = static_cast<float>((1.0 - ssim_weight) / count);
#pragma omp parallel for schedule(static)
    for (int y = 0; y < height; ++y)
        for (int start = 0; start < row; start += kBlock) {
            const int block = std::min(kBlock, row - start);
            alignas(64) float g[3][kBlock];
            for (int k = 0; k < 3; ++k) blur_column(window, blurred, k, y, height, start, block, g[k]);
            const int64_t at = static_cast<int64_t>(y) * row + start;
            for (int x = 0; x < block; ++x) {
                const float a = image[at + x], b = truth[at + x];
                const float sign = a > b ? 1.0f : (a < b ? -1.0f : 0.0f);
                gradient[at + x] = l1_scale * sign + similarity_scale * (g[0][x] + 2 * a * g[1][x] + b * g[2][x]);
            }
        }
    PhotometricLoss loss = {0, 0};
    for (int y = 0; y < height; ++y) {
        loss.l1 += l1[y];
        loss.ssim += similarity[y];
    }
    loss.l1 /= count;
    loss.ssim /= count;
    return loss;
}

}  // namespace dictsplat
