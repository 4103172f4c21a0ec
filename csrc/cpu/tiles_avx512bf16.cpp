// The tile functions for the instruction set "avx512bf16"; setup.py gives this file the compiler flags.
#define SEMICL_SET avx512bf16
#define SEMICL_SET_NAME "avx512bf16"
#include "tiles.inl"
