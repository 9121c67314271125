// What the lanes of a warp do together: __syncwarp, votes, shuffles.
#include <algorithm>
#include <cstdio>

#include "block.h"

namespace dictsplat::emulator {

namespace {

bool has(unsigned mask, int lane) { return lane >= 0 && lane < kLanes && (mask >> lane & 1u) != 0; }

std::string text_of_mask(unsigned mask) {
    char digits[16];
    std::snprintf(digits, sizeof digits, "0x%08x", mask);
    return digits;
}

// The lanes of the mask that the block has; the last warp may lack some.
unsigned present(unsigned mask, int warp) {
    const std::size_t count = block.threads.size() - static_cast<std::size_t>(warp) * kLanes;
    return count >= kLanes ? mask : mask & ((1u << count) - 1);
}

// Waits until all lanes of the mask are at this site with this mask. The last one to come calls `act(lanes, first)`,
// where `first[l]` is the thread of lane l.
template <class Act>
void meet(const Site& site, unsigned mask, Act act) {
    Thread& self = *running;
    if (!has(mask, self.lane()))
        throw Error(where(self.index) + "lane " + std::to_string(self.lane()) + " is not in its own mask " +
                    text_of_mask(mask) + " in " + text(site));
    self.site = &site;
    self.mask = mask;
    self.state = State::kAtWarp;
    Thread* const* const first = &block.threads[static_cast<std::size_t>(self.warp()) * kLanes];
    const unsigned lanes = present(mask, self.warp());
    bool complete = true;
    for (int lane = 0; complete && lane < kLanes; ++lane)
        complete = !has(lanes, lane) ||
                   (first[lane]->state == State::kAtWarp && first[lane]->site == &site && first[lane]->mask == mask);
    if (complete) {
        act(lanes, first);
        for (int lane = 0; lane < kLanes; ++lane)
            if (has(lanes, lane)) release(*first[lane]);
    }
    wait();
}

}  // namespace

int lane_of_running_thread() { return running->lane(); }

void sync_warp(const Site& site, unsigned mask) {
    meet(site, mask, [](unsigned lanes, Thread* const* first) {
        std::array<std::uint32_t, kLanes> seen = {};
        for (int lane = 0; lane < kLanes; ++lane) {
            if (!has(lanes, lane)) continue;
            for (int other = 0; other < kLanes; ++other) seen[other] = std::max(seen[other], first[lane]->seen[other]);
            seen[lane] = std::max(seen[lane], first[lane]->clock);
        }
        for (int lane = 0; lane < kLanes; ++lane) {
            if (!has(lanes, lane)) continue;
            first[lane]->seen = seen;
            ++first[lane]->clock;
        }
    });
}

unsigned ballot(const Site& site, unsigned mask, bool predicate) {
    running->value = predicate;
    meet(site, mask, [](unsigned lanes, Thread* const* first) {
        unsigned votes = 0;
        for (int lane = 0; lane < kLanes; ++lane)
            if (has(lanes, lane) && first[lane]->value != 0) votes |= 1u << lane;
        for (int lane = 0; lane < kLanes; ++lane)
            if (has(lanes, lane)) first[lane]->result = votes;
    });
    return static_cast<unsigned>(running->result);
}

std::uint64_t exchange(const Site& site, unsigned mask, std::uint64_t value, int source) {
    running->value = value;
    running->source = source;
    meet(site, mask, [&site](unsigned lanes, Thread* const* first) {
        for (int lane = 0; lane < kLanes; ++lane) {
            if (!has(lanes, lane)) continue;
            if (!has(lanes, first[lane]->source))
                throw Error(where(first[lane]->index) + "reads from lane " + std::to_string(first[lane]->source) +
                            ", which takes no part in " + text(site) + ", mask " + text_of_mask(first[lane]->mask));
            first[lane]->result = first[first[lane]->source]->value;
        }
    });
    return running->result;
}

void refuse_width(const Site& site, int width) {
    throw Error(where(running->index) + text(site) + " with a width of " + std::to_string(width) +
                ", which is not a power of two up to 32");
}

}  // namespace dictsplat::emulator
