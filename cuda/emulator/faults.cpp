#include "faults.h"

#include <pthread.h>

#include "fiber.h"

namespace dictsplat::emulator {

volatile bool FaultWatch::in_fiber = false;
Fault FaultWatch::fault;
FaultWatch* FaultWatch::active_ = nullptr;

// The stack of the fiber may be what is used up.
alignas(16) static unsigned char handler_stack[64 * 1024];

FaultWatch::FaultWatch() : thread_(pthread_self()) {
    fault = {};
    active_ = this;
    stack_t stack = {};
    stack.ss_sp = handler_stack;
    stack.ss_size = sizeof handler_stack;
    sigaltstack(&stack, &stack_before_);
    struct sigaction action = {};
    action.sa_sigaction = handle;
    // SA_NODEFER: the handler is left by a jump, which must not leave the signal blocked.
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &before_[i]);
}

FaultWatch::~FaultWatch() {
    restore();
    sigaltstack(&stack_before_, nullptr);
    active_ = nullptr;
}

void FaultWatch::restore() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before_[i], nullptr);
}

void FaultWatch::handle(int signal, siginfo_t* info, void*) {
    if (!in_fiber || !pthread_equal(pthread_self(), active_->thread_)) {
        active_->restore();             // and the instruction faults again
        return;
    }
    fault = {signal, info->si_addr};
    Fiber::abandon();
}

}  // namespace dictsplat::emulator
