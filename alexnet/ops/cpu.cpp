// The norms and the update rule for CPUs: each reads and writes memory once, with everything between in registers or L1.
// Plain functions on ranges, so that the caller decides on threads. Compiled on first use; cpu.py holds the signatures.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct bf16 {
    uint16_t bits;
};

inline float load(float x) { return x; }
inline float load(bf16 x) {
    uint32_t word = uint32_t(x.bits) << 16;
    float wide;
    std::memcpy(&wide, &word, 4);
    return wide;
}
inline void store(float* to, float x) { *to = x; }
inline void store(bf16* to, float x) {  // to nearest, ties to even
    uint32_t word;
    std::memcpy(&word, &x, 4);
    to->bits = uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}


template <bool quarters>
inline float power(float d, float beta) {
    if (!quarters) return std::pow(d, -beta);
    float root = std::sqrt(d);
    return 1.0f / (root * std::sqrt(root));
}

// 1 / d, of p = power(d, beta) where that needs no division.
template <bool quarters>
inline float inverse(float d, float p) {
    return quarters ? p * std::sqrt(d) * p : 1.0f / d;
}

constexpr long BLOCK = 1024;  // numbers at a time, whole rows of a tower's channels: what is between stays in L1
constexpr long REACH = 8;     // half of the largest band

// Sums over the `half` nearest channels on both sides. channel: of each number; a band ends where its row does. Loops are over
// many rows, so that narrow towers fill the processor's vectors too.
inline void band(const float* in, const int* channel, float* out, long count, int channels, int half) {
    for (long i = 0; i < count; ++i) out[i] = in[i];
    for (int reach = 1; reach <= half; ++reach)
        for (long i = 0; i < count; ++i) {
            float below = channel[i] >= reach ? in[i - reach] : 0.0f;
            float above = channel[i] < channels - reach ? in[i + reach] : 0.0f;
            out[i] += below + above;
        }
}

// Rows of `channels` numbers, a pixel of one tower each. g is null in the forward pass.
template <bool quarters, typename T>
void band_norm(const T* g, const T* x, T* to, long rows, long channels, long half, float alpha, float beta, float k) {
    float value[BLOCK], direct[BLOCK], scale[BLOCK], sides[BLOCK + 2 * REACH] = {}, *square = sides + REACH, *cross = square;
    int channel[BLOCK];
    for (long i = 0; i < BLOCK; ++i) channel[i] = int(i % channels);
    const long count = rows * channels, step = BLOCK / channels * channels;
    const float twice = 2 * alpha * beta;
    for (long first = 0; first < count; first += step) {
        const long n = count - first < step ? count - first : step;
        for (long i = 0; i < n; ++i) {
            value[i] = load(x[first + i]);
            square[i] = value[i] * value[i];
        }
        band(square, channel, scale, n, int(channels), int(half));
        if (!g) {
            for (long i = 0; i < n; ++i) store(to + first + i, value[i] * power<quarters>(k + alpha * scale[i], beta));
            continue;
        }
        for (long i = 0; i < n; ++i) {
            float d = k + alpha * scale[i];
            float p = power<quarters>(d, beta);
            direct[i] = load(g[first + i]) * p;
            cross[i] = direct[i] * value[i] * inverse<quarters>(d, p);
        }
        band(cross, channel, scale, n, int(channels), int(half));
        for (long i = 0; i < n; ++i) store(to + first + i, direct[i] - twice * value[i] * scale[i]);
    }
}

constexpr long LANES = 64;  // channels at a time: a 27x27 plane of them stays in L2

// Sums of LANES channels over the `half` nearest of `count` places on both sides, `stride` numbers apart; none outside.
inline void along(const float* in, float* out, long count, long stride, long half) {
    for (long at = 0; at < count; ++at) {
        float sum[LANES] = {};
        const long first = at < half ? 0 : at - half, last = at + half < count ? at + half : count - 1;
        for (long from = first; from <= last; ++from)
            for (long c = 0; c < LANES; ++c) sum[c] += in[from * stride + c];
        for (long c = 0; c < LANES; ++c) out[at * stride + c] = sum[c];
    }
}

