// The part of the lookup that is compiled once per instruction set, with DS_ISA naming it.
//
// A block of queries meets one tile of keys after the other, six queries at a time in registers. Of the scores, which
// stay in the cache, what could still get a weight is noted down per query, the rest is forgotten. Each score is summed
// over the channels in order, one multiply-add each, so that all instruction sets agree to the last bit.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "dictsplat/math.h"
#include "lookup.h"

#define DS_STRING_(x) #x
#define DS_STRING(x) DS_STRING_(x)

namespace dictsplat::DS_ISA {

constexpr int kBlockRows = 48;          // queries that a thread takes at a time
constexpr int kGroup = 6;               // queries in registers
#if defined(__AVX512F__)
constexpr int kLanes = 16, kWide = 4;   // registers of keys beside them: 24 of 32 hold sums
#else
constexpr int kLanes = 8, kWide = 2;    // 12 of 16
#endif
constexpr int kColumn = kWide * kLanes; // keys in registers
static_assert(kBlockRows % kGroup == 0 && kPanelKeys % kColumn == 0);

typedef float Keys __attribute__((vector_size(kLanes * sizeof(float))));
typedef float EightFloats __attribute__((vector_size(8 * sizeof(float))));
typedef double Eight __attribute__((vector_size(8 * sizeof(double))));

DS_HD Keys all(float value) { return value - Keys{}; }

// A bit for each lane.
DS_HD uint32_t lanes_above(Keys v, float floor) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(floor), _CMP_GT_OQ);
#elif defined(__AVX__)
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_set1_ps(floor), _CMP_GT_OQ));
#else
    uint32_t mask = 0;
    for (int i = 0; i < kLanes; ++i) mask |= static_cast<uint32_t>(v[i] > floor) << i;
    return mask;
#endif
}

// The lanes after the first `count` are no keys.
DS_HD Keys first_lanes(int64_t count, Keys v) {
    Keys lanes;
    for (int i = 0; i < kLanes; ++i) lanes[i] = static_cast<float>(i);
    return lanes < static_cast<float>(count) ? v : all(-INFINITY);
}

// The keys that may have a weight for one query, in order, as far as panels have been seen.
class Candidates {
  public:
    void clear() {
        size_ = 0;
        limit_ = 0;
        best_ = floor_ = -INFINITY;
    }
    float floor() const { return floor_; }

    // Notes down what may get a weight of some columns of kColumn scores each, those of keys first, first + 1, ...
    // The highest of each column alone have a τ, which no further score makes smaller: it rules most out at once.
    void add(const Keys* scores, const float* highest, int columns, int32_t first) {
        for (int c = 0; c < columns; ++c) best_ = std::max(best_, highest[c]);
        raise(-1.0);
        raise(estimate(highest, columns));
        for (int c = 0; c < columns; ++c)
            if (highest[c] > floor_) add_column(scores + c * kWide, first + c * kColumn);
    }

    int take(Support& out) const {
        const double tau = threshold();
        const size_t before = out.indices.size();
        for (int i = 0; i < size_; ++i) {
            const double z = above_best(i);
            if (z <= tau) continue;
            out.indices.push_back(indices_[i]);
            out.weights.push_back(static_cast<float>(z - tau));
        }
        return static_cast<int>(out.indices.size() - before);
    }

    static int undefined(Support& out) {
        out.indices.push_back(0);
        out.weights.push_back(NAN);
        return 1;
    }

  private:
    void add_column(const Keys* scores, int32_t first) {
        if (size_ + kColumn > limit_) make_room();
        const float* values = reinterpret_cast<const float*>(scores);
        for (int w = 0; w < kWide; ++w)
            for (uint32_t mask = lanes_above(scores[w], floor_); mask != 0; mask &= mask - 1) {
                const int lane = w * kLanes + __builtin_ctz(mask);
                scores_[size_] = values[lane];
                indices_[size_++] = first + lane;
            }
    }

    // Relative to the best score, so that a large common offset costs no digits.
    double above_best(int i) const { return static_cast<double>(scores_[i]) - best_; }

