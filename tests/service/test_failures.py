"""What ONNX Runtime's words mean."""

import pytest

from service.failures import DeviceLost, EngineError, OutOfMemory, kind_of


@pytest.mark.parametrize(
    "said",
    [
        "bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(...) Failed to allocate "
        "memory for requested buffer of size 1073741824",
        "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        "CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED or ALLOC_FAILED",
        "CUDNN failure 2: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
        "std::bad_alloc",
    ],
)
def test_memory_that_ran_out_is_not_a_lost_gpu(said: str) -> None:
    assert kind_of(f"Non-zero status code returned while running Conv node: {said}") is OutOfMemory


@pytest.mark.parametrize(
    "said",
    [
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0",
        "CUDA failure 710: device-side assert triggered ; GPU=0",
        "CUDA failure 719: unspecified launch failure ; GPU=1",
        "CUDA failure 214: uncorrectable ECC error encountered ; GPU=0",
        "CUDA failure 46: all CUDA-capable devices are busy or unavailable ; GPU=0",
        "CUDA failure 999: unknown error ; GPU=0",
        "cudaErrorDevicesUnavailable",
    ],
)
def test_errors_that_cuda_keeps_mean_that_the_gpu_is_lost(said: str) -> None:
    assert kind_of(f"Non-zero status code returned while running Conv node: {said}") is DeviceLost


@pytest.mark.parametrize(
    "said",
    [
        "CUDA failure 9: invalid configuration argument ; GPU=0",  # of one shape, harmless
        "CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED ; GPU=0",
        "Exiting due to terminate flag being set to true.",
    ],
)
def test_other_errors_are_those_of_one_run(said: str) -> None:
    assert kind_of(said) is EngineError
