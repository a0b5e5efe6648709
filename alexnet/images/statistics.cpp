// Sums over the pixels of one image, in whole numbers. Compiled on first use; statistics.py has the same in numpy.

#include <cstdint>

namespace {

constexpr long LANES = 192;        // bytes at a time: whole pixels, and whole vectors
constexpr long BLOCKS = 1L << 15;  // whose sums of products 32 bits hold

// Lane j of row `apart` sums byte j times the byte `apart` places on: another channel of the same pixel, where there is one.
void flush(uint32_t lanes[3][LANES], int64_t* products) {
    for (long apart = 0; apart < 3; ++apart)
        for (long j = 0; j < LANES; ++j) {
            if (j % 3 + apart < 3) products[3 * (j % 3) + j % 3 + apart] += lanes[apart][j];
            lanes[apart][j] = 0;
        }
}

}  // namespace

extern "C" {

// Adds every byte to `sums`, and the products of every pixel's channels, the first no later than the second, to the 3x3 `products`.
void add_pixels(const uint8_t* image, long bytes, uint16_t* sums, int64_t* products) {
    for (long i = 0; i < bytes; ++i) sums[i] += image[i];
    uint32_t lanes[3][LANES] = {};
    long at = 0, blocks = 0;
    for (; at + LANES + 2 <= bytes; at += LANES) {
        for (long apart = 0; apart < 3; ++apart)
            for (long j = 0; j < LANES; ++j)
                lanes[apart][j] += uint16_t(uint16_t(image[at + j]) * uint16_t(image[at + j + apart]));  // 16 bits hold 255 x 255
        if (++blocks == BLOCKS) {
            flush(lanes, products);
            blocks = 0;
        }
    }
    flush(lanes, products);
    for (; at < bytes; at += 3)
        for (long a = 0; a < 3; ++a)
            for (long b = a; b < 3; ++b) products[3 * a + b] += int64_t(image[at + a]) * image[at + b];
}
}
