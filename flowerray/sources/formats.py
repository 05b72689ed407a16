"""Formats of files: which are decoded, and what the others are called."""

from __future__ import annotations

import difflib
import re
from functools import cache

from flowerray.errors import UsageError
from flowerray.sources.containers import tiff_entries

# What photographs come in, by Pillow's names. Each decoder more is one more that a stranger's file
# may find a hole in.
PHOTOGRAPHS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")

# A program in PostScript that Pillow has Ghostscript run, and names that Pillow has no decoder to.
_NEVER = ("EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF")

_VIDEO = "a video, {}: take pictures out of it first"
_ARCHIVE = "an archive, {}: unpack it first"
_DATA = "{}: data and no photograph"
_RAW = "a raw camera file, {}: develop it to JPEG or TIFF first"

# The beginning of a file (a pattern), the format's name, and for those that are not decoded what to
# say of it. A name that stands alone is one of Pillow's.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\x89PNG\r\n\x1a\n", "PNG", ""),
    (rb"RIFF....WEBP", "WEBP", ""),
    (rb"GIF8[79]a", "GIF", ""),
    (rb"BM....\0\0\0\0", "BMP", ""),
    (rb"(II|MM)\0?[*+]", "TIFF", ""),
    (rb"8BPS", "PSD", ""),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG2000", ""),
    (rb"\0\0\x01\0[^\0]\0", "ICO", ""),
    (rb"icns", "ICNS", ""),
    (rb"DDS ", "DDS", ""),
    (rb"qoif", "QOI", ""),
    (rb"SIMPLE  =", "FITS", ""),
    (rb"\x0a[\0\x02\x03\x04\x05]\x01[\x01\x02\x04\x08]", "PCX", ""),
    (rb"/\* XPM", "XPM", ""),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "EPS", "a program in PostScript, which is never run"),
    (
        rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a",
        "JPEG XL",
        "JPEG XL: convert it to JPEG or PNG first, with djxl",
    ),
    (rb"FUJIFILMCCD-RAW|IIRO|IIRS|IIU\0|FOVb|\0MRM", "raw", _RAW.format("RAF, ORF or RW2")),
    (rb"%PDF-", "PDF", "PDF: take its pictures out first, with pdfimages"),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg.*?>\s*)?<svg[\s/>]",
     "SVG", "SVG, a drawing: render it to PNG first"),
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "ZIP", _ARCHIVE.format("ZIP")),
    (rb"Rar!\x1a\x07", "RAR", _ARCHIVE.format("RAR")),
    (rb"7z\xbc\xaf\x27\x1c", "7z", _ARCHIVE.format("7z")),
    (rb"\x1f\x8b\x08", "gzip", _ARCHIVE.format("gzip")),
    (rb"BZh[1-9]1AY&SY", "bzip2", _ARCHIVE.format("bzip2")),
    (rb"\xfd7zXZ\0", "xz", _ARCHIVE.format("xz")),
    (rb"\x28\xb5\x2f\xfd", "zstd", _ARCHIVE.format("zstd")),
    (rb".{257}ustar", "tar", _ARCHIVE.format("tar")),
    (rb"\x1a\x45\xdf\xa3.{0,60}webm", "WebM", _VIDEO.format("WebM")),
    (rb"\x1a\x45\xdf\xa3", "Matroska", _VIDEO.format("Matroska")),
    (rb"RIFF....AVI ", "AVI", _VIDEO.format("AVI")),
    (rb"\0\0\x01[\xb3\xba]", "MPEG", _VIDEO.format("MPEG")),
    (rb"....(moov|mdat|wide|free)", "MOV", _VIDEO.format("QuickTime")),
    (rb"PAR1", "Parquet", _DATA.format("Parquet")),
    (rb"\x93NUMPY", "NPY", _DATA.format("NPY")),
    (rb"\x89HDF\r\n\x1a\n", "HDF5", _DATA.format("HDF5")),
    (rb"SQLite format 3\0", "SQLite", _DATA.format("SQLite")),
)  # fmt: skip

_HEIC = (
    "HEIC: convert it to JPEG first, or install pillow-heif on every node and add heif to --formats"
)


