// What a GPU has.
#include <cuda_runtime.h>

#include "stlora/cuda.h"

namespace stlora::cuda {

const char* ask_device(int number, Device& device) {
  int shared = 0;
  cudaError_t error = cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, number);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, number);
  device.shared_memory = static_cast<std::size_t>(shared);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace stlora::cuda
