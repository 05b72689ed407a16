import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from flowerray.bases.spec import BaseSpec, fingerprint_of
from flowerray.errors import UsageError
from flowerray.settings import CheckSettings
from flowerray.sources import formats
from flowerray.sources.photographs import REASONS, Limits, Rejected, decode, read

LIMITS = Limits()


def encoded(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def halves(mode="RGB", size=(300, 200)):
    """Left half red, right half blue, in `mode`."""
    image = Image.new("RGB", size, (200, 30, 30))
    image.paste((30, 30, 200), (size[0] // 2, 0, *size))
    return image.convert(mode)


def is_red_then_blue(pixels):
    left, right = pixels[112, 40].astype(int), pixels[112, 180].astype(int)
    return left[0] > left[2] + 60 and right[2] > right[0] + 60


@pytest.mark.parametrize(
    ("mode", "format", "options"),
    [
        ("RGB", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("CMYK", "JPEG", {}),
        ("RGB", "PNG", {}),
        ("P", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("P", "GIF", {}),
        ("RGB", "WEBP", {}),
        ("RGB", "BMP", {}),
        ("RGB", "TIFF", {}),
        ("CMYK", "TIFF", {}),
    ],
)
def test_formats_and_modes_give_the_same_colours(mode, format, options):
    pixels = decode(encoded(halves(mode), format, **options), 224, "bilinear-dct", LIMITS)
    assert pixels.shape == (224, 224, 3) and pixels.dtype == np.uint8
    assert is_red_then_blue(pixels)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be turned a quarter to the right
    stored = halves().transpose(Image.Transpose.ROTATE_90)
    assert is_red_then_blue(decode(encoded(stored, "JPEG", exif=exif), 224, "bilinear-dct", LIMITS))


def test_transparency_is_laid_on_white():
    clear = Image.new("RGBA", (50, 50), (0, 0, 0, 0))
    assert (decode(encoded(clear, "PNG"), 224, "bilinear-dct", LIMITS) == 255).all()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_range(format):
    ramp = np.linspace(0, 65535, 300 * 200).astype(np.uint16).reshape(200, 300)
    pixels = decode(encoded(Image.fromarray(ramp), format), 224, "bilinear-dct", LIMITS)
    assert pixels[0].mean() < 5 and pixels[-1].mean() > 250
    assert abs(int(pixels[112].mean()) - 128) < 5


def test_an_animation_gives_its_first_frame():
    frames = [halves(), Image.new("RGB", (300, 200), "green")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert is_red_then_blue(decode(data, 224, "bilinear-dct", LIMITS))


def test_reduced_scale_is_close_to_full_decoding():
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    photograph = Image.fromarray(noise).resize((800, 600), Image.Resampling.BICUBIC)
    data = encoded(photograph, "JPEG", quality=90)
    full = Image.open(io.BytesIO(data)).resize((224, 224), Image.Resampling.BILINEAR)
    difference = decode(data, 224, "bilinear-dct", LIMITS).astype(int) - np.asarray(full)
    assert np.abs(difference).mean() < 2


JPEG = encoded(halves(), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not a photograph", "not_an_image"),
        (b"<!DOCTYPE html><p>404", "not_an_image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (encoded(halves(), "PNG")[:200], "truncated"),
        (b"\x00" * 100, "not_an_image"),
        (encoded(halves(), "EPS"), "not_an_image"),  # a program, which Ghostscript would run
    ],
)
def test_broken_data_is_rejected_with_a_reason(data, reason):
    with pytest.raises(Rejected) as rejected:
        decode(data, 224, "bilinear-dct", LIMITS)
    assert rejected.value.reason == reason and reason in REASONS


def test_reading_rejects_what_can_not_be_read(tmp_path):
    file = tmp_path / "photo.jpg"

    def reason(uri, size, limits=LIMITS):
        with pytest.raises(Rejected) as rejected:
            read(str(uri), size, limits)
        return rejected.value.reason

    assert reason(file, 10) == "missing"
    file.write_bytes(b"")
    assert reason(file, 0) == "empty"
    file.write_bytes(JPEG)
    assert read(str(file), len(JPEG), LIMITS) == read(str(file), None, LIMITS) == JPEG
    assert reason(file, 10) == "changed"
    assert reason(file, len(JPEG), Limits(max_bytes=100)) == "too_large"
    assert reason(file, None, Limits(max_bytes=100)) == "too_large"
    assert reason(tmp_path, None) == "unreadable"


def test_too_many_pixels_are_refused_before_decoding():
    bomb = encoded(Image.new("1", (20000, 20000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(Rejected) as rejected:
        decode(bomb, 224, "bilinear-dct", LIMITS)
    assert rejected.value.reason == "too_large" and "20000x20000" in rejected.value.detail


def test_nearest_is_what_keras_loads(tmp_path):
    import keras

    (tmp_path / "photo.jpg").write_bytes(JPEG)
    expected = np.asarray(keras.utils.load_img(tmp_path / "photo.jpg", target_size=(224, 224)))
    assert (decode(JPEG, 224, "nearest", LIMITS) == expected).all()


TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def stored(orientation):
    turn = TURNS[orientation]
    return halves() if turn is None else halves().transpose(turn)


def tiff_block(orientation, end="<", kind="H", number=3, extra=b""):
    """An EXIF block of one entry, whose value is of struct's `kind`, TIFF's type `number`."""
    value = struct.pack(end + kind, orientation).ljust(4, b"\0")
    return (
        (b"II*\0" if end == "<" else b"MM\0*")
        + struct.pack(end + "LHHHL", 8, 1, 0x0112, number, 1)
        + value
        + bytes(4)
        + extra
    )


def with_segments(jpeg, *bodies, marker=0xE1):
    segments = [bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body for body in bodies]
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_of_each_format_comes_out_upright(orientation):
    block = tiff_block(orientation)
    picture = stored(orientation)
    xmp = b'<x tiff:Orientation="%d"/>' % orientation
    exif = b"Exif\0\0" + block
    jpeg = encoded(picture, "JPEG", quality=95)
    files = {
        "jpeg": with_segments(jpeg, exif),
        "big-endian": with_segments(jpeg, b"Exif\0\0" + tiff_block(orientation, ">")),
        "long": with_segments(jpeg, b"Exif\0\0" + tiff_block(orientation, "<", "L", 4)),
        "behind-others": with_segments(jpeg, b"http://ns.adobe.com/xap/1.0/\0<x/>", exif),
        "empty-first": with_segments(jpeg, b"Exif\0\0", exif),
        "cut": with_segments(jpeg, exif[:-4]),
        "xmp": with_segments(jpeg, b"http://ns.adobe.com/xap/1.0/\0" + xmp),
        "png": encoded(picture, "PNG", exif=block),
        "webp": encoded(picture, "WEBP", exif=exif, quality=95),
        "tiff": encoded(picture, "TIFF", tiffinfo={0x0112: orientation}),
        "lzw": encoded(picture, "TIFF", tiffinfo={0x0112: orientation}, compression="tiff_lzw"),
        "bigtiff": encoded(picture, "TIFF", tiffinfo={0x0112: orientation}, big_tiff=True),
    }
    upright = decode(encoded(halves(), "PNG"), 64, "nearest", LIMITS).astype(int)
    for name, data in files.items():
        found = decode(data, 64, "nearest", LIMITS).astype(int)
        assert np.abs(found - upright).mean() < 8, name


@pytest.mark.parametrize("value", [0, 9, 255])
def test_an_orientation_out_of_range_turns_nothing(value):
    data = with_segments(JPEG, b"Exif\0\0" + tiff_block(value))
    assert (decode(data, 64, "nearest", LIMITS) == decode(JPEG, 64, "nearest", LIMITS)).all()


def chunk(kind, body, checksum=None):
    right = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", right)


def test_side_information_that_is_broken_costs_no_picture():
    png = encoded(halves(), "PNG")
    webp = encoded(halves(), "WEBP", exif=b"Exif\0\0" + tiff_block(1))
    frames = {"save_all": True, "append_images": [Image.new("RGB", (300, 200), "green")] * 3}
    animated = encoded(halves(), "WEBP", **frames)
    gif = encoded(halves("P"), "GIF", **frames)
    files = {
        "text": png[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000))) + png[33:],
        "checksum": png[:33] + chunk(b"tIME", bytes(7), checksum=1) + png[33:],
        "animation": png[:33] + chunk(b"acTL", b"\0") + chunk(b"fcTL", b"\0") + png[33:],
        "no-end": png[:-12],
        "end-cut": png[:-5],
        "png-newline": b"\r\n" + png,
        "webp-exif-cut": webp[:-9],
        "webp-later-frame": animated[:-40],
        "gif-later-frame": gif[:-40],
        "jpeg-no-end": JPEG[:-2],
        "jpeg-half-end": JPEG[:-1],
        "jpeg-mark": b"\xef\xbb\xbf" + JPEG,
        "jpeg-short-jfif": with_segments(JPEG, b"JFIF", marker=0xE0),
        "jpeg-profile": with_segments(JPEG, b"ICC_PROFILE\0\1\3" + bytes(9), marker=0xE2),
        "progressive-no-end": encoded(halves(), "JPEG", progressive=True)[:-2],
        "grey-no-end": encoded(halves().split()[0], "JPEG")[:-2],
        "mpo": encoded(halves(), "MPO", **frames)[: len(encoded(halves(), "JPEG")) + 300],
    }
    for name, data in files.items():
        pixels = decode(data, 224, "bilinear-dct", LIMITS, "srgb")
        assert name.startswith("grey") or is_red_then_blue(pixels), name


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"progressive": True}])
def test_a_jpeg_that_lacks_rows_or_scans_is_truncated_wherever_it_is_cut(options):
    """Also where a scan or a restart interval has just ended."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    picture = Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)
    data = encoded(picture, "JPEG", **options)
    begin = data.index(b"\xff\xda")
    markers = [i for i in range(begin + 9, len(data) - 2) if data[i] == 0xFF and data[i + 1]]
    for cut in {*markers, *range(begin + 20, len(data) - 6, 97)}:
        with pytest.raises(Rejected) as rejected:
            decode(data[:cut], 64, "bilinear-dct", LIMITS)
        assert rejected.value.reason == "truncated"


@pytest.mark.parametrize("lead", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_begins_as_jpeg_or_png_is_at_worst_broken(lead):
    for rest in (b"", bytes(300), b"\xe0\0\4ab\xff\xda" + bytes(300), b"text " * 100):
        with pytest.raises(Rejected) as rejected:
            decode(lead + rest, 64, "bilinear-dct", LIMITS)
        assert rejected.value.reason in ("corrupt", "truncated")


def test_critical_chunks_with_a_wrong_checksum_are_corrupt():
    png = encoded(halves(), "PNG")
    with pytest.raises(Rejected) as rejected:
        decode(png[:30] + b"\0\0\0" + png[33:], 64, "bilinear-dct", LIMITS)
    assert rejected.value.reason == "corrupt"


def grey_tiff(samples, photometric=1, sample_format=1):
    """A TIFF of one strip, of (h, w) `samples`, written by hand for what Pillow doesn't write."""
    high, wide = samples.shape
    data = samples.tobytes()
    tags = {
        256: wide, 257: high, 258: samples.itemsize * 8, 259: 1, 262: photometric, 273: 8,
        277: 1, 278: high, 279: len(data), 339: sample_format,
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHL", b"II", 42, 8 + len(data)) + data + (
        struct.pack("<H", len(tags)) + entries + bytes(4)
    )  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("dtype", "brightest", "sample_format"),
    [("f4", 1, 3), ("f4", 255, 3), ("f4", 1e9, 3), ("u4", 2**32 - 1, 1), ("i4", 65535, 2),
     ("u2", 65535, 1), ("u1", 255, 1)],
)  # fmt: skip
def test_samples_of_any_depth_keep_their_range_also_where_white_is_zero(
    dtype, brightest, sample_format
):
    ramp = (np.linspace(0, 1, 64)[None, :].repeat(8, 0) * brightest).astype(dtype)
    for photometric in (1, 0):
        data = grey_tiff(ramp, photometric, sample_format)
        pixels = decode(data, 64, "nearest", LIMITS)[4, :, 0].astype(int)
        pixels = pixels if photometric else 255 - pixels
        assert pixels[0] < 6 and pixels[-1] > 249 and abs(pixels[32] - 128) < 8


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_spoil_no_others(odd):
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None, :].repeat(8, 0)
    ramp[0, :2] = odd
    pixels = decode(grey_tiff(ramp, 1, 3), 64, "nearest", LIMITS)[32, :, 0]
    assert pixels[0] < 6 and pixels[-1] > 249
    alone = decode(grey_tiff(np.full((8, 8), odd, np.float32), 1, 3), 8, "nearest", LIMITS)
    assert (alone == 0).all()


def display_p3():
    """Display P3, a matrix and a curve, written by hand after ICC.1: clauses 7 to 10."""

    def xyz(*numbers):
        return b"XYZ " + bytes(4) + struct.pack(">3l", *(round(n * 65536) for n in numbers))

    curve = b"para" + bytes(4) + struct.pack(">HHl", 0, 0, round(2.2 * 65536))
    text = b"desc" + bytes(4) + struct.pack(">L", 11) + b"Display P3\0" + bytes(78) + bytes(1)
    tags = {
        b"desc": text, b"cprt": b"text" + bytes(4) + b"CC0\0", b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.5151, 0.2412, -0.0011), b"gXYZ": xyz(0.2920, 0.6922, 0.0419),
        b"bXYZ": xyz(0.1571, 0.0666, 0.7841), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    table, body = struct.pack(">L", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">LL", 132 + 12 * len(tags) + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = bytes(4) + bytes(4) + b"\4\0\0\0" + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    header += struct.pack(">3l", 63190, 65536, 54061) + bytes(48)
    return struct.pack(">L", 128 + len(table) + len(body)) + header[4:128] + table + body


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_colours_of_a_profile_are_converted_to_srgb_where_the_spec_says_so(format):
    """The expected colour is counted by the primaries of both, on ICC's D50 white."""
    linear = (np.array([200, 100, 60]) / 255) ** 2.2
    p3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
    of_srgb = [[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7142]]
    linear = np.linalg.inv(of_srgb) @ p3 @ linear
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    options = {} if format in ("PNG", "TIFF") else {"quality": 100}
    data = encoded(Image.new("RGB", (64, 64), (200, 100, 60)), format,
                   icc_profile=display_p3(), **options)  # fmt: skip
    found = decode(data, 16, "bilinear-dct", LIMITS, "srgb")[8, 8].astype(int)
    assert np.abs(found - expected).max() <= 3, found
    as_before = decode(data, 16, "bilinear-dct", LIMITS)[8, 8].astype(int)
    assert np.abs(as_before - (200, 100, 60)).max() <= 3


def linear_grey():
    """A grey profile whose samples are light itself, as numbers of photons are."""
    tags = {b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3l", 63190, 65536, 54061)}
    tags[b"kTRC"] = b"curv" + bytes(8)
    table, body = struct.pack(">L", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">LL", 132 + 12 * len(tags) + len(body), len(value))
        body += value
    header = bytes(4) + b"\2\x40\0\0" + b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28)
    header += struct.pack(">3l", 63190, 65536, 54061) + bytes(48)
    return struct.pack(">L", 128 + len(table) + len(body)) + header + table + body


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_of_a_profile_is_converted_too(mode):
    light = 55 * 257 if mode == "I;16" else 55
    grey = Image.new(mode, (32, 32), (light, 255) if mode == "LA" else light)
    data = encoded(grey, "PNG", icc_profile=linear_grey())
    expected = 255 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055)
    found = decode(data, 8, "bilinear-dct", LIMITS, "srgb")
    assert np.abs(found.astype(int) - expected).max() <= 2
    assert np.abs(decode(data, 8, "bilinear-dct", LIMITS).astype(int) - 55).max() <= 1


def test_a_profile_that_is_srgb_or_broken_or_of_another_mode_changes_no_pixel():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain = decode(encoded(halves(), "PNG"), 64, "bilinear-dct", LIMITS)
    for profile in (srgb, lab, b"no profile", display_p3()[:200]):
        data = encoded(halves(), "PNG", icc_profile=profile)
        assert (decode(data, 64, "bilinear-dct", LIMITS, "srgb") == plain).all()


def test_a_spec_without_colour_is_as_it_was():
    given = {"base": "vgg16", "layer": None, "input_size": 224, "preparation": "vgg"}
    given |= {"resize": "bilinear-dct", "precision": "float32", "engine": "keras"}
    fields = {**given, "weights": "imagenet", "weights_sha256": "0" * 64}
    old = BaseSpec.from_dict(fields)
    assert old.colour is None
    assert old.fingerprint == fingerprint_of({**fields, "pool": None, "calibration": None})
    assert BaseSpec(**fields, colour="srgb").fingerprint != old.fingerprint


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp41isom", "MP4"),
        (b"\0\0\0\x18ftypqt  \0\0\0\0qt  qt  ", "QuickTime"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "CR3"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"%PDF-1.7\n", "PDF"),
        (b"PK\3\4", "ZIP"),
        (b"Rar!\x1a\7\1\0", "RAR"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "SVG"),
        (b"8BPS\0\1", "PSD is not among --formats"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000 is not among --formats"),
        (b"II*\0\x10\0\0\0CR\2\0", "CR2"),
        (b"\x1aE\xdf\xa3\x9fB\x82\x84webm", "WebM"),
        (b"PAR1", "Parquet"),
        (b"\x93NUMPY", "NPY"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (encoded(halves(), "EPS"), "PostScript"),
    ],
)
def test_what_is_not_decoded_is_called_by_its_name(data, said):
    with pytest.raises(Rejected) as rejected:
        decode(data + bytes(100), 64, "bilinear-dct", LIMITS)
    assert rejected.value.reason == "not_an_image" and said in rejected.value.detail


def test_heic_is_decoded_where_pillow_heif_is_and_formats_says_so():
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(halves()).save(stream, quality=90)
    wider = CheckSettings(source="x", formats="jpeg,heic").limits
    assert is_red_then_blue(decode(stream.getvalue(), 224, "bilinear-dct", wider, "srgb"))


def test_formats_widens_and_narrows_what_is_decoded():
    data = encoded(halves(), "JPEG2000")
    wider = CheckSettings(source="x", formats="jpg, jp2").limits
    assert is_red_then_blue(decode(data, 224, "bilinear-dct", wider))
    with pytest.raises(Rejected):
        decode(encoded(halves(), "PNG"), 64, "bilinear-dct", wider)
    assert {*formats.PHOTOGRAPHS} <= {*formats.chosen("all")} and "EPS" not in formats.chosen("all")
    for names, said in {"jpgg": "did you mean jpeg", "eps": "never run", "": "none"}.items():
        with pytest.raises(UsageError, match=said):
            CheckSettings(source="x", formats=names)
