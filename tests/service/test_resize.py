"""The size a network sees: hand-checked cases, errors, and properties over any size."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.card import SizeLimits
from service.errors import BadParameter, ImageSizeNotSupported, ImageTooSmall, TooManyPixels
from service.resize import (
    InferenceLimits,
    Resize,
    Size,
    Wish,
    choose,
    used_size,
    whole_size,
)

LIMITS = InferenceLimits(max_side=2048, max_pixels=2_100_000)
ANY = SizeLimits(min_height=1, min_width=1)
FIT_320 = Resize("fit", 320)
SHORT_256 = Resize("short", 256)
CROP_224 = Resize("crop", 256, 224)


@pytest.mark.parametrize(
    ("policy", "size", "source", "used"),
    [
        ("fit", 320, (1024, 768), (320, 240)),
        ("fit", 320, (768, 1024), (240, 320)),
        ("fit", 320, (320, 320), (320, 320)),
        ("fit", 320, (64, 48), (320, 240)),  # up
        ("fit", 320, (1000, 3), (320, 1)),
        ("fit", 320, (2000, 3), (320, 1)),  # 0.48: never 0
        ("fit", 100, (300, 200), (100, 67)),  # 66.67 is rounded, not cut
        ("limit", 320, (1024, 768), (320, 240)),
        ("limit", 320, (64, 48), (64, 48)),  # not up
        ("limit", 320, (321, 10), (320, 10)),
        ("native", None, (1024, 768), (1024, 768)),
        ("native", None, (1, 1), (1, 1)),
    ],
)
def test_the_longest_side_decides_the_scale(
    policy: Wish, size: int | None, source: tuple[int, int], used: tuple[int, int]
) -> None:
    assert used_size(Size(*source), Resize(policy, size), ANY, LIMITS) == Size(*used)


@pytest.mark.parametrize("policy", ["fit", "limit"])
@pytest.mark.parametrize(
    ("source", "used"),
    [((1000, 50), (320, 40)), ((50, 1000), (32, 320)), ((900, 90), (320, 40))],
)
def test_a_side_below_what_the_network_takes_is_raised_to_it(
    policy: Wish, source: tuple[int, int], used: tuple[int, int]
) -> None:
    network = SizeLimits(min_height=40, min_width=32)
    assert used_size(Size(*source), Resize(policy, 320), network, LIMITS) == Size(*used)


def test_limit_enlarges_a_thumbnail_only_up_to_what_the_network_takes() -> None:
    network = SizeLimits(min_height=32, min_width=32)
    assert used_size(Size(20, 10), Resize("limit", 320), network, LIMITS) == Size(32, 32)


@pytest.mark.parametrize(
    ("source", "resize", "used"),
    [
        ((1000, 700), FIT_320, (320, 224)),
        ((1000, 702), FIT_320, (320, 224)),  # 225: down
        ((1000, 749), FIT_320, (320, 256)),  # 240, half way: up
        ((1000, 747), FIT_320, (320, 224)),  # 239
        ((1000, 20), FIT_320, (320, 32)),  # 6: never 0
        ((9, 9), FIT_320, (320, 320)),
        ((9, 9), Resize("limit", 320), (32, 32)),
        ((300, 300), Resize("fit", 2047), (2048, 2048)),
        ((400, 300), Resize("short", 250), (320, 256)),  # 333, 250
        ((300, 400), CROP_224, (224, 224)),
    ],
)
def test_sides_become_the_nearest_multiple_the_network_needs(
    source: tuple[int, int], resize: Resize, used: tuple[int, int]
) -> None:
    network, large = (
        SizeLimits(min_height=1, min_width=1, multiple=32),
        InferenceLimits(2048, 10**7),
    )
    assert used_size(Size(*source), resize, network, large) == Size(*used)


@pytest.mark.parametrize(("most", "used"), [(319, 288), (320, 320)])
def test_a_side_is_not_rounded_beyond_the_largest(most: int, used: int) -> None:
    network = SizeLimits(min_height=1, min_width=1, multiple=32)
    limits = InferenceLimits(most, 10**6)
    assert used_size(Size(9, 9), Resize("fit", 310), network, limits) == Size(used, used)


def test_a_side_beyond_the_largest_is_refused_and_not_rounded_to_it() -> None:
    network = SizeLimits(min_height=1, min_width=1, multiple=32)
    with pytest.raises(TooManyPixels, match="network would see 2560×256"):
        used_size(Size(1000, 100), SHORT_256, network, LIMITS)


def test_a_crop_is_cut_from_an_image_whose_sides_are_no_multiples() -> None:
    network = SizeLimits(min_height=32, min_width=32, multiple=32)
    assert whole_size(Size(300, 401), CROP_224, network, LIMITS) == Size(256, 342)


@pytest.mark.parametrize("source", [(31, 40), (40, 23)])
def test_native_refuses_an_image_below_what_the_network_takes(source: tuple[int, int]) -> None:
    network = SizeLimits(min_height=24, min_width=32)
    with pytest.raises(ImageTooSmall, match=r"32×24.*resize=fit"):
        used_size(Size(*source), Resize("native", None), network, LIMITS)


@pytest.mark.parametrize("source", [(33, 64), (64, 33)])
def test_native_refuses_sides_that_are_no_multiple(source: tuple[int, int]) -> None:
    network = SizeLimits(min_height=32, min_width=32, multiple=32)
    whole = {33: "32×64 or 64×64", 64: "64×32 or 64×64"}[source[0]]
    with pytest.raises(
        ImageSizeNotSupported, match=f"divisible by 32, such as {whole}.*resize=fit"
    ):
        used_size(Size(*source), Resize("native", None), network, LIMITS)
    assert used_size(Size(64, 96), Resize("native", None), network, LIMITS) == Size(64, 96)


@pytest.mark.parametrize(
    ("source", "resize"),
    [
        ((2049, 10), Resize("native", None)),  # a side
        ((10, 2049), Resize("native", None)),
        ((2000, 1051), Resize("native", None)),  # pixels
        ((40, 40), Resize("fit", 2000)),
        ((4000, 4000), Resize("limit", 2000)),
        ((2049, 256), SHORT_256),
        ((2049, 256), CROP_224),
        ((16_000, 200), CROP_224),  # 20480 before the crop
        ((1600, 1500), Resize("crop", 1450, 224)),
    ],
)
def test_what_the_network_would_see_is_limited(source: tuple[int, int], resize: Resize) -> None:
    with pytest.raises(TooManyPixels, match=r"limits are 2048 a side and 2\.1 megapixels"):
        used_size(Size(*source), resize, ANY, LIMITS)


def test_the_inference_limits_themselves_are_allowed() -> None:
    native = Resize("native", None)
    assert used_size(Size(2048, 1025), native, ANY, LIMITS) == Size(2048, 1025)
    assert used_size(Size(2000, 1050), native, ANY, LIMITS) == Size(2000, 1050)


@pytest.mark.parametrize(
    ("policy", "size", "default", "chosen"),
    [
        (None, None, FIT_320, FIT_320),
        (None, 448, FIT_320, Resize("fit", 448)),
        ("limit", None, FIT_320, Resize("limit", 320)),
        ("limit", 2048, FIT_320, Resize("limit", 2048)),
        ("native", None, FIT_320, Resize("native", None)),
        (None, None, Resize("native", None), Resize("native", None)),
        ("fit", 100, Resize("native", None), Resize("fit", 100)),
        ("fit", 1, FIT_320, Resize("fit", 1)),
        (None, None, SHORT_256, SHORT_256),
        (None, 300, SHORT_256, Resize("short", 300)),
        ("fit", None, SHORT_256, Resize("fit", 256)),
        ("limit", None, SHORT_256, Resize("limit", 256)),
        (None, None, CROP_224, CROP_224),
        ("fit", None, CROP_224, Resize("fit", 224)),  # the square it was trained on
        ("limit", 320, CROP_224, Resize("limit", 320)),
        ("native", None, CROP_224, Resize("native", None)),
    ],
)
def test_a_request_overrides_the_card(
    policy: Wish | None, size: int | None, default: Resize, chosen: Resize
) -> None:
    assert choose(policy, size, default, LIMITS) == chosen


@pytest.mark.parametrize(
    ("policy", "size", "default", "why"),
    [
        ("native", 320, FIT_320, "not allowed with resize=native"),
        (None, 320, Resize("native", None), "not allowed with resize=native"),
        ("fit", None, Resize("native", None), "needs size"),
        ("limit", None, Resize("native", None), "needs size"),
        ("fit", 2049, FIT_320, "exceeds the largest side, 2048"),
        ("fit", 0, FIT_320, "at least 1"),  # 0 is not 'not asked'
        ("limit", -5, FIT_320, "at least 1"),
        (None, 256, CROP_224, r"model's own resize.*Send resize=fit with size"),
        (None, 0, SHORT_256, "at least 1"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    policy: Wish | None, size: int | None, default: Resize, why: str
) -> None:
    with pytest.raises(BadParameter, match=why):
        choose(policy, size, default, LIMITS)


def test_a_size_reads_as_width_by_height() -> None:
    assert str(Size(640, 480)) == "640×480"
    assert (Size(640, 480).pixels, Size(640, 480).longest) == (307_200, 640)


sides = st.integers(1, 16_384)
sources = st.builds(Size, sides, sides)
sizes = st.integers(1, 2048)
networks = st.builds(
    SizeLimits,
    min_height=st.integers(1, 64),
    min_width=st.integers(1, 64),
    multiple=st.sampled_from([1, 2, 7, 32]),
)
resizes = st.one_of(
    st.builds(Resize, st.sampled_from(["fit", "limit", "short"]), sizes),
    st.just(Resize("native", None)),
)


@given(sources, resizes, networks)
def test_a_used_size_is_always_one_the_network_takes_within_the_limits(
    source: Size, resize: Resize, network: SizeLimits
) -> None:
    try:
        used = used_size(source, resize, network, LIMITS)
    except TooManyPixels:
        return
    except (ImageTooSmall, ImageSizeNotSupported):
        assert resize.policy == "native"
        return
    height, width = network.smallest()
    assert used.height >= height
    assert used.width >= width
    assert used.height % network.multiple == used.width % network.multiple == 0
    assert used.longest <= LIMITS.max_side
    assert used.pixels <= LIMITS.max_pixels


@given(sources, sizes)
@example(Size(3, 16_384), 2048)
def test_fit_makes_the_longest_side_the_size_and_keeps_the_aspect(source: Size, size: int) -> None:
    used = used_size(source, Resize("fit", size), ANY, InferenceLimits(2048, 2048**2))
    shortest = min(source.width, source.height)
    assert used.longest == size
    assert (used.width >= used.height) or source.width < source.height
    assert abs(min(used.width, used.height) - max(1, shortest * size / source.longest)) <= 0.5001


@given(sources, sizes, networks)
def test_limit_never_enlarges_beyond_what_the_network_needs(
    source: Size, size: int, network: SizeLimits
) -> None:
    used = used_size(source, Resize("limit", size), network, InferenceLimits(99_999, 10**10))
    height, width = network.smallest()
    step = network.multiple // 2
    assert used.width <= max(width, min(source.width, size) + step)
    assert used.height <= max(height, min(source.height, size) + step)


@given(sources, st.sampled_from(["fit", "limit", "short"]), sizes, networks, st.integers(64, 2048))
def test_no_legal_side_is_nearer_than_the_one_used(
    source: Size, policy: Wish, size: int, network: SizeLimits, most: int
) -> None:
    resize, limits = Resize(policy, size), InferenceLimits(most, 10**10)
    aim = used_size(source, resize, ANY, InferenceLimits(10**9, 10**18))
    try:
        used = used_size(source, resize, network, limits)
    except TooManyPixels:
        assert max(aim.longest, *network.smallest()) > most
        return
    smallest, multiple = network.smallest(), network.multiple
    for side, low, got in (
        (aim.height, smallest[0], used.height),
        (aim.width, smallest[1], used.width),
    ):
        legal = range(low, most + 1, multiple)
        assert got == max(legal, key=lambda other: (-abs(other - side), other))


@given(sources, st.integers(1, 512), st.integers(1, 512))
def test_a_crop_fits_into_the_image_it_is_cut_from(source: Size, one: int, other: int) -> None:
    resize = Resize("crop", max(one, other), min(one, other))
    limits = InferenceLimits(10**9, 10**18)
    whole = whole_size(source, resize, ANY, limits)
    assert min(whole.width, whole.height) == resize.size
    assert (
        abs(whole.longest - max(one, other) * source.longest / min(source.width, source.height))
        <= 1
    )
    assert used_size(source, resize, ANY, limits) == Size(min(one, other), min(one, other))


@given(sources, networks)
def test_native_changes_nothing_or_refuses(source: Size, network: SizeLimits) -> None:
    try:
        used = used_size(source, Resize("native", None), network, InferenceLimits(99_999, 10**10))
    except (ImageTooSmall, ImageSizeNotSupported):
        height, width = network.smallest()
        fits = source.height >= height and source.width >= width
        multiple = source.height % network.multiple == source.width % network.multiple == 0
        assert not (fits and multiple)
    else:
        assert used == source
