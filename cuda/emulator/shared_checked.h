// Shared memory whose every access is checked: the emulator's version of the classes in cuda/gpu/device.cuh.
//
// An element may be read once it was written in this block. Two threads may touch it, at least one of them writing,
// if a barrier of the block lies between, or a __syncwarp of both; shuffles and votes do not order memory. Atomics on
// one element need nothing between them.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <typeinfo>

#include "emulator.h"

namespace dictsplat {

namespace emulator {

struct SharedArray;

// The array of the running block, laid out when the first thread asks for it. `order` counts the calls of a thread.
SharedArray& dynamic_array(int order, std::size_t offset, std::int64_t count, std::size_t element,
                           const std::type_info&);
SharedArray& static_array(const void* key, const char* name, std::int64_t count, std::size_t element,
                          const std::type_info&);
void begin_arena();

// Address of an element that the running thread may read, write, read and write atomically; throw Error otherwise.
const void* readable(SharedArray&, std::int64_t index);
void* writable(SharedArray&, std::int64_t index);
void* updatable(SharedArray&, std::int64_t index);

}  // namespace emulator

template <class T>
class SharedPointer;

// What `shared[i]` is: reads where a T is wanted, writes where one is assigned. `auto x = shared[i]` does not read.
template <class T>
class SharedRef {
  public:
    SharedRef(emulator::SharedArray& array, std::int64_t index) : array_(array), index_(index) {}
    SharedRef(const SharedRef&) = default;

    operator T() const {
        T value;
        std::memcpy(&value, emulator::readable(array_, index_), sizeof(T));
        return value;
    }
    const SharedRef& operator=(const T& value) const {
        std::memcpy(emulator::writable(array_, index_), &value, sizeof(T));
        return *this;
    }
    const SharedRef& operator=(const SharedRef& other) const { return *this = static_cast<T>(other); }
    SharedRef& operator=(const SharedRef& other) {
        *this = static_cast<T>(other);
        return *this;
    }
    const SharedRef& operator+=(const T& value) const { return *this = static_cast<T>(static_cast<T>(*this) + value); }
    const SharedRef& operator-=(const T& value) const { return *this = static_cast<T>(static_cast<T>(*this) - value); }
    const SharedRef& operator*=(const T& value) const { return *this = static_cast<T>(static_cast<T>(*this) * value); }
    const SharedRef& operator/=(const T& value) const { return *this = static_cast<T>(static_cast<T>(*this) / value); }
    const SharedRef& operator|=(const T& value) const { return *this = static_cast<T>(static_cast<T>(*this) | value); }
    const SharedRef& operator&=(const T& value) const { return *this = static_cast<T>(static_cast<T>(*this) & value); }

    SharedPointer<T> operator&() const { return SharedPointer<T>(array_, index_); }

    friend T atomicAdd(const SharedRef& at, T value) {
        return at.update([&](T old) { return static_cast<T>(old + value); });
    }
    friend T atomicMax(const SharedRef& at, T value) {
        return at.update([&](T old) { return old < value ? value : old; });
    }
    friend T atomicMin(const SharedRef& at, T value) {
        return at.update([&](T old) { return value < old ? value : old; });
    }

  private:
    template <class Change>
    T update(Change change) const {
        void* const address = emulator::updatable(array_, index_);
        T old;
        std::memcpy(&old, address, sizeof(T));
        const T changed = change(old);
        std::memcpy(address, &changed, sizeof(T));
        return old;
    }

    emulator::SharedArray& array_;
    std::int64_t index_;
};

// What `&shared[i]` is: something atomics take.
template <class T>
class SharedPointer {
  public:
    SharedPointer(emulator::SharedArray& array, std::int64_t index) : target_(array, index) {}

    friend T atomicAdd(const SharedPointer& at, T value) { return atomicAdd(at.target_, value); }
    friend T atomicMax(const SharedPointer& at, T value) { return atomicMax(at.target_, value); }
    friend T atomicMin(const SharedPointer& at, T value) { return atomicMin(at.target_, value); }

  private:
    SharedRef<T> target_;
};

template <class T>
class Shared {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 16, "shared memory holds plain data");

  public:
    using Ref = SharedRef<T>;

    explicit Shared(emulator::SharedArray& array) : array_(&array) {}
    Ref operator[](std::int64_t index) const { return Ref(*array_, index); }

  private:
    emulator::SharedArray* array_;
};

// The dynamic shared memory. A kernel makes one, and every thread takes the same arrays from it.
class SharedArena {
  public:
    SharedArena() { emulator::begin_arena(); }
    SharedArena(const SharedArena&) = delete;
    SharedArena& operator=(const SharedArena&) = delete;

    // The next `count` elements, aligned to 16 bytes.
    template <class T>
    Shared<T> take(std::int64_t count) {
        const std::size_t offset = offset_;
        emulator::SharedArray& array = emulator::dynamic_array(taken_++, offset, count, sizeof(T), typeid(T));
        offset_ += (static_cast<std::size_t>(count) * sizeof(T) + 15) / 16 * 16;
        return Shared<T>(array);
    }

  private:
    int taken_ = 0;
    std::size_t offset_ = 0;
};

}  // namespace dictsplat

// A static shared array of a kernel.
#define DS_SHARED(T, name, count)                        \
    static const char name##_key = 0;                    \
    const ::dictsplat::Shared<T> name(                   \
        ::dictsplat::emulator::static_array(&name##_key, #name, count, sizeof(T), typeid(T)))
