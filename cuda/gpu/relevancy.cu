// Text relevancy straight out of the code splat: cos(F_p, t) = (W_p . A t) / sqrt(W_p^T G W_p) with G = A A^T.
// The code map W_p stays in shared memory; G and the scores A t pass through it eight columns at a time, over the
// atoms that the patch uses. LERF's
// min_n softmax(temperature [s_phrase, s_negative_n])[0] is a sigmoid of s_phrase - max_n s_negative_n.
#include "code_map.cuh"

namespace dictsplat::gpu {

constexpr int kColumns = 8;

// The atoms that any pixel of the patch uses, in order: most patches use few, and the norm costs their square.
template <int kPixels>
class ActiveAtoms {
  public:
    static size_t bytes(int atoms) { return shared_bytes<uint8_t>(kWarps * atoms) + shared_bytes<int>(atoms + 1); }

    // All threads take part, after the splat; each has written its own pixel only.
    __device__ __forceinline__ ActiveAtoms(SharedArena& arena, int atoms)
        : atoms_(atoms), used_(arena.take<uint8_t>(kWarps * atoms)), list_(arena.take<int>(atoms + 1)) {}

    __device__ __forceinline__ void find(const CodeMap<kPixels>& map) {
        const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
        for (int first = 0; first < atoms_; first += 32) {
            bool mine = false;
            for (int i = 0; i < 32 && first + i < atoms_; ++i) {
                const bool any = __any_sync(kAllLanes, map.get(first + i, thread) != 0.0f);
                if (lane == i) mine = any;
            }
            if (first + lane < atoms_) used_[warp * atoms_ + first + lane] = mine;
        }
        __syncthreads();
        if (warp == 0) {
            int count = 0;
            for (int first = 0; first < atoms_; first += 32) {
                const int atom = first + lane;
                bool any = false;
                for (int w = 0; w < kWarps && atom < atoms_; ++w) any |= used_[w * atoms_ + atom] != 0;
                const unsigned users = __ballot_sync(kAllLanes, any);
                if (any) list_[count + __popc(users & ((1u << lane) - 1))] = atom;
                count += __popc(users);
            }
            if (lane == 0) list_[atoms_] = count;
        }
        __syncthreads();
    }
    __device__ __forceinline__ int count() const { return list_[atoms_]; }
    __device__ __forceinline__ int operator[](int i) const { return list_[i]; }

  private:
    static constexpr int kWarps = kPixels / 32;
    int atoms_;
    Shared<uint8_t> used_;
    Shared<int> list_;
};

// Columns first..first + 7 of a matrix with a row per active atom, zeros beyond the last.
class Table {
  public:
    static size_t bytes(int atoms) { return shared_bytes<float4>(2 * atoms); }

    __device__ __forceinline__ Table(SharedArena& arena, int atoms) : quads_(arena.take<float4>(2 * atoms)) {}

    // element(row, column) is read from memory; all threads take part.
    template <class Element>
    __device__ __forceinline__ void load(int rows, int first, int columns, Element&& element) {
        __syncthreads();        // the last columns may still be in use
        for (int i = threadIdx.x; i < 2 * rows; i += blockDim.x) {
            const int column = first + i % 2 * 4;
            float quad[4];
#pragma unroll
            for (int c = 0; c < 4; ++c) quad[c] = column + c < columns ? element(i / 2, column + c) : 0.0f;
            quads_[i] = make_float4(quad[0], quad[1], quad[2], quad[3]);
        }
        __syncthreads();
    }

    // sums[c] += scale * table[row][c]
    __device__ __forceinline__ void accumulate(int row, float scale, float (&sums)[kColumns]) const {
        const float4 low = quads_[2 * row], high = quads_[2 * row + 1];
        sums[0] += scale * low.x, sums[1] += scale * low.y, sums[2] += scale * low.z, sums[3] += scale * low.w;
        sums[4] += scale * high.x, sums[5] += scale * high.y, sums[6] += scale * high.z, sums[7] += scale * high.w;
    }

