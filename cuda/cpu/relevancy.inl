// Text relevancy without features: <F_p, t> / |F_p| = (W_p . A t) / sqrt(W_p^T G W_p) with
// G = A A^T, so neither F_p nor the code map W_p ever reaches memory. LERF's relevancy
// min_n softmax(temperature [s_pos, s_neg_n])[0] equals a sigmoid of s_pos - max_n s_neg_n.
#include <algorithm>
#include <vector>

#include "codes.inl"

namespace dictsplat::DS_ISA {

// One level's atoms, or those of them that a tile uses, most tiles using few.
struct Atoms {
    std::vector<int> used;
    std::vector<float> gram;        // [used, used], unless all are used
    std::vector<float> scores;      // [texts, used], likewise
    const float* gram_data;
    const float* scores_data;

    int count() const { return static_cast<int>(used.size()); }
};

// W^T G W of every pixel, W being map[used].
static Wide squared_norms(const Atoms& atoms, const Wide* map) {
#if defined(__AVX512F__)
    constexpr int kTogether = 8;        // sums that stay in registers
#else
    constexpr int kTogether = 4;
#endif
    const int count = atoms.count();
    const int* const used = atoms.used.data();
    Wide norm = {};
    int i = 0;
    // G is symmetric: some atoms against themselves, then twice against what follows.
    for (; i + kTogether <= count; i += kTogether) {
        Wide t[kTogether] = {};
        const float* g = atoms.gram_data + static_cast<int64_t>(i) * count + i;
        for (int m = i; m < count; ++m, g += count) {
            const Wide w = map[used[m]] * (m < i + kTogether ? 0.5f : 1.0f);
#pragma GCC unroll 8
            for (int l = 0; l < kTogether; ++l) t[l] += w * g[l];
        }
        for (int l = 0; l < kTogether; ++l) norm += 2.0f * map[used[i + l]] * t[l];
    }
    for (; i < count; ++i) {        // fewer are left
        const float* const g = atoms.gram_data + static_cast<int64_t>(i) * count;
        Wide t = map[used[i]] * (0.5f * g[i]);
        for (int m = i + 1; m < count; ++m) t += map[used[m]] * g[m];
        norm += 2.0f * map[used[i]] * t;
    }
    return norm;
}

// Turns code maps into relevancy, block by block. One per thread.
class RelevancyTile {
  public:
    RelevancyTile(const TileLists& lists, const Codes& codes, const RelevancyQuery& query, float* out)
        : lists_(lists), codes_(codes), query_(query), out_(out), atoms_(codes.levels) {}

    void begin(const Tile& tile) {
        tile_ = tile;
        used_.assign(static_cast<size_t>(codes_.levels) * codes_.atoms, 0);
    }

    void note(int channel) { used_[channel] = 1; }

    void gather_atoms() {
        for (int level = 0; level < codes_.levels; ++level) {
            Atoms& atoms = atoms_[level];
            atoms.used.clear();
            for (int atom = 0; atom < codes_.atoms; ++atom)
                if (used_[level * codes_.atoms + atom]) atoms.used.push_back(atom);
            atoms.gram_data = query_.gram + static_cast<int64_t>(level) * codes_.atoms * codes_.atoms;
            atoms.scores_data = query_.scores + static_cast<int64_t>(level) * query_.texts * codes_.atoms;
            if (atoms.count() == codes_.atoms) continue;
            atoms.gram.clear();
            for (const int row : atoms.used)
                for (const int column : atoms.used) atoms.gram.push_back(atoms.gram_data[row * codes_.atoms + column]);
            atoms.scores.clear();
            for (int text = 0; text < query_.texts; ++text)
                for (const int atom : atoms.used) atoms.scores.push_back(atoms.scores_data[text * codes_.atoms + atom]);
            atoms.gram_data = atoms.gram.data();
            atoms.scores_data = atoms.scores.data();
        }
    }

    void meanwhile() {}

