// The block that is running: what the files of the emulator share.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "fiber.h"

namespace dictsplat::emulator {

enum class State { kReady, kAtBarrier, kAtWarp, kReturned };

struct Thread {
    Fiber fiber;
    int index = 0;                      // within the block, x fastest
    State state = State::kReady;

    // What it waits for, and there gives and gets.
    const Site* site = nullptr;
    unsigned mask = 0;
    std::uint64_t value = 0;
    int source = 0;
    std::uint64_t result = 0;

    const Site* last_barrier = nullptr; // of the block, that it has passed

    // A vector clock of the warp's lanes, moved on by __syncwarp: what lane l did at its tick n is visible to this
    // thread once seen[l] >= n.
    std::uint32_t clock = 1;
    std::array<std::uint32_t, kLanes> seen = {};

    int arenas = 0;                     // of dynamic shared memory, begun

    int warp() const { return index / kLanes; }
    int lane() const { return index % kLanes; }
};

struct Block {
    std::vector<Thread*> threads;       // by index
    std::uint32_t epoch = 0;            // moves on at every barrier and every block of a launch
    std::uint32_t first_epoch = 0;      // of this block
    std::size_t shared_bytes = 0;       // dynamic
    std::size_t shared_limit = 0;       // static and dynamic together
};

extern Kernel kernel;
extern Block block;
extern Thread* running;

// Runs a launch that fits the device; throws Error.
void run_grid(const Kernel&, dim3 grid, dim3 threads, std::size_t shared_bytes, std::size_t shared_limit);

// The running thread waits until another one releases it.
void wait();
void release(Thread&);

// ---- shared_checked.cpp ----
void forget_shared_memory();            // at the beginning of a launch
void begin_shared_memory();             // at that of a block

// ---- report.cpp ----
std::string text(const Site&);          // "__syncthreads (walk.cuh:12)"
std::string text_of_thread(int index);  // "thread (1, 0, 0)"
std::string where();                    // "kernel f, block (0, 0, 0): "
std::string where(int thread);          // "kernel f, block (0, 0, 0), thread (1, 0, 0): "
std::string describe_deadlock();        // why no thread can go on

}  // namespace dictsplat::emulator