def chosen(names: str) -> tuple[str, ...]:
    """The formats behind --formats, Pillow's names: `names` with commas between, or all.

    Names count without case, and so do file extensions that Pillow knows.

    Raises:
        UsageError: one is no name of a format that is ever decoded.
    """
    asked = [name for name in re.split(r"[,\s]+", names.strip()) if name]
    if not asked:
        raise UsageError("--formats names none; the default is " + ",".join(PHOTOGRAPHS).lower())
    if [name.lower() for name in asked] == ["all"]:
        return _decoders()
    return tuple(dict.fromkeys(_one_chosen(name) for name in asked))


def recognised(data: bytes) -> tuple[str | None, str]:
    """What `data` is by its beginning: Pillow's name of a format, or one that people use, and what
    to say of it where it isn't decoded; None where no format begins so."""
    if data.startswith(b"\xff\xd8\xff"):  # nearly all of them
        return "JPEG", "JPEG is not among --formats"
    head = data[:1024]
    if head[4:8] == b"ftyp":
        return _of_brands(data)
    for pattern, name, said in _BEGINNINGS:
        if re.match(pattern, head, re.DOTALL):
            raw = _raw(data) if name == "TIFF" else None
            return raw or (name, said or f"{name} is not among --formats")
    return None, ""


def open_decoders(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `formats` that Pillow can decode here, loaded."""
    return tuple(name for name in formats if name in _decoders())


@cache
def _decoders() -> tuple[str, ...]:
    from PIL import Image

    Image.preinit()  # the frequent ones are tried first
    Image.init()
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        pass
    return tuple(name for name in Image.ID if name not in _NEVER)


def _one_chosen(name: str) -> str:
    from PIL import Image

    known = _decoders()
    upper = name.upper().removeprefix(".")
    found = Image.registered_extensions().get("." + upper.lower(), upper)
    found = "JPEG" if found == "MPO" else found  # a JPEG with others behind it
    if found in known:
        return found
    if found in ("HEIF", "HEIC"):
        raise UsageError("--formats: heif needs pillow-heif: pip install pillow-heif")
    if found == "AVIF":
        raise UsageError("--formats: this Pillow has no decoder for avif: pip install -U pillow")
    if found == "EPS":
        raise UsageError("--formats: eps is a program, which is never run: render it to PNG first")
    near = difflib.get_close_matches(upper, known, 1)
    mend = f"did you mean {near[0].lower()}?" if near else "one of " + ", ".join(known).lower()
    raise UsageError(f"--formats: there is no format {name!r}; {mend}")


def _of_brands(data: bytes) -> tuple[str, str]:
    """A file of ISO 14496-12's kind, whose first box lists what it is."""
    box = data[8 : min(int.from_bytes(data[:4]), 256)]
    brands = {box[i : i + 4] for i in (0, *range(8, len(box), 4))}
    if b"crx " in brands:
        return "CR3", _RAW.format("CR3")
    if brands & {b"avif", b"avis"}:
        return "AVIF", "AVIF is not among --formats"
    if any(b[:3] in (b"hei", b"hev") for b in brands) or brands & {b"mif1", b"msf1"}:
        return "HEIF", _HEIC
    if b"qt  " in brands:
        return "MOV", _VIDEO.format("QuickTime")
    return "MP4", _VIDEO.format("MP4")


_MAKER, _SUBFILES, _SUBFILE_TYPE, _DNG_VERSION = 0x010F, 0x014A, 0x00FE, 0xC612


def _raw(data: bytes) -> tuple[str, str] | None:
    """The raw camera file that a TIFF is, whose first picture is only a small one to show."""
    if data[8:10] == b"CR":
        return "CR2", _RAW.format("CR2")
    found = {entry.tag: entry for entry in tiff_entries(data)}
    if _DNG_VERSION in found:
        return "DNG", _RAW.format("DNG")
    small = _SUBFILE_TYPE in found and found[_SUBFILE_TYPE].raw[-4:] in (b"\1\0\0\0", b"\0\0\0\1")
    maker = bytes(found[_MAKER].value[:8]).upper() if _MAKER in found else b""
    named = {b"NIKON": "NEF", b"SONY": "ARW", b"PENTAX": "PEF", b"SAMSUNG": "SRW"}
    if _SUBFILES in found and (small or maker.startswith(tuple(named))):
        name = next((named[m] for m in named if maker.startswith(m)), "NEF, ARW or such")
        return name, _RAW.format(name)
    return None
