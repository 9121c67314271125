// Text relevancy straight out of the code splat: cos(F_p, t) = (W_p . A t) / sqrt(W_p^T G W_p) with G = A A^T.
// The code map W_p stays in shared memory; G and the scores A t pass through it eight columns at a time. LERF's
// min_n softmax(temperature [s_phrase, s_negative_n])[0] is a sigmoid of s_phrase - max_n s_negative_n.
#include "code_map.cuh"

namespace dictsplat::gpu {

constexpr int kColumns = 8;

// Columns first..first + 7 of a matrix whose rows are atoms, zeros beyond the last.
class Table {
  public:
    static size_t bytes(int atoms) { return shared_bytes<float4>(2 * atoms); }

    __device__ __forceinline__ Table(SharedArena& arena, int atoms) : quads_(arena.take<float4>(2 * atoms)) {}

    // element(atom, column) is read from memory; all threads take part.
    template <class Element>
    __device__ __forceinline__ void load(int atoms, int first, int columns, Element&& element) {
        __syncthreads();        // the last columns may still be in use
        for (int i = threadIdx.x; i < 2 * atoms; i += blockDim.x) {
            const int atom = i / 2, column = first + i % 2 * 4;
            float quad[4];
#pragma unroll
            for (int c = 0; c < 4; ++c) quad[c] = column + c < columns ? element(atom, column + c) : 0.0f;
            quads_[i] = make_float4(quad[0], quad[1], quad[2], quad[3]);
        }
        __syncthreads();
    }

    // sums[c] += scale * table[atom][c]
    __device__ __forceinline__ void accumulate(int atom, float scale, float (&sums)[kColumns]) const {
        const float4 low = quads_[2 * atom], high = quads_[2 * atom + 1];
        sums[0] += scale * low.x, sums[1] += scale * low.y, sums[2] += scale * low.z, sums[3] += scale * low.w;
        sums[4] += scale * high.x, sums[5] += scale * high.y, sums[6] += scale * high.z, sums[7] += scale * high.w;
    }

  private:
    Shared<float4> quads_;
};

template <int kPixels>
__global__ void __launch_bounds__(kPixels, 4) relevancy_kernel(SplatLists s, Codes codes, RelevancyQuery query,
                                                            float* __restrict__ out, float* __restrict__ alphas) {
    SharedArena arena;
    const Staging<kPixels> staging(arena);
    const int level = blockIdx.y, thread = threadIdx.x, atoms = codes.atoms;
    CodeMap<kPixels> map(arena, codes, level);
    Table table(arena, atoms);
    const Patch<kPixels> patch(s);
    const float left = map.splat(s, patch, staging);
    const bool inside = patch.inside(s, thread);
    if (level == 0 && inside) alphas[patch.pixel(s, thread)] = 1.0f - left;

    // W^T G W. G is symmetric: eight columns against the same eight rows, and twice against the rows after them.
    const float* const gram = query.gram + static_cast<int64_t>(level) * atoms * atoms;
    float norm = 0.0f;
    for (int first = 0; first < atoms; first += kColumns) {
        table.load(atoms, first, atoms, [&](int atom, int column) { return __ldg(gram + atom * atoms + column); });
        float products[kColumns] = {};
        const int after = first + kColumns < atoms ? first + kColumns : atoms;
        for (int atom = after; atom < atoms; ++atom) table.accumulate(atom, 2.0f * map.get(atom, thread), products);
        for (int atom = first; atom < after; ++atom) table.accumulate(atom, map.get(atom, thread), products);
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
            if (first + c < atoms) norm += products[c] * map.get(first + c, thread);
    }
    const float scale = norm > 1e-12f ? query.temperature * rsqrtf(norm) : 0.0f;

    const float* const scores = query.scores + static_cast<int64_t>(level) * query.texts * atoms;
    auto dots = [&](int first, int last, float (&sums)[kColumns]) {
        table.load(atoms, first, last, [&](int atom, int text) { return __ldg(scores + text * atoms + atom); });
        for (int atom = 0; atom < atoms; ++atom) table.accumulate(atom, map.get(atom, thread), sums);
    };
    float rival = -1e30f;
    for (int first = query.phrases; first < query.texts; first += kColumns) {
        float sums[kColumns] = {};
        dots(first, query.texts, sums);
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
            if (first + c < query.texts) rival = fmaxf(rival, sums[c]);
    }
    const int64_t plane = static_cast<int64_t>(s.width) * s.height;
    const int64_t pixel = patch.pixel(s, thread) - patch.camera * plane;
    for (int first = 0; first < query.phrases; first += kColumns) {
        float sums[kColumns] = {};
        dots(first, query.phrases, sums);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
            const int phrase = first + c;
            if (!inside || phrase >= query.phrases) continue;
            const float value = 1.0f / (1.0f + __expf((rival - sums[c]) * scale));
            const int64_t map_index = (static_cast<int64_t>(patch.camera) * query.phrases + phrase) * codes.levels + level;
            out[map_index * plane + pixel] = scale > 0.0f ? value : 0.0f;
        }
    }
}

template <int kPixels>
static void launch_relevancy(const SplatLists& s, const Codes& codes, const RelevancyQuery& query, float* out, float* alphas,
                             cudaStream_t stream) {
    const size_t bytes = Staging<kPixels>::kBytes + CodeMap<kPixels>::bytes(codes) + Table::bytes(codes.atoms);
    launch("splatting relevancy", relevancy_kernel<kPixels>, patch_grid<kPixels>(s, codes.levels), kPixels, bytes, stream, s,
           codes, query, out, alphas);
}

void relevancy(const SplatLists& s, const Codes& codes, const RelevancyQuery& query, float* out, float* alphas,
               cudaStream_t stream) {
    switch (pixels_for(codes.atoms)) {
        case 128: return launch_relevancy<128>(s, codes, query, out, alphas, stream);
        case 64: return launch_relevancy<64>(s, codes, query, out, alphas, stream);
        default: return launch_relevancy<32>(s, codes, query, out, alphas, stream);
    }
}

}  // namespace dictsplat::gpu
