// Turns the signals of a faulty kernel into something that can be reported.
#pragma once

#include <signal.h>

#include <array>

namespace dictsplat::emulator {

// What stopped a fiber.
struct Fault {
    int signal = 0;                     // 0: nothing did
    const void* address = nullptr;
};

// While it lives, faults of this OS thread within fibers end the fiber (Fiber::abandon) and are noted in `fault`.
// Those of others go to whoever handled them before.
class FaultWatch {
  public:
    FaultWatch();
    ~FaultWatch();
    FaultWatch(const FaultWatch&) = delete;
    FaultWatch& operator=(const FaultWatch&) = delete;

    static volatile bool in_fiber;      // set by the scheduler around Fiber::resume
    static Fault fault;

  private:
    static constexpr std::array<int, 4> kSignals = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};

    static void handle(int signal, siginfo_t* info, void*);
    void restore();

    static FaultWatch* active_;
    pthread_t thread_;
    std::array<struct sigaction, kSignals.size()> before_;
    stack_t stack_before_;
};

}  // namespace dictsplat::emulator
