// Words for what went wrong.
#include <cxxabi.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "block.h"

namespace dictsplat::emulator {

namespace {

std::string text(const uint3& at) {
    return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
}

// "dictsplat::gpu::codes_kernel<128>", without result and parameters.
std::string kernel_name() {
    Dl_info info = {};
    if (dladdr(kernel.function, &info) == 0 || info.dli_saddr != kernel.function || info.dli_sname == nullptr)
        return "with internal linkage";
    int status = 0;
    char* const demangled = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
    std::string name = status == 0 ? demangled : info.dli_sname;
    std::free(demangled);
    if (status != 0) return name;
    std::size_t end = name.size();
    int depth = 0;
    while (end > 0) {
        const char c = name[--end];
        depth += c == ')' ? 1 : c == '(' ? -1 : 0;
        if (c == '(' && depth == 0) break;
    }
    name.resize(end);
    return name.rfind("void ", 0) == 0 ? name.substr(5) : name;
}

// "threads 0-31, 40"; numbers within the block, x fastest.
std::string text_of_threads(const std::vector<int>& indices) {
    std::string out = indices.size() == 1 ? "thread " : "threads ";
    for (std::size_t i = 0; i < indices.size();) {
        std::size_t last = i;
        while (last + 1 < indices.size() && indices[last + 1] == indices[last] + 1) ++last;
        out += (i ? ", " : "") + std::to_string(indices[i]);
        if (last > i) out += "-" + std::to_string(indices[last]);
        i = last + 1;
    }
    return out;
}

std::string text_of_state(const Thread& thread) {
    if (thread.state == State::kReturned) return "returned";
    std::string out = "at " + text(*thread.site);
    if (thread.state == State::kAtWarp) {
        char mask[32];
        std::snprintf(mask, sizeof mask, " with mask 0x%08x", thread.mask);
        out += mask;
    }
    return out;
}

}  // namespace

std::string text(const Site& site) {
    const std::string file = site.file;
    return std::string(site.what) + " (" + file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line) + ")";
}

std::string text_of_thread(int index) {
    const unsigned i = static_cast<unsigned>(index), row = i / blockDim.x;
    return "thread " + text(uint3{i % blockDim.x, row % blockDim.y, row / blockDim.y});
}

std::string where() { return "kernel " + kernel_name() + ", block " + text(blockIdx) + ": "; }

std::string where(int thread) {
    return "kernel " + kernel_name() + ", block " + text(blockIdx) + ", " + text_of_thread(thread) + ": ";
}

std::string describe_deadlock() {
    // A warp that cannot meet explains more than the rest of the block that waits for it.
    const Thread* stuck = nullptr;
    for (const Thread* thread : block.threads)
        if (thread->state == State::kAtWarp && stuck == nullptr) stuck = thread;
    std::map<std::string, std::vector<int>> places;
    for (const Thread* thread : block.threads)
        if (stuck == nullptr || thread->warp() == stuck->warp())
            places[text_of_state(*thread)].push_back(thread->index);
    std::string out = where() + "divergent ";
    out += stuck == nullptr ? "barrier:" : "warp " + std::to_string(stuck->warp()) + ":";
    const char* separator = " ";
    for (const auto& [place, threads] : places) {
        out += separator + text_of_threads(threads) + " " + place;
        separator = "; ";
    }
    return out;
}

}  // namespace dictsplat::emulator
