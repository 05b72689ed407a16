"""A small sample set of roses, sunflowers and tulips, drawn with Pillow and not photographed.

It lets a new user try every command offline. Colour, background, light and size vary in every
class, so that only the shape of a flower tells its class. The same seed gives the same bytes.
"""

import errno
import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

__all__ = ["SampleSet", "draw_sample"]

README = """\
The flowers here are drawn by flowerray, not photographed: a sample set to try the commands on.
Drawn with: flowerray sample DIR --per-class {per_class} --seed {seed}

labelled/   {per_class} drawings each of rose, sunflower and tulip, one folder a class
pile/       {per_class} more of each, mixed and unlabelled, and a few broken files
truth.csv   the true label of every drawing in pile/; the broken files have none
"""
LABELLED, PILE = 0, 1  # the two splits, as they enter a drawing's seed
SCALE = 2  # drawn at twice the size and reduced, which smooths every edge
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))

Rng = np.random.Generator
Colour = np.ndarray  # red, green and blue; Pillow cuts off what strays beyond 0 to 255
RED, PINK, PURPLE = np.array([(196, 22, 40), (236, 120, 160), (124, 50, 140)])
YELLOW, GOLD, ORANGE = np.array([(248, 212, 48), (242, 178, 32), (238, 120, 30)])
WHITE, RUST, GREEN = np.array([(242, 236, 226), (170, 66, 24), (62, 108, 48)])
SEED_BROWN, POLLEN = np.array([(62, 38, 24), (196, 136, 56)])
PETAL_COLOURS = {
    "rose": (RED, RED, PINK, WHITE, YELLOW, ORANGE),
    "sunflower": (YELLOW, YELLOW, GOLD, ORANGE, RUST),
    "tulip": (RED, PINK, YELLOW, PURPLE, WHITE, ORANGE),
}
BACKGROUNDS = {  # mean colour, how far it strays, how uneven it is, its patches across and down
    "sky": ((140, 180, 220), 25, 18, 4, 3),
    "lawn": ((62, 92, 48), 25, 16, 8, 8),
    "soil": ((92, 70, 52), 20, 15, 70, 60),
    "wall": ((160, 150, 145), 70, 10, 4, 4),
    "table": ((150, 105, 65), 40, 12, 3, 60),
    "lights": ((56, 74, 48), 25, 16, 6, 6),
}


@dataclass(frozen=True)
class SampleSet:
    """Where a sample set lies, and how many good drawings and broken files it holds in all."""

    labelled: Path
    pile: Path
    truth: Path
    photographs: int
    broken: int


def draw_sample(directory: str | os.PathLike, per_class: int = 40, seed: int = 0) -> SampleSet:
    """Draw a labelled folder, an unlabelled pile and the pile's true labels into `directory`.

    An earlier, whole sample set of the same `per_class` and `seed` is returned unchanged.

    Raises:
        ValueError: `per_class` is below 2, or `seed` is negative.
        FileExistsError: `directory` holds something else, or is no directory.
    """
    if per_class < 2 or seed < 0:
        raise ValueError(f"per_class must be 2 or more and seed 0 or more: {per_class}, {seed}")
    target = Path(directory).resolve()
    readme = README.format(per_class=per_class, seed=seed).encode()
    mark = target / "README.txt"  # written last
    if not (mark.is_file() and mark.read_bytes() == readme):
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise FileExistsError(
                f"{directory} exists and is not this sample set: choose another directory, "
                "or delete it first"
            )
        write_sample(target, per_class, seed, readme)
    drawings, broken = 2 * per_class * len(PETAL_COLOURS), len(broken_files(b""))
    return SampleSet(target / "labelled", target / "pile", target / "truth.csv", drawings, broken)


