"""Poolings as torch.export should see them: whole, whatever their size is made of.

torch.export takes the example's size into a graph in three ways: it unrolls adaptive poolings, it
fixes windows made from `x.shape`, and torch.onnx drops `divisor_override`. While `KeepPools` is
active, all three become something that holds at any size, or a CaptureError that says what to write
instead. Imports torch only.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from export.errors import CaptureError

_GROUPS = 6  # where F.conv2d has its groups
Pair = Any  # one or two of int, or of torch.SymInt where a size comes from the input


@torch.library.custom_op("anypool::adaptive_pool2d", mutates_args=())
def adaptive_pool2d(x: Tensor, output_size: list[int], kind: str) -> Tensor:
    """Adaptive pooling as one operator: (n, c, h, w) to (n, c, oh, ow); a size of 0 keeps the side.

    torch.export specialises the poolings of torch on the example's size; it cannot see into this.
    """
    oh, ow = output_size
    size = (oh or x.shape[-2], ow or x.shape[-1])
    if kind == "average":
        return F.adaptive_avg_pool2d(x, size)
    pooled: Tensor = F.adaptive_max_pool2d(x, size)
    return pooled


@adaptive_pool2d.register_fake
def _(x: Tensor, output_size: list[int], kind: str) -> Tensor:
    sides = (out or side for out, side in zip(output_size, x.shape[-2:], strict=True))
    return x.new_empty([*x.shape[:-2], *sides])


class KeepPools(TorchFunctionMode):
    """While active, modules and calls of pooling become what holds at any size."""

    # These hand out indices, whoever asks for them: return_indices=True ends here.
    _WITH_INDICES = (F.adaptive_max_pool2d_with_indices, torch._C._nn.adaptive_max_pool2d)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.adaptive_avg_pool2d:
            return adaptive_pool2d(_input(args, kwargs), _output_size(args, kwargs), "average")
        if func is F.adaptive_max_pool2d:
            return adaptive_pool2d(_input(args, kwargs), _output_size(args, kwargs), "max")
        if func in self._WITH_INDICES:
            raise CaptureError(
                "adaptive max pooling with return_indices=True cannot be exported: "
                "take the values alone, F.adaptive_max_pool2d(x, output_size)"
            )
        groups = kwargs.get("groups", args[_GROUPS] if len(args) > _GROUPS else 1)
        if func is F.conv2d and isinstance(groups, torch.SymInt):
            raise CaptureError(
                "a convolution has as many groups as there are images in the batch, since its "
                "weights differ from image to image (CondConv): no ONNX operator does that"
            )
        if func is F.avg_pool2d:
            return _average(*args, **kwargs)
        if func in (F.max_pool2d, F.max_pool2d_with_indices, torch.max_pool2d):
            return _maximum(func, *args, **kwargs)
        if func is F.lp_pool2d:
            return _power(*args, **kwargs)
        return func(*args, **kwargs)


def _average(
    input: Tensor,  # noqa: A002
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """F.avg_pool2d, whose names these are."""
    whole = _whole(input, kernel_size, stride, padding)
    if divisor_override is None and whole is None:
        return F.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad)
    if divisor_override is None and whole is not None:
        return _pooled(input, whole, "average")
    if ceil_mode or whole is not None:
        raise CaptureError(
            "average pooling with divisor_override cannot be exported together with ceil_mode or "
            "a window made from the input's size: multiply the plain average instead"
        )
    height, width = _pair(kernel_size)
    sums = F.avg_pool2d(input, kernel_size, stride, padding) * (height * width)  # padding counts
    averages: Tensor = sums / divisor_override
    return averages


def _maximum(
    func: Callable[..., Any],
    input: Tensor,  # noqa: A002
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    *rest: Any,
    **named: Any,
) -> Any:
    """F.max_pool2d, whose names these are; those that follow stay with `func`."""
    whole = _whole(input, kernel_size, stride, padding)
    if whole is None:
        return func(input, kernel_size, stride, padding, *rest, **named)
    if func is F.max_pool2d_with_indices:
        raise CaptureError("max pooling of the whole map cannot give indices: leave them out")
    return _pooled(input, whole, "max")


def _power(
    input: Tensor,  # noqa: A002
    norm_type: float,
    kernel_size: Pair,
    stride: Pair | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """F.lp_pool2d, whose names these are."""
    whole = _whole(input, kernel_size, stride, 0)
    if whole is None:
        return F.lp_pool2d(input, norm_type, kernel_size, stride, ceil_mode)
    if norm_type in (float("inf"), float("-inf")):
        extreme = _pooled(input.abs() * (1 if norm_type > 0 else -1), whole, "max")
        return extreme if norm_type > 0 else -extreme
    places = 1
    for side, cells in zip(input.shape[2:], whole, strict=True):
        places = places * (side if cells else 1)
    total = _pooled(input.pow(norm_type), whole, "average") * places
    norms: Tensor = total.sign() * total.abs().pow(1 / norm_type)
    return norms


def _whole(x: Tensor, kernel: Pair, stride: Pair | None, padding: Pair) -> list[int] | None:
    """The output size of an adaptive pooling that does the same (0 keeps a side), or None.

    None when nothing is made from the input's size. Raises CaptureError when something is, but
    the window is not the whole map.
    """
    numbers = [*_pair(kernel), *_pair(stride or 1), *_pair(padding)]
    if not any(isinstance(number, torch.SymInt) for number in numbers):
        return None
    steps, output = _pair(kernel if stride is None else stride), []
    for side, window, step, pad in zip(
        x.shape[-2:], _pair(kernel), steps, _pair(padding), strict=True
    ):
        if _same(window, side) and _same(pad, 0):
            output.append(1)
        elif _same(window, 1) and _same(step, 1) and _same(pad, 0):
            output.append(0)
        else:
            raise CaptureError(
                "a pooling's window is made from the input's size, but is not the whole map: "
                "take kernel_size=x.shape[2:], which is, or nn.AdaptiveAvgPool2d"
            )
    return output


def _pooled(x: Tensor, output_size: list[int], kind: str) -> Tensor:
    pooled: Tensor = adaptive_pool2d(_input((x,), {}), output_size, kind)
    return pooled


def _same(one: Any, other: Any) -> bool:
    return bool(statically_known_true(one == other))


def _pair(size: Pair) -> tuple[Any, Any]:
    """Both sides, as torch reads them: one number, alone or in a list, is that of both."""
    if not isinstance(size, Sequence):
        return size, size
    return (size[0], size[0]) if len(size) == 1 else (size[0], size[1])


def _input(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    x: Tensor = args[0] if args else kwargs["input"]
    if x.dim() != 4:
        raise CaptureError(
            f"an adaptive pooling gets {x.dim()} dimensions; reshape its input to (n, c, h, w)"
        )
    return x


def _output_size(args: Sequence[Any], kwargs: dict[str, Any]) -> list[int]:
    size = args[1] if len(args) > 1 else kwargs["output_size"]
    sizes = [size, size] if size is None or isinstance(size, int | torch.SymInt) else list(size)
    if any(isinstance(out, torch.SymInt) for out in sizes):
        raise CaptureError(
            "an adaptive pooling takes its output size from the input's size; "
            "give it a fixed size, or None for a side that is to stay as it is"
        )
    if any(out is not None and out < 1 for out in sizes):
        raise CaptureError(
            f"an adaptive pooling has output size {size}; each side must be 1 or more"
        )
    return [0 if out is None else int(out) for out in sizes]
