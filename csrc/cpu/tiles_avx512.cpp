// The tile functions for the instruction set "avx512"; setup.py gives this file the compiler flags.
#define SEMICL_SET avx512
#define SEMICL_SET_NAME "avx512"
#include "tiles.inl"
