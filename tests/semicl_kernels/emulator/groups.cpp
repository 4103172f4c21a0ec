// The kernels over pairs for the element SEMICL_ELEMENT, compiled for the emulated machine.
#include "group_gradient.cu"
#include "group_sums.cu"
