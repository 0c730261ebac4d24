// Columns of a standard normal matrix, the bits of rpcls/kernels/cpu/gaussian.py: plain IEEE double additions,
// multiplications, divisions and square roots, in the same order, none of them fused.
#include "philox.cuh"

#define TAG 3  // rpcls.random.STREAM_TAGS["gaussian"]

// 53 bits of two words, in (0, 1).
__device__ __forceinline__ double uniform(u32 low, u32 high) {
    return ((double)((low | (u64)high << 32) >> 11) + 0.5) * 1.1102230246251565e-16;  // 2^-53
}

// -ln u for u in [2^-54, 1].
__device__ __forceinline__ double log_unit(double u) {
    double k = 0.0, f = u;
    while (f < 0.7071067811865476) {
        f = f * 2.0;
        k = k + 1.0;
    }
    const double s = (f - 1.0) / (f + 1.0), t = s * s;
    double p = 1.0 / 23.0;
    p = p * t + 1.0 / 21.0;
    p = p * t + 1.0 / 19.0;
    p = p * t + 1.0 / 17.0;
    p = p * t + 1.0 / 15.0;
    p = p * t + 1.0 / 13.0;
    p = p * t + 1.0 / 11.0;
    p = p * t + 1.0 / 9.0;
    p = p * t + 1.0 / 7.0;
    p = p * t + 1.0 / 5.0;
    p = p * t + 1.0 / 3.0;
    const double series = 2.0 * s + 2.0 * s * t * p;
    return (k * 6.93147180369123816490e-01 - series) + k * 1.90821492927058770002e-10;
}

// cos 2 pi u and sin 2 pi u for u in [0, 1).
__device__ __forceinline__ void circle(double u, double* cosine, double* sine) {
    const double q = floor(4.0 * u + 0.5), x = (u - 0.25 * q) * 6.283185307179586, t = x * x;
    double s = -1.0 / 1307674368000.0;
    s = s * t + 1.0 / 6227020800.0;
    s = s * t - 1.0 / 39916800.0;
    s = s * t + 1.0 / 362880.0;
    s = s * t - 1.0 / 5040.0;
    s = s * t + 1.0 / 120.0;
    s = s * t - 1.0 / 6.0;
    const double sin_x = x + x * t * s;
    double c = 1.0 / 20922789888000.0;
    c = c * t - 1.0 / 87178291200.0;
    c = c * t + 1.0 / 479001600.0;
    c = c * t - 1.0 / 3628800.0;
    c = c * t + 1.0 / 40320.0;
    c = c * t - 1.0 / 720.0;
    c = c * t + 1.0 / 24.0;
    c = c * t - 0.5;
    const double cos_x = 1.0 + t * c;
    const int quadrant = (int)q & 3;
    *cosine = quadrant == 0 ? cos_x : quadrant == 1 ? -sin_x : quadrant == 2 ? -cos_x : sin_x;
    *sine = quadrant == 0 ? sin_x : quadrant == 1 ? cos_x : quadrant == 2 ? -sin_x : -cos_x;
}

// Columns start, start + 1, ... of the normal matrix into the rows of out (count, d). One thread a draw.
extern "C" __global__ void columns(u64 key, i64 start, i64 count, i64 d, Real* out) {
    const i64 draws = (d + 1) / 2, place = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= count * draws) return;
    const i64 i = place / draws, draw = place % draws;
    const Words drawn = philox(key, (u64)(start + i), (u32)draw, TAG);
    const double radius = sqrt(2.0 * log_unit(uniform(drawn.w[0], drawn.w[1])));
    double cosine, sine;
    circle(uniform(drawn.w[2], drawn.w[3]), &cosine, &sine);
    out[i * d + 2 * draw] = (Real)(radius * cosine);
    if (2 * draw + 1 < d) out[i * d + 2 * draw + 1] = (Real)(radius * sine);
}
