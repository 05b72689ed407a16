"""From a file's bytes to uint8 RGB pixels, or to the reason why there are none."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFile, UnidentifiedImageError

from flowerray import stores
from flowerray.errors import FlowerrayError
from flowerray.sources import colours, containers, formats
from flowerray.sources.deadline import Overdue, StorageHangs, within

# How `decode` resizes, as the base spec names it. "bilinear-dct": a JPEG is decoded at the smallest
# eighth of its scale that still has enough pixels each way (libjpeg's scaled DCT), then resized
# bilinearly with antialiasing; others ending in "-dct" by another of Pillow's filters. "nearest":
# decoded whole, each pixel the nearest, as Keras' and the article's loaders do by default.
RESIZES = ("bilinear-dct", "nearest", "bicubic-dct", "lanczos-dct", "box-dct", "hamming-dct")
# Pillow's resize may first reduce by whole numbers to so many times the size: from 3 on, its
# documents say, hardly anything differs.
REDUCING_GAP = {"bilinear-dct": 2.0, "nearest": None}
# Of a photograph longer than so many of its shorter sides, only so much of the middle is resized
# before the crop: the rest could be gigabytes.
MOST_LONG = 4

REASONS = {
    "missing": "the file is not there any more",
    "unreadable": "the storage or the file's permissions refuse the read",
    "empty": "the file has no bytes",
    "changed": "the file's size is not what it was when listed",
    "too_large": "more bytes or pixels than the limits allow",
    "not_an_image": "the content is none of the image formats that are decoded",
    "truncated": "the image ends before it is complete",
    "corrupt": "the image's data is broken",
    "crashed": "reading it took its process down, or took for ever",
}


class Rejected(Exception):
    """A photograph that gives no pixels: `reason` is a key of REASONS, `detail` says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Limits:
    """What is refused before it costs memory; `formats` (Pillow's names) are decoded; a photograph
    may take so many seconds to be read, and to be decoded."""

    max_bytes: int = 256 * 10**6
    max_pixels: int = 100 * 10**6
    formats: tuple[str, ...] = formats.PHOTOGRAPHS
    read_seconds: float = 60.0
    decode_seconds: float = 60.0


class Wanted(Protocol):
    """How a base wants pixels: see ``flowerray.bases.spec.BaseSpec``."""

    @property
    def input_size(self) -> int: ...
    @property
    def resize(self) -> str: ...
    @property
    def colour(self) -> str | None: ...
    @property
    def crop(self) -> int | None: ...


def read_and_decode(
    uri: str, listed_size: int | None, wanted: Wanted, limits: Limits
) -> np.ndarray | Rejected:
    """The pixels of the photograph at `uri` as they are `wanted`, or why there are none."""
    return decoded(lambda: read(uri, listed_size, limits), wanted, limits)


def decoded(read: Callable[[], bytes], wanted: Wanted, limits: Limits) -> np.ndarray | Rejected:
    """The pixels of the photograph that `read` gives, or why there are none."""
    try:
        how = (wanted.input_size, wanted.resize, limits, wanted.colour, wanted.crop)
        return decode(read(), *how)
    except Rejected as rejected:
        return rejected


def read(uri: str, listed_size: int | None, limits: Limits) -> bytes:
    """The bytes of the photograph at `uri`, in whatever store (see ``flowerray.stores``).

    Raises:
        Rejected: missing, unreadable, empty, changed or too_large.
    """
    if listed_size is not None and listed_size > limits.max_bytes:
        raise Rejected("too_large", f"{listed_size} bytes; --max-megabytes is the limit")
    try:
        store = stores.source_at(uri)
        data = within(limits.read_seconds, store.read, uri, limits.max_bytes)
    except Overdue:
        raise Rejected(
            "unreadable", f"not read in {limits.read_seconds:g} s; --read-timeout is the limit"
        ) from None
    except StorageHangs:
        raise
    except FileNotFoundError:
        raise Rejected("missing", "not found") from None
    except (OSError, ValueError, FlowerrayError, pa.ArrowException) as error:
        if getattr(error, "errno", None) == errno.EFBIG:
            raise Rejected("too_large", "--max-megabytes is the limit") from None
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise Rejected("unreadable", reason) from None
    if not data:
        raise Rejected("empty", "0 bytes")
    if listed_size is not None and len(data) != listed_size:
        raise Rejected("changed", f"{listed_size} bytes when listed, {len(data)} when read")
    return data


