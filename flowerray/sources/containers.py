"""What a photograph's file holds beside its pixels, read apart from them.

Side information is what cameras and editors get wrong most, and a decoder that stumbles over it
loses whole pixels. So the decoder gets a file with nothing in it but what pixels need, and the two
things beside them that matter, orientation and colour profile, are read here, leniently.

Sources: ITU-T T.81 annex B (JPEG), CIPA DC-008 (EXIF), TIFF 6.0 and BigTIFF, the PNG specification
(third edition), Google's WebP container specification, ICC.1:2022 annex B.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

LARGEST_PROFILE = 16 << 20  # the largest profiles, of printers, have a quarter of it
LARGEST_TEXT = 16 << 20


@dataclass(frozen=True)
class Contents:
    """A file taken apart.

    `pixels` is the file without its side information, `orientation` EXIF's, 1 (upright) to 8,
    `profile` the embedded ICC profile's bytes, as they are. Either is None where the file's format
    isn't one that is taken apart. `white_is_zero` where samples of more than eight bits, which
    Pillow gives as they are stored, are light where they are small.
    """

    pixels: bytes
    orientation: int | None = None
    profile: bytes | None = None
    white_is_zero: bool = False


def contents(data: bytes, format: str | None) -> Contents:
    """`data` taken apart, where `format` (Pillow's name) is one that can be.

    Raises:
        EOFError: it ends before its pixels begin.
    """
    take_apart = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "TIFF": _tiff}.get(format or "")
    return take_apart(data) if take_apart else Contents(data)


def orientation_of(exif: Iterable[bytes], xmp: bytes = b"") -> int:
    """The orientation, 1 to 8, that the first of `exif` names which names any, else `xmp`, else 1.

    Tag 0x0112 of the first IFD counts, in whatever type, for writers disagree on that too.
    """
    for block in exif:
        while block.startswith(b"Exif\0"):
            block = block[6:]
        for entry in tiff_entries(block):
            if entry.tag == _ORIENTATION and (found := _orientation(entry)):
                return found
    named = re.search(rb'tiff:Orientation\s*(?:=\s*["\']|>\s*)([1-8])\b', xmp)
    return int(named[1]) if named else 1


class Entry(NamedTuple):
    """An entry of a TIFF directory: `raw` are its bytes, `value` those of its value as far as they
    are there, in the byte `order` of struct."""

    tag: int
    kind: int
    value: memoryview
    raw: bytes
    order: str


def tiff_entries(data: bytes) -> Iterator[Entry]:
    """The entries of the first directory of a TIFF, or an EXIF block, as far as they go."""
    shape = _tiff_shape(data)
    if shape is None:
        return
    order, count_format, entry_format, inline = shape
    try:
        (at,) = struct.unpack_from(order + inline, data, 8 if inline == "Q" else 4)
        (count,) = struct.unpack_from(order + count_format, data, at)
    except (struct.error, OverflowError):
        return
    at += struct.calcsize("=" + count_format)
    length, room = struct.calcsize("=" + entry_format), struct.calcsize("=" + inline)
    view = memoryview(data)  # values may claim all of the file, each
    for begin in range(at, min(at + min(count, 65535) * length, len(data) - length + 1), length):
        tag, kind, count = struct.unpack_from(order + entry_format[:3], data, begin)
        raw = data[begin : begin + length]
        size, where = _SIZES.get(kind, 1) * count, begin + length - room
        if size > room:
            (where,) = struct.unpack_from(order + inline, data, where)
        yield Entry(tag, kind, view[where : where + size], raw, order)


_ORIENTATION, _XMP, _PROFILE = 0x0112, 0x02BC, 0x8773

# TIFF's types: struct's letter for those that hold a number, the bytes of each.
_NUMBERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 11: "f", 12: "d", 13: "L", 16: "Q"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4} | {
    16: 8,
    17: 8,
    18: 8,
}


def _tiff_shape(data: bytes) -> tuple[str, str, str, str] | None:
    """Struct's formats of byte order, count of entries, entry and offset; None where no TIFF is."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return None
    (version,) = struct.unpack_from(order + "H", data, 2)
    if version == 43:
        return order, "Q", "HHQQ", "Q"
    return (order, "H", "HHLL", "L") if version == 42 else None


def _number(entry: Entry | None) -> int:
    """The first whole number of `entry`, 1 where there is none, as TIFF has it."""
    kind = _NUMBERS.get(entry.kind) if entry else None
    if entry is None or kind is None or len(entry.value) < _SIZES[entry.kind]:
        return 1
    return int(struct.unpack_from(entry.order + kind, entry.value)[0])


def _orientation(entry: Entry) -> int | None:
    """What `entry` says, or None where that is none of 1 to 8."""
    value, number = entry.value, 0.0
    try:
        if entry.kind in (2, 7):
            text = bytes(value[:8]).partition(b"\0")[0].strip()
            number = int(text) if text else value[0]
        elif entry.kind in (5, 10):
            above, below = struct.unpack_from(entry.order + "ll", value)
            number = above / below
        elif entry.kind in _NUMBERS:
            (number,) = struct.unpack_from(entry.order + _NUMBERS[entry.kind], value)
    except (struct.error, ValueError, IndexError, ZeroDivisionError):
        return None
    return int(number) if number in range(1, 9) else None


def _jpeg(data: bytes) -> Contents:
    """Of the segments before the first scan the APPn and comments are left out, but for the two
    that tell libjpeg the colour space. Bytes between segments are skipped, as libjpeg does."""
    kept: list[bytes | memoryview] = [b"\xff\xd8"]
    exif: list[bytes] = []
    pieces: dict[int, bytes] = {}
    xmp, of_profile, at = b"", 0, 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # fills up
            at += 1
            continue
        if marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:  # stand alone
            at += 2
            continue
        if marker in (0xD9, 0xDA):
            kept.append(memoryview(data)[at:])
            joined = b"".join(part.removeprefix(b"Exif\0\0") for part in exif)
            profile = b"".join(pieces[i] for i in sorted(pieces))
            whole = sorted(pieces) == list(range(1, of_profile + 1))
            return Contents(
                b"".join(kept),
                orientation_of([joined, *exif], xmp),
                profile if profile and whole else None,
            )
        end = at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))
        if end > len(data):
            break
        body = data[at + 4 : end]
        if marker == 0xE1 and body.startswith(b"Exif\0"):
            exif.append(body)
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = xmp or body
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            of_profile = body[13]
            pieces.setdefault(body[12], body[14:])
        elif _tells_colours(marker, body) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[at:end])
        at = end
    raise EOFError("the JPEG ends before its pixels begin")