// Sums over (2 half + 1)^2 pixels of a height x width plane of LANES channels, zeros outside, in place through `columns`.
void box(std::vector<float>& plane, std::vector<float>& columns, long height, long width, long half) {
    for (long w = 0; w < width; ++w) along(&plane[w * LANES], &columns[w * LANES], height, width * LANES, half);
    for (long h = 0; h < height; ++h) along(&columns[h * width * LANES], &plane[h * width * LANES], width, LANES, half);
}

// One image at a time, LANES channels at a time. g is null in the forward pass.
template <bool quarters, typename T>
void map_norm(const T* g, const T* x, T* to, long images, long height, long width, long channels, long half, float alpha, float beta,
              float k) {
    const long pixels = height * width;
    std::vector<float> plane(pixels * LANES), columns(pixels * LANES), direct(g ? pixels * LANES : 0);
    for (long n = 0; n < images; ++n)
        for (long first = 0; first < channels; first += LANES) {
            const long lanes = channels - first < LANES ? channels - first : LANES;
            const long at = n * pixels * channels + first;
            for (long p = 0; p < pixels; ++p) {
                for (long c = 0; c < lanes; ++c) {
                    float value = load(x[at + p * channels + c]);
                    plane[p * LANES + c] = value * value;
                }
                for (long c = lanes; c < LANES; ++c) plane[p * LANES + c] = 0;
            }
            box(plane, columns, height, width, half);
            if (!g) {
                for (long p = 0; p < pixels; ++p)
                    for (long c = 0; c < lanes; ++c) {
                        long i = at + p * channels + c;
                        store(to + i, load(x[i]) * power<quarters>(k + alpha * plane[p * LANES + c], beta));
                    }
                continue;
            }
            for (long p = 0; p < pixels; ++p)
                for (long c = 0; c < lanes; ++c) {
                    long i = at + p * channels + c;
                    float d = k + alpha * plane[p * LANES + c];
                    direct[p * LANES + c] = load(g[i]) * power<quarters>(d, beta);
                    plane[p * LANES + c] = direct[p * LANES + c] * load(x[i]) / d;
                }
            box(plane, columns, height, width, half);
            const float twice = 2 * alpha * beta;
            for (long p = 0; p < pixels; ++p)
                for (long c = 0; c < lanes; ++c) {
                    long i = at + p * channels + c;
                    store(to + i, direct[p * LANES + c] - twice * load(x[i]) * plane[p * LANES + c]);
                }
        }
}

template <typename T>
void lrn(const T* g, const T* x, T* to, long rows, long channels, long size, float alpha, float beta, float k) {
    (beta == 0.75f ? band_norm<true, T> : band_norm<false, T>)(g, x, to, rows, channels, size / 2, alpha, beta, k);
}

template <typename T>
void maps(const T* g, const T* x, T* to, long images, long height, long width, long channels, long size, float alpha, float beta, float k) {
    (beta == 0.75f ? map_norm<true, T> : map_norm<false, T>)(g, x, to, images, height, width, channels, size / 2, alpha, beta, k);
}

}  // namespace

extern "C" {

void lrn_float(const float* g, const float* x, float* to, long rows, long channels, long size, float alpha, float beta, float k) {
    lrn(g, x, to, rows, channels, size, alpha, beta, k);
}

void lrn_bf16(const uint16_t* g, const uint16_t* x, uint16_t* to, long rows, long channels, long size, float alpha, float beta, float k) {
    lrn((const bf16*)g, (const bf16*)x, (bf16*)to, rows, channels, size, alpha, beta, k);
}

void map_norm_float(const float* g, const float* x, float* to, long images, long height, long width, long channels, long size, float alpha,
                    float beta, float k) {
    maps(g, x, to, images, height, width, channels, size, alpha, beta, k);
}

void map_norm_bf16(const uint16_t* g, const uint16_t* x, uint16_t* to, long images, long height, long width, long channels, long size,
                   float alpha, float beta, float k) {
    maps((const bf16*)g, (const bf16*)x, (bf16*)to, images, height, width, channels, size, alpha, beta, k);
}

// v = momentum v - decay w - lr g; w += v
void update_float(float* w, float* v, const float* g, long count, float momentum, float lr, float decay) {
    for (long i = 0; i < count; ++i) {
        v[i] = momentum * v[i] - decay * w[i] - lr * g[i];
        w[i] += v[i];
    }
}
}
