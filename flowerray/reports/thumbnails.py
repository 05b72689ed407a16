"""Small pictures of photographs, as data URIs."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flowerray.sources.photographs import REASONS, Limits, Rejected, read, thumbnail

QUALITY = 70  # of WebP: about 4 kB at 160 pixels, 12 kB at 320


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI with its size in pixels; or, where `source` is None, `why` not."""

    source: str | None
    width: int
    height: int
    why: str | None = None


def thumbnails(wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Thumbnail]:
    """The thumbnail of each (uri, longest side in pixels)."""
    distinct = list(dict.fromkeys(wanted))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(distinct, pool.map(_thumbnail, distinct), strict=True))


def _thumbnail(wanted: tuple[str, int]) -> Thumbnail:
    uri, side = wanted
    try:
        picture = thumbnail(read(uri, None, Limits()), side, Limits())
    except Rejected as rejected:
        return Thumbnail(None, side, side, REASONS[rejected.reason])
    webp = io.BytesIO()
    picture.save(webp, "WEBP", quality=QUALITY)
    data = base64.b64encode(webp.getvalue()).decode()
    return Thumbnail(f"data:image/webp;base64,{data}", picture.width, picture.height)
