// What a step of Lanczos' method makes of a product with the matrix: one block, and so one launch beside that of the
// product. The vectors are not made orthogonal to any but the last two.
#include "types.cuh"

#define THREADS 1024

// A sum over the block, in a fixed order, on every thread; room (THREADS / WARP) is shared.
__device__ __forceinline__ double block_sum(double value, double* room) {
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = value;
    __syncthreads();
    return warp_sum(room[threadIdx.x % WARP]);
}

// V (j + 2, n) holds the vectors so far, and gets the next; w (n,) = G V[j] is overwritten. found (j + 1, 2) gets the
// diagonal and the subdiagonal.
extern "C" __global__ void __launch_bounds__(THREADS) next_vector(double* w, double* V, double* found, i64 j, i64 n) {
    SHARED(double, room);
    const double* const here = V + j * n;
    const double* const before = here - n;
    const double beta = j ? found[2 * j - 1] : 0.0;
    double own = 0.0;
    for (i64 i = threadIdx.x; i < n; i += THREADS) {
        const double value = j ? w[i] - beta * before[i] : w[i];
        w[i] = value;
        own = fma(value, here[i], own);
    }
    const double alpha = block_sum(own, room);
    own = 0.0;
    for (i64 i = threadIdx.x; i < n; i += THREADS) {
        const double value = w[i] - alpha * here[i];
        w[i] = value;
        own = fma(value, value, own);
    }
    const double next = sqrt(block_sum(own, room));
    for (i64 i = threadIdx.x; i < n; i += THREADS) V[(j + 1) * n + i] = w[i] / next;
    if (threadIdx.x == 0) {
        found[2 * j] = alpha;
        found[2 * j + 1] = next;
    }
}
