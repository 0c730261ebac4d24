// CUDA for the host's C++ compiler, as far as the kernels need it: blocks run one after the other, the threads of a
// block as fibres of one thread that take turns at every barrier. Include it before a .cu file.
//
// A barrier that some thread of the block or warp never reaches hangs a card; here it is an error, and so is shared
// memory beyond what the launch asked for. Shared memory begins as noise. Threads may take turns from either end, so
// that a result that needs one more barrier shows.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define SHARED(type, name) type* const name = (type*)host::shared

struct Index3 {
    unsigned x, y, z;
};

namespace host {
const int STACK = (16 << 10) + 320, LANES = 32, MOST = 1024;  // stacks begin in different sets of the cache

struct Fibre {
    ucontext_t context;  // for the first entry; later switches need not save signal masks
    jmp_buf at;
    bool started, done;
};

struct Barrier {
    int waiting = 0, members = 0;
    unsigned generation = 0;
};

inline Fibre fibres[MOST];
inline char* stacks;
inline Barrier block, warps[MOST / LANES];
inline unsigned long long slots[MOST];  // what the lanes of a warp show one another
inline jmp_buf scheduler;
inline int current;
inline bool moved;
inline void (*body)(void*);
inline void* body_argument;
inline char* shared;
inline bool backward;

inline void yield() {
    if (!_setjmp(fibres[current].at)) _longjmp(scheduler, 1);
}

inline void wait(Barrier& barrier) {
    const unsigned generation = barrier.generation;
    if (++barrier.waiting == barrier.members) {
        barrier.waiting = 0;
        ++barrier.generation;
        moved = true;
    } else {
        while (barrier.generation == generation) yield();
    }
}

inline void enter() {
    body(body_argument);
    fibres[current].done = true;
    moved = true;
    _longjmp(scheduler, 1);
}

inline Barrier& warp() { return warps[current / LANES]; }

template <typename T>
T exchange(T value, int from) {  // a warp's shuffle
    static_assert(sizeof(T) <= sizeof(unsigned long long), "");
    memcpy(&slots[current], &value, sizeof value);
    wait(warp());
    T out;
    memcpy(&out, &slots[current / LANES * LANES + from % LANES], sizeof out);
    wait(warp());
    return out;
}
}  // namespace host

inline Index3 threadIdx, blockIdx, blockDim, gridDim;

inline void __syncthreads() { host::wait(host::block); }
inline void __syncwarp(unsigned = 0xffffffffu) { host::wait(host::warp()); }
template <typename T>
T __shfl_sync(unsigned, T value, int from, int width = host::LANES) {
    return host::exchange(value, host::current % host::LANES / width * width + from % width);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int apart) {
    return host::exchange(value, (host::current % host::LANES) ^ apart);
}
inline unsigned atomicAdd(unsigned* place, unsigned value) {
    const unsigned before = *place;
    *place += value;
    return before;
}
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline unsigned __vminu2(unsigned a, unsigned b) {  // of both halves
    return min(a & 0xffffu, b & 0xffffu) | min(a >> 16, b >> 16) << 16;
}
inline unsigned __vmaxu2(unsigned a, unsigned b) {
    return max(a & 0xffffu, b & 0xffffu) | max(a >> 16, b >> 16) << 16;
}
inline int __popcll(unsigned long long word) { return __builtin_popcountll(word); }

namespace host {
inline void resume(Fibre& fibre) {
    threadIdx = Index3{(unsigned)current, 0, 0};
    if (_setjmp(scheduler)) return;
    if (fibre.started) _longjmp(fibre.at, 1);
    fibre.started = moved = true;
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = stacks + (size_t)current * STACK;
    fibre.context.uc_stack.ss_size = STACK;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, enter, 0);
    setcontext(&fibre.context);
}

// One block: warp after warp, each as far as it gets, until all are done. False if none of them can go on.
inline bool run_block(int threads) {
    if (!stacks) stacks = (char*)malloc((size_t)MOST * STACK);
    block = Barrier{0, threads, 0};
    for (Barrier& each : warps) each = Barrier{0, LANES, 0};
    for (Fibre& fibre : fibres) fibre.started = fibre.done = false;
    bool some = true;
    while (some) {
        some = false;
        for (int first = 0; first < threads; first += LANES) {
            do {
                moved = false;
                for (int lane = 0; lane < LANES; ++lane) {
                    current = backward ? threads - 1 - first - lane : first + lane;
                    if (!fibres[current].done) resume(fibres[current]);
                }
                some |= moved;
            } while (moved);
        }
    }
    for (int i = 0; i < threads; ++i)
        if (!fibres[i].done) return false;
    return true;
}

template <int... I>
struct Places {};

template <typename... P>
struct Launch {
    void (*kernel)(P...);
    void** arguments;

    template <int... I>
    void call(Places<I...>) const {
        kernel(*(P*)arguments[I]...);
    }

    static void go(void* self) { ((const Launch*)self)->call(Places<__integer_pack(sizeof...(P))...>()); }
};

const size_t GUARD = 4096;  // bytes behind shared memory that no kernel may touch
const char NOISE = (char)0xff;  // not a number, as float and double

// 0, or 1 if a block waits for ever, 2 if it went beyond its shared memory, 3 for a wrong number of arguments.
template <typename... P>
int launch(void (*kernel)(P...), const unsigned* grid, unsigned threads, size_t bytes, int count, void** arguments,
           int from_the_end) {
    if (count != (int)sizeof...(P)) return 3;
    Launch<P...> what = {kernel, arguments};
    body = Launch<P...>::go;
    body_argument = &what;
    backward = from_the_end;
    blockDim = Index3{threads, 1, 1};
    gridDim = Index3{grid[0], grid[1], grid[2]};
    char* const room = shared = (char*)malloc(bytes + GUARD);
    int problem = 0;
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0]; ++x) {
                blockIdx = Index3{x, y, z};
                memset(room, NOISE, bytes + GUARD);
                if (!problem && !run_block((int)threads)) problem = 1;
                for (size_t i = bytes; i < bytes + GUARD; ++i)
                    if (room[i] != NOISE) problem = 2;
            }
    free(room);
    return problem;
}
}  // namespace host
