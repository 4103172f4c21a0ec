// Sums of exponentials, with the maximum known beforehand or found on the way.
//
// Exponents are in base 2. *Known maximum*: where no exponent exceeds a bound B, and none is so low that 2^-2B is not a
// normal float32, all are taken relative to B and sums are plain sums; the exponential of a pair then serves both of
// its rows. *Running maximum*: a sum is kept relative to the largest exponent so far. A *slot* is a sum as memory holds
// it.
#pragma once
#include <cmath>

#include "machine.h"

namespace semicl::cuda {

struct KnownMaximum {
    static constexpr bool kKnown = true;

    struct Sum {
        float sum = 0;

        static SEMICL_DEVICE Sum of(float slot) { return {slot}; }
        SEMICL_DEVICE float slot() const { return sum; }
        // Adds 2^exponent where it is kept, and returns what it added.
        SEMICL_DEVICE float add(float exponent, bool kept) {
            const float e = kept ? machine::exp2(exponent) : 0;
            sum += e;
            return e;
        }
        SEMICL_DEVICE void merge(const Sum& other) { sum += other.sum; }
        SEMICL_DEVICE Sum shuffled(int mask) const { return {machine::shuffle_xor(sum, mask)}; }
        SEMICL_DEVICE float log2() const { return machine::log2(sum); }
    };
};

struct RunningMaximum {
    static constexpr bool kKnown = false;

    struct Sum {
        float best = -INFINITY, sum = 0;  // of 2^(exponent - best)

        static SEMICL_DEVICE Sum of(float slot) { return {slot, slot == -INFINITY ? 0.0f : 1.0f}; }
        SEMICL_DEVICE float slot() const { return log2(); }
        SEMICL_DEVICE float add(float exponent, bool kept) {
            if (kept) merge({exponent, 1});
            return 0;
        }
        SEMICL_DEVICE void merge(const Sum& other) {
            const float higher = fmaxf(best, other.best);
            const float finite = higher == -INFINITY ? 0 : higher;
            sum = sum * machine::exp2(best - finite) + other.sum * machine::exp2(other.best - finite);
            best = higher;
        }
        SEMICL_DEVICE Sum shuffled(int mask) const {
            return {machine::shuffle_xor(best, mask), machine::shuffle_xor(sum, mask)};
        }
        SEMICL_DEVICE float log2() const { return best + machine::log2(sum); }
    };
};

}  // namespace semicl::cuda
