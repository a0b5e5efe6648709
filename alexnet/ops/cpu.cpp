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

constexpr long MOST = 1024;  // channels of a tower
constexpr long REACH = 8;    // half of the largest band

template <bool quarters, typename T>
void lrn_forward(const T* x, T* y, long rows, long channels, long half, float alpha, float beta, float k) {
    float value[MOST], square[MOST + 2 * REACH] = {};
    for (long row = 0; row < rows; ++row, x += channels, y += channels) {
        for (long c = 0; c < channels; ++c) {
            value[c] = load(x[c]);
            square[REACH + c] = value[c] * value[c];
        }
        float scale[MOST];
        for (long c = 0; c < channels; ++c) scale[c] = square[REACH + c];
        for (long i = 1; i <= half; ++i)
            for (long c = 0; c < channels; ++c) scale[c] += square[REACH + c - i] + square[REACH + c + i];
        for (long c = 0; c < channels; ++c) store(y + c, value[c] * power<quarters>(k + alpha * scale[c], beta));
    }
}

template <bool quarters, typename T>
void lrn_backward(const T* g, const T* x, T* to, long rows, long channels, long half, float alpha, float beta, float k) {
    float value[MOST], direct[MOST], scale[MOST], square[MOST + 2 * REACH] = {}, cross[MOST + 2 * REACH] = {};
    const float twice = 2 * alpha * beta;
    for (long row = 0; row < rows; ++row, g += channels, x += channels, to += channels) {
        for (long c = 0; c < channels; ++c) {
            value[c] = load(x[c]);
            square[REACH + c] = value[c] * value[c];
        }
        for (long c = 0; c < channels; ++c) scale[c] = square[REACH + c];
        for (long i = 1; i <= half; ++i)
            for (long c = 0; c < channels; ++c) scale[c] += square[REACH + c - i] + square[REACH + c + i];
        for (long c = 0; c < channels; ++c) {
            float d = k + alpha * scale[c];
            direct[c] = load(g[c]) * power<quarters>(d, beta);
            cross[REACH + c] = direct[c] * value[c] / d;
        }
        for (long c = 0; c < channels; ++c) scale[c] = cross[REACH + c];
        for (long i = 1; i <= half; ++i)
            for (long c = 0; c < channels; ++c) scale[c] += cross[REACH + c - i] + cross[REACH + c + i];
        for (long c = 0; c < channels; ++c) store(to + c, direct[c] - twice * value[c] * scale[c]);
    }
}

constexpr long LANES = 64;  // channels at a time: a 27x27 plane of them stays in L2

// Sums over (2 half + 1)^2 pixels of a height x width plane of LANES channels, zeros outside, in place through `columns`.
void box(std::vector<float>& plane, std::vector<float>& columns, long height, long width, long half) {
    const long row = width * LANES;
    for (long h = 0; h < height; ++h) {
        float* out = &columns[h * row];
        for (long i = 0; i < row; ++i) out[i] = 0;
        for (long from = h - half < 0 ? 0 : h - half; from <= h + half && from < height; ++from) {
            const float* in = &plane[from * row];
            for (long i = 0; i < row; ++i) out[i] += in[i];
        }
    }
    for (long h = 0; h < height; ++h)
        for (long w = 0; w < width; ++w) {
            float* out = &plane[h * row + w * LANES];
            for (long c = 0; c < LANES; ++c) out[c] = 0;
            for (long from = w - half < 0 ? 0 : w - half; from <= w + half && from < width; ++from) {
                const float* in = &columns[h * row + from * LANES];
                for (long c = 0; c < LANES; ++c) out[c] += in[c];
            }
        }
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
    const bool quarters = beta == 0.75f;
    if (!g) (quarters ? lrn_forward<true, T> : lrn_forward<false, T>)(x, to, rows, channels, size / 2, alpha, beta, k);
    else (quarters ? lrn_backward<true, T> : lrn_backward<false, T>)(g, x, to, rows, channels, size / 2, alpha, beta, k);
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
