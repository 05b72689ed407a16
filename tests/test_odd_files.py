"""A pile of odd and broken files through the whole job, and a fuzz of the decoder."""

import io
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet
import pytest
from conftest import REPOSITORY, SHARED
from PIL import Image, features

from flowerray.commands.extract import extract
from flowerray.commands.label import label
from flowerray.commands.train import train
from flowerray.settings import ExtractSettings, LabelSettings, TrainSettings
from flowerray.sources.photographs import REASONS, Limits, Rejected, decode
from flowerray.stores import local_path


def picture(mode="RGB", size=(120, 90)):
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8)).convert(mode)


def encoded(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def oriented(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return encoded(picture(), "JPEG", exif=exif)


def png_claiming(width, height):
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


JPEG = encoded(picture(), "JPEG")
PNG = encoded(picture(), "PNG")
DEEP = Image.fromarray(np.linspace(0, 65535, 10800).astype(np.uint16).reshape(90, 120))
FRAMES = [picture(), Image.new("RGB", (120, 90), "red")]

# name: (content, the reason why it is rejected or None)
CORPUS = {
    "baseline.jpg": (JPEG, None),
    "progressive.jpg": (encoded(picture(), "JPEG", progressive=True), None),
    "grey.jpg": (encoded(picture("L"), "JPEG"), None),
    "cmyk.jpg": (encoded(picture("CMYK"), "JPEG"), None),
    "ycck.jpg": (encoded(picture("CMYK"), "JPEG", quality=60, subsampling=0), None),
    "restart-markers.jpg": (encoded(picture(), "JPEG", restart_marker_rows=1), None),
    "subsampled.jpg": (encoded(picture(), "JPEG", subsampling=2), None),
    **{f"exif-{n}.jpg": (oriented(n), None) for n in range(1, 9)},
    "exif-nonsense.jpg": (oriented(99), None),
    "rgb.png": (PNG, None),
    "rgba.png": (encoded(picture("RGBA"), "PNG"), None),
    "grey-alpha.png": (encoded(picture("LA"), "PNG"), None),
    "palette.png": (encoded(picture("P"), "PNG"), None),
    "palette-clear.png": (encoded(picture("P"), "PNG", transparency=0), None),
    "one-bit.png": (encoded(picture("1"), "PNG"), None),
    "sixteen-bit.png": (encoded(DEEP, "PNG"), None),
    "animated.png": (encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), None),
    "still.gif": (encoded(picture("P"), "GIF"), None),
    "animated.gif": (encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), None),
    "rgb.webp": (encoded(picture(), "WEBP"), None),
    "lossless.webp": (encoded(picture("RGBA"), "WEBP", lossless=True), None),
    "rgb.bmp": (encoded(picture(), "BMP"), None),
    "rgb.tiff": (encoded(picture(), "TIFF"), None),
    "lzw.tiff": (encoded(picture(), "TIFF", compression="tiff_lzw"), None),
    "sixteen-bit.tiff": (encoded(DEEP, "TIFF"), None),
    "float.tiff": (encoded(picture("F"), "TIFF"), None),
    "cmyk.tiff": (encoded(picture("CMYK"), "TIFF"), None),
    "rgb.ppm": (encoded(picture(), "PPM"), None),
    "tiny.png": (encoded(picture(size=(1, 1)), "PNG"), None),
    "thin.png": (encoded(picture(size=(3000, 1)), "PNG"), None),
    "jpeg-named.png": (JPEG, None),
    "png-named.txt": (PNG, None),
    "no-extension": (JPEG, None),
    "UPPER.JPG": (JPEG, None),
    "trailing-bytes.jpg": (JPEG + b"more" * 100, None),
    "sp ace 'quote\" \n line.jpg": (JPEG, None),
    "ünïcödé-花.jpg": (JPEG, None),
    b"not-utf8-\xff.jpg": (JPEG, None),
    "x" * 251 + ".jpg": (JPEG, None),
    "empty.jpg": (b"", "empty"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "head-alone.jpg": (JPEG[:30], "truncated"),
    "half.png": (PNG[: len(PNG) // 2], "truncated"),
    "text.jpg": (b"dear diary", "not_an_image"),
    "page.jpg": (b"<!DOCTYPE html><html>404</html>", "not_an_image"),
    "zeros.jpg": (bytes(1000), "not_an_image"),
    "noise.jpg": (random.Random(0).randbytes(5000), "not_an_image"),
    "bomb.png": (png_claiming(30_000, 30_000), "too_large"),
    "bad-data.png": (PNG[:60] + b"\0" * 40 + PNG[100:], "corrupt"),
    "bad-header.bmp": (b"BM" + bytes(60), "corrupt"),
    "two-million-high.png": (png_claiming(10, 2_000_000), "truncated"),
}
if features.check("avif"):
    CORPUS["rgb.avif"] = (encoded(picture(), "AVIF"), None)


def test_every_odd_file_is_used_or_rejected_as_documented(local_ray, tmp_path):
    pile = tmp_path / "pile"
    pile.mkdir()
    for name, (content, _) in CORPUS.items():
        with open(os.path.join(os.fsencode(pile), os.fsencode(name)), "wb") as file:
            file.write(content)
    (pile / "big.tiff").write_bytes(b"II*\0")
    os.truncate(pile / "big.tiff", 500_000_000)
    (pile / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (pile / ".hidden.jpg").write_bytes(JPEG)
    os.mkfifo(pile / "pipe.jpg")
    expected = {os.fsencode(name): reason for name, (_, reason) in CORPUS.items()}
    expected |= {b"big.tiff": "too_large", b"dangling.jpg": "missing"}
    assert len(expected) >= 40

    done = extract(
        ExtractSettings(
            images=str(pile),
            out=str(tmp_path / "features"),
            base="thumbnail",
        )
    )
    table = pyarrow.dataset.dataset(tmp_path / "features" / "shards").to_table()
    found = {
        os.path.basename(os.fsencode(local_path(row["uri"]))): row["error"]
        for row in table.to_pylist()
    }
    assert found == expected
    assert done.photographs == len(expected)
    assert set(done.rejected) <= set(REASONS)
    documented = (REPOSITORY / "docs" / "rejects.md").read_text()
    assert all(f"`{reason}`" in documented for reason in REASONS)


def resident_memory():
    """Of this process, in KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def test_ten_thousand_mutated_jpegs_cost_no_crash_and_no_leak():
    """Each is decoded or rejected with a reason; the process doesn't grow."""
    chance = random.Random(0)
    originals = [
        bytearray(encoded(picture(size=(64, 48)), "JPEG", **options))
        for options in ({}, {"progressive": True}, {"subsampling": 2}, {"quality": 20})
    ] + [bytearray(encoded(picture("CMYK", (64, 48)), "JPEG"))]
    decoded, grown_from = 0, 0
    for i in range(10_000):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        try:
            assert decode(bytes(data), 64, "bilinear-dct", Limits()).shape == (64, 64, 3)
            decoded += 1
        except Rejected as rejected:
            assert rejected.reason in REASONS
        if i == 2000:
            grown_from = resident_memory()
    assert 0 < decoded < 10_000
    grown = resident_memory() - grown_from
    assert grown < 400_000, f"grew by {grown} kB"


def test_photographs_with_broken_side_information_are_extracted_trained_on_and_labelled(
    local_ray, tmp_path
):
    """The generated cases, as one class, beside another class that is plain; then as a pile."""
    if not (SHARED / "cases").is_dir():
        pytest.skip(f"the generators are not at {SHARED / 'cases'}")
    odd = tmp_path / "labelled" / "odd"
    for name in ("exif_unwritable", "png_metadata"):
        generator = SHARED / "cases" / f"{name}.py"
        subprocess.run([sys.executable, generator, odd], check=True)
    plain = tmp_path / "labelled" / "plain"
    plain.mkdir()
    for i in range(20):
        Image.new("RGB", (64, 48), (40, 160 + i, 60)).save(plain / f"{i}.png")
    features, classifier = str(tmp_path / "features"), str(tmp_path / "classifier")
    done = extract(ExtractSettings(images=str(odd.parent), out=features, base="thumbnail"))
    assert done.rejected == {"truncated": 1}  # one-row-short.jpg, which lacks rows
    table = pyarrow.dataset.dataset(tmp_path / "features" / "shards").to_table()
    good = table.filter(pyarrow.compute.is_valid(table["features"])).to_pylist()
    without_orientation = {"bad-offset.jpg", "garbage.jpg", "header-only.jpg"}
    for row in good:
        name = os.path.basename(row["uri"])
        if row["label"] == "odd" and name not in without_orientation:
            assert is_upright(odd / name), name
    train(TrainSettings(features=features, out=classifier, recipe="logistic"))
    out = str(tmp_path / "labels")
    labelled = label(LabelSettings(images=str(odd), classifier=classifier, out=out))
    assert labelled.rejected == {"truncated": 1}
    labels = pyarrow.dataset.dataset(tmp_path / "labels" / "shards").to_table()["label"]
    assert set(labels.drop_null().to_pylist()) == {"odd"}


def is_upright(file):
    """Whether the picture is red on its left side and blue on its right."""
    pixels = decode(file.read_bytes(), 64, "bilinear-dct", Limits()).astype(int)
    left, right = pixels[32, 10], pixels[32, 54]
    return left[0] > left[2] + 60 and right[2] > right[0] + 60


def test_features_from_before_there_was_a_colour_go_on_and_label_as_they_were(local_ray, tmp_path):
    """Their record lacks the field: new photographs are taken without conversion, too."""
    images = tmp_path / "images"
    for name, shade in {"red": (200, 60, 60), "blue": (60, 60, 200)}.items():
        (images / name).mkdir(parents=True)
        for i in range(12):
            picture = Image.new("RGB", (64, 64), tuple(part + i for part in shade))
            picture.save(images / name / f"{i}.png")
    given = {"images": str(images), "out": str(tmp_path / "features"), "base": "thumbnail"}
    extract(ExtractSettings(**given))
    record = tmp_path / "features" / "run.json"
    run = json.loads(record.read_text())
    assert run["config"]["base_spec"].pop("colour") == "srgb"
    record.write_text(json.dumps(run))
    for shard in (tmp_path / "features" / "shards").iterdir():
        table = pyarrow.parquet.read_table(shard)
        about = json.loads(table.schema.metadata[b"flowerray"])
        del about["config"]["base_spec"]["colour"]
        metadata = {**table.schema.metadata, b"flowerray": json.dumps(about)}
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), shard)
    Image.new("RGB", (64, 64), (180, 40, 40)).save(images / "red" / "new.png")
    assert extract(ExtractSettings(**given, append=True)).photographs == 25
    classifier, out = str(tmp_path / "classifier"), str(tmp_path / "labels")
    train(TrainSettings(features=given["out"], out=classifier, recipe="logistic"))
    label(LabelSettings(images=str(images / "red"), classifier=classifier, out=out))
    run = json.loads((tmp_path / "labels" / "run.json").read_text())
    assert run["config"]["base_spec"]["colour"] is None
