// The block emulator: runs a CUDA kernel on the CPU and reports what a GPU would leave undefined.
//
// The threads of a block are fibers that take turns on one core and change only where they wait for each other, in
// a random order that the environment variable DS_EMULATOR_SEED chooses (default 1). Blocks run one after the other,
// in an order that depends on the seed too. An error ends the launch with an `Error` that names kernel, block and
// thread:
//   - threads of a block that wait at different barriers, or for a thread that has returned
//   - lanes of a warp that wait at different __sync intrinsics, with different masks, for lanes that have returned,
//     without being in their own mask, or for a value of a lane that does not take part
//   - shared memory (shared_checked.h): an index outside the array, an element nobody has written, two threads at
//     one element without a barrier between them, more bytes than launched with
//   - global memory: a fault; what C++ leaves undefined and g++ was asked to trap: misaligned vectors, an index
//     outside a local array, a division by zero; a stack above 64 KiB
// Not modelled: memory order between blocks or of global memory within one, speed, the GPU's rounding of __expf.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <type_traits>

namespace dictsplat::emulator {

class Error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

constexpr int kMaxThreads = 1024;                       // per block
constexpr int kLanes = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr std::size_t kSharedBytes = 48 * 1024;         // per block; more has to be asked for
constexpr std::size_t kMaxSharedBytes = 99 * 1024;      // all there is on sm_86, sm_89 and sm_120

struct Kernel {
    const void* function;                               // what it is known by
    void (*run)(const void* arguments);
    const void* arguments;
};

struct Site {
    const char* what;                                   // "__syncthreads"
    const char* file;
    int line;
};

// ---- called by the macros of cuda_runtime.h ----

// Waits for all threads of the block; returns how many of them came with `predicate`.
int sync_threads(const Site&, bool predicate);

// What the lanes of `mask` do together. `value` is what a lane gives, `source` the lane whose value it gets.
void sync_warp(const Site&, unsigned mask);
unsigned ballot(const Site&, unsigned mask, bool predicate);
std::uint64_t exchange(const Site&, unsigned mask, std::uint64_t value, int source);
int lane_of_running_thread();
[[noreturn]] void refuse_width(const Site&, int width);

struct SyncWarp {
    const Site& site;
    void operator()(unsigned mask = kAllLanes) const { sync_warp(site, mask); }
};

inline int any(const Site& site, unsigned mask, bool predicate) { return ballot(site, mask, predicate) != 0; }
inline int all(const Site& site, unsigned mask, bool predicate) { return ballot(site, mask, !predicate) == 0; }

enum class Move { kIndex, kUp, kDown, kXor };

// The lane that CUDA's shuffles read from: within segments of `width` lanes, and the own one beyond their ends.
template <Move move>
int source_lane(int lane, int operand, int width) {
    const int first = lane & ~(width - 1), last = first + width - 1;
    if (move == Move::kIndex) return first + (operand & (width - 1));
    if (move == Move::kUp) return lane - operand < first ? lane : lane - operand;
    const int source = move == Move::kDown ? lane + operand : lane ^ operand;
    return source > last ? lane : source;
}

template <Move move, class T>
T shuffle(const Site& site, unsigned mask, T value, int operand, int width = kLanes) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "shuffles move 4 or 8 bytes");
    if (width < 1 || width > kLanes || (width & (width - 1)) != 0) refuse_width(site, width);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = exchange(site, mask, bits, source_lane<move>(lane_of_running_thread(), operand, width));
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

}  // namespace dictsplat::emulator
