// Fibers: functions with a stack each that hand the processor to each other by hand. One OS thread at a time.
#pragma once

#include <csetjmp>
#include <cstddef>

namespace dictsplat::emulator {

class Fiber {
  public:
    static constexpr std::size_t kStackBytes = 64 * 1024;

    Fiber();                                    // throws std::bad_alloc
    ~Fiber();
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    // From the scheduler: goes on where the fiber paused, or begins `entry`, which must not return.
    void resume(void (*entry)());
    // From the fiber: back to the scheduler.
    void pause();
    // From the fiber, or a signal that interrupted it: back to the scheduler, for good.
    [[noreturn]] static void abandon();
    // The next `resume` begins anew; what is on the stack is not destroyed.
    void restart() { started_ = false; }

    // Whether the address lies in the page that a stack must not grow into.
    bool is_guard(const void* address) const;

  private:
    static std::jmp_buf scheduler_;
    std::jmp_buf paused_;
    unsigned char* mapping_;                    // a guard page, then the stack
    std::size_t guard_bytes_;
    bool started_ = false;
};

}  // namespace dictsplat::emulator
