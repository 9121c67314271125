// Runs the blocks of a launch, and the threads of a block up to where they wait.
#include "emulator.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>

#include "block.h"
#include "faults.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace dictsplat::emulator {

Kernel kernel;
Block block;
Thread* running = nullptr;

namespace {

std::vector<std::unique_ptr<Thread>> pool;
std::vector<Thread*> ready;             // what the next round runs
std::size_t arrived = 0;                // at a barrier of the block
std::string failure;                    // of a thread; empty: none

class Random {                          // splitmix64
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    std::size_t below(std::size_t bound) { return static_cast<std::size_t>((next() >> 32) * bound >> 32); }

  private:
    std::uint64_t state_;
};

std::uint64_t seed_of_environment() {
    const char* const text = std::getenv("DS_EMULATOR_SEED");
    return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

// What a fiber runs, block after block.
void run_thread() {
    Thread& self = *running;
    for (;;) {
        try {
            kernel.run(kernel.arguments);
            self.state = State::kReturned;
        } catch (const Error& error) {
            failure = error.what();
        } catch (const std::exception& error) {
            failure = where(self.index) + "an exception: " + error.what();
        } catch (...) {
            failure = where(self.index) + "an unknown exception";
        }
        self.fiber.pause();
    }
}

std::string describe_fault() {
    const Fault& fault = FaultWatch::fault;
    const std::string at = where(running->index);
    if (fault.signal != SIGSEGV && fault.signal != SIGBUS)
        return at + "undefined behaviour: a misaligned vector, an index outside a local array, or a division by zero";
    if (running->fiber.is_guard(fault.address)) return at + "its local variables need more than 64 KiB of stack";
    char address[32];
    std::snprintf(address, sizeof address, "%p", fault.address);
    return at + "global memory access out of bounds, at address " + address;
}

void run_until_wait(Thread& thread) {
    running = &thread;
    const unsigned i = static_cast<unsigned>(thread.index), row = i / blockDim.x;
    threadIdx = {i % blockDim.x, row % blockDim.y, row / blockDim.y};
    FaultWatch::in_fiber = true;
    thread.fiber.resume(run_thread);
    FaultWatch::in_fiber = false;
    if (FaultWatch::fault.signal != 0) throw Error(describe_fault());
    if (!failure.empty()) throw Error(failure);
}

void run_block(Random random) {
    block.first_epoch = ++block.epoch;
    arrived = 0;
    begin_shared_memory();
    for (Thread* thread : block.threads) {
        thread->last_barrier = nullptr;
        thread->arenas = 0;
        release(*thread);
    }
    std::vector<Thread*> round;
    while (!ready.empty()) {
        round.swap(ready);
        ready.clear();
        for (std::size_t i = round.size(); i > 1; --i) std::swap(round[i - 1], round[random.below(i)]);
        for (Thread* thread : round) run_until_wait(*thread);
    }
    for (const Thread* thread : block.threads)
        if (thread->state != State::kReturned) throw Error(describe_deadlock());
}

void seat_threads(std::size_t count) {
    while (pool.size() < count) {
        pool.push_back(std::make_unique<Thread>());
        pool.back()->index = static_cast<int>(pool.size()) - 1;
    }
    block.threads.clear();
    for (std::size_t i = 0; i < count; ++i) block.threads.push_back(pool[i].get());
}

}  // namespace

void wait() { running->fiber.pause(); }

void release(Thread& thread) {
    thread.state = State::kReady;
    ready.push_back(&thread);
}

int sync_threads(const Site& site, bool predicate) {
    Thread& self = *running;
    self.site = &site;
    self.value = predicate;
    self.state = State::kAtBarrier;
    bool complete = ++arrived == block.threads.size();
    std::uint64_t votes = 0;
    for (std::size_t i = 0; complete && i < block.threads.size(); ++i) {
        votes += block.threads[i]->value;
        complete = block.threads[i]->site == &site;
    }
    if (complete) {
        arrived = 0;
        ++block.epoch;
        for (Thread* thread : block.threads) {
            thread->result = votes;
            thread->last_barrier = &site;
            release(*thread);
        }
    }
    wait();
    return static_cast<int>(self.result);
}

void run_grid(const Kernel& what, dim3 grid, dim3 threads, std::size_t shared_bytes, std::size_t shared_limit) {
    static std::mutex one_launch;
    const std::lock_guard<std::mutex> lock(one_launch);
    kernel = what;
    gridDim = grid;
    blockDim = threads;
    block.epoch = 0;
    block.shared_bytes = shared_bytes;
    block.shared_limit = shared_limit;
    failure.clear();
    ready.clear();
    seat_threads(std::size_t{threads.x} * threads.y * threads.z);
    forget_shared_memory();

    const std::uint64_t seed = seed_of_environment(), blocks = std::uint64_t{grid.x} * grid.y * grid.z;
    // Steps of a length that has no factor in common with their number visit every block once.
    Random random(seed);
    std::uint64_t step = random.next() % blocks + 1, at = random.next() % blocks;
    while (std::gcd(step, blocks) != 1) ++step;
    const FaultWatch watch;
    try {
        for (std::uint64_t i = 0; i < blocks; ++i, at = (at + step) % blocks) {
            blockIdx = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                        static_cast<unsigned>(at / grid.x / grid.y)};
            run_block(Random(seed * 0x9e3779b97f4a7c15u ^ at));
        }
    } catch (...) {
        for (Thread* thread : block.threads) thread->fiber.restart();
        throw;
    }
}

}  // namespace dictsplat::emulator
