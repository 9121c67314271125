// The checked longjmp of _FORTIFY_SOURCE takes a jump to another stack for a mistake.
#undef _FORTIFY_SOURCE

#include "fiber.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <new>

namespace dictsplat::emulator {

std::jmp_buf Fiber::scheduler_;

// Without the signal mask, which swapcontext saves by a system call each time.
static __attribute__((noinline)) void switch_context(std::jmp_buf from, std::jmp_buf to) {
    if (_setjmp(from) == 0) _longjmp(to, 1);
}

static __attribute__((noinline)) void switch_context(std::jmp_buf from, const ucontext_t* to) {
    if (_setjmp(from) == 0) setcontext(to);
}

Fiber::Fiber() : guard_bytes_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    void* const mapping = mmap(nullptr, guard_bytes_ + kStackBytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    mapping_ = static_cast<unsigned char*>(mapping);
    if (mprotect(mapping_, guard_bytes_, PROT_NONE) != 0) {
        munmap(mapping_, guard_bytes_ + kStackBytes);
        throw std::bad_alloc();
    }
}

Fiber::~Fiber() { munmap(mapping_, guard_bytes_ + kStackBytes); }

void Fiber::resume(void (*entry)()) {
    if (started_) {
        switch_context(scheduler_, paused_);
        return;
    }
    started_ = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = mapping_ + guard_bytes_;
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
    switch_context(scheduler_, &context);
}

void Fiber::pause() { switch_context(paused_, scheduler_); }

void Fiber::abandon() { _longjmp(scheduler_, 1); }

bool Fiber::is_guard(const void* address) const {
    const auto* at = static_cast<const unsigned char*>(address);
    return at >= mapping_ && at < mapping_ + guard_bytes_;
}

}  // namespace dictsplat::emulator
