"""Captions below photographs, as pixels."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from flowerray.reports import captions, gallery

pytest.importorskip("weblate_fonts")
pytest.importorskip("manimgx_fonts")

LINES = {
    "latin": "žluťoučký Ñandú", "greek": "τριαντάφυλλο", "cyrillic": "роза", "arabic": "وردة",
    "hebrew": "שושנה", "devanagari": "गुलाब", "bengali": "গোলাপ", "tamil": "ரோஜா", "telugu": "గులాబీ",
    "thai": "กุหลาบ", "lao": "ດອກກຸຫຼາບ", "khmer": "ផ្កាកុលាប", "myanmar": "နှင်းဆီ", "georgian": "ვარდი",
    "amharic": "ጽጌረዳ", "chinese": "玫瑰", "traditional": "鬱金香", "japanese": "さくら桜",
    "korean": "장미", "emoji": "🌹😀🌻", "joined": "👩‍🌾❤️", "mixed": "rose 玫瑰 وردة 🌹",
}  # fmt: skip


def drawn(text, width=400):
    sheet = Image.new("L", (600, 40), "white")
    captions.write(ImageDraw.Draw(sheet), (5, 25), text, 16, width)
    return np.asarray(sheet) < 128


@pytest.mark.parametrize("script", LINES)
def test_no_character_of_any_script_is_drawn_as_a_box(script):
    for character in captions._printable(LINES[script]):
        at = captions._font_of(character)
        assert character.isascii() or ord(character) in captions._characters(at), character
    assert drawn(LINES[script]).any()
    assert (drawn(LINES[script]) != drawn("\U000e0fff" * len(LINES[script]))).any()


@pytest.mark.parametrize("word", ["rose ", "玫瑰", "وردة ", "🌹", "गुलाब "])
def test_a_long_caption_is_cut_with_an_ellipsis_and_stays_in_its_width(word):
    assert not drawn(word * 60, 200)[:, 206:].any()
    assert captions._cut(word * 60, 16, 200).endswith("…")
    assert captions._cut(word.strip(), 16, 200) == word.strip()


def test_captions_of_neighbours_never_overlap(tmp_path):
    Image.new("RGB", (50, 50), "red").save(tmp_path / "a.png")
    entries = [(str(tmp_path / "a.png"), "很长的类名" * 20 + "\nlong and longer " * 9)] * 5
    sheet = np.asarray(Image.open(io.BytesIO(gallery.draw(entries, "title " * 100))).convert("L"))
    step = gallery.CELL + gallery.MARGIN
    for column in range(6):  # between them it is white
        gap = sheet[45:, column * step + 1 : column * step + gallery.MARGIN - 1]
        assert (gap == 255).all()
