// Tensors whose memory is kept from one code map to the next.
#pragma once

#include <cstddef>
#include <mutex>
#include <utility>

#include "arrays.h"
#include "cpu/buffer.h"

// Memory for code maps. They are hundreds of megabytes each, and the system clears fresh memory page by page,
// which takes as long as splatting; so the last map that was let go is kept for the next one of its size.
class MapPool {
  public:
    dictsplat::Buffer<float> take(size_t count) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (kept_.size() == count) return std::exchange(kept_, {});
        kept_ = {};     // or there would be two at a time
        return dictsplat::Buffer<float>(count);
    }
    void give(dictsplat::Buffer<float> map) {
        const std::lock_guard<std::mutex> lock(mutex_);
        kept_ = std::move(map);
    }

  private:
    std::mutex mutex_;
    dictsplat::Buffer<float> kept_;
};

inline MapPool& map_pool() {
    static auto* pool = new MapPool;    // never destroyed: tensors may be freed after static objects
    return *pool;
}

// An uninitialised [count] tensor whose memory goes back to the pool when its last user lets go of it.
inline nb::ndarray<nb::pytorch, float, nb::ndim<1>> pooled_map(size_t count) {
    auto* const map = new dictsplat::Buffer<float>(map_pool().take(count));
    nb::capsule owner(map, [](void* p) noexcept {
        auto* const done = static_cast<dictsplat::Buffer<float>*>(p);
        map_pool().give(std::move(*done));
        delete done;
    });
    return {map->data(), {count}, owner};
}
