// Descriptions of matrices in global memory for TMA. The driver's encoder is found at run time: nothing links the
// driver.
#pragma once
#include "ptx.h"

namespace semicl::cuda {

inline decltype(&cuTensorMapEncodeTiled) tensor_map_encoder() {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult status;
#if CUDART_VERSION >= 12050
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &status),
          "cudaGetDriverEntryPointByVersion");
#else
    check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &status),
          "cudaGetDriverEntryPoint");
#endif
    if (status != cudaDriverEntryPointSuccess || found == nullptr)
        throw std::runtime_error(
            "cuTensorMapEncodeTiled: not in this CUDA driver; a driver for CUDA 12 or later has it");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
}

inline TensorMap encoded_map(CUtensorMapDataType type, int dimensions, const void* values, const cuuint64_t* sizes,
                             const cuuint64_t* strides, const cuuint32_t* box, CUtensorMapSwizzle swizzle) {
    const cuuint32_t steps[2] = {1, 1};
    TensorMap map;
    static const auto encode = tensor_map_encoder();
    check(encode(&map, type, static_cast<cuuint32_t>(dimensions), const_cast<void*>(values), sizes, strides, box, steps,
                 CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
          "cuTensorMapEncodeTiled");
    return map;
}

// Of packed rows (count, channels) of 16-bit elements; a box is a line of a slab (smem_layout.h) of each of its rows.
template <class ELEMENT>
TensorMap map_rows(const void* rows, int count, int channels, int box_channels, int box_rows) {
    const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(channels), static_cast<cuuint64_t>(count)};
    const cuuint64_t strides[1] = {2 * static_cast<cuuint64_t>(channels)};
    const cuuint32_t box[2] = {static_cast<cuuint32_t>(box_channels), static_cast<cuuint32_t>(box_rows)};
    return encoded_map(ELEMENT::kTensorMapType, 2, rows, sizes, strides, box,
                       box_channels == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B);
}

inline TensorMap map_line(const float* values, int count, int box_values) {
    const cuuint64_t sizes[1] = {static_cast<cuuint64_t>(count)}, strides[1] = {0};
    const cuuint32_t box[1] = {static_cast<cuuint32_t>(box_values)};
    return encoded_map(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 1, values, sizes, strides, box, CU_TENSOR_MAP_SWIZZLE_NONE);
}

}  // namespace semicl::cuda
