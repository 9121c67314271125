// What Python holds of one render's geometry.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "arrays.h"
#include "cpu/buffer.h"
#include "cpu/geometry.h"
#include "cpu/kernels.h"
#include "dictsplat/math.h"

using namespace dictsplat;

// Projected Gaussians packed for blending, and the tile lists over them, for all cameras of one render.
struct Splats {
    Buffer<Splat> packed;
    Buffer<int32_t> offsets, ids, slots, starts;
    int cameras, width, height;
    int64_t count;      // Gaussians

    Splats(Ints radii, Floats means2d, Floats depths, Floats conics, Floats opacities, int cameras_, int width_, int height_)
        : Splats(static_cast<int64_t>(opacities.size()), cameras_, width_, height_) {
        const int64_t all = cameras * count;
        expect(radii, "radii", all * 2);
        expect(means2d, "means2d", all * 2);
        expect(depths, "depths", all);
        expect(conics, "conics", all * 3);
        nb::gil_scoped_release release;
        Buffer<TileRange> ranges(all);
        const int64_t total = count_intersections(radii.data(), means2d.data(), all, width, height, ranges.data(), starts.data());
        if (total > INT32_MAX) throw std::length_error(kTooManyIntersections);
        ids = Buffer<int32_t>(total);
        slots = Buffer<int32_t>(total);
        fill_tile_lists(ranges.data(), depths.data(), starts.data(), cameras, count, width, height, offsets.data(),
                        ids.data(), slots.data());
        prepare_splats(radii.data(), means2d.data(), conics.data(), opacities.data(), false, cameras, count, packed.data());
    }

    // gsplat's unpacked lists, taken as they are: means2d [C * N, 2], conics [C * N, 3], opacities [C * N],
    // isect_offsets [C, tiles_y, tiles_x], flatten_ids [I].
    static Splats from_lists(Floats means2d, Floats conics, Floats opacities, Ints isect_offsets, Ints flatten_ids,
                             int64_t gaussians, int cameras, int width, int height) {
        Splats s(gaussians, cameras, width, height);
        const int64_t all = cameras * gaussians, intersections = static_cast<int64_t>(flatten_ids.size());
        expect(means2d, "means2d", all * 2);
        expect(conics, "conics", all * 3);
        expect(opacities, "opacities", all);
        expect(isect_offsets, "isect_offsets", static_cast<int64_t>(s.offsets.size()));
        if (intersections > INT32_MAX) throw std::length_error(kTooManyIntersections);
        nb::gil_scoped_release release;
        const char* fault = fault_in_tile_lists(isect_offsets.data(), flatten_ids.data(), intersections, cameras, gaussians,
                                                width, height);
        if (fault != nullptr) throw std::invalid_argument(fault);
        std::copy_n(isect_offsets.data(), s.offsets.size(), s.offsets.data());
        s.ids = Buffer<int32_t>(intersections);
        s.slots = Buffer<int32_t>(intersections);
        std::copy_n(flatten_ids.data(), intersections, s.ids.data());
        number_intersections(s.ids.data(), intersections, all, s.starts.data(), s.slots.data());
        prepare_splats(nullptr, means2d.data(), conics.data(), opacities.data(), true, cameras, gaussians, s.packed.data());
        return s;
    }
    TileLists lists() const {
        return {offsets.data(), ids.data(), slots.data(), static_cast<int64_t>(ids.size()), cameras, width, height};
    }
    int64_t pixels() const { return static_cast<int64_t>(cameras) * width * height; }

    // What blending reads per Gaussian and the images it makes, `FloatsOut` forward and `Floats` backward.
    template <class Image>
    void expect_blend(const Floats& colors, const Floats& depths, const Image& rgb, const Image& depth, const Image& alpha) const {
        expect(colors, "colors", cameras * count * 3);
        expect(depths, "depths", cameras * count);
        expect(rgb, "rgb", pixels() * 3);
        expect(depth, "depth", pixels());
        expect(alpha, "alpha", pixels());
    }

  private:
    static constexpr const char* kTooManyIntersections =
        "more than 2^31 intersections of Gaussians with tiles; render fewer cameras at a time";

    Splats(int64_t count_, int cameras_, int width_, int height_)
        : cameras(cameras_), width(width_), height(height_), count(count_) {
        if (cameras <= 0 || width <= 0 || height <= 0) throw std::invalid_argument("cameras, width and height must be positive");
        if (std::max(width, height) >= 1 << 19) throw std::length_error("images must be smaller than 2^19 pixels across");
        if (count < 0 || count > INT32_MAX / cameras)
            throw std::length_error("more than 2^31 Gaussians over all cameras; render fewer cameras at a time");
        packed = Buffer<Splat>(cameras * count);
        starts = Buffer<int32_t>(cameras * count + 1);
        offsets = Buffer<int32_t>(static_cast<size_t>(cameras) * ((width + kTile - 1) / kTile) * ((height + kTile - 1) / kTile));
    }
};
