// The kernels of the format SEMICL_FORMAT, compiled for the emulated machine.
#include "group_gradient.cu"
#include "group_sums.cu"
#include "warp_gradient.cu"
#include "warp_sums.cu"
