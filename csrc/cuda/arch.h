// The hardware that kernels are written for: warps, barriers, asynchronous copies and tensor cores, by the names below.
//
// Kernels touch the hardware through these functions only. On a GPU they are single PTX instructions (ptx.h, wgmma.h);
// in tests, where there is no GPU, the same kernels are compiled for the host against an emulated GPU that does
// what the PTX manual says of each instruction (tests/semicl_kernels/emulator).
#pragma once

#ifdef SEMICL_EMULATED
#include "emulated_arch.h"
#else
#include "ptx.h"
#include "tensor_map.h"
#include "wgmma.h"
#endif