  private:
    Shared<float4> quads_;
};

// Four blocks per multiprocessor: the registers that allows are more than enough, the default leads to spills.
template <int kPixels>
__global__ void __launch_bounds__(kPixels, 4) relevancy_kernel(SplatLists s, Codes codes, RelevancyQuery query,
                                                               float* __restrict__ out, float* __restrict__ alphas) {
    SharedArena arena;
    const Staging<kPixels> staging(arena);
    const int level = blockIdx.y, thread = threadIdx.x, atoms = codes.atoms;
    CodeMap<kPixels> map(arena, codes, level);
    ActiveAtoms<kPixels> active(arena, atoms);
    Table table(arena, atoms);
    const Patch<kPixels> patch(s);
    const float alpha = map.splat(s, patch, staging);
    const bool inside = patch.inside(s, thread);
    if (level == 0 && inside) alphas[patch.pixel(s, thread)] = alpha;
    active.find(map);
    const int count = active.count();

    // W^T G W. G is symmetric: eight columns against the same eight rows, and twice against the rows after them.
    const float* const gram = query.gram + static_cast<int64_t>(level) * atoms * atoms;
    float norm = 0.0f;
    for (int first = 0; first < count; first += kColumns) {
        table.load(count, first, count, [&](int row, int column) { return __ldg(gram + active[row] * atoms + active[column]); });
        float products[kColumns] = {};
        const int after = first + kColumns < count ? first + kColumns : count;
        for (int row = after; row < count; ++row) table.accumulate(row, 2.0f * map.get(active[row], thread), products);
        for (int row = first; row < after; ++row) table.accumulate(row, map.get(active[row], thread), products);
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
            if (first + c < count) norm += products[c] * map.get(active[first + c], thread);
    }
    const float scale = norm > 1e-12f ? query.temperature * rsqrtf(norm) : 0.0f;

    // From the last text to the first: the negatives are behind the phrases, so their highest score is known in time,
    // and a few phrases and the negatives share one table.
    const float* const scores = query.scores + static_cast<int64_t>(level) * query.texts * atoms;
    const int64_t plane = static_cast<int64_t>(s.width) * s.height;
    const int64_t pixel = patch.pixel(s, thread) - patch.camera * plane;
    float rival = -1e30f;
    for (int last = query.texts; last > 0; last -= kColumns) {
        const int first = last > kColumns ? last - kColumns : 0;
        table.load(count, first, last, [&](int row, int text) { return __ldg(scores + text * atoms + active[row]); });
        float dots[kColumns] = {};
        for (int row = 0; row < count; ++row) table.accumulate(row, map.get(active[row], thread), dots);
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
            if (first + c >= query.phrases && first + c < last) rival = fmaxf(rival, dots[c]);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
            const int phrase = first + c;
            if (!inside || phrase >= query.phrases || phrase >= last) continue;
            const float value = 1.0f / (1.0f + __expf((rival - dots[c]) * scale));
            const int64_t map_index = (static_cast<int64_t>(patch.camera) * query.phrases + phrase) * codes.levels + level;
            out[map_index * plane + pixel] = scale > 0.0f ? value : 0.0f;
        }
    }
}

template <int kPixels>
static BlockShape shape_of(const Codes& codes) {
    return {kPixels, Staging<kPixels>::kBytes + CodeMap<kPixels>::bytes(codes) + ActiveAtoms<kPixels>::bytes(codes.atoms) +
                         Table::bytes(codes.atoms)};
}

template <int kPixels>
static void launch_relevancy(const SplatLists& s, const Codes& codes, const RelevancyQuery& query, float* out, float* alphas,
                             cudaStream_t stream) {
    launch("splatting relevancy", relevancy_kernel<kPixels>, patch_grid<kPixels>(s, codes.levels), shape_of<kPixels>(codes),
           stream, s, codes, query, out, alphas);
}

void relevancy(const SplatLists& s, const Codes& codes, const RelevancyQuery& query, float* out, float* alphas,
               cudaStream_t stream) {
    switch (pixels_for(codes.atoms)) {
        case 128: return launch_relevancy<128>(s, codes, query, out, alphas, stream);
        case 64: return launch_relevancy<64>(s, codes, query, out, alphas, stream);
        default: return launch_relevancy<32>(s, codes, query, out, alphas, stream);
    }
}

BlockShape relevancy_block(const Codes& codes) {
    switch (pixels_for(codes.atoms)) {
        case 128: return shape_of<128>(codes);
        case 64: return shape_of<64>(codes);
        default: return shape_of<32>(codes);
    }
}

}  // namespace dictsplat::gpu
