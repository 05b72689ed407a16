"""``preprocessor_config.json``: how Hugging Face's image processors make pixels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowerray.errors import FlowerrayError

FILE = "preprocessor_config.json"
# Pillow's numbers of its filters, which the file holds.
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
# Those whose `size`, where it is a number alone, is that of the shorter side.
BY_SHORTER_SIDE = ("CLIP", "Bit", "ConvNext", "LeViT", "MobileNet", "MobileViT", "PoolFormer")
# What some processors do beside, which would change pixels: where they are on, we can't follow.
ODD = (
    *("do_pad", "pad_size", "size_divisor", "ensure_multiple_of", "keep_aspect_ratio"),
    *("include_top", "do_reduce_labels", "do_thumbnail", "do_align_long_axis"),
    "do_image_splitting",
)
CROPPED_BELOW = 384  # ConvNeXT's processor squashes to larger sides, and cuts none


@dataclass(frozen=True)
class Pixels:
    """How a base wants pixels: the side of the square, how photographs are resized (see
    ``flowerray.sources.photographs.RESIZES``), the shorter side that is resized to before the
    middle is cut out (None: the photograph is squashed), and what is done then, see
    ``flowerray.bases.spec.Preparation``."""

    size: int | None
    resize: str
    crop: int | None
    bgr: bool
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]


def read(file: Path) -> Pixels:
    """What `file` says.

    Raises:
        FlowerrayError: it can't be read, or asks for what flowerray doesn't do.
    """
    try:
        about = json.loads(file.read_bytes())
        if not isinstance(about, dict):
            raise ValueError("no JSON object")
        return _pixels(about)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FlowerrayError(f"{file}: {reason.splitlines()[0]}") from None


def _pixels(about: dict[str, Any]) -> Pixels:
    for name in ODD:
        if (value := about.get(name)) and (value is True or value != 1):
            raise ValueError(f"{name} is {value!r}, which flowerray doesn't do")
    size, crop = _sides(about)
    rescale = about.get("do_rescale", True)
    factor = _number(about, "rescale_factor", 1 / 255) if rescale else 1.0
    moved = -1.0 if rescale and about.get("rescale_offset") else 0.0
    mean: tuple[float, ...] = (0.0,) * 3
    deviation: tuple[float, ...] = (1.0,) * 3
    if about.get("do_normalize", True):
        mean, deviation = _three(about, "image_mean"), _three(about, "image_std")
    if 0 in deviation:
        raise ValueError("image_std has a 0")
    red, green, blue = zip(mean, deviation, strict=True)
    scale = tuple(factor / d for _, d in (red, green, blue))
    offset = tuple((moved - m) / d for m, d in (red, green, blue))
    return Pixels(
        size,
        _resize(about.get("resample", about.get("interpolation", 2))),
        crop,
        bool(about.get("do_flip_channel_order")),
        *(scale, offset),  # type: ignore[arg-type]
    )


def _sides(about: dict[str, Any]) -> tuple[int | None, int | None]:
    """The side of the square, None where the file says none, and the shorter side before it is cut
    out, if it is."""
    kind = str(about.get("image_processor_type") or about.get("feature_extractor_type") or "")
    cut = about.get("crop_size") if about.get("do_center_crop") else None
    if not about.get("do_resize", True):
        if cut is None and about.get("size") is None:
            return None, None
        raise ValueError("do_resize is off: photographs of any size can't be one batch")
    size = about.get("size")
    if size is None:
        return (None, None) if cut is None else (_square("crop_size", cut),) * 2
    by_shorter = about.get("default_to_square") is False or (
        kind.startswith(BY_SHORTER_SIDE) and not about.get("default_to_square")
    )
    if isinstance(size, int) and not isinstance(size, bool) and by_shorter:
        size = {"shortest_edge": size}
    if isinstance(size, dict) and "shortest_edge" in size:
        if "longest_edge" in size:
            raise ValueError(f"size is {size}: with a longest_edge photographs aren't squares")
        shorter = _side("size", size["shortest_edge"])
        if kind.startswith("ConvNext"):
            share = _number(about, "crop_pct", 224 / 256)
            if shorter >= CROPPED_BELOW:
                return shorter, None
            return shorter, _side("size", int(shorter / share))
        if cut is None:
            raise ValueError("size is of the shortest_edge, and nothing crops: no square comes out")
        side = _square("crop_size", cut)
        if side > shorter:
            raise ValueError(f"crop_size {side} is larger than the shortest_edge, {shorter}")
        return side, shorter
    side = _square("size", size)
    if cut is None:
        return side, None
    inner = _square("crop_size", cut)
    if inner != side:
        raise ValueError(f"{inner} of a squashed {side} are cut out, which flowerray doesn't do")
    return side, None


def _square(name: str, size: Any) -> int:
    if isinstance(size, dict):
        if size.keys() != {"height", "width"} or size["height"] != size["width"]:
            raise ValueError(f"{name} is {size}, no square")
        size = size["height"]
    if isinstance(size, list) and len(set(map(str, size))) == 1:
        size = size[0]
    return _side(name, size)


def _side(name: str, side: Any) -> int:
    if isinstance(side, bool) or not isinstance(side, int) or not 8 <= side <= 4096:
        raise ValueError(f"{name} is {side!r}, no side of 8 to 4096 pixels")
    return side


def _number(about: dict[str, Any], name: str, default: float) -> float:
    number = about.get(name, default)
    if not _is_number(number) or number <= 0:
        raise ValueError(f"{name} is {number!r}, no number above 0")
    return float(number)


def _three(about: dict[str, Any], name: str) -> tuple[float, ...]:
    numbers = about.get(name)
    if not (isinstance(numbers, list) and len(numbers) == 3 and all(map(_is_number, numbers))):
        raise ValueError(f"{name} is {numbers!r}, no list of three numbers")
    return tuple(map(float, numbers))


def _is_number(one: Any) -> bool:
    return isinstance(one, (int, float)) and not isinstance(one, bool) and abs(one) <= 1e6


def _resize(resample: Any) -> str:
    """As ``flowerray.sources.photographs.RESIZES`` calls it: JPEGs are decoded at a reduced scale
    first, which Hugging Face's processors don't do."""
    name = resample.lower() if isinstance(resample, str) else None
    if isinstance(resample, int) and not isinstance(resample, bool) and 0 <= resample < 6:
        name = FILTERS[resample]
    if name in FILTERS:
        return name if name == "nearest" else f"{name}-dct"
    raise ValueError(f"resample is {resample!r}, none of Pillow's filters 0 to 5")
