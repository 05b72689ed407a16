"""The model card of a package: what a stranger must know before trusting it (Mitchell et al. 2019,
https://arxiv.org/abs/1810.03993). Markdown."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowerray.bases.spec import BASES, BaseSpec
from flowerray.trust.acceptance import Acceptance, thresholds_of

PRECISIONS = (0.9, 0.95, 0.97, 0.99)
# Of the published weights, as Keras' documents and tensorflow/tpu tell them.
LICENCES = {
    "vgg": "Creative Commons Attribution, Visual Geometry Group, Oxford",
    **dict.fromkeys(("resnet50v2", "resnet101v2", "resnet152v2"), ""),  # not told there
    "resnet": "MIT, Kaiming He",
    "inception": "Apache 2.0, TensorFlow",
    "xception": "MIT, Keras",
    "mobilenet": "Apache 2.0, TensorFlow",
    "nasnet": "Apache 2.0, TensorFlow",
    "densenet": "BSD 3-clause, Liu Zhuang",
    "efficientnet": "Apache 2.0, TensorFlow",
}


def written(
    name: str,
    about: dict[str, Any],
    evidence: pa.Table,
    identity: dict[str, str],
    agreement: dict[str, int] | None,
) -> str:
    """The card.

    Args:
        name: what the file is called.
        about: as ``classifier.json``.
        evidence: see ``flowerray.heads.classifier.EVIDENCE``.
        identity: which package this is: names and values.
        agreement: of how many `photographs` the file gives the `same` label as the classifier;
            None where that wasn't tried.
    """
    spec, scores = BaseSpec.from_dict(about["base_spec"]), about["scores"]
    classes, none = about["classes"], about.get("none_class")
    calibration = about["calibration"]
    kept = "" if none is None else f"; {_plain(none)} stands for none of the others"
    per_class = [
        (_plain(one), numbers["support"], _share(numbers["precision"]), _share(numbers["recall"]))
        for one, numbers in scores["per_class"].items()
    ]
    layer, pool = spec.layer or "its last layer", spec.pool or "the whole map"
    made = f"{_plain(spec.base)}, {layer}, {pool}, features computed in {spec.precision}"
    lines = [
        f"# {_plain(name)}",
        "",
        f"Says which of {len(classes)} classes a photograph shows: "
        f"{', '.join(map(_plain, classes))}{kept}.",
        "",
        *_table(("", ""), identity.items()),
        "",
        "## In and out",
        "",
        *_table(
            ("", "type", "shape", ""),
            (
                ("photographs", "uint8", "n, height, width, 3", "upright, RGB, sRGB; any size"),
                ("probabilities", "float32", f"n, {len(classes)}", "of the classes in their order"),
                ("novelty", "float32", "n", "above 1: unlike all that it was trained on"),
            ),
        ),
        "",
        f"Inside, photographs are {_resized(spec)}, and prepared; give them as they are. All is "
        "computed in float32.",
        "",
        "## Trained on",
        "",
        f"{about['trained_on']:,} photographs, by the recipe {about['recipe']} of flowerray "
        f"{about['flowerray_version']}, on a pretrained base: {made}.",
        "",
        "## Scores",
        "",
        f"{scores['errors']:,} errors on {scores['photographs']:,} photographs that it was not "
        f"trained on. Expected calibration error of its confidence {calibration['ece_after']:.3f}, "
        f"by {calibration['photographs']:,} photographs ({calibration['source']}).",
        "",
        *_table(("class", "photographs", "precision", "recall"), per_class),
        "",
        _agreement(agreement, spec),
        "",
        "## Thresholds",
        "",
        "From this confidence on, of photographs whose novelty is at most 1, a class' labels are "
        "right that often, by a bound that is 95% sure; - where no confidence is enough.",
        "",
        *_thresholds(evidence, [one for one in classes if one != none]),
        "",
        "## Limits",
        "",
        "- Numbers hold for photographs drawn as those that it was tried on: of another camera, "
        "season or place nothing is promised. Look at the novelty, and judge a sample of your own.",
        "- It gives one of its classes to anything; only novelty and confidence tell that it is "
        "none of them.",
        "- How its errors differ by the people or places that photographs show was not tried.",
        "",
        "## Licences",
        "",
        f"- Weights of the base ({_plain(spec.base)}): {_licence(spec)}.",
        "- The head is yours, as far as the photographs are that it was trained on. None of these, "
        "nor their names, are in this file.",
        "",
    ]
    return "\n".join(lines)


def _resized(spec: BaseSpec) -> str:
    square = f"{spec.input_size} x {spec.input_size}"
    if spec.crop is None:
        return f"squashed to {square} pixels, whatever their proportions"
    return (
        f"resized to {spec.crop} pixels on the shorter side, and of these the middle {square} taken"
    )


def _agreement(agreement: dict[str, int] | None, spec: BaseSpec) -> str:
    if agreement is None:
        return "Whether this file gives the classifier's labels was not tried."
    return (
        f"This file was tried when it was made: of {agreement['photographs']} photographs to "
        f"validate it gives {agreement['same']} the label that the classifier gives them "
        f"({spec.precision} features)."
    )


def _thresholds(evidence: pa.Table, classes: list[str]) -> list[str]:
    """A row a class, a column a precision; last the share of the evidence that is accepted."""
    columns = []
    for precision in PRECISIONS:
        found = thresholds_of(evidence, classes, precision)
        numbers = (evidence[name].to_numpy() for name in ("confidence", "novelty"))
        labels = evidence["prediction"].combine_chunks()
        accepted = Acceptance(precision, None, found).of(labels, *numbers)
        share = pc.mean(accepted.cast(pa.float64())).as_py()
        least = [_share(found[name]["threshold"]) for name in classes]
        columns.append([*least, "-" if share is None else f"{share:.0%}"])
    names = [*map(_plain, classes), "photographs accepted"]
    head = ("class", *(f"{precision:.0%} right" for precision in PRECISIONS))
    return _table(head, zip(names, *columns, strict=True))


def _licence(spec: BaseSpec) -> str:
    published = BASES[spec.base].weights_sha256 if spec.own is None else None
    if spec.weights != "imagenet" or published not in (None, spec.weights_sha256):
        return "none that flowerray knows: where they came from says"
    if not BASES[spec.base].builder:
        return "it has none"
    known = next((text for start, text in LICENCES.items() if spec.base.startswith(start)), None)
    sure = "" if published else ", if they are the published ones"
    return f"{known or 'see https://keras.io/api/applications/'}{sure}; trained on ImageNet"


def _table(head: tuple[str, ...], rows: Iterable[Iterable[object]]) -> list[str]:
    every = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in row) + " |" for row in every]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _plain(text: str) -> str:
    """`text` in Markdown as it is, in one line."""
    escaped = html.escape(" ".join(text.split()))
    return "".join(f"\\{one}" if one in "\\`*_[]|#" else one for one in escaped)
