// The kernels by warp groups of the format SEMICL_FORMAT, compiled for the emulated machine.
#include "group_gradient.cu"
#include "group_sums.cu"
