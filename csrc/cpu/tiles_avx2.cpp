// The tile functions for the instruction set "avx2"; setup.py gives this file the compiler flags.
#define SEMICL_SET avx2
#define SEMICL_SET_NAME "avx2"
#include "tiles.inl"
