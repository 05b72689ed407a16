"""Contact sheets: photographs in a grid, each with a caption."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

from flowerray.reports import captions
from flowerray.sources.photographs import Limits, Rejected, read, thumbnail

CELL, LINE, MARGIN, COLUMNS = 200, 22, 10, 5


def draw(entries: Sequence[tuple[str, str]], title: str, limits: Limits | None = None) -> bytes:
    """A PNG of (uri, caption) `entries`, five a row, with room for the caption of most lines.

    Captions are in any script; a line that is wider than its photograph is cut. A photograph that
    `limits` refuse is a grey square.
    """
    lines = [caption.count("\n") + 1 for _, caption in entries]
    caption_height = LINE * max(lines, default=1)
    rows = max(1, -(-len(entries) // COLUMNS))
    width = COLUMNS * (CELL + MARGIN) + MARGIN
    top = 40
    sheet = Image.new("RGB", (width, top + rows * (CELL + caption_height + MARGIN)), "white")
    pen = ImageDraw.Draw(sheet)
    captions.write(pen, (MARGIN, 26), title, 18, width - 2 * MARGIN)
    for i, (uri, caption) in enumerate(entries):
        x = MARGIN + (i % COLUMNS) * (CELL + MARGIN)
        y = top + (i // COLUMNS) * (CELL + caption_height + MARGIN)
        picture = _thumbnail(uri, limits or Limits())
        sheet.paste(picture, (x + (CELL - picture.width) // 2, y + (CELL - picture.height) // 2))
        for number, line in enumerate(caption.split("\n")):
            captions.write(pen, (x, y + CELL + 17 + number * LINE), line, 13, CELL)
    png = io.BytesIO()
    sheet.save(png, "PNG", optimize=True)
    return png.getvalue()


def _thumbnail(uri: str, limits: Limits) -> Image.Image:
    try:
        return thumbnail(read(uri, None, limits), CELL, limits)
    except Rejected:
        return Image.new("RGB", (CELL, CELL), "lightgrey")
