// Every status of the CUDA runtime and driver is checked; a bad one becomes an exception that names the call.
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace semicl::cuda {

inline void check(cudaError_t status, const char* call) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // the next call must not report this error again
    throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) +
                             ")");
}

inline void check(CUresult status, const char* call) {
    if (status != CUDA_SUCCESS)
        throw std::runtime_error(std::string(call) + ": error " + std::to_string(static_cast<int>(status)) +
                                 " of the CUDA driver");
}

// Makes a device the current one for as long as it lives.
class DeviceGuard {
public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&before_), "cudaGetDevice");
        if (before_ != device) check(cudaSetDevice(device), "cudaSetDevice");
        changed_ = before_ != device;
    }
    ~DeviceGuard() {
        if (changed_) cudaSetDevice(before_);  // it was current a moment ago; a destructor must not throw
    }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

private:
    int before_ = 0;
    bool changed_ = false;
};

}  // namespace semicl::cuda
