// Tensors whose memory is kept from one code map to the next.
#pragma once

#include <cstddef>
#include <mutex>
#include <new>
#include <utility>

#include "arrays.h"

// Memory for code maps. They are hundreds of megabytes each, and the system clears fresh memory page by page,
// which takes as long as splatting; so the last map that was let go is kept for the next one of its size.
class MapPool {
  public:
    float* take(size_t count) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (kept_ != nullptr && kept_count_ == count) return std::exchange(kept_, nullptr);
        return static_cast<float*>(::operator new(count * sizeof(float), std::align_val_t(64)));
    }
    void give(float* data, size_t count) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (kept_ != nullptr) ::operator delete(kept_, std::align_val_t(64));
        kept_ = data;
        kept_count_ = count;
    }

  private:
    std::mutex mutex_;
    float* kept_ = nullptr;
    size_t kept_count_ = 0;
};

inline MapPool& map_pool() {
    static auto* pool = new MapPool;    // never destroyed: tensors may be freed after static objects
    return *pool;
}

// An uninitialised [count] tensor whose memory goes back to the pool when its last user lets go of it.
inline nb::ndarray<nb::pytorch, float, nb::ndim<1>> pooled_map(size_t count) {
    struct Owner {
        float* data;
        size_t count;
    };
    auto* owner = new Owner{map_pool().take(count), count};
    nb::capsule capsule(owner, [](void* p) noexcept {
        auto* o = static_cast<Owner*>(p);
        map_pool().give(o->data, o->count);
        delete o;
    });
    return {owner->data, {count}, capsule};
}
