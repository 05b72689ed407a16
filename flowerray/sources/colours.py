"""Embedded ICC profiles, converted to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

COLOURS = ("srgb",)

# Profile spaces, and the mode of Pillow's that pixels of each come in.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """`image`, of mode RGB, L, or CMYK, in sRGB (mode RGB) where `profile` is of that mode and says
    that it isn't; else `image` itself. Perceptual intent."""
    transform = _transform(profile, image.mode)
    if transform is None:
        return image
    return ImageCms.applyTransform(image, transform) or image


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """`image`, of mode LAB, in sRGB."""
    return ImageCms.applyTransform(image, _from_lab()) or image


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where `profile` is broken, of another mode, or as good as sRGB itself."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _MODES.get(source.profile.xcolor_space.strip()) != mode:
            return None
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None  # the picture is worth more than its profile
    return None if mode != "CMYK" and _changes_nothing(transform, mode) else transform


@lru_cache(maxsize=1)
def _from_lab() -> ImageCms.ImageCmsTransform:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB", ImageCms.Intent.PERCEPTUAL)


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether no colour of a lattice moves by more than two of 255 levels, as rounding does."""
    if mode == "L":
        before = np.arange(256, dtype=np.uint8)[None, :]
    else:
        steps = np.linspace(0, 255, 18).round().astype(np.uint8)
        before = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    probe = Image.fromarray(before)
    after = ImageCms.applyTransform(probe, transform)
    assert after is not None  # it is None only for what is changed in place
    moved = np.asarray(after).astype(int) - np.asarray(probe.convert("RGB"))
    return bool(np.abs(moved).max() <= 2)
