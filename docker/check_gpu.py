"""Which libraries the GPU image lacks: none, up to the driver, which comes from the host.

docker run --rm -i --entrypoint python anypool:gpu - < docker/check_gpu.py
"""

import ctypes
import sys
from pathlib import Path

import onnxruntime

DRIVER = "libcuda.so.1"
PROVIDER = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
NEEDED = (
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcudart.so.13",
    "libnvrtc.so.13",
    "libcurand.so.10",
    "libcudnn.so.9",
)

onnxruntime.preload_dlls()
loaded = Path("/proc/self/maps").read_text()
lacking = [name for name in NEEDED if name not in loaded]
try:
    # What it shares with ONNX Runtime's other providers must be there first.
    ctypes.CDLL(str(PROVIDER.with_name("libonnxruntime_providers_shared.so")), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(PROVIDER))
    print(f"{PROVIDER.name} loads: there is a driver")
except OSError as exc:
    print(f"{PROVIDER.name}: {exc}")
    if DRIVER not in str(exc):
        lacking.append(str(exc))
print(f"lacking: {', '.join(lacking) or 'nothing but the driver, if anything'}")
sys.exit(1 if lacking else 0)
