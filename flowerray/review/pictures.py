"""A photograph for the page: as it lies in its store, or smaller."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from flowerray.sources import formats
from flowerray.sources.photographs import Limits, Rejected, read, thumbnail

SHOWN = {  # formats that every browser shows, by Pillow's names
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
}
LARGEST = 4096  # pixels of the longest side of what is made here
QUALITY = 85  # of JPEG
BYTES_KEPT = 96 << 20  # of pictures made before: people go back and forth


@dataclass(frozen=True)
class Picture:
    """The bytes of a picture, and what they are."""

    data: bytes
    media_type: str


class Pictures:
    """Pictures of photographs by uri; threads may share it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: OrderedDict[tuple[str, int], Picture] = OrderedDict()
        self._bytes, self._lock = 0, Lock()

    def original(self, uri: str) -> Picture:
        """The photograph's own bytes, or a JPEG where browsers don't show its format.

        Raises:
            Rejected: it can't be read or decoded.
        """
        data = read(uri, None, self._limits)
        media_type = SHOWN.get(formats.recognised(data)[0] or "")
        if media_type is None:
            return self._smaller(data, LARGEST)
        return Picture(data, media_type)

    def small(self, uri: str, side: int) -> Picture:
        """At most `side` pixels wide and high.

        Raises:
            Rejected: it can't be read or decoded.
        """
        side = max(16, min(side, LARGEST))
        return self._remembered(
            (uri, side), lambda: self._smaller(read(uri, None, self._limits), side)
        )

    def _smaller(self, data: bytes, side: int) -> Picture:
        jpeg = io.BytesIO()
        try:
            thumbnail(data, side, self._limits).save(jpeg, "JPEG", quality=QUALITY)
        except OSError as error:
            raise Rejected("corrupt", str(error)) from None
        return Picture(jpeg.getvalue(), "image/jpeg")

    def _remembered(self, key: tuple[str, int], make: Callable[[], Picture]) -> Picture:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        picture = make()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = picture
                self._bytes += len(picture.data)
            while self._bytes > BYTES_KEPT:
                self._bytes -= len(self._kept.popitem(last=False)[1].data)
        return picture