def _tells_colours(marker: int, body: bytes) -> bool:
    """JFIF and Adobe segments that libjpeg takes as such."""
    return (marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14) or (
        marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12
    )


_NOT_ZEROS = b"\xa5\x5a\x33\xcc" * 4  # what a decoder takes for lacking bits


def with_end(data: bytes) -> tuple[bytes, bytes] | None:
    """A JPEG (`data`) that lacks its end, ended in two ways, where all scans have begun.

    If both decode to the same pixels then none of them rests on what is missing. The scans of a
    progressive JPEG that haven't begun can't be seen like that, so they are counted: each
    coefficient of each component must come at full precision.
    """
    components, left = 0, set[tuple[int, int]]()
    for marker in re.finditer(rb"\xff([\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xda])", data):
        body = data[marker.end() + 2 : marker.end() + 2 + 300]
        if marker[1] == b"\xda":
            count = body[0] if body else 0
            if len(body) < 4 + 2 * count:
                return None
            first, last, precision = body[1 + 2 * count : 4 + 2 * count]
            seen = {body[1 + 2 * i] for i in range(count)}
            if precision & 15 == 0:
                left -= {(c, k) for c in seen for k in range(first, last + 1)}
        elif not components and len(body) >= 6 and len(body) >= 6 + 3 * body[5]:
            components = body[5]
            left = {(body[6 + 3 * i], k) for i in range(components) for k in range(64)}
    if not components or left:
        return None
    data = data[:-1] if data.endswith(b"\xff") else data
    # Restart markers, since at one of them decoding begins anew, whatever stood before; in their
    # order, or they are taken for later ones.
    last = data.rfind(b"\xff", 0, len(data))
    while last >= 0 and not 0xD0 <= data[last + 1 : last + 2].ljust(1)[0] <= 0xD7:
        last = data.rfind(b"\xff", 0, last)
    following = data[last + 1] - 0xD0 + 1 if last >= 0 else 0
    marks = (bytes((0xFF, 0xD0 + (following + i) % 8)) for i in range(8))
    tail = b"".join(_NOT_ZEROS + mark for mark in marks)
    return data + b"\xff\xd9", data + tail + b"\xff\xd9"


_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"


def _png(data: bytes) -> Contents:
    """Critical chunks are left, and transparency where it is valid. An ancillary chunk whose
    checksum is wrong is as if it weren't there, as for libpng."""
    view, kept, at = memoryview(data), [memoryview(data)[:8]], 8
    colours = entries = 0
    exif: list[bytes] = []
    xmp, profile, begun = b"", None, False
    while at + 8 <= len(data):
        length, kind = int.from_bytes(view[at : at + 4]), data[at + 4 : at + 8]
        end = at + 12 + length
        if kind == b"IEND" or not kind.isalpha():
            break
        if kind[0] & 0x20 == 0:
            kept.append(view[at:end])
            if kind == b"IHDR":
                colours = data[at + 17] if length >= 13 and end <= len(data) else 0
            entries = length // 3 if kind == b"PLTE" else entries
            begun = begun or kind == b"IDAT"
        elif end > len(data):
            break
        elif kind in (b"tRNS", b"iCCP", b"eXIf", b"zTXt", b"tEXt", b"iTXt"):
            body = data[at + 8 : end - 4]
            if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
                pass
            elif kind == b"tRNS":
                fits = {0: length == 2, 2: length == 6, 3: 0 < length <= entries}
                if fits.get(colours) and not begun:
                    kept.append(view[at:end])
            elif kind == b"iCCP":
                profile = profile or _inflated(body.partition(b"\0")[2], LARGEST_PROFILE)
            elif kind == b"eXIf":
                exif.insert(0, body)
            elif body.startswith(b"Raw profile type exif\0"):
                exif.append(_raw_profile(kind, body))
            elif body.startswith(b"XML:com.adobe.xmp\0"):
                xmp = _international_text(body)
        at = end
    if not begun:
        raise EOFError("the PNG ends before its pixels begin")
    cut = at > len(data)
    return Contents(b"".join([*kept, b"" if cut else _PNG_END]), orientation_of(exif, xmp), profile)


