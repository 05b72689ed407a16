"""Lines of text in any script, drawn into a picture.

No font has all scripts, so each run of characters is drawn in the first of several that has them.
All are under the OFL 1.1: Kurinto Sans of the package weblate-fonts has the scripts of Europe, the
Middle East, India, Thailand and Ethiopia, its siblings Chinese, Japanese and Korean; Noto of the
package manimgx-fonts has Khmer, Lao, Myanmar and emoji, in black.
"""

from __future__ import annotations

import importlib.resources
import unicodedata
from functools import cache
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

_KURINTO, _NOTO = "weblate_fonts/static/weblate_fonts/kurinto/ttf", "manimgx_fonts"
_FONTS = (
    *(f"{_KURINTO}/KurintoSans{which}-Rg.ttf" for which in ("", "SC", "JP", "KR", "TC")),
    *(f"{_NOTO}/Noto{which}[wght].ttf" for which in ("Emoji", "SansSymbols")),
    *(f"{_NOTO}/NotoSans{which}[wght].ttf" for which in ("Khmer", "Lao", "Myanmar")),
)
_ELLIPSIS = "…"


def write(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, width: float
) -> None:
    """Draw `text`, a line in black, with its baseline's left end `at` (x, y).

    What is wider than `width` pixels is cut, with an ellipsis.
    """
    x, y = at
    for run, font in _runs(_cut(_printable(text), size, width)):
        drawn = _font(font, size)
        pen.text((x, y), run, "black", drawn, anchor="ls")
        x += drawn.getlength(run)


def _printable(text: str) -> str:
    """`text` without what draws nothing, or a box: controls, joiners, variation selectors."""
    spaced = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return "".join(
        c for c in spaced if unicodedata.category(c) != "Cf" and not 0xFE00 <= ord(c) <= 0xFE0F
    )


def _cut(text: str, size: int, width: float) -> str:
    if _width(text, size) <= width:
        return text
    least, most = 0, min(len(text), int(width))
    while least < most:  # the longest that fits
        half = (least + most + 1) // 2
        fits = _width(text[:half].rstrip() + _ELLIPSIS, size) <= width
        least, most = (half, most) if fits else (least, half - 1)
    return text[:least].rstrip() + _ELLIPSIS


def _width(text: str, size: int) -> float:
    return sum(_font(font, size).getlength(run) for run, font in _runs(text))


def _runs(text: str) -> list[tuple[str, int]]:
    """`text` in runs of one font each, by its place in `_FONTS`."""
    fonts: list[int] = []
    for character in text:
        stays = fonts and (unicodedata.combining(character) or character.isspace())
        fonts.append(fonts[-1] if stays else _font_of(character))
    pairs = groupby(zip(text, fonts, strict=True), key=lambda pair: pair[1])
    return [("".join(c for c, _ in run), font) for font, run in pairs]


def _font_of(character: str) -> int:
    """The first font that has `character`, or the first of all."""
    if character.isascii() or character == _ELLIPSIS:
        return 0
    return next((i for i in range(len(_FONTS)) if ord(character) in _characters(i)), 0)


@cache
def _characters(font: int) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    file = _file(font)
    return frozenset(TTFont(file, lazy=True).getBestCmap()) if file else frozenset()


@cache
def _font(font: int, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    file = _file(font)
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)


def _file(font: int) -> Path | None:
    """None where its package isn't installed: then Pillow's font draws what it has."""
    package, _, name = _FONTS[font].partition("/")
    try:
        file = Path(str(importlib.resources.files(package))) / name
    except ModuleNotFoundError:
        return None
    return file if file.is_file() else None
