// Text relevancy straight out of the code splat: cos(F_p, t) = (W_p . A t) / sqrt(W_p^T G W_p) with
// G = A A^T, so neither F_p nor the code map W_p ever reaches memory. LERF's relevancy
// min_n softmax(temperature [s_pos, s_neg_n])[0] equals a sigmoid of s_pos - max_n s_neg_n.
#include <cmath>
#include <vector>

#include "codes.inl"

namespace dictsplat::DS_ISA {

// W^T G W for the sixteen pixels of `row..row+3` each, over the atoms in `active` only.
static void squared_norms(const float* gram, int atoms, const std::vector<int>& active, CodeTile& maps, int first_channel,
                          int row, Row out[4]) {
    const int count = static_cast<int>(active.size());
    for (int r = 0; r < 4; ++r) out[r] = Row{};
    for (int i = 0; i < count; i += 4) {
        // G is symmetric: a block of four rows against itself, then twice against what follows.
        const int block = count - i < 4 ? count - i : 4;
        Row t[4][4] = {};
        for (int l = 0; l < block; ++l)
            for (int m = 0; m < block; ++m) {
                const float g = 0.5f * gram[active[i + l] * atoms + active[i + m]];
                const Row* w = maps.channel(first_channel + active[i + m]) + row;
                for (int r = 0; r < 4; ++r) t[l][r] += w[r] * g;
            }
        if (block == 4) {
            const float* g0 = gram + active[i] * atoms;
            const float* g1 = gram + active[i + 1] * atoms;
            const float* g2 = gram + active[i + 2] * atoms;
            const float* g3 = gram + active[i + 3] * atoms;
            for (int m = i + 4; m < count; ++m) {
                const int atom = active[m];
                const Row* w = maps.channel(first_channel + atom) + row;
                for (int r = 0; r < 4; ++r) {
                    t[0][r] += w[r] * g0[atom];
                    t[1][r] += w[r] * g1[atom];
                    t[2][r] += w[r] * g2[atom];
                    t[3][r] += w[r] * g3[atom];
                }
            }
        }
        for (int l = 0; l < block; ++l) {
            const Row* w = maps.channel(first_channel + active[i + l]) + row;
            for (int r = 0; r < 4; ++r) out[r] += 2.0f * w[r] * t[l][r];
        }
    }
}

static void relevancy(const TileLists& lists, const Splat* splats, const Codes& codes, const RelevancyQuery& query,
                      float* out, float* alpha) {
    const int channels = codes.levels * codes.atoms;
    const int64_t plane = static_cast<int64_t>(lists.width) * lists.height;
#pragma omp parallel
    {
        CodeTile maps(codes);
        std::unique_ptr<uint8_t[]> used(new uint8_t[channels]);
        std::vector<int> active;
        active.reserve(codes.atoms);
        std::vector<float> scores(static_cast<size_t>(codes.atoms) * query.texts);
#pragma omp for schedule(dynamic, 4)
        for (int64_t index = 0; index < tile_count(lists); ++index) {
            const Tile tile = tile_at(lists, index);
            alignas(64) Row coverage[kTile] = {};
            __builtin_memset(used.get(), 0, channels);
            splat_codes(lists, splats, codes, tile, maps, coverage, used.get());
            store_coverage(lists, tile, coverage, alpha);
            const int64_t origin = static_cast<int64_t>(tile.y) * lists.width + tile.x;
            for (int level = 0; level < codes.levels; ++level) {
                const int first_channel = level * codes.atoms;
                active.clear();
                for (int atom = 0; atom < codes.atoms; ++atom)
                    if (used[first_channel + atom]) active.push_back(atom);
                for (int text = 0; text < query.texts; ++text)
                    for (size_t k = 0; k < active.size(); ++k)
                        scores[text * active.size() + k] =
                            query.scores[(static_cast<int64_t>(level) * query.texts + text) * codes.atoms + active[k]];
                const float* gram = query.gram + static_cast<int64_t>(level) * codes.atoms * codes.atoms;
                for (int row = 0; row < tile.rows; row += 4) {
                    Row norm[4];
                    squared_norms(gram, codes.atoms, active, maps, first_channel, row, norm);
                    for (int r = 0; r < 4; ++r)
                        for (int lane = 0; lane < kTile; ++lane)
                            norm[r][lane] = norm[r][lane] > 1e-12f ? query.temperature / std::sqrt(norm[r][lane]) : 0.0f;
                    auto cosine = [&](int text, Row* dots) {
                        for (int r = 0; r < 4; ++r) dots[r] = Row{};
                        const float* weights = scores.data() + static_cast<size_t>(text) * active.size();
                        for (size_t k = 0; k < active.size(); ++k) {
                            const Row* w = maps.channel(first_channel + active[k]) + row;
                            for (int r = 0; r < 4; ++r) dots[r] += w[r] * weights[k];
                        }
                        for (int r = 0; r < 4; ++r) dots[r] *= norm[r];
                    };
                    Row rival[4], dots[4];
                    for (int r = 0; r < 4; ++r) rival[r] = splat(-1e30f);
                    for (int text = query.phrases; text < query.texts; ++text) {
                        cosine(text, dots);
                        for (int r = 0; r < 4; ++r) rival[r] = dots[r] > rival[r] ? dots[r] : rival[r];
                    }
                    for (int phrase = 0; phrase < query.phrases; ++phrase) {
                        cosine(phrase, dots);
                        float* map = out + ((static_cast<int64_t>(tile.camera) * query.phrases + phrase) * codes.levels + level) * plane + origin;
                        for (int r = 0; r < 4 && row + r < tile.rows; ++r) {
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