    void operator()(int block, Wide* maps) {
        if (block == 0) gather_atoms();
        for (int level = 0; level < codes_.levels; ++level) store(level, block, maps);
        std::fill_n(maps, used_.size(), Wide{});
    }

    void store(int level, int block, const Wide* maps) {
        const Atoms& atoms = atoms_[level];
        const Wide* const map = maps + level * codes_.atoms;
        const Wide squared = squared_norms(atoms, map);
        const Wide norm = select(squared > 1e-12f, query_.temperature / square_root(squared), Wide{});
        Wide rival = splat(-1e30f), dots[kTexts];
        for (int text = query_.phrases; text < query_.texts; text += kTexts) {
            products(atoms, map, text, dots);
            for (int t = 0; t < kTexts && text + t < query_.texts; ++t) rival = higher(dots[t] * norm, rival);
        }
        const int first_row = block / kAcross * kEdge, first_column = block % kAcross * kEdge;
        const int columns = tile_.columns - first_column < kEdge ? tile_.columns - first_column : kEdge;
        for (int phrase = 0; phrase < query_.phrases; ++phrase) {
            if (phrase % kTexts == 0) products(atoms, map, phrase, dots);
            const Wide lead = dots[phrase % kTexts] * norm - rival;
            // exp_negative takes a distance: sigmoid(x) = 1 - sigmoid(-x) keeps it positive.
            const Wide e = exp_negative(select(lead < 0.0f, -lead, lead));
            const Wide value = select(lead < 0.0f, e, splat(1.0f)) / (1.0f + e);
            alignas(64) const Wide shown = select(norm > 0.0f, value, Wide{});
            const int64_t image = (static_cast<int64_t>(tile_.camera) * query_.phrases + phrase) * codes_.levels + level;
            float* out = out_ + (image * lists_.height + tile_.y + first_row) * lists_.width + tile_.x + first_column;
            for (int r = 0; r < kEdge && first_row + r < tile_.rows; ++r)
                __builtin_memcpy(out + static_cast<int64_t>(r) * lists_.width,
                                 reinterpret_cast<const float*>(&shown) + r * kEdge, columns * sizeof(float));
        }
    }

  private:
    static constexpr int kTexts = 4;

    // W . A t for kTexts texts at once, the last one repeated where there are fewer.
    void products(const Atoms& atoms, const Wide* map, int first, Wide dots[kTexts]) const {
        const float* scores[kTexts];
        for (int t = 0; t < kTexts; ++t) {
            scores[t] = atoms.scores_data + static_cast<int64_t>(std::min(first + t, query_.texts - 1)) * atoms.count();
            dots[t] = Wide{};
        }
        for (int k = 0; k < atoms.count(); ++k)
            for (int t = 0; t < kTexts; ++t) dots[t] += map[atoms.used[k]] * scores[t][k];
    }

    const TileLists& lists_;
    const Codes& codes_;
    const RelevancyQuery& query_;
    float* out_;
    std::vector<uint8_t> used_;                 // [levels * atoms], by the tile
    std::vector<Atoms> atoms_;                  // [levels]
    Tile tile_ = {};
};

static void relevancy(const TileLists& lists, const Splat* splats, const Codes& codes, const RelevancyQuery& query,
                      float* out, float* alpha) {
    const PackedCodes packed(codes);
#pragma omp parallel
    {
        CodeTile maps(codes, packed);
        RelevancyTile relevancy(lists, codes, query, out);
#pragma omp for schedule(dynamic, 4)
        for (int64_t index = 0; index < tile_count(lists); ++index) {
            const Tile tile = tile_at(lists, index);
            alignas(64) Wide coverage[kBlocks] = {};
            relevancy.begin(tile);
            maps.splat_codes(lists, splats, tile, coverage, [&](int channel) { relevancy.note(channel); }, relevancy);
            store_tile(lists, tile, coverage, 1, alpha);
        }
    }
}

}  // namespace dictsplat::DS_ISA
