// Python bindings. Tensors cross by DLPack; every output is allocated by the caller. Shapes that do not
// fit are refused here, so that no kernel reads past an array whatever Python passes.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cpu/photometric.h"
#include "dictsplat/sh.h"
#include "map_pool.h"
#include "splats.h"

static Views views_of(const Floats& viewmats, const Floats& Ks, int width, int height) {
    const int64_t cameras = static_cast<int64_t>(viewmats.size()) / 16;
    expect(viewmats, "viewmats", cameras * 16);
    expect(Ks, "Ks", cameras * 9);
    if (width <= 0 || height <= 0) throw std::invalid_argument("width and height must be positive");
    return {viewmats.data(), Ks.data(), static_cast<int>(cameras), width, height};
}

static Shapes shapes_of(const Floats& means, const Floats& quats, const Floats& scales) {
    const int64_t count = static_cast<int64_t>(means.size()) / 3;
    expect(means, "means", count * 3);
    expect(quats, "quats", count * 4);
    expect(scales, "scales", count * 3);
    return {means.data(), quats.data(), scales.data(), count};
}

static void bind_geometry(nb::module_& m) {
    m.def("project", [](Floats means, Floats quats, Floats scales, std::optional<Floats> opacities, Floats viewmats,
                        Floats Ks, int width, int height, float eps2d, float near_plane, float far_plane, IntsOut radii,
                        FloatsOut means2d, FloatsOut depths, FloatsOut conics) {
        const Views views = views_of(viewmats, Ks, width, height);
        const Shapes shapes = shapes_of(means, quats, scales);
        const int64_t all = views.cameras * shapes.count;
        if (opacities) expect(*opacities, "opacities", shapes.count);
        expect(radii, "radii", all * 2);
        expect(means2d, "means2d", all * 2);
        expect(depths, "depths", all);
        expect(conics, "conics", all * 3);
        nb::gil_scoped_release release;
        project_all(views, shapes, opacities ? opacities->data() : nullptr, eps2d, near_plane, far_plane, radii.data(),
                    means2d.data(), depths.data(), conics.data());
    }, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("project_vjp", [](Floats means, Floats quats, Floats scales, Floats viewmats, Floats Ks, int width, int height,
                            float eps2d, Ints radii, Floats v_means2d, Floats v_depths, Floats v_conics,
                            FloatsOut v_means, FloatsOut v_quats, FloatsOut v_scales) {
        const Views views = views_of(viewmats, Ks, width, height);
        const Shapes shapes = shapes_of(means, quats, scales);
        const int64_t all = views.cameras * shapes.count;
        expect(radii, "radii", all * 2);
        expect(v_means2d, "v_means2d", all * 2);
        expect(v_depths, "v_depths", all);
        expect(v_conics, "v_conics", all * 3);
        expect(v_means, "v_means", shapes.count * 3);
        expect(v_quats, "v_quats", shapes.count * 4);
        expect(v_scales, "v_scales", shapes.count * 3);
        nb::gil_scoped_release release;
        project_all_vjp(views, shapes, eps2d, radii.data(), v_means2d.data(), v_depths.data(), v_conics.data(),
                        v_means.data(), v_quats.data(), v_scales.data());
    });
    auto bases_of = [](const Floats& sh, int64_t count, int degree) {
        const int64_t bases = count ? static_cast<int64_t>(sh.size()) / (3 * count) : 0;
        expect(sh, "sh", count * bases * 3);
        if (degree < 0 || degree > 3 || (count && bases < (degree + 1) * (degree + 1)))
            throw std::invalid_argument("sh has " + std::to_string(bases) + " bases, too few for degree " +
                                        std::to_string(degree) + " (0 to 3)");
        return static_cast<int>(bases);
    };
    m.def("shade", [bases_of](Floats means, Floats sh, Floats viewmats, Floats Ks, int width, int height, int degree,
                              Ints radii, FloatsOut colors) {
        const Views views = views_of(viewmats, Ks, width, height);
        const int64_t count = static_cast<int64_t>(means.size()) / 3;
        expect(radii, "radii", views.cameras * count * 2);
        expect(colors, "colors", views.cameras * count * 3);
        const int bases = bases_of(sh, count, degree);
        nb::gil_scoped_release release;
        shade_all(views, means.data(), sh.data(), count, bases, degree, radii.data(), colors.data());
    });
    m.def("shade_vjp", [bases_of](Floats means, Floats sh, Floats viewmats, Floats Ks, int width, int height, int degree,
                                  Ints radii, Floats colors, Floats v_colors, FloatsOut v_means, FloatsOut v_sh) {
        const Views views = views_of(viewmats, Ks, width, height);
        const int64_t count = static_cast<int64_t>(means.size()) / 3;
        expect(radii, "radii", views.cameras * count * 2);
        expect(colors, "colors", views.cameras * count * 3);
        expect(v_colors, "v_colors", views.cameras * count * 3);
        expect(v_means, "v_means", count * 3);
        expect(v_sh, "v_sh", static_cast<int64_t>(sh.size()));
        const int bases = bases_of(sh, count, degree);
        nb::gil_scoped_release release;
        shade_all_vjp(views, means.data(), sh.data(), count, bases, degree, radii.data(), colors.data(), v_colors.data(),
                      v_means.data(), v_sh.data());
    });
}

static Codes codes_of(const Splats& s, const Array<const uint8_t>& indices, const Floats& weights, int levels, int atoms) {
    const int64_t per = s.count ? static_cast<int64_t>(indices.size()) / s.count : 0;
    expect(indices, "indices", per * s.count);
    expect(weights, "weights", static_cast<int64_t>(indices.size()));
    if (levels <= 0 || atoms <= 0 || atoms > 256 || per % levels != 0)
        throw std::invalid_argument("indices must be [N, levels, nonzeros] with at most 256 atoms");
    if (levels * atoms >= 1 << 16) throw std::invalid_argument("levels * atoms must be below 2^16");
    const uint8_t* const values = indices.data();       // hoisted: the accessors hinder vectorisation
    const int64_t size = per * s.count;
    uint8_t highest = 0;
    for (int64_t i = 0; i < size; ++i) highest = std::max(highest, values[i]);
    if (size && highest >= atoms)
        throw std::invalid_argument("a code index is " + std::to_string(highest) + ", but there are only " +
                                    std::to_string(atoms) + " atoms");
    return {indices.data(), weights.data(), s.count, levels, static_cast<int>(per / levels), atoms};
}

static void bind_blending(nb::module_& m) {
    m.def("pooled_map", &pooled_map);
    nb::class_<Splats>(m, "Splats")
        .def(nb::init<Ints, Floats, Floats, Floats, Floats, int, int, int>())
        .def_static("from_lists", &Splats::from_lists)
        .def_prop_ro("isect_offsets", [](Splats& s) { return nb::ndarray<nb::numpy, int32_t>(s.offsets.data(), {s.offsets.size()}); },
                     nb::rv_policy::reference_internal)
        .def_prop_ro("flatten_ids", [](Splats& s) { return nb::ndarray<nb::numpy, int32_t>(s.ids.data(), {s.ids.size()}); },
                     nb::rv_policy::reference_internal)
        .def("blend", [](const Splats& s, Floats colors, Floats depths, FloatsOut rgb, FloatsOut depth, FloatsOut alpha) {
            s.expect_blend(colors, depths, rgb, depth, alpha);
            nb::gil_scoped_release release;
            kernels().blend(s.lists(), s.packed.data(), colors.data(), depths.data(), rgb.data(), depth.data(), alpha.data());
        })
        .def("blend_vjp", [](const Splats& s, Floats colors, Floats depths, Floats rgb, Floats depth, Floats alpha,
                             Floats v_rgb, Floats v_depth, Floats v_alpha, FloatsOut v_splats) {
            s.expect_blend(colors, depths, rgb, depth, alpha);
            expect(v_rgb, "v_rgb", s.pixels() * 3);
            expect(v_depth, "v_depth", s.pixels());
            expect(v_alpha, "v_alpha", s.pixels());
            const int64_t all = s.cameras * s.count;
            expect(v_splats, "v_splats", all * kBlendSums);
            nb::gil_scoped_release release;
            Buffer<float> v(s.ids.size() * kBlendSums);
            fill_zero(v.data(), static_cast<int64_t>(v.size()));
            kernels().blend_vjp(s.lists(), s.packed.data(), colors.data(), depths.data(), rgb.data(), depth.data(),
                                alpha.data(), v_rgb.data(), v_depth.data(), v_alpha.data(), v.data());
            splat_gradients(v.data(), s.starts.data(), s.packed.data(), all, v_splats.data());
        })
        .def("codes", [](const Splats& s, Array<const uint8_t> indices, Floats weights, int levels, int atoms,
                         FloatsOut out, FloatsOut alpha) {
            const Codes codes = codes_of(s, indices, weights, levels, atoms);
            expect(out, "out", s.pixels() * levels * atoms);
            expect(alpha, "alpha", s.pixels());
            nb::gil_scoped_release release;
            kernels().codes(s.lists(), s.packed.data(), codes, out.data(), alpha.data());
        })
        .def("codes_vjp", [](const Splats& s, Array<const uint8_t> indices, Floats weights, int levels, int atoms,
                             Floats v_out, FloatsOut v_weights) {
            const Codes codes = codes_of(s, indices, weights, levels, atoms);
            expect(v_out, "v_out", s.pixels() * levels * atoms);
            const int per = levels * codes.nonzeros;
            expect(v_weights, "v_weights", s.cameras * s.count * per);
            nb::gil_scoped_release release;
            Buffer<float> v(s.ids.size() * per);
            fill_zero(v.data(), static_cast<int64_t>(v.size()));
            kernels().codes_vjp(s.lists(), s.packed.data(), codes, v_out.data(), v.data());
            sum_segments(v.data(), s.starts.data(), s.cameras * s.count, per, v_weights.data());
        })
        .def("features", [](const Splats& s, Floats features, int channels, FloatsOut out, FloatsOut alpha) {
            if (channels < 1) throw std::invalid_argument("features must have at least one channel");
            expect(features, "features", s.count * channels);
            expect(out, "out", s.pixels() * channels);
            expect(alpha, "alpha", s.pixels());
            nb::gil_scoped_release release;
            kernels().features(s.lists(), s.packed.data(), s.count, features.data(), channels, out.data(), alpha.data());
        })
        .def("lift", [](const Splats& s, Floats values, int channels, FloatsOut sums, FloatsOut mass) {
            expect(values, "values", s.pixels() * channels);
            expect(sums, "sums", s.count * channels);
            expect(mass, "mass", s.count);
            nb::gil_scoped_release release;
            kernels().lift(s.lists(), s.packed.data(), s.count, channels, values.data(), sums.data(), mass.data());
        })
        .def("relevancy", [](const Splats& s, Array<const uint8_t> indices, Floats weights, Floats scores, Floats gram,
                             int phrases, float temperature, int levels, int atoms, FloatsOut out, FloatsOut alpha) {
            const Codes codes = codes_of(s, indices, weights, levels, atoms);
            const int64_t texts = static_cast<int64_t>(scores.size()) / (static_cast<int64_t>(levels) * atoms);
            expect(scores, "scores", levels * texts * atoms);
            expect(gram, "gram", static_cast<int64_t>(levels) * atoms * atoms);
            if (phrases < 1 || texts <= phrases) throw std::invalid_argument("relevancy needs at least one phrase and one negative");
            expect(out, "out", s.pixels() * phrases * levels);
            expect(alpha, "alpha", s.pixels());
            nb::gil_scoped_release release;
            kernels().relevancy(s.lists(), s.packed.data(), codes,
                                {scores.data(), gram.data(), phrases, static_cast<int>(texts), temperature}, out.data(),
                                alpha.data());
        });
}

NB_MODULE(_native, m) {
    // At interpreter exit torch may still hold graphs that own Splats; that is no leak of ours.
    nb::set_leak_warnings(false);
    m.doc() = "dictsplat's native CPU kernels; splat.rasterize is the interface to use.";
    m.def("isa", [] { return std::string(kernels().isa); });
    m.def("photometric", [](Floats image, Floats truth, int height, int width, int channels, float ssim_weight,
                            FloatsOut gradient) {
        const int64_t size = static_cast<int64_t>(height) * width * channels;
        expect(image, "image", size);
        expect(truth, "truth", size);
        expect(gradient, "gradient", size);
        nb::gil_scoped_release release;
        const PhotometricLoss loss = photometric(image.data(), truth.data(), height, width, channels, ssim_weight, gradient.data());
        return std::pair<double, double>(loss.l1, loss.ssim);
    });
    bind_geometry(m);
    bind_blending(m);
}
