"""What can go wrong in an engine, told by ONNX Runtime's words: it has no types for it."""

_OUT_OF_MEMORY = (
    "Failed to allocate memory",
    "bad_alloc",
    "BFCArena",
    "out of memory",  # the CUDA runtime: "CUDA failure 2: out of memory"
    "OUT_OF_MEMORY",
    "cudaErrorMemoryAllocation",
    "ALLOC_FAILED",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED and cuDNN 9's others
)
# CUDA keeps such an error, and every later call fails with it, until the process ends. Not any
# "CUDA failure": a shape that a kernel cannot be started for is one, and harms nobody else.
_LOST = (
    "illegal memory access",
    "cudaErrorIllegalAddress",
    "unspecified launch failure",
    "cudaErrorLaunchFailure",
    "device-side assert",
    "cudaErrorAssert",
    "illegal instruction was encountered",
    "misaligned address",
    "invalid program counter",
    "hardware stack error",
    "operation not supported on global/shared address space",
    "the launch timed out and was terminated",
    "uncorrectable ECC error",
    "cudaErrorECCUncorrectable",
    "uncorrectable NVLink error",
    "CUDA-capable devices are busy or unavailable",
    "cudaErrorDevicesUnavailable",
    "no CUDA-capable device is detected",
    "cudaErrorNoDevice",
    "CUDA failure 999",  # "unknown error", as after a GPU fell off the bus
    "cudaErrorUnknown",
)


class EngineError(Exception):
    """An artifact that cannot be loaded or run here; the message says why and what to do."""


class OutOfMemory(EngineError):
    """Memory ran out during a run; with fewer images it may do."""


class DeviceLost(EngineError):
    """The GPU runs nothing any more in this process."""


def kind_of(message: str) -> type[EngineError]:
    """Which of these it is that ONNX Runtime says. What is only short of memory is not lost."""
    if any(text in message for text in _OUT_OF_MEMORY):
        return OutOfMemory
    if any(text in message for text in _LOST):
        return DeviceLost
    return EngineError
