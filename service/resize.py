"""Which size the network sees: the resize policy, as arithmetic on sides."""

from dataclasses import dataclass
from typing import Literal

from models.card import Policy, SizeLimits
from service.errors import BadParameter, ImageSizeNotSupported, ImageTooSmall, TooManyPixels

Wish = Literal["fit", "limit", "native"]  # what a request may ask for, whatever the card says
_EXACT = ("short", "crop")


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
    """A policy and the side it aims at: the longest for fit and limit, else the shortest.

    crop: side of the square that is then cut from the centre, for crop
    """

    policy: Policy
    size: int | None
    crop: int | None = None

    @property
    def exact(self) -> bool:
        """Whether pixels must be those of torchvision's transforms."""
        return self.policy in _EXACT

    def seen(self, whole: Size) -> Size:
        """What the network sees of an image that was resized to `whole`."""
        return whole if self.crop is None else Size(self.crop, self.crop)


@dataclass(frozen=True, slots=True)
class InferenceLimits:
    """The largest image a network is given: longest side and pixels."""

    max_side: int
    max_pixels: int


def choose(wish: Wish | None, size: int | None, default: Resize, limits: InferenceLimits) -> Resize:
    """Join what a request asks for with the card's default; None means not asked.

    Raises BadParameter when `size` is given for native or for a card's crop, missing, or not in 1
    to the largest side.
    """
    policy = wish or default.policy
    if policy == "native":
        if size is not None:
            raise BadParameter("size is not allowed with resize=native, which resizes nothing")
        return Resize("native", None)
    if policy == "crop":
        if size is not None:
            raise BadParameter(
                f"size is not allowed with the model's own resize, a crop of {default.crop} pixels "
                "that it was trained for. Send resize=fit with size"
            )
        return default
    size = (default.crop or default.size) if size is None else size
    if size is None:
        raise BadParameter(f"resize={policy} needs size for this model: its own policy is native")
    if size < 1:
        raise BadParameter(f"size={size} is not a length; it is at least 1")
    if size > limits.max_side:
        raise BadParameter(f"size={size} exceeds the largest side, {limits.max_side}")
    return Resize(policy, size)


def used_size(source: Size, resize: Resize, network: SizeLimits, limits: InferenceLimits) -> Size:
    """The size that the network will see: of the whole image, or of the square cut from it.

    Raises what `whole_size` raises.
    """
    return resize.seen(whole_size(source, resize, network, limits))


def whole_size(source: Size, resize: Resize, network: SizeLimits, limits: InferenceLimits) -> Size:
    """The size that an image of `source` size (after orientation) is resized to, before any crop.

    fit and limit scale the longest side and round the other; short scales the shortest and cuts
    the other, as torchvision does. Then sides become the nearest multiple that the network needs,
    not below what it takes. crop does not, since a legal square follows. native leaves the image
    alone or refuses it. Raises ImageTooSmall, ImageSizeNotSupported, TooManyPixels.
    """
    if resize.size is None:
        _check_native(source, network)
        whole = source
    elif resize.crop is not None:
        whole = _scaled(source, resize.policy, resize.size)
    else:
        whole = _legal(_scaled(source, resize.policy, resize.size), network, limits)
    if whole.longest > limits.max_side or whole.pixels > limits.max_pixels:
        when = "the network would see" if resize.crop is None else "before its crop there would be"
        raise TooManyPixels(
            f"{when} {whole} pixels; the limits are {limits.max_side} a side and "
            f"{limits.max_pixels / 1e6:g} megapixels. Send resize=limit with a smaller size"
        )
    return whole


def _scaled(source: Size, policy: Policy, size: int) -> Size:
    width, height = source.width, source.height
    if policy in _EXACT:
        if width <= height:
            return Size(size, int(size * height / width))
        return Size(int(size * width / height), size)
    scale = size / source.longest
    if policy == "limit":
        scale = min(1.0, scale)
    return Size(max(1, round(width * scale)), max(1, round(height * scale)))


def _legal(aim: Size, network: SizeLimits, limits: InferenceLimits) -> Size:
    height, width = network.smallest()
    return Size(
        max(width, _nearest(aim.width, network.multiple, limits.max_side)),
        max(height, _nearest(aim.height, network.multiple, limits.max_side)),
    )


def _nearest(side: int, multiple: int, most: int) -> int:
    """The nearest multiple; of two the larger, unless only the smaller is within `most`."""
    nearest = (side + multiple // 2) // multiple * multiple
    return nearest - multiple if side <= most < nearest else nearest


def _check_native(source: Size, network: SizeLimits) -> None:
    if source.width < network.min_width or source.height < network.min_height:
        raise ImageTooSmall(
            f"the image is {source}; the network takes {network.min_width}×{network.min_height} "
            "and more. Send resize=fit to scale it up"
        )
    if not network.allow(source.height, source.width):
        m, (height, width) = network.multiple, network.smallest()
        below = Size(max(width, source.width // m * m), max(height, source.height // m * m))
        above = Size(-(-source.width // m) * m, -(-source.height // m) * m)
        raise ImageSizeNotSupported(
            f"the image is {source}; the network takes sides divisible by {m}, such as {below} "
            f"or {above}. Send resize=fit, which makes them so"
        )
