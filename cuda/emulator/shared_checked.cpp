// Keeps, for every element of shared memory, who touched it since the last barrier.
#include "shared_checked.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "block.h"

namespace dictsplat::emulator {

namespace {

constexpr int kNobody = -1;

// Who made accesses of one kind in one epoch. Lanes are told apart in the first warp that came only: once there is
// another warp, whoever conflicts with the accesses conflicts with one of the two.
struct Accesses {
    std::uint32_t epoch = 0;
    std::int16_t warp = 0;
    std::int16_t other = kNobody;       // a thread of another warp
    std::uint32_t lanes = 0;
    std::array<std::uint32_t, kLanes> clocks;

    void add(const Thread& thread) {
        if (epoch != block.epoch) {
            epoch = block.epoch;
            warp = static_cast<std::int16_t>(thread.warp());
            other = kNobody;
            lanes = 0;
        }
        if (warp != thread.warp()) {
            other = static_cast<std::int16_t>(thread.index);
        } else {
            lanes |= 1u << thread.lane();
            clocks[thread.lane()] = thread.clock;
        }
    }

    // A thread whose access the given one cannot rely on having happened.
    int unordered_with(const Thread& thread) const {
        if (epoch != block.epoch) return kNobody;
        if (warp == thread.warp() && other != kNobody) return other;
        for (std::uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
            const int lane = __builtin_ctz(rest);
            if (warp != thread.warp() || (lane != thread.lane() && thread.seen[lane] < clocks[lane]))
                return warp * kLanes + lane;
        }
        return kNobody;
    }
};

struct Element {
    std::uint32_t filled = 0;           // epoch of the first write
    std::uint32_t written = 0;          // epoch of the last write
    std::uint32_t clock = 0;
    std::int32_t writer = 0;
    Accesses reads, updates;

