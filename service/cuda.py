"""Whether ONNX Runtime can use a GPU here, asked of NVIDIA's driver before ONNX Runtime is.

Its GPU build lists CUDA on every machine, and runs on the CPU in silence where there is no GPU.
Nothing here imports it: the parent process asks too.
"""

import ctypes
import runpy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DRIVER = "libcuda.so.1"  # comes with the driver; into containers the container toolkit mounts it
_NAME_BYTES = 256


def problem() -> str | None:
    """Why no GPU can be used, and what to do; None where one can."""
    wanted = cuda_version()
    if wanted is None:
        return "CUDA needs the extra gpu: pip install 'anypool[gpu]'"
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return (
            f"there is no NVIDIA driver ({DRIVER} is missing); "
            "a container gets it with --gpus all and the NVIDIA Container Toolkit"
        )
    return complaint(driver, wanted)


def names() -> list[str]:
    """What the GPUs are called that the driver shows (CUDA_VISIBLE_DEVICES hides some)."""
    return names_of(ctypes.CDLL(DRIVER)) if problem() is None else []


def names_of(driver: Any) -> list[str]:
    """What the GPUs are called, asked of a driver as ctypes shows its functions."""
    count, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuInit(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    found = []
    for number in range(count.value):
        driver.cuDeviceGetName(name, _NAME_BYTES, number)
        found.append(name.value.decode(errors="replace"))
    return found


def cuda_version() -> str | None:
    """The CUDA version that the installed ONNX Runtime is built for; None without its GPU build."""
    found = find_spec("onnxruntime")
    if found is None or found.origin is None:
        return None
    info = Path(found.origin).parent / "capi" / "build_and_package_info.py"
    version = runpy.run_path(str(info)).get("cuda_version") if info.exists() else None
    return version or None


def complaint(driver: Any, wanted: str) -> str | None:
    """What is wrong with a driver, as ctypes shows its functions, for that CUDA version."""
    number, count = ctypes.c_int(), ctypes.c_int()
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code or not count.value:
        return f"the NVIDIA driver shows no GPU (its code is {code})"
    driver.cuDriverGetVersion(ctypes.byref(number))
    major, minor = number.value // 1000, number.value % 1000 // 10
    if major < int(wanted.split(".")[0]):
        return (
            f"the NVIDIA driver is made for CUDA {major}.{minor}, ONNX Runtime for {wanted}: "
            "install a newer driver"
        )
    return None
