// The tile functions for the instruction set "baseline"; setup.py gives this file the compiler flags.
#define SEMICL_SET baseline
#define SEMICL_SET_NAME "baseline"
#include "tiles.inl"
