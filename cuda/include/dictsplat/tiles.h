// Which 16x16 tiles the square of a projected Gaussian's radius touches (gsplat's rule).
#pragma once

#include "dictsplat/math.h"

namespace dictsplat {

struct TileRange {
    int16_t x0, y0, x1, y1;     // half open; enough for images below 2^19 pixels across
};

DS_HD int16_t clamp_int(float value, int high) {
    return static_cast<int16_t>(value <= 0 ? 0 : (value >= high ? high : static_cast<int>(value)));
}

DS_HD TileRange tile_range(float x, float y, int radius_x, int radius_y, int tiles_x, int tiles_y) {
    const float cx = x / kTile, cy = y / kTile;
    const float rx = static_cast<float>(radius_x) / kTile, ry = static_cast<float>(radius_y) / kTile;
    return {clamp_int(std::floor(cx - rx), tiles_x), clamp_int(std::floor(cy - ry), tiles_y),
            clamp_int(std::ceil(cx + rx), tiles_x), clamp_int(std::ceil(cy + ry), tiles_y)};
}

}  // namespace dictsplat
