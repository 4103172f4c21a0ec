// A stand-in for libcuda.so.1: as much of CUDA's driver as Triton's launcher calls. It loads and runs nothing, and hands
// each launch to a function of the test.
#include <stddef.h>
#include <stdint.h>

typedef int Result;  // 0: success

typedef struct {
    unsigned grid[3], block[3], shared_bytes;
    void* stream;
    void* attributes;
    unsigned attribute_count;
} LaunchConfig;

static void (*launched)(const LaunchConfig*, void** arguments);
void on_launch(void (*use)(const LaunchConfig*, void**)) { launched = use; }

Result cuLaunchKernelEx(const LaunchConfig* config, void* function, void** arguments, void** extra) {
    (void)function, (void)extra;
    if (launched) launched(config, arguments);
    return 0;
}

// ---- a device of Hopper's -------------------------------------------------------------------------------------------

enum { kMaxSharedBytes = 8, kRegisters = 12, kMultiprocessors = 16, kMajor = 75, kMinor = 76, kOptInSharedBytes = 97 };

Result cuDeviceGetAttribute(int* value, int attribute, int device) {
    (void)device;
    switch (attribute) {
        case kMaxSharedBytes: *value = 48 << 10; break;
        case kOptInSharedBytes: *value = 227 << 10; break;
        case kRegisters: *value = 65536; break;
        case kMultiprocessors: *value = 132; break;
        case kMajor: *value = 9; break;
        case kMinor: *value = 0; break;
        default: *value = 1024;
    }
    return 0;
}
Result cuFuncGetAttribute(int* value, int attribute, void* function) {
    (void)function;
    *value = attribute == 0 ? 1024 : 0;  // the most threads of a block
    return 0;
}
Result cuDriverGetVersion(int* version) { return *version = 13000, 0; }
Result cuDeviceGet(int* device, int number) { return *device = number, 0; }
Result cuDeviceGetCount(int* count) { return *count = 1, 0; }
Result cuCtxGetDevice(int* device) { return *device = 0, 0; }

// ---- handles, and what does nothing ---------------------------------------------------------------------------------

static uintptr_t handles = 0x1000;
Result cuModuleLoadData(void** module, const void* image) { return (void)image, *module = (void*)++handles, 0; }
Result cuModuleGetFunction(void** function, void* module, const char* name) {
    (void)name;
    return *function = module, 0;
}
Result cuCtxGetCurrent(void** context) { return *context = (void*)1, 0; }
Result cuDevicePrimaryCtxRetain(void** context, int device) { return (void)device, *context = (void*)1, 0; }
Result cuPointerGetAttribute(void* value, int attribute, unsigned long long pointer) {
    (void)attribute;
    return *(unsigned long long*)value = pointer, 0;
}
Result cuGetErrorString(Result error, const char** text) { return (void)error, *text = "an error", 0; }
Result cuOccupancyMaxActiveClusters(int* count, void* function, const void* config) {
    (void)function, (void)config;
    return *count = 1, 0;
}
Result cuInit(unsigned flags) { return (void)flags, 0; }
Result cuCtxSetCurrent(void* context) { return (void)context, 0; }
Result cuModuleUnload(void* module) { return (void)module, 0; }
Result cuFuncSetAttribute(void* function, int attribute, int value) {
    return (void)function, (void)attribute, (void)value, 0;
}
Result cuFuncSetCacheConfig(void* function, int config) { return (void)function, (void)config, 0; }
// Never called: Triton looks for them.
Result cuTensorMapEncodeTiled(void) { return 1; }
Result cuTensorMapEncodeIm2col(void) { return 1; }
Result cuCtxGetLimit(void) { return 1; }
Result cuCtxSetLimit(void) { return 1; }
Result cuStreamIsCapturing(void) { return 1; }
