"""Which size the network sees: the resize policy, as arithmetic on sides."""

from dataclasses import dataclass

from models.card import Policy, SizeLimits
from service.errors import BadParameter, ImageSizeNotSupported, ImageTooSmall, TooManyPixels


@dataclass(frozen=True, slots=True)
class Size:
    """Sides in pixels."""

    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def longest(self) -> int:
        return max(self.width, self.height)

    def __str__(self) -> str:
        return f"{self.width}×{self.height}"


@dataclass(frozen=True, slots=True)
class Resize:
    """A policy and, for fit and limit, the longest side it aims at."""

    policy: Policy
    size: int | None


@dataclass(frozen=True, slots=True)
class InferenceLimits:
    """The largest image a network is given: longest side and pixels."""

    max_side: int
    max_pixels: int


def choose(
    policy: Policy | None, size: int | None, default: Resize, limits: InferenceLimits
) -> Resize:
    """Join what a request asks for with the card's default; None means not asked.

    Raises BadParameter when `size` is given for native, missing, or not in 1 to the largest side.
    """
    policy = policy or default.policy
    if policy == "native":
        if size is not None:
            raise BadParameter("size is not allowed with resize=native, which resizes nothing")
        return Resize("native", None)
    size = default.size if size is None else size
    if size is None:
        raise BadParameter(f"resize={policy} needs size for this model: its own policy is native")
    if size < 1:
        raise BadParameter(f"size={size} is not a length; it is at least 1")
    if size > limits.max_side:
        raise BadParameter(f"size={size} exceeds the largest side, {limits.max_side}")
    return Resize(policy, size)


def used_size(source: Size, resize: Resize, network: SizeLimits, limits: InferenceLimits) -> Size:
    """The size that the network will see for an image of `source` size (after orientation).

    fit and limit scale the longest side and round the other; a side below what the network takes
    is raised to it, and to the multiple it needs. native leaves the image alone or refuses it.
    Raises ImageTooSmall, ImageSizeNotSupported, TooManyPixels.
    """
    if resize.size is None:
        _check_native(source, network)
        used = source
    else:
        scale = resize.size / source.longest
        if resize.policy == "limit":
            scale = min(1.0, scale)
        used = Size(
            _legal(source.width * scale, network.min_width, network.multiple),
            _legal(source.height * scale, network.min_height, network.multiple),
        )
    if used.longest > limits.max_side or used.pixels > limits.max_pixels:
        raise TooManyPixels(
            f"the network would see {used} pixels; the limits are {limits.max_side} a side and "
            f"{limits.max_pixels / 1e6:g} megapixels. Send resize=limit with a smaller size"
        )
    return used


def _legal(side: float, smallest: int, multiple: int) -> int:
    whole = max(1, round(side), smallest)
    return -(-whole // multiple) * multiple


def _check_native(source: Size, network: SizeLimits) -> None:
    if source.width < network.min_width or source.height < network.min_height:
        raise ImageTooSmall(
            f"the image is {source}; the network takes {network.min_width}×{network.min_height} "
            "and more. Send resize=fit to scale it up"
        )
    if source.width % network.multiple or source.height % network.multiple:
        raise ImageSizeNotSupported(
            f"the image is {source}; the network takes sides divisible by {network.multiple}. "
            "Send resize=fit"
        )
