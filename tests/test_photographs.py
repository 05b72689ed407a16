import io

import numpy as np
import pytest
from PIL import Image

from flowerray.photographs import REASONS, Limits, Rejected, decode, read

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