    // The τ with Σ max(z - τ, 0) = 1 by Newton's method from the left, where max z - 1 lies: τ only grows and the
    // set above it only shrinks, so it ends at the exact set (Michelot 1986). Leaving keys out makes τ smaller,
    // so the τ of those seen so far already rules out whatever is below it. One sum in order, which does not depend
    // on what else was noted down; it starts where the quick estimate below ended.
    double threshold() const {
        double tau = std::max(estimate(scores_.data(), size_) - 1e-9, -1.0);
        for (int size = size_ + 1;;) {
            double sum = 0.0;
            int above = 0;
            for (int i = 0; i < size_; ++i) {
                const double z = above_best(i);
                const bool inside = z > tau;
                sum += inside ? z : 0.0;
                above += inside;
            }
            if (above >= size) return tau;
            size = above;
            tau = (sum - 1.0) / above;
        }
    }

    // The same but for rounding, eight at a time, from the floor on, which no earlier τ exceeds.
    double estimate(const float* scores, int count) const {
        double tau = std::max(static_cast<double>(floor_) - best_, -1.0);
        for (int size = count + 1;;) {
            Eight sums{}, counts{};
            int i = 0;
            for (; i + 8 <= count; i += 8) {
                EightFloats values;
                std::memcpy(&values, scores + i, sizeof(values));
                const Eight z = __builtin_convertvector(values, Eight) - best_;
                sums += z > tau ? z : Eight{};
                counts += z > tau ? Eight{} + 1.0 : Eight{};
            }
            double sum = 0.0, above = 0.0;
            for (int lane = 0; lane < 8; ++lane) {
                sum += sums[lane];
                above += counts[lane];
            }
            for (; i < count; ++i) {
                const double z = static_cast<double>(scores[i]) - best_;
                sum += z > tau ? z : 0.0;
                above += z > tau;
            }
            if (above == 0.0 || above >= size) return tau;
            size = static_cast<int>(above);
            tau = (sum - 1.0) / above;
        }
    }

    void raise(double tau) {
        // Lower by some rounding: what is barely inside is for `take` to judge.
        const double slack = 1e-6 * (1.0 + std::fabs(best_));
        floor_ = std::max(floor_, static_cast<float>(best_ + tau - slack));
    }

    void make_room() {
        if (size_ > 0) raise(estimate(scores_.data(), size_));
        int kept = 0;
        for (int i = 0; i < size_; ++i) {
            scores_[kept] = scores_[i];
            indices_[kept] = indices_[i];
            kept += scores_[i] > floor_;
        }
        size_ = kept;
        // Doubling where little went keeps the work per candidate constant, even where all keys get a weight.
        limit_ = std::max(limit_, 2 * size_ + kColumn + kSpare);
        if (limit_ > static_cast<int>(indices_.size())) {
            scores_.resize(limit_);
            indices_.resize(limit_);
        }
    }

    static constexpr int kSpare = 32;
    std::vector<float> scores_;
    std::vector<int32_t> indices_;
    int size_ = 0, limit_ = 0;
    float best_ = -INFINITY, floor_ = -INFINITY;
};

// Scores of six queries, packed [channels][kGroup], against kColumn keys of a panel.
DS_HD void multiply(const float* panel, const float* group, int channels, Keys sums[kGroup][kWide]) {
    for (int r = 0; r < kGroup; ++r)
        for (int w = 0; w < kWide; ++w) sums[r][w] = Keys{};
    for (int c = 0; c < channels; ++c) {
        Keys keys[kWide];
        for (int w = 0; w < kWide; ++w) keys[w] = *reinterpret_cast<const Keys*>(panel + c * kPanelKeys + w * kLanes);
        for (int r = 0; r < kGroup; ++r) {
            const Keys query = all(group[c * kGroup + r]);
            for (int w = 0; w < kWide; ++w) sums[r][w] += query * keys[w];
        }
    }
}

