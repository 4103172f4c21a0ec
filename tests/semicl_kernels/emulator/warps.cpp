// The kernels by warps of the format SEMICL_FORMAT, compiled for the emulated machine.
#include "warp_gradient.cu"
#include "warp_sums.cu"
