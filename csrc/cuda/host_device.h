// Functions that a GPU's threads and the host both run: schedules, indices and layouts are tested on the host.
#pragma once

#ifdef __CUDACC__
#define SEMICL_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SEMICL_HOST_DEVICE inline
#endif
