// Text relevancy straight out of the code splat: cos(F_p, t) = (W_p . A t) / sqrt(W_p^T G W_p) with
// G = A A^T, so neither F_p nor the code map W_p ever reaches memory. LERF's relevancy
// min_n softmax(temperature [s_pos, s_neg_n])[0] equals a sigmoid of s_pos - max_n s_neg_n.
#include <cmath>
#include <vector>

#include "codes.inl"

namespace dictsplat::DS_ISA {

// W^T G W for four rows of pixels, over the atoms in `active`, whose rows lie packed in w [count][4].
static void squared_norms(const float* gram, int atoms, const std::vector<int>& active, const Row* w, Row out[kBandRows]) {
    const int count = static_cast<int>(active.size());
    for (int r = 0; r < kBandRows; ++r) out[r] = Row{};
    int i = 0;
    // G is symmetric: a block of four atoms against itself, then twice against what follows.
    for (; i + 4 <= count; i += 4) {
        Row t[4][kBandRows] = {};
        const float* g[4];
        for (int l = 0; l < 4; ++l) g[l] = gram + active[i + l] * atoms;
        for (int m = i; m < i + 4; ++m)
            for (int l = 0; l < 4; ++l)
                for (int r = 0; r < kBandRows; ++r) t[l][r] += w[m * kBandRows + r] * (0.5f * g[l][active[m]]);
        for (int m = i + 4; m < count; ++m) {
            const int atom = active[m];
            const Row* wm = w + m * kBandRows;
            for (int l = 0; l < 4; ++l)
                for (int r = 0; r < kBandRows; ++r) t[l][r] += wm[r] * g[l][atom];
        }
        for (int l = 0; l < 4; ++l)
            for (int r = 0; r < kBandRows; ++r) out[r] += 2.0f * w[(i + l) * kBandRows + r] * t[l][r];
    }
    for (; i < count; ++i) {        // fewer than four are left
        Row t[kBandRows] = {};
        for (int m = i; m < count; ++m) {
            const float g = (m == i ? 0.5f : 1.0f) * gram[active[i] * atoms + active[m]];
            for (int r = 0; r < kBandRows; ++r) t[r] += w[m * kBandRows + r] * g;
        }
        for (int r = 0; r < kBandRows; ++r) out[r] += 2.0f * w[i * kBandRows + r] * t[r];
    }
}

static void relevancy(const TileLists& lists, const Splat* splats, const Codes& codes, const RelevancyQuery& query,
                      float* out, float* alpha) {
    const int64_t plane = static_cast<int64_t>(lists.width) * lists.height;
#pragma omp parallel
    {
        CodeTile maps(codes);
        std::unique_ptr<Row[]> packed(new Row[static_cast<size_t>(codes.atoms) * kBandRows]);
        std::vector<int> active;
        active.reserve(codes.atoms);
        std::vector<float> scores(static_cast<size_t>(codes.atoms) * query.texts);
#pragma omp for schedule(dynamic, 4)
        for (int64_t index = 0; index < tile_count(lists); ++index) {
            const Tile tile = tile_at(lists, index);
            alignas(64) Row coverage[kTile] = {};
            maps.splat_codes(lists, splats, tile, coverage);
            store_coverage(lists, tile, coverage, alpha);
            const int64_t origin = static_cast<int64_t>(tile.y) * lists.width + tile.x;
            for (int level = 0; level < codes.levels; ++level) {
                const int first_channel = level * codes.atoms;
                active.clear();
                for (int atom = 0; atom < codes.atoms; ++atom)
                    if (maps.used(first_channel + atom)) active.push_back(atom);
                for (int text = 0; text < query.texts; ++text)
                    for (size_t k = 0; k < active.size(); ++k)
                        scores[text * active.size() + k] =
                            query.scores[(static_cast<int64_t>(level) * query.texts + text) * codes.atoms + active[k]];
                const float* gram = query.gram + static_cast<int64_t>(level) * codes.atoms * codes.atoms;
                for (int row = 0; row < tile.rows; row += kBandRows) {
                    for (size_t k = 0; k < active.size(); ++k)
                        for (int r = 0; r < kBandRows; ++r)
                            packed[k * kBandRows + r] = maps.at(row / kBandRows, first_channel + active[k])[r];
                    Row norm[kBandRows];
                    squared_norms(gram, codes.atoms, active, packed.get(), norm);
                    for (int r = 0; r < kBandRows; ++r)
                        for (int lane = 0; lane < kTile; ++lane)
                            norm[r][lane] = norm[r][lane] > 1e-12f ? query.temperature / std::sqrt(norm[r][lane]) : 0.0f;
                    auto cosine = [&](int text, Row* dots) {
                        for (int r = 0; r < kBandRows; ++r) dots[r] = Row{};
                        const float* weights = scores.data() + static_cast<size_t>(text) * active.size();
                        for (size_t k = 0; k < active.size(); ++k) {
                            for (int r = 0; r < kBandRows; ++r) dots[r] += packed[k * kBandRows + r] * weights[k];
                        }
                        for (int r = 0; r < kBandRows; ++r) dots[r] *= norm[r];
                    };
                    Row rival[kBandRows], dots[kBandRows];
                    for (int r = 0; r < kBandRows; ++r) rival[r] = splat(-1e30f);
                    for (int text = query.phrases; text < query.texts; ++text) {
                        cosine(text, dots);
                        for (int r = 0; r < kBandRows; ++r) rival[r] = dots[r] > rival[r] ? dots[r] : rival[r];
                    }
                    for (int phrase = 0; phrase < query.phrases; ++phrase) {
                        cosine(phrase, dots);
                        float* map = out + ((static_cast<int64_t>(tile.camera) * query.phrases + phrase) * codes.levels + level) * plane + origin;
                        for (int r = 0; r < kBandRows && row + r < tile.rows; ++r) {
                            const Row lead = dots[r] - rival[r];
                            // exp_negative takes a distance: sigmoid(x) = 1 - sigmoid(-x) keeps it positive.
                            const Row e = exp_negative(lead < 0.0f ? -lead : lead);
                            const Row value = (lead < 0.0f ? e : splat(1.0f)) / (1.0f + e);
                            const Row shown = norm[r] > 0.0f ? value : splat(0.0f);
                            __builtin_memcpy(map + static_cast<int64_t>(row + r) * lists.width, &shown, tile.columns * sizeof(float));
                        }
                    }
                }
            }
        }
    }
}

}  // namespace dictsplat::DS_ISA