def decode(
    data: bytes,
    size: int,
    resize: str,
    limits: Limits,
    colour: str | None = None,
    crop: int | None = None,
) -> np.ndarray:
    """The photograph in `data`, upright, as uint8 RGB pixels of shape (size, size, 3).

    `resize` is one of RESIZES. `colour` "srgb" converts an embedded ICC profile to sRGB; with None
    pixels are taken as they are. With `crop` the shorter side becomes so many pixels and the middle
    is cut out; without, the photograph is squashed. Transparency is laid on white, 16-bit samples
    keep their upper eight bits, an animation gives its first frame.

    Raises:
        Rejected: too_large, not_an_image, truncated or corrupt.
    """
    photograph = open_image(data, limits)
    picture = upright(photograph, None if resize == "nearest" else crop or size, colour)
    by = Image.Resampling[resize.removesuffix("-dct").upper()]
    gap = REDUCING_GAP.get(resize, 3.0)
    if crop is not None:
        picture = _middle(picture)
    wide, high = _resized(picture.size, size, crop)
    picture = picture.resize((wide, high), by, reducing_gap=gap)
    if (wide, high) != (size, size):
        left, top = (wide - size) // 2, (high - size) // 2
        picture = picture.crop((left, top, left + size, top + size))
    return np.asarray(_in_colour(picture, photograph, colour))