    int writer_unordered_with(const Thread& thread) const {
        if (written != block.epoch || writer == thread.index) return kNobody;
        const bool seen = writer / kLanes == thread.warp() && thread.seen[writer % kLanes] >= clock;
        return seen ? kNobody : writer;
    }
};

}  // namespace

struct SharedArray {
    const void* key = nullptr;          // of a static array
    std::string name;
    const std::type_info* type = nullptr;
    std::size_t element = 0;
    std::int64_t count = 0;
    std::size_t offset = 0;
    std::uint32_t laid_out = 0;         // epoch
    std::vector<Element> elements;
};

namespace {

alignas(16) unsigned char memory[kMaxSharedBytes];      // dynamic arrays, then static ones
std::size_t static_end = 0;
std::vector<std::unique_ptr<SharedArray>> dynamic_arrays, static_arrays;

std::size_t aligned(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

std::string text(const SharedArray& array) {
    int status = 0;
    char* const demangled = abi::__cxa_demangle(array.type->name(), nullptr, nullptr, &status);
    const std::string type = status == 0 ? demangled : array.type->name();
    std::free(demangled);
    return array.name + " (" + type + "[" + std::to_string(array.count) + "])";
}

std::string text(const SharedArray& array, std::int64_t index) {
    return "element " + std::to_string(index) + " of " + text(array);
}

// Whether the array is laid out in this block already; throws if it is, but not as this thread wants it.
bool agreed(const SharedArray& array, std::size_t offset, std::int64_t count, std::size_t element,
            const std::type_info& type) {
    if (array.laid_out < block.first_epoch) return false;
    if (array.offset != offset || array.count != count || array.element != element || *array.type != type)
        throw Error(where(running->index) + "threads disagree on " + text(array) + ": this one wants " +
                    std::to_string(count) + " elements of " + std::to_string(element) + " bytes at byte " +
                    std::to_string(offset));
    return true;
}

void lay_out(SharedArray& array, std::size_t offset, std::int64_t count, std::size_t element,
             const std::type_info& type, std::size_t limit, const char* limit_name) {
    const bool sane = count >= 0 && count <= static_cast<std::int64_t>(kMaxSharedBytes);
    if (!sane || offset + static_cast<std::size_t>(count) * element > limit)
        throw Error(where(running->index) + array.name + " needs " + std::to_string(count) + " elements of " +
                    std::to_string(element) + " bytes from byte " + std::to_string(offset) + ", more than the " +
                    std::to_string(limit) + " bytes " + limit_name);
    array.offset = offset;
    array.count = count;
    array.element = element;
    array.type = &type;
    array.laid_out = block.epoch;
    std::memset(memory + offset, 0xff, static_cast<std::size_t>(count) * element);
    array.elements.resize(std::max(array.elements.size(), static_cast<std::size_t>(count)));
}

Element& element_at(SharedArray& array, std::int64_t index) {
    if (index < 0 || index >= array.count)
        throw Error(where(running->index) + "shared memory index out of bounds: " + text(array, index));
    return array.elements[static_cast<std::size_t>(index)];
}

void* address_of(const SharedArray& array, std::int64_t index) {
    return memory + array.offset + static_cast<std::size_t>(index) * array.element;
}

void require_filled(const SharedArray& array, const Element& element, std::int64_t index) {
    if (element.filled < block.first_epoch)
        throw Error(where(running->index) + "reads " + text(array, index) + ", which this block has not written");
}

void forbid_race(const SharedArray& array, std::int64_t index, const char* does, int other, const char* did) {
    if (other == kNobody) return;
    const Site* const barrier = running->last_barrier;
    throw Error(where() + "race on " + text(array, index) + ": " + text_of_thread(running->index) + " " + does + ", " +
                text_of_thread(other) + " " + did + ", without a barrier between (the last one is " +
                (barrier == nullptr ? "the kernel's start" : text(*barrier)) + ")");
}

}  // namespace

void forget_shared_memory() {
    dynamic_arrays.clear();
    static_arrays.clear();
}

void begin_shared_memory() {
    static_end = aligned(block.shared_bytes);
}

void begin_arena() {
    if (running->arenas++ != 0)
        throw Error(where(running->index) + "makes a second SharedArena, which would overlap the first");
}

SharedArray& dynamic_array(int order, std::size_t offset, std::int64_t count, std::size_t element,
                           const std::type_info& type) {
    const auto position = static_cast<std::size_t>(order);
    if (position == dynamic_arrays.size()) {
        dynamic_arrays.push_back(std::make_unique<SharedArray>());
        dynamic_arrays.back()->name = "dynamic shared array " + std::to_string(order);
    }
    SharedArray& array = *dynamic_arrays[position];
    if (!agreed(array, offset, count, element, type))
        lay_out(array, offset, count, element, type, block.shared_bytes, "that the kernel was launched with");
    return array;
}

SharedArray& static_array(const void* key, const char* name, std::int64_t count, std::size_t element,
                          const std::type_info& type) {
    std::size_t position = 0;
    while (position < static_arrays.size() && static_arrays[position]->key != key) ++position;
    if (position == static_arrays.size()) {
        static_arrays.push_back(std::make_unique<SharedArray>());
        static_arrays.back()->key = key;
        static_arrays.back()->name = std::string("shared array `") + name + "`";
    }
    SharedArray& array = *static_arrays[position];
    if (!agreed(array, array.offset, count, element, type)) {
        lay_out(array, static_end, count, element, type, block.shared_limit, "of shared memory that a block has");
        static_end = aligned(static_end + static_cast<std::size_t>(count) * element);
    }
    return array;
}

const void* readable(SharedArray& array, std::int64_t index) {
    Element& element = element_at(array, index);
    require_filled(array, element, index);
    forbid_race(array, index, "reads", element.writer_unordered_with(*running), "wrote");
    forbid_race(array, index, "reads", element.updates.unordered_with(*running), "updated atomically");
    element.reads.add(*running);
    return address_of(array, index);
}

void* writable(SharedArray& array, std::int64_t index) {
    Element& element = element_at(array, index);
    forbid_race(array, index, "writes", element.writer_unordered_with(*running), "wrote");
    forbid_race(array, index, "writes", element.reads.unordered_with(*running), "read");
    forbid_race(array, index, "writes", element.updates.unordered_with(*running), "updated atomically");
    if (element.filled < block.first_epoch) element.filled = block.epoch;
    element.written = block.epoch;
    element.clock = running->clock;
    element.writer = running->index;
    return address_of(array, index);
}

void* updatable(SharedArray& array, std::int64_t index) {
    Element& element = element_at(array, index);
    require_filled(array, element, index);
    forbid_race(array, index, "updates atomically", element.writer_unordered_with(*running), "wrote");
    forbid_race(array, index, "updates atomically", element.reads.unordered_with(*running), "read");
    element.updates.add(*running);
    return address_of(array, index);
}

}  // namespace dictsplat::emulator