constexpr int kTileKeys = 1024;  // scores of a block against so many keys fit the second-level cache
constexpr int kTileColumns = kTileKeys / kColumn, kTileVectors = kTileKeys / kLanes;
static_assert(kTileKeys % kPanelKeys == 0);

DS_HD float highest_lane(const Keys* v) {
    Keys most = v[0];
    for (int w = 1; w < kWide; ++w) most = v[w] > most ? v[w] : most;
    float found = most[0];
    for (int i = 1; i < kLanes; ++i) found = std::max(found, most[i]);
    return found;
}

struct Scratch {
    explicit Scratch(int channels)
        : candidates(kBlockRows), packed(static_cast<size_t>(kBlockRows) * channels), scores(kBlockRows * kTileVectors),
          highest(kBlockRows * kTileColumns) {}

    std::vector<Candidates> candidates;
    std::vector<float> packed;
    std::vector<Keys> scores;    // [rows][columns of a tile][kWide]
    std::vector<float> highest;  // [rows][columns of a tile]
};

// Appends the support of rows <= kBlockRows queries and tells how many keys each has.
static void support_of_block(const PackedKeys& keys, const float* queries, int rows, Scratch& scratch, Support& out,
                             int32_t* sizes) {
    auto& [candidates, packed, scores, highest] = scratch;
    const int channels = keys.channels;
    bool defined[kBlockRows];
    for (int row = 0; row < rows; ++row) {
        candidates[row].clear();
        float* group = packed.data() + row / kGroup * kGroup * channels + row % kGroup;
        float reach = 0.0f;
        for (int c = 0; c < channels; ++c) {
            const float value = queries[row * channels + c];
            group[c * kGroup] = value;
            reach += std::fabs(value);
        }
        // Neither NaN nor overflow can then occur.
        defined[row] = reach <= FLT_MAX && reach * keys.largest <= FLT_MAX;
    }
    for (int64_t tile = 0; tile < keys.count; tile += kTileKeys) {
        const int columns = static_cast<int>((std::min<int64_t>(keys.count - tile, kTileKeys) + kColumn - 1) / kColumn);
        for (int column = 0; column < columns; ++column) {
            const int64_t first = tile + column * kColumn, left = keys.count - first;
            const float* panel = keys.panel(first / kPanelKeys) + first % kPanelKeys;
            for (int group = 0; group * kGroup < rows; ++group) {
                Keys sums[kGroup][kWide];
                multiply(panel, packed.data() + group * kGroup * channels, channels, sums);
                for (int r = 0; r < kGroup; ++r) {
                    const int row = group * kGroup + r;
                    if (left < kColumn)
                        for (int w = 0; w < kWide; ++w) sums[r][w] = first_lanes(left - w * kLanes, sums[r][w]);
                    for (int w = 0; w < kWide; ++w) scores[row * kTileVectors + column * kWide + w] = sums[r][w];
                    highest[row * kTileColumns + column] = highest_lane(sums[r]);
                }
            }
        }
        for (int row = 0; row < rows; ++row)
            candidates[row].add(scores.data() + row * kTileVectors, highest.data() + row * kTileColumns, columns,
                                static_cast<int32_t>(tile));
    }
    for (int row = 0; row < rows; ++row)
        sizes[row] = defined[row] ? candidates[row].take(out) : Candidates::undefined(out);
}

static std::vector<Support> support(const PackedKeys& keys, const float* queries, int64_t rows, int threads,
                                    int32_t* sizes) {
    const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
    std::vector<Support> found(blocks);
#pragma omp parallel num_threads(threads)
    {
        Scratch scratch(keys.channels);
#pragma omp for schedule(dynamic)
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t first = block * kBlockRows;
            support_of_block(keys, queries + first * keys.channels, static_cast<int>(std::min<int64_t>(kBlockRows, rows - first)),
                             scratch, found[block], sizes + first);
        }
    }
    return found;
}

extern const LookupKernels lookup_table;
const LookupKernels lookup_table = {DS_STRING(DS_ISA), support};

}  // namespace dictsplat::DS_ISA
