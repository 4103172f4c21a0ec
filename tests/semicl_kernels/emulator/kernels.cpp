// The kernels over pairs for the element SEMICL_ELEMENT, compiled for the emulated GPU.
#include "backward.cu"
#include "forward.cu"