def _middle(picture: Image.Image) -> Image.Image:
    """`picture`, or so much of its middle as is resized before the crop."""
    most = MOST_LONG * min(picture.size)
    left, top = (max(0, (side - most) // 2) for side in picture.size)
    if not (left or top):
        return picture
    return picture.crop((left, top, picture.width - left, picture.height - top))


def _resized(sides: tuple[int, int], size: int, crop: int | None) -> tuple[int, int]:
    """Width and height to resize to; with `crop` rounded as Hugging Face's image processors do."""
    if crop is None:
        return size, size
    shorter = min(sides)
    return crop * sides[0] // shorter, crop * sides[1] // shorter


def thumbnail(data: bytes, side: int, limits: Limits) -> Image.Image:
    """The photograph in `data`, upright, in sRGB, at most `side` pixels wide and high.

    Raises:
        Rejected: as `decode`.
    """
    photograph = open_image(data, limits)
    picture = upright(photograph, side, "srgb")
    picture.thumbnail((side, side))
    return _in_colour(picture, photograph, "srgb")


@dataclass(frozen=True)
class Photograph:
    """A file whose header is read: Pillow's image of its pixels as they are stored, EXIF's
    orientation, the bytes of its ICC profile if it has one, and whether its small samples are the
    light ones."""

    image: ImageFile.ImageFile
    orientation: int
    profile: bytes | None
    white_is_zero: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        width, height = self.image.size
        return (height, width) if self.orientation > 4 else (width, height)


def open_image(data: bytes, limits: Limits) -> Photograph:
    """The photograph in `data` with only its header read.

    Raises:
        Rejected: too_large, not_an_image, truncated or corrupt.
    """
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours, below, and refuses instead of warning
    data = _without_lead(data)
    name, otherwise = formats.recognised(data)
    if name and name not in limits.formats:
        raise Rejected("not_an_image", otherwise)
    try:
        parts = containers.contents(data, name)
        tried = formats.open_decoders((name,) if name else limits.formats)
        image = Image.open(io.BytesIO(parts.pixels), formats=tried)
        width, height = image.size
    except UnidentifiedImageError:
        if name:
            raise Rejected("corrupt", f"{name} that can't be decoded") from None
        raise Rejected("not_an_image", _looks_like(data)) from None
    except Exception as error:
        raise _broken(error) from None
    if width * height > limits.max_pixels:
        raise Rejected("too_large", f"{width}x{height} pixels; --max-megapixels is the limit")
    if parts.orientation is not None:
        return Photograph(image, parts.orientation, parts.profile, parts.white_is_zero)
    exif, profile = image.info.get("exif"), image.info.get("icc_profile")
    orientation = containers.orientation_of([exif] if isinstance(exif, bytes) else [])
    return Photograph(image, orientation, profile if isinstance(profile, bytes) else None)


def upright(photograph: Photograph, size: int | None, colour: str | None = None) -> Image.Image:
    """`photograph` decoded, turned as its EXIF orientation says, in RGB; with a `size`, a JPEG
    perhaps at a reduced scale of at least `size` pixels each way.

    With `colour` "srgb" a CMYK profile is used on the way to RGB.

    Raises:
        Rejected: truncated or corrupt.
    """
    try:
        loaded = _loaded(photograph.image, size)
        if loaded.mode in ("I", "F") or loaded.mode.startswith("I;16"):
            picture = Image.fromarray(_as_bytes(loaded, photograph.white_is_zero)).convert("RGB")
        else:
            picture = _as_rgb(loaded, photograph.profile if colour else None)
    except Exception as error:  # Pillow's decoders raise nearly anything on broken data
        raise _broken(error) from None
    turned = _TURNS.get(photograph.orientation)
    return picture if turned is None else picture.transpose(turned)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _without_lead(data: bytes) -> bytes:
    """What scripts print before a picture, blank lines and a byte order mark, is left out."""
    if data[:1] in b"\xef\n\r\t ":
        bare = data.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n\t ")
        if formats.recognised(bare[:64])[0] in ("JPEG", "PNG", "GIF", "WEBP"):
            return bare
    return data


def _loaded(image: ImageFile.ImageFile, size: int | None) -> ImageFile.ImageFile:
    """`image` decoded. A JPEG without its end marker is whole if all of its pixels are there."""
    if size is not None:
        image.draft("RGB", (size, size))
    stream = image.fp
    try:
        image.load()
    except OSError as error:
        ended = None
        if image.format == "JPEG" and "truncated" in str(error) and isinstance(stream, io.BytesIO):
            ended = containers.with_end(stream.getvalue())
        if ended is None:
            raise
        one, other = (Image.open(io.BytesIO(data), formats=("JPEG",)) for data in ended)
        for copy in (one, other):
            copy.draft("RGB", (size, size) if size is not None else None)
            copy.load()
        if one.tobytes() != other.tobytes():
            raise
        return one
    return image


def _broken(error: Exception) -> Rejected:
    message = str(error).partition("\n")[0] or type(error).__name__
    truncated = "truncated" in message.lower() or isinstance(error, EOFError)
    return Rejected("truncated" if truncated else "corrupt", message)


def _in_colour(picture: Image.Image, photograph: Photograph, colour: str | None) -> Image.Image:
    """An RGB `picture` by its profile in sRGB. That is done last, where pixels are fewest."""
    if colour is None or photograph.profile is None:
        return picture
    stored = photograph.image.mode
    grey = stored in ("1", "L", "LA", "La", "I", "F") or stored.startswith("I;16")
    picture = picture.convert("L") if grey else picture
    return colours.to_srgb(picture, photograph.profile).convert("RGB")


def _as_rgb(image: ImageFile.ImageFile, profile: bytes | None) -> Image.Image:
    if image.mode == "LAB":
        return colours.lab_to_srgb(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        straight = image.convert("LA") if image.mode == "La" else image
        layers = straight.convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB")
    if profile is not None and image.mode == "CMYK":
        return colours.to_srgb(image, profile).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


_SAMPLE_FORMAT, _UNSIGNED = 339, 1  # TIFF's


def _as_bytes(image: ImageFile.ImageFile, white_is_zero: bool) -> np.ndarray:
    """Samples of more than eight bits as uint8, of shape (height, width).

    Pillow's own conversion would clip them at 255: nearly all white. White is 65535; of floats 1
    where none is above, 255 where none is above, as of 32-bit integers; and the brightest where it
    is above 65535. What is no number is black.
    """
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    samples = np.asarray(image)
    if samples.dtype == np.int32 and _UNSIGNED in tags.get(_SAMPLE_FORMAT, ()):
        samples = samples.view(np.uint32)  # Pillow has no mode for those
    samples = samples.astype(np.float32)
    finite = samples[np.isfinite(samples)]
    brightest = float(finite.max(initial=0))
    samples = np.nan_to_num(samples, nan=0, posinf=brightest, neginf=0)
    if image.mode.startswith("I;16"):
        top = 65535.0
    else:
        top = next((t for t in (1.0, 255.0, 65535.0) if brightest <= t), brightest)
        top = 255.0 if image.mode == "I" and top == 1 else top
    pixels = np.clip(samples * (255 / top), 0, 255).astype(np.uint8)
    return 255 - pixels if white_is_zero else pixels


def _looks_like(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    return "text" if head.isascii() and b"\0" not in head else "no image format that is known"
