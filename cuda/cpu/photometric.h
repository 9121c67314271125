// The loss of 3DGS between two images, (1 - w) L1 + w (1 - SSIM), and its gradient in one go.
#pragma once

namespace dictsplat {

struct PhotometricLoss {
    double l1;      // mean absolute difference
    double ssim;    // mean structural similarity
};

// `image`, `truth`: [height, width, channels] floats. SSIM has an 11x11 Gaussian window with sigma 1.5, zero
// padding and data range 1. `gradient` receives d(loss)/d(image).
PhotometricLoss photometric(const float* image, const float* truth, int height, int width, int channels,
                            float ssim_weight, float* gradient);

}  // namespace dictsplat
