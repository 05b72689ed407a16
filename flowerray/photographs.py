"""From a file's bytes to uint8 RGB pixels, or to the reason why there are none."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from flowerray import stores
from flowerray.bases import BaseSpec
from flowerray.errors import FlowerrayError

# How `decode` resizes, as the base spec names it. "bilinear-dct": a JPEG is decoded at the smallest
# eighth of its scale that still has enough pixels each way (libjpeg's scaled DCT), then resized
# bilinearly with antialiasing. "nearest": decoded whole, each pixel the nearest, as Keras' and the
# article's loaders do by default.
RESIZES = ("bilinear-dct", "nearest")

REASONS = {
    "missing": "the file is not there any more",
    "unreadable": "the storage or the file's permissions refuse the read",
    "empty": "the file has no bytes",
    "changed": "the file's size is not what it was when listed",
    "too_large": "more bytes or pixels than the limits allow",
    "not_an_image": "the content is no image format that Pillow knows",
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
    """What is refused before it costs memory."""

    max_bytes: int = 256 * 10**6
    max_pixels: int = 100 * 10**6


def read_and_decode(
    uri: str, listed_size: int | None, spec: BaseSpec, limits: Limits
) -> np.ndarray | Rejected:
    """The pixels of the photograph at `uri` as `spec` wants them, or why there are none."""
    return decoded(lambda: read(uri, listed_size, limits), spec, limits)


def decoded(read: Callable[[], bytes], spec: BaseSpec, limits: Limits) -> np.ndarray | Rejected:
    """The pixels of the photograph that `read` gives, or why there are none."""
    try:
        return decode(read(), spec.input_size, spec.resize, limits)
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
        data = stores.source_at(uri).read(uri, limits.max_bytes)
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


def decode(data: bytes, size: int, resize: str, limits: Limits) -> np.ndarray:
    """The photograph in `data`, upright, as uint8 RGB pixels of shape (size, size, 3).

    `resize` is one of RESIZES. Transparency is laid on white, 16-bit samples keep their upper
    eight bits, an animation gives its first frame.

    Raises:
        Rejected: too_large, not_an_image, truncated or corrupt.
    """
    image = open_image(data, limits)
    if resize == "nearest":
        return np.asarray(upright(image, None).resize((size, size), Image.Resampling.NEAREST))
    pixels = upright(image, size)
    pixels = pixels.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(pixels)


def upright(image: ImageFile.ImageFile, size: int | None) -> Image.Image:
    """`image` decoded, turned as its EXIF orientation says, in RGB; with a `size`, a JPEG perhaps
    at a reduced scale of at least `size` pixels each way.

    Raises:
        Rejected: truncated or corrupt.
    """
    try:
        if size is not None:
            image.draft("RGB", (size, size))
        ImageOps.exif_transpose(image, in_place=True)
        return _as_rgb(image)
    except Exception as error:  # Pillow's decoders raise nearly anything on broken data
        raise _broken(error) from None


def open_image(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    """The image in `data` with only its header read.

    Raises:
        Rejected: too_large or not_an_image.
    """
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours, below, and refuses instead of warning
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError:
        raise Rejected("not_an_image", _looks_like(data)) from None
    except Exception as error:
        raise _broken(error) from None
    width, height = image.size
    if width * height > limits.max_pixels:
        raise Rejected("too_large", f"{width}x{height} pixels; --max-megapixels is the limit")
    return image


@cache
def _formats() -> tuple[str, ...]:
    """Every format of Pillow's but EPS, a program in PostScript that it has Ghostscript run."""
    Image.preinit()  # the frequent ones are tried first
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


def _broken(error: Exception) -> Rejected:
    message = str(error).partition("\n")[0] or type(error).__name__
    truncated = "truncated" in message.lower() or isinstance(error, EOFError)
    return Rejected("truncated" if truncated else "corrupt", message)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Pillow's own conversion would clip 16-bit samples at 255: nearly all white.
        samples = np.asarray(image).astype(np.float32)
        brightest = samples.max(initial=0)
        top = 65535 if image.mode.startswith("I;16") or brightest > 255 else 255
        top = 1 if image.mode == "F" and brightest <= 1 else top
        return Image.fromarray(np.clip(samples * (255 / top), 0, 255).astype(np.uint8)).convert(
            "RGB"
        )
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB")
    return image.convert("RGB")


def _looks_like(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    return "text" if head.isascii() and b"\0" not in head else "no image format that is known"
