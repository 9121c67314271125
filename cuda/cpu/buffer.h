// Memory for large intermediate results.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace dictsplat {

// An array whose elements start unset: it is filled in parallel, and clearing it first would take one thread as long.
// Large ones lie on huge pages where the system has them.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t size) : size_(size), data_(static_cast<T*>(::operator new(std::max<size_t>(size, 1) * sizeof(T), alignment(size)))) {
#if defined(MADV_HUGEPAGE)
        if (size * sizeof(T) >= kHugePage) madvise(data_, size * sizeof(T), MADV_HUGEPAGE);
#endif
    }
    Buffer(Buffer&& other) noexcept : size_(std::exchange(other.size_, 0)), data_(std::exchange(other.data_, nullptr)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(size_, other.size_);
        std::swap(data_, other.data_);
        return *this;
    }
    ~Buffer() {
        if (data_ != nullptr) ::operator delete(data_, alignment(size_));
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return size_; }

  private:
    static constexpr size_t kHugePage = size_t{1} << 21;
    static std::align_val_t alignment(size_t size) { return std::align_val_t(size * sizeof(T) >= kHugePage ? kHugePage : 64); }

    size_t size_ = 0;
    T* data_ = nullptr;
};

}  // namespace dictsplat