def _inflated(compressed: bytes, most: int) -> bytes | None:
    """What follows PNG's byte for the method of compression; None where it isn't whole."""
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(compressed[1:], most)
    except zlib.error:
        return None
    return text if compressed[:1] == b"\0" and inflate.eof else None


def _raw_profile(kind: bytes, body: bytes) -> bytes:
    """EXIF as ImageMagick keeps it in a text: its name and length, then hexadecimal lines."""
    text = body.partition(b"\0")[2]
    if kind == b"zTXt":
        text = _inflated(text, LARGEST_TEXT) or b""
    try:
        return bytes.fromhex("".join(text.decode("ascii").split("\n")[3:]))
    except ValueError:
        return b""


def _international_text(body: bytes) -> bytes:
    parts = body.partition(b"\0")[2]
    text = parts[2:].split(b"\0", 2)[-1]
    return (_inflated(parts[1:2] + text, LARGEST_TEXT) or b"") if parts[:1] == b"\1" else text


_WEBP_PICTURE = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM")
_WEBP_ALPHA, _WEBP_ANIMATION = 0x10, 0x02


def _webp(data: bytes) -> Contents:
    """The chunks of the picture are left; of an animation the first frame."""
    kept: list[bytes] = []
    exif = xmp = b""
    profile, at, framed = None, 12, False
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body, end = data[at + 8 : at + 8 + length], at + 8 + length
        whole = end <= len(data)
        picture = kind in _WEBP_PICTURE or (kind == b"ANMF" and not framed)
        if picture and not whole:
            raise EOFError("the WebP ends before its picture does")
        if kind == b"VP8X" and length >= 10:
            flags = bytes((body[0] & (_WEBP_ALPHA | _WEBP_ANIMATION),))
            kept.append(data[at : at + 8] + flags + body[1:])
        elif picture:
            kept.append(data[at:end])
            framed = framed or kind == b"ANMF"
        elif kind == b"EXIF":
            exif = exif or body
        elif kind == b"XMP ":
            xmp = xmp or body
        elif kind == b"ICCP" and whole:
            profile = profile or body
        at = end + length % 2
    padded = b"".join(chunk + b"\0" * (len(chunk) % 2) for chunk in kept)
    if not padded:
        raise EOFError("the WebP ends before its picture begins")
    size = (4 + len(padded)).to_bytes(4, "little")
    return Contents(b"RIFF" + size + b"WEBP" + padded, orientation_of([exif], xmp), profile)


# Of a TIFF directory what its pixels need: sizes, samples, compression, strips or tiles, colours.
_PIXEL_TAGS = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320),
    *(322, 323, 324, 325, 332, 334, 338, 339, 347, *range(512, 522), *range(529, 533), 50674),
}


def _tiff(data: bytes) -> Contents:
    """The first directory is written again behind the file, with the tags of pixels alone."""
    shape = _tiff_shape(data)
    if shape is None:
        return Contents(data)
    order, count_format, _, inline = shape
    found = {entry.tag: entry for entry in reversed(list(tiff_entries(data)))}
    if not found:
        raise EOFError("the TIFF ends before its directory does")
    tags = sorted(found.keys() & _PIXEL_TAGS)
    # Pillow doesn't open all of those; samples of at most eight bits it turns itself.
    white_is_zero = _number(found.get(262)) == 0 and _number(found.get(258)) > 8
    if white_is_zero:
        photometric = struct.pack(order + "HH", 262, 3) + struct.pack(order + inline, 1)
        black_is_zero = photometric + struct.pack(order + "H", 1)
        found[262] = found[262]._replace(raw=black_is_zero.ljust(len(found[262].raw), b"\0"))
    at = len(data) + len(data) % 2
    directory = struct.pack(order + count_format, len(tags))
    directory += b"".join(found[tag].raw for tag in tags) + struct.pack(order + inline, 0)
    header = data[:8] if inline == "Q" else data[:4]
    header += struct.pack(order + inline, at)
    view = memoryview(data)[len(header) :]
    bare = b"".join((header, view, b"\0" * (len(data) % 2), directory))
    exif = [data] if _ORIENTATION in found else []
    xmp = bytes(found[_XMP].value) if _XMP in found else b""
    profile = bytes(found[_PROFILE].value) if _PROFILE in found else None
    return Contents(bare, orientation_of(exif, xmp), profile, white_is_zero)
