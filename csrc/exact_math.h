// Included before everything else by setup.py: stops a build whose flags change the arithmetic. GCC and Clang name such
// flags by macros. Infinities, the order of sums and repeatability depend on plain IEEE arithmetic.
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error \
    "flags that change floating-point arithmetic (-ffast-math, -Ofast and the like): remove them from CC, CXX, CFLAGS, CXXFLAGS and CPPFLAGS"
#endif
static_assert(0.1 != 0.1f, "-fsingle-precision-constant changes floating-point arithmetic: remove it from the flags");