def write_sample(target: Path, per_class: int, seed: int, readme: bytes) -> None:
    """Write the set beside `target` and move it there when it is whole."""
    if target.parent.is_file():  # of which mkdir says that it exists
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target.parent))
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    partial = scratch / target.name
    try:
        for label in PETAL_COLOURS:
            folder = partial / "labelled" / label
            folder.mkdir(parents=True)
            for i in range(per_class):
                (folder / f"{label}-{i + 1:04d}.jpg").write_bytes(draw(label, seed, LABELLED, i))
        write_pile(partial, per_class, seed)
        (partial / "README.txt").write_bytes(readme)
        if not target.exists():
            partial.rename(target)
        else:  # it is empty, and may be a mount or the working directory: fill it, keep it
            for name in ("labelled", "pile", "truth.csv", "README.txt"):
                shutil.move(partial / name, target / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_pile(root: Path, per_class: int, seed: int) -> None:
    """Write drawings and broken files in one shuffled order, and truth.csv beside them."""
    (root / "pile").mkdir()
    broken = broken_files(draw("rose", seed, PILE, per_class))
    entries = [(label, i) for label in PETAL_COLOURS for i in range(per_class)]
    entries += [("", i) for i in range(len(broken))]
    order = np.random.default_rng((seed, len(PETAL_COLOURS))).permutation(len(entries))
    truth = "file,label\n"
    for number, place in enumerate(order, start=1):
        label, i = entries[place]
        suffix = {4: ".png", 9: ".webp"}.get(number % 12, ".jpg") if label else broken[i][0]
        name = f"photo-{number:04d}{suffix}"
        content = draw(label, seed, PILE, i, suffix) if label else broken[i][1]
        (root / "pile" / name).write_bytes(content)
        truth += f"{name},{label}\n" if label else ""
    (root / "truth.csv").write_bytes(truth.encode())


def broken_files(jpeg: bytes) -> list[tuple[str, bytes]]:
    """Suffix and content of the files that pass for photographs by name and cannot be read."""
    page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
    text = b"A line of text, no picture.\n"
    return [(".jpg", b""), (".jpg", jpeg[: len(jpeg) // 2]), (".jpg", page), (".png", text)]


def draw(label: str, seed: int, split: int, index: int, suffix: str = ".jpg") -> bytes:
    """Draw one picture of one to five flowers, as the bytes of an image file."""
    rng = np.random.default_rng((seed, list(PETAL_COLOURS).index(label), split, index))
    long_side = int(rng.integers(320, 641))
    sides = [long_side, int(long_side * rng.uniform(0.67, 0.8))]
    width, height = sides if rng.random() < 0.6 else sides[::-1]
    scene = draw_background(rng, width * SCALE, height * SCALE)
    draw_flower = {"rose": draw_rose, "sunflower": draw_sunflower, "tulip": draw_tulip}[label]
    colour = rng.choice(PETAL_COLOURS[label])
    for centre, radius in place_flowers(rng, *scene.size):
        brush = Brush(scene, rng, centre, radius)
        draw_flower(brush, rng, brush.near(colour, 18), brush.near(GREEN, 22))
    picture, file = develop(rng, scene.reduce(SCALE)), BytesIO()
    quality = int(rng.integers(75, 93))
    picture.save(file, Image.registered_extensions()[suffix], quality=quality, method=1)
    return file.getvalue()


def draw_background(rng: Rng, width: int, height: int) -> Image.Image:
    """Draw what lies behind the flowers, small and then enlarged so that it looks out of focus."""
    kind = str(rng.choice(list(BACKGROUNDS)))
    colour, stray, uneven, across, down = BACKGROUNDS[kind]
    fall = np.linspace(-1, 1, down)[:, None] * rng.normal(0, 16)  # light falls off up or down
    patches = rng.normal(0, uneven, (down, across)) + fall
    patches = patches[:, :, None] + colour + rng.integers(-stray, stray + 1, 3)
    wide, high = np.array([width, height]) // rng.integers(2, 5)
    back = Image.fromarray(np.clip(patches, 0, 255).astype(np.uint8))
    back = back.resize((wide, high), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(back)
    if kind in ("sky", "lawn"):  # blades of grass; under a sky only along the bottom
        top = high * rng.uniform(0.6, 0.95) if kind == "sky" else 0
        for y in np.sort(rng.uniform(top, high * 1.2, 220)):
            x, bent, tall = rng.uniform((0, -0.1, 0.1), (1, 0.1, 0.3)) * (wide, high, high)
            blade = rng.integers((45, 90, 20), (115, 160, 90)).tolist()
            pen.line((x, y, x + bent, y - tall), tuple(blade), 2)
    if kind == "lights":
        for x, y, r in rng.uniform(0, (wide, high, 0.08 * wide), (30, 3)):
            pen.ellipse((x - r, y - r, x + r, y + r), tuple(rng.integers(40, 180, 3).tolist()))
    back = back.filter(ImageFilter.BoxBlur(1))
    return back.resize((width, height), Image.Resampling.BILINEAR)


def place_flowers(rng: Rng, width: int, height: int) -> list[tuple[complex, float]]:
    """Centres and radii of flowers that hardly overlap, the farthest first."""
    wanted = rng.choice([1, 2, 3, 4, 5], p=[0.4, 0.2, 0.2, 0.1, 0.1])
    size = min(width, height) * rng.uniform(0.3, 0.42) / wanted**0.45
    placed: list[tuple[complex, float]] = []
    for radius in size * rng.uniform(0.85, 1.15, 40):
        x = rng.uniform(0.8 * radius, width - 0.8 * radius)
        centre = complex(x, rng.uniform(0.9 * radius, max(0.75 * height, radius)))
        apart = all(abs(centre - other) > 0.95 * (radius + r) for other, r in placed)
        if apart and len(placed) < wanted:
            placed.append((centre, radius))
    return sorted(placed, key=lambda flower: flower[0].imag)


def develop(rng: Rng, picture: Image.Image) -> Image.Image:
    """Give a drawing what a camera adds: blur, grain, exposure and a colour cast."""
    picture = picture.filter(ImageFilter.BoxBlur(rng.uniform(0.1, 0.8)))
    amount = int(rng.integers(2, 12))
    grain = rng.integers(0, 2 * amount + 1, picture.size[::-1], dtype=np.uint8)
    picture = ImageChops.add(picture, Image.merge("RGB", [Image.fromarray(grain)] * 3), 1, -amount)
    levels = (np.arange(256) - 128) * rng.uniform(0.8, 1.15) + 128 + rng.uniform(-25, 25)
    tables = levels + rng.uniform(-12, 12, (3, 1))
    return picture.point(np.clip(tables, 0, 255).astype(int).ravel().tolist())


class Brush:
    """Paints shapes in one flower's own units: its centre is 0 and its radius 1.

    A shape is an array of complex numbers: adding moves it, multiplying turns and sizes it.
    """

    def __init__(self, scene: Image.Image, rng: Rng, centre: complex, radius: float) -> None:
        """Paint into `scene` about `centre`."""
        self.pen, self.rng, self.centre, self.radius = ImageDraw.Draw(scene), rng, centre, radius
        self.floor = (scene.height - centre.imag) / radius + 0.5  # just below the picture
        self.tilt, self.lean = 1.0, 1 + 0j  # how far the flower looks aside, and which way

    def near(self, colour: Colour, spread: int) -> Colour:
        """A colour that differs a little from `colour`."""
        return colour + self.rng.integers(-spread, spread + 1, 3)

    def face(self) -> None:
        """Turn the flower, which is seen from above, a little aside."""
        self.tilt, self.lean = self.rng.uniform(0.72, 1), turn(self.rng.uniform(0, 2 * math.pi))

    def fill(self, shape: np.ndarray, colour: Colour) -> None:
        """Paint the inside of a shape."""
        shape = self.lean * (shape.real * self.tilt + 1j * shape.imag) * self.radius + self.centre
        self.pen.polygon(shape.view(np.float64).tolist(), tuple(colour.astype(int).tolist()))

    def leaf(self, base: complex, reach: complex, shape: np.ndarray, colour: Colour) -> None:
        """Paint a leaf, one half in the shade, from `base` along `reach`."""
        self.fill(base + reach * shape, 0.75 * colour)
        self.fill(base + reach * shape[:13], colour)

    def band(self, points: tuple[complex, ...], widths: np.ndarray, colour: Colour) -> None:
        """Paint a stem or a blade, bent from the first point past the second to the third."""
        t = np.linspace(0, 1, len(widths))
        middle = points[0] * (1 - t) ** 2 + 2 * points[1] * t * (1 - t) + points[2] * t**2
        along = np.gradient(middle)
        side = 1j * along / np.abs(along) * widths / 2
        self.fill(np.concatenate((middle - side, (middle + side)[::-1])), 0.8 * colour)
        self.fill(np.concatenate((middle, (middle + side)[::-1])), colour)

    def stem(self, top: complex, colour: Colour) -> complex:
        """Paint a stem from `top` out of the picture and return its foot."""
        foot = complex(top.real + self.rng.uniform(-0.9, 0.9), self.floor)
        bend = complex(top.real + self.rng.uniform(-0.4, 0.4), (top.imag + foot.imag) / 2)
        self.band((top, bend, foot), np.full(9, self.rng.uniform(0.09, 0.14)), colour)
        return foot


def turn(angle: float) -> complex:
    """The number that turns a shape by `angle` when it is multiplied by it."""
    return complex(math.cos(angle), math.sin(angle))


def petal(width: float, widest: float, pointed: float) -> np.ndarray:
    """Outline of a petal from 0 to 1, widest at `widest`; `pointed` is 0.5 if round, 1 if sharp."""
    along = np.linspace(0, 1, 13)
    half = width / 2 * np.sin(np.pi * along ** (math.log(0.5) / math.log(widest))) ** pointed
    return np.concatenate((along + 1j * half, (along - 1j * half)[-2:0:-1]))


def draw_rose(brush: Brush, rng: Rng, colour: Colour, green: Colour) -> None:
    """Rounded petals seen from above, each nearer the heart and turned by the golden angle."""
    if rng.random() < 0.7:
        brush.stem(0j, green)
    for angle in rng.uniform(0, 2 * math.pi, rng.integers(2, 6)):
        brush.leaf(0j, 1.45 * turn(angle), petal(0.5, 0.6, 0.9), brush.near(green, 12))
    brush.face()
    for i in range(24):
        size = 1 - i / 26  # from the outermost petal to the heart
        tone = brush.near(colour, 8) * (0.7 + 0.3 * size)
        lobe = petal(rng.uniform(1.1, 1.4), 0.6, 0.5) * turn(i * GOLDEN_ANGLE)
        lobe *= size * rng.uniform(0.93, 1.05)
        brush.fill(lobe, 0.55 * tone)
        brush.fill(lobe * 0.97, 0.75 * tone + 0.25 * WHITE)  # a lit lip, then down into the shade
        for share, light in ((0.9, 1), (0.78, 0.88), (0.62, 0.74)):
            brush.fill(lobe * share, tone * light)


def draw_sunflower(brush: Brush, rng: Rng, colour: Colour, green: Colour) -> None:
    """Two rings of many pointed petals about a large dark disc of seeds."""
    if rng.random() < 0.7:
        foot = brush.stem(0j, green)
        for side in (-1, 1):
            reach = complex(side * rng.uniform(1, 1.4), rng.uniform(-0.6, 0.2))
            base = foot * rng.uniform(0.3, 0.8)
            brush.leaf(base, reach, petal(0.7, 0.35, 0.75), brush.near(green, 12))
    brush.face()
    count, disc = int(rng.integers(14, 22)), rng.uniform(0.38, 0.5)
    shape = petal(5.5 / count, 0.6, 0.85)
    for ring in range(2):
        for i in rng.permutation(count):
            angle = 2 * math.pi * (i + ring / 2 + rng.uniform(-0.2, 0.2)) / count
            outwards = turn(angle) * rng.uniform(0.88, 1.05) * (1 - 0.08 * ring)
            tone = brush.near(colour, 10) * (0.82 + 0.18 * ring)
            brush.fill(shape * outwards, 0.68 * tone)
            brush.fill((0.98 * shape.real + 0.86j * shape.imag) * outwards, tone)
            brush.fill((0.3 + 0.4 * shape.real + 0.25j * shape.imag) * outwards, 0.82 * tone)
    circle, brown = np.exp(2j * np.pi * np.arange(40) / 40), brush.near(SEED_BROWN, 14)
    brush.fill(circle * disc * 1.05, 0.5 * brown)
    for i in range(4, 180):  # seeds in a spiral, the outer ones with more pollen
        middle = math.sqrt(i / 180) * turn(i * GOLDEN_ANGLE)
        pollen = rng.uniform(0, 0.25) + 0.4 * (i > 90)
        brush.fill(disc * (middle + 0.065 * circle[::8]), brown + (POLLEN - brown) * pollen)


def draw_tulip(brush: Brush, rng: Rng, colour: Colour, green: Colour) -> None:
    """An egg-shaped cup of pointed petals seen from the side, on a long stem with long blades."""
    up = -1j * turn(rng.uniform(-0.35, 0.35))
    base = -0.95 * up
    foot = brush.stem(base, green)
    for side in (-1, 1):
        tip = base + complex(side * rng.uniform(0.5, 1.4), rng.uniform(-0.3, 0.8))
        bend = (foot + tip) / 2 - side * rng.uniform(0, 0.3)
        widths = 0.36 * np.sin(np.linspace(0.6, np.pi, 12))
        brush.band((foot, bend, tip), widths, brush.near(green, 12))
    plump, opening = rng.uniform(0.75, 1), rng.uniform(0.06, 0.26)
    # how far a petal bows out, its width and length, and its light
    behind, beside, front = (0.1, 0.5, 1, 0.68), (0.26, 0.46, 0.97, 0.88), (0, 0.6, 0.92, 1)
    for side, look in ((-1, behind), (1, behind), (-1, beside), (1, beside), (0, front)):
        bow, width, length, light = look
        tone = brush.near(colour, 8) * light
        for share, paint in ((1, 0.7 * tone), (0.9, tone), (0.45, 0.82 * tone + 0.18 * WHITE)):
            outline = petal(width * share, 0.45, 0.75)
            along = outline.real
            across = outline.imag + side * (bow * np.sin(np.pi * along) + opening * along**2)
            brush.fill(base + up * 1.9 * length * (along + 1j * plump * across), paint)
