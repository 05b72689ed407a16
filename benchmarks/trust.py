"""Whether confidence, thresholds and novelty can be trusted, on photographs that were held back.

    python benchmarks/trust.py FEATURES [--min-precision 0.97] [--folds 10]

FEATURES is the --out of `flowerray extract` on flower photographs. A fifth of them is held back, by
another seed each time; a head is fitted on the rest, as `flowerray train` fits it, and its
thresholds accept labels of those held back. The photographs of other things, for novelty, are those
that scikit-image and scikit-learn carry, whole and in random crops. Prints Markdown.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from measure import machine
from PIL import Image
from sklearn.metrics import roc_auc_score

from flowerray.bases import weights
from flowerray.bases.engines.keras import import_keras, open_head
from flowerray.bases.prepared import PreparedBase
from flowerray.bases.spec import BaseSpec
from flowerray.heads.data import TrainingData
from flowerray.heads.models import predict
from flowerray.heads.recipes import RECIPES
from flowerray.outputs import shards
from flowerray.outputs.record import read_output
from flowerray.settings import TrainSettings
from flowerray.trust import calibration
from flowerray.trust.evidence import Fitted

CROPS = 3
HELD_BACK = 0.2


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("features")
    options.add_argument("--min-precision", type=float, default=0.97)
    options.add_argument("--folds", type=int, default=10)
    options.add_argument("--recipe", default="mlp", choices=("mlp", "logistic"))
    chosen = options.parse_args()
    import_keras(2)
    features, labels, classes, spec = read(chosen.features)
    others = features_of(other_photographs(spec.input_size), spec)
    print(
        f"{machine()}, {datetime.date.today()}, {len(labels):,} photographs, --recipe "
        f"{chosen.recipe}, --min-precision {chosen.min_precision}; {len(others)} of other things.\n"
    )
    print("| seed | calibration error before, after | accepted | right of them | novelty AUROC |")
    print("|---|---|---|---|---|")
    kept = 0
    for seed in range(chosen.folds):
        order = np.random.default_rng(seed).permutation(len(labels))
        held, valid, train = np.split(
            order, [int(HELD_BACK * len(order)), int((HELD_BACK + 0.1) * len(order))]
        )
        data = TrainingData(
            features[train], labels[train], features[valid], labels[valid], len(classes)
        )
        settings = TrainSettings(features="-", out="-", recipe=chosen.recipe, seed=seed)
        *_, (_, model) = RECIPES[chosen.recipe](data, None, seed, None)
        fitted = Fitted.of([model], settings, data)
        final = open_head(fitted.head)
        said, novel = split(predict(final, features[held]))
        least = thresholds(fitted, data, classes, chosen.min_precision)
        predicted = said.argmax(axis=1)
        accepted = (said.max(axis=1) >= least[predicted]) & (novel <= 1)
        right = predicted[accepted] == labels[held][accepted]
        kept += bool(right.mean() >= chosen.min_precision) if len(right) else 0
        scores = np.concatenate([novel, split(predict(final, others))[1]])
        auroc = roc_auc_score(np.arange(len(scores)) >= len(held), scores)
        error = fitted.calibration
        print(
            f"| {seed} | {error['ece_before']:.3f}, {error['ece_after']:.3f} "
            f"| {accepted.mean():.1%} of {len(held)} | {right.mean():.2%} of {len(right)} "
            f"| {auroc:.3f} |",
            flush=True,
        )
    print(f"\nAt least {chosen.min_precision} right in {kept} of {chosen.folds}.")


def read(directory: str) -> tuple[np.ndarray, np.ndarray, list[str], BaseSpec]:
    output = read_output(directory, "features")
    table = shards.read_table(output, ["features", "label", "error"])
    table = table.filter(pc.is_null(table["error"]))
    classes = sorted(table["label"].unique().to_pylist())
    labels = np.array([classes.index(name) for name in table["label"].to_pylist()])
    spec = BaseSpec.from_dict(output.run["config"]["base_spec"])
    flat = table["features"].combine_chunks().flatten().to_numpy()
    return flat.reshape(len(labels), 7, 7, -1), labels, classes, spec


def split(outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and novelty."""
    return outputs[:, :-1], outputs[:, -1]


def thresholds(
    fitted: Fitted, data: TrainingData, classes: list[str], min_precision: float
) -> np.ndarray:
    """Of each class; infinite where there is none."""
    unseen = fitted.unseen
    said = np.concatenate([fitted.out_of_fold, fitted.valid[unseen]])
    truth = np.concatenate([data.labels[fitted.judged], data.valid_labels[unseen]])
    novel = np.concatenate([fitted.training_novelty[fitted.judged], fitted.valid_novelty[unseen]])
    said, truth = said[novel <= 1], truth[novel <= 1]
    predicted = said.argmax(axis=1)
    found = calibration.thresholds(
        predicted, said.max(axis=1), predicted == truth, classes, min_precision
    )
    least = [found[name]["threshold"] for name in classes]
    return np.array([np.inf if one is None else one for one in least])


def other_photographs(side: int) -> Iterator[np.ndarray]:
    """uint8 (side, side, 3), each whole and in CROPS squares."""
    import skimage
    import sklearn

    chance = np.random.default_rng(0)
    found = sorted(Path(skimage.__file__).parent.glob("data/*.[pj][np]g"))
    found.append(Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg")
    for file in found:
        image = Image.open(file).convert("RGB")
        if min(image.size) < 150:
            continue
        yield np.asarray(image.resize((side, side)))
        for _ in range(CROPS):
            size = int(min(image.size) * chance.uniform(0.5, 0.9))
            left, top = (int(chance.integers(0, extent - size + 1)) for extent in image.size)
            square = image.crop((left, top, left + size, top + size))
            yield np.asarray(square.resize((side, side)))


def features_of(photographs: Iterator[np.ndarray], spec: BaseSpec) -> np.ndarray:
    from flowerray.bases.engines import openvino

    pretrained = weights.load(spec.base).arrays
    model = openvino.convert(spec, pretrained, None) if spec.engine == "openvino" else pretrained
    engine, pixels = PreparedBase(spec, model).open(threads=2), np.stack(list(photographs))
    batches = [engine(pixels[i : i + 16]) for i in range(0, len(pixels), 16)]
    return np.concatenate(batches).astype(np.float16)


if __name__ == "__main__":
    main()
