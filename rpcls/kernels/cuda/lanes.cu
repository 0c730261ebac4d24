// Adding up what lanes of rows left, in their order.
#include "types.cuh"

// out (groups, size) = factor * the sum of parts (lanes, size) over `width` lanes each, in double, from the first on;
// groups = blocks in y. One thread an entry..
template <typename Summed>
__device__ __forceinline__ void add_up_entry(const Summed* parts, i64 lanes, i64 width, i64 size, double factor,
                                             Summed* out) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    const i64 first = blockIdx.y * width, last = smaller(lanes, first + width);
    double total = 0.0;
    for (i64 lane = first; lane < last; ++lane) total += (double)parts[lane * size + i];
    out[blockIdx.y * size + i] = (Summed)(total * factor);
}

extern "C" __global__ void add_up(const Real* parts, i64 lanes, i64 width, i64 size, double factor, Real* out) {
    add_up_entry(parts, lanes, width, size, factor, out);
}

extern "C" __global__ void add_up_double(const double* parts, i64 lanes, i64 width, i64 size, double factor,
                                         double* out) {
    add_up_entry(parts, lanes, width, size, factor, out);
}
