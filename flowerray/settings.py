"""The settings of each job: one frozen dataclass, made alike by command line, job script, YAML file
or Python.

Each field carries its own help text; the command line, the Python calls and the YAML files are made
from these, so an option is written down once.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from flowerray.errors import UsageError
from flowerray.exports import FORMATS

if TYPE_CHECKING:
    from flowerray.sources.columns import Columns
    from flowerray.sources.photographs import Limits
    from flowerray.stores import Access

LABEL_FORMATS = ("parquet", "csv", "jsonl")
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
PREPARATIONS = ("vgg", "tf", "torch", "none", "efficientnet", "article")
RECIPES = ("mlp", "logistic", "article", "finetune")
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


def option(
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    positional: bool = False,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    metavar: str | None = None,
    path: bool = False,
) -> Any:
    """A dataclass field that is also a command-line option; its bounds are inclusive, and a `path`
    may be given as a ``pathlib.Path``."""
    metadata = {
        "help": help,
        "positional": positional,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "metavar": metavar,
        "path": path,
    }
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(field: dataclasses.Field[Any]) -> str:
    """The option's name on the command line."""
    return field.name if field.metadata["positional"] else "--" + field.name.replace("_", "-")


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether the option must be given."""
    return field.default is dataclasses.MISSING


# Below these an option is shown, last in the help; those of the job itself come before.
HEADINGS = ("tables", "photographs", "where it runs", "stores")


def options_of(settings: type[Settings]) -> list[dataclasses.Field[Any]]:
    """The options of `settings` in the order of need, as `grouped_options` has them."""
    return [field for group in grouped_options(settings).values() for field in group]


def grouped_options(settings: type[Settings]) -> dict[str, list[dataclasses.Field[Any]]]:
    """The options of `settings` by heading: those that are given by their place, those that must be
    given, the job's own, then what it shares with others."""
    declared: dict[str, type] = {}
    for ancestor in settings.__mro__:
        for name in vars(ancestor).get("__annotations__", ()):
            declared.setdefault(name, ancestor)
    groups: dict[str, list[dataclasses.Field[Any]]] = {
        name: [] for name in ("positional", "required", "options", *HEADINGS)
    }
    fields = {field.name: field for field in dataclasses.fields(settings)}
    for name, ancestor in declared.items():
        if name not in fields:
            continue
        field = fields[name]
        heading = vars(ancestor).get("heading", "options")
        if field.metadata["positional"]:
            heading = "positional"
        elif is_required(field):
            heading = "required"
        groups[heading].append(field)
    return {heading: group for heading, group in groups.items() if group}


def kinds_of(settings: type[Settings]) -> dict[str, type]:
    """The type of each option, str, int, float or bool, whether it may be None or not."""
    kinds = typing.get_type_hints(settings)
    for name, kind in kinds.items():
        if isinstance(kind, types.UnionType):
            kinds[name] = next(k for k in typing.get_args(kind) if k is not types.NoneType)
    return kinds


MOST_SEED = 2**32 - 1  # that Keras and scikit-learn take
KINDS = {str: str, int: numbers.Integral, float: numbers.Real, bool: bool}
KIND_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def fault_of(field: dataclasses.Field[Any], kind: type, value: Any) -> str | None:
    """What is wrong with an option's value, to say after its name; None where nothing is."""
    rule = field.metadata
    if value is None and field.default is None:
        return None
    if not isinstance(value, KINDS[kind]) or (kind is not bool and isinstance(value, bool)):
        return f"is {value!r}; it must be {KIND_NAMES[kind]}"
    whole = isinstance(value, numbers.Integral)
    if isinstance(value, numbers.Real) and not whole and not math.isfinite(value):
        return f"is {value}; it must be finite"
    if rule["choices"] and value not in rule["choices"]:
        return f"is {value!r}; choose one of {', '.join(rule['choices'])}"
    if rule["minimum"] is not None and value < rule["minimum"]:
        return f"is {value}; it must be at least {rule['minimum']}"
    if rule["maximum"] is not None and value > rule["maximum"]:
        return f"is {value}; it must be at most {rule['maximum']}"
    return None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all settings share: every field is checked against its own type and bounds when made.

    Raises:
        UsageError: a value is of another type, out of its range or not one of its choices.
    """

    def __post_init__(self) -> None:
        kinds = kinds_of(type(self))
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), kinds[field.name]
            if isinstance(value, os.PathLike):
                value = os.fspath(value)
            fault = fault_of(field, kind, value)
            if fault:
                raise UsageError(f"{flag_of(field)} {fault}")
            if field.metadata["path"] and "://" in str(value):
                from flowerray.stores.credentials import bare  # it takes Arrow with it

                value = bare(value)  # no message, report or run.json is to let anybody in
            # 3 where 3.0 is meant, or numpy's 3, must make the same fingerprint.
            object.__setattr__(self, field.name, value if value is None else kind(value))


@dataclass(frozen=True, kw_only=True)
class CommandSettings(Settings):
    """What every command takes beside its job's settings."""

    json: bool = option("print the result as JSON", False)


@dataclass(frozen=True, kw_only=True)
class StorageSettings(Settings):
    """How object stores and web servers are reached, beside what the environment says."""

    heading: ClassVar[str] = "stores"
    endpoint_url: str | None = option(
        "address of the S3 server behind s3:// [AWS' own]", None, metavar="URL"
    )
    anonymous: bool = option("read photographs in object stores without credentials", False)
    allow_redirects: str | None = option(
        "hosts, by commas, that web servers may redirect to [their own]", None, metavar="HOSTS"
    )

    @property
    def access(self) -> Access:
        """These, as ``flowerray.stores`` takes them."""
        from flowerray.stores import Access

        hosts = (self.allow_redirects or "").lower().split(",")
        allowed = tuple(host.strip() for host in hosts if host.strip())
        return Access(self.endpoint_url, self.anonymous, allowed)


@dataclass(frozen=True, kw_only=True)
class PhotographSettings(StorageSettings):
    """How photographs are reached, and which are refused."""

    heading: ClassVar[str] = "photographs"
    max_megapixels: float = option(
        "reject larger photographs before decoding them", 100.0, minimum=0.01, metavar="MP"
    )
    max_megabytes: float = option(
        "reject larger files before reading them", 256.0, minimum=0.01, metavar="MB"
    )

    formats: str | None = option(
        "image formats to decode, with commas between, or all; what is in another is rejected "
        "[jpeg,png,webp,gif,bmp,tiff,ppm,avif]",
        None,
        metavar="NAMES",
    )

    read_timeout: float = option(
        "give a photograph up that is not read in so many seconds",
        60.0,
        minimum=0.1,
        metavar="SECONDS",
    )
    decode_timeout: float = option(
        "give a photograph up that is not decoded in so many seconds",
        60.0,
        minimum=0.1,
        metavar="SECONDS",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.formats is not None:
            from flowerray.sources.formats import chosen

            chosen(self.formats)  # names all of them rightly

    @property
    def limits(self) -> Limits:
        """These, as ``flowerray.sources.photographs`` takes them."""
        from flowerray.sources.formats import PHOTOGRAPHS, chosen
        from flowerray.sources.photographs import Limits

        formats = PHOTOGRAPHS if self.formats is None else chosen(self.formats)
        return Limits(
            int(self.max_megabytes * 1e6),
            int(self.max_megapixels * 1e6),
            formats,
            self.read_timeout,
            self.decode_timeout,
        )


@dataclass(frozen=True, kw_only=True)
class UriColumnSettings(Settings):
    """Which column of a table names the photographs."""

    heading: ClassVar[str] = "tables"
    uri_column: str | None = option(
        "the table's column of photographs [uri, or the likeliest, which is said]",
        None,
        metavar="NAME",
    )

    @property
    def columns(self) -> Columns:
        """As ``flowerray.sources.tables`` takes it."""
        from flowerray.sources.columns import Columns

        return Columns(self.uri_column)


@dataclass(frozen=True, kw_only=True)
class ColumnSettings(UriColumnSettings):
    """Which columns of a table name the photographs and their classes."""

    heading: ClassVar[str] = "tables"
    label_column: str | None = option(
        "the table's column of classes [label, or the likeliest, which is said]",
        None,
        metavar="NAME",
    )

    @property
    def columns(self) -> Columns:
        """As ``flowerray.sources.tables`` takes them."""
        from flowerray.sources.columns import Columns

        return Columns(self.uri_column, self.label_column)


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(Settings):
    """Where a job runs."""

    heading: ClassVar[str] = "where it runs"
    address: str | None = option(
        "Ray cluster to run on (host:port or auto); "
        "without it, and outside a Ray job, a Ray of one node starts and stops with the command",
        None,
        metavar="ADDR",
    )


@dataclass(frozen=True, kw_only=True)
class PlanSettings(ClusterSettings):
    """How many actors of what kind, for `flowerray plan` and the jobs that start them."""

    heading: ClassVar[str] = "where it runs"
    device: str = option(
        "what each actor computes on; gpu asks a cluster that scales from zero for GPU nodes",
        "auto",
        choices=("auto", "cpu", "gpu"),
    )
    actors: int | None = option(
        "Ray actors, each with its own base [one a GPU, and one a CPU elsewhere]",
        None,
        minimum=1,
        metavar="N",
    )
    threads: int | None = option(
        "CPU threads that each actor computes with [1, more where memory is short], or on a GPU "
        "decodes with [all CPUs beside the GPU]",
        None,
        minimum=1,
        metavar="N",
    )
    batch_size: int | None = option(
        "photographs in one forward pass [16, on a GPU 128]", None, minimum=1, metavar="N"
    )


@dataclass(frozen=True, kw_only=True)
class InferenceSettings(PlanSettings, PhotographSettings):
    """How photographs pass through a base, for extract and label alike."""

    out: str = option("directory for the shards", metavar="OUT", path=True)
    append: bool = option("keep what --out has, add the photographs that came since", False)
    sync: bool = option(
        "as --append, and retire the rows whose file is gone or has another label now", False
    )
    overwrite: bool = option("delete what an earlier run left in --out, start anew", False)
    retry_rejected: bool = option("only try the rejected photographs of --out again", False)
    weights: str = option(
        "imagenet, a weights file, or random (for smoke tests)",
        "imagenet",
        metavar="WEIGHTS",
        path=True,
    )
    engine: str = option(
        "what computes: keras, or openvino on CPUs [openvino where it is installed]",
        "auto",
        choices=("auto", "keras", "openvino"),
    )
    shard_size: int | None = option(
        "photographs in one shard, the unit of work and of retry [32 to 512, by their number]",
        None,
        minimum=1,
        metavar="N",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum((self.append, self.sync, self.overwrite, self.retry_rejected)) > 1:
            raise UsageError("give one of --append, --sync, --overwrite and --retry-rejected")


@dataclass(frozen=True, kw_only=True)
class ExtractSettings(InferenceSettings, ColumnSettings):
    """Settings of :func:`flowerray.extract`."""

    images: str = option(
        "directory of class folders (with or without train/ and valid/), a flat directory, "
        "a glob, a .txt list, or a .parquet or .csv table with a uri column; local, or s3://, "
        "gs://, az://, hdfs://, https://",
        positional=True,
        path=True,
    )
    base: str = option("pretrained base; `flowerray bases` lists them", "vgg16", metavar="NAME")
    layer: str | None = option("take the features after this layer [the last]", None)
    preparation: str | None = option(
        "how pixels are prepared: vgg, tf, torch, none, efficientnet or article [the base's own]",
        None,
        choices=PREPARATIONS,
    )
    pool: str | None = option(
        "avg averages the features over the map: a 49th of the bytes", None, choices=("avg",)
    )
    augment: str | None = option(
        "mirror computes the features of each photograph's mirror image too, to train on",
        None,
        choices=("mirror",),
    )
    precision: str = option(
        "arithmetic of the base; auto is bfloat16 where the hardware has it, else float32; int8 "
        "needs flowerray[openvino] and CPUs",
        "auto",
        choices=("auto", *PRECISIONS),
    )
    valid_fraction: float = option(
        "share of each class kept for validation where the folders name no split",
        0.1,
        minimum=0.0,
        maximum=0.9,
        metavar="F",
    )
    train_per_class: int | None = option(
        "photographs of each class to train on, drawn by --seed; the rest is left out",
        None,
        minimum=1,
        metavar="N",
    )
    valid_per_class: int | None = option(
        "photographs of each class to validate on, drawn by --seed", None, minimum=1, metavar="N"
    )
    seed: int = option("seed of the split", 0, minimum=0, maximum=MOST_SEED, metavar="N")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ClusterSettings, StorageSettings, ColumnSettings):
    """Settings of :func:`flowerray.train`."""

    features: str = option("directory that `flowerray extract` wrote", positional=True, path=True)
    out: str = option("directory for the classifier", metavar="CLASSIFIER", path=True)
    recipe: str = option(
        "how the head is built and fitted: mlp, logistic, article (Dense 512, 20 epochs), or "
        "finetune (the base's layers after --layer too, 4 epochs)",
        "mlp",
        choices=RECIPES,
    )
    epochs: int | None = option(
        "epochs, for recipes that have them [the recipe's own]", None, minimum=1, metavar="N"
    )
    patience: int | None = option(
        "stop after so many epochs without a smaller loss on the validation photographs, and keep "
        "the best epoch's head [all epochs, the last one's]",
        None,
        minimum=1,
        metavar="N",
    )
    class_weights: str | None = option(
        "balanced gives each class the same weight, however many photographs it has",
        None,
        choices=("balanced",),
    )
    corrections: str | None = option(
        "table with columns uri and label, as a report exports it, or findings of `flowerray "
        "check`; photographs that the features lack are trained on too, an empty label leaves a "
        "photograph out",
        None,
        metavar="CSV",
        path=True,
    )
    weights: str = option(
        "the base's weights, for finetune: imagenet, a file, or random",
        "imagenet",
        metavar="W",
        path=True,
    )
    seed: int = option(
        "seed of initial values and shuffling", 0, minimum=0, maximum=MOST_SEED, metavar="N"
    )
    overwrite: bool = option("delete the classifier in --out and train anew", False)
    tensorboard: str | None = option(
        "log epochs and final scores for TensorBoard, into a directory of their own in this one",
        None,
        metavar="DIR",
        path=True,
    )
    mlflow: str | None = option(
        "log parameters, epochs, scores and the classifier to this experiment at "
        "MLFLOW_TRACKING_URI; needs flowerray[mlflow]",
        None,
        metavar="EXPERIMENT",
    )


@dataclass(frozen=True, kw_only=True)
class LabelSettings(InferenceSettings, UriColumnSettings):
    """Settings of :func:`flowerray.label`."""

    images: str = option(
        "directory (searched to any depth), a glob, a .txt list, "
        "or a .parquet or .csv table with a uri column; local, or s3://, gs://, az://, hdfs://, "
        "https://",
        positional=True,
        path=True,
    )
    classifier: str = option("directory that `flowerray train` wrote", path=True)
    min_precision: float | None = option(
        "accept a class' labels down to the confidence at which so large a share of them is right, "
        "by the bound that the classifier's evidence allows; the rest goes to OUT/review.parquet",
        None,
        minimum=0.5,
        maximum=1.0,
        metavar="P",
    )
    min_confidence: float | None = option(
        "accept labels of this confidence, the rest goes to OUT/review.parquet",
        None,
        minimum=0.0,
        maximum=1.0,
        metavar="C",
    )
    format: str = option(
        "also write all labels as one csv or jsonl file", "parquet", choices=LABEL_FORMATS
    )
    gallery: str | None = option(
        "draw photographs with label and confidence into this PNG", None, metavar="PNG", path=True
    )
    top_k: int = option("labels kept for each photograph", 3, minimum=1, metavar="K")
    precision: str | None = option(
        "arithmetic of the base; another than the classifier's is tried on a sample first, and how "
        "many labels agree is said [the classifier's]",
        None,
        choices=PRECISIONS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_precision is not None and self.min_confidence is not None:
            raise UsageError("give one of --min-precision and --min-confidence")


@dataclass(frozen=True, kw_only=True)
class RunSettings(ClusterSettings, StorageSettings):
    """Settings of :func:`flowerray.commands.run.run`: all three jobs, each with its defaults."""

    images: str = option(
        "labelled photographs, as for `flowerray extract`", positional=True, path=True
    )
    pile: str = option("photographs to label, as for `flowerray label`", positional=True, path=True)
    out: str = option(
        "directory for features/, classifier/, labels/ and labels.png", metavar="DIR", path=True
    )
    truth: str | None = option(
        "CSV with columns file and label, to score the pile's labels",
        None,
        metavar="CSV",
        path=True,
    )
    base: str = option("pretrained base", "vgg16", metavar="NAME")
    preparation: str | None = option(
        "how pixels are prepared [the base's own]",
        None,
        choices=PREPARATIONS,
    )
    precision: str = option("arithmetic of the base", "auto", choices=("auto", *PRECISIONS))
    recipe: str = option(
        "how the head is built and fitted",
        "mlp",
        # finetune wants features of an earlier layer.
        choices=tuple(recipe for recipe in RECIPES if recipe != "finetune"),
    )
    actors: int | None = option("Ray actors", None, minimum=1, metavar="N")
    weights: str = option("imagenet, a file, or random", "imagenet", metavar="WEIGHTS", path=True)
    seed: int = option("seed of split and training", 0, minimum=0, maximum=MOST_SEED, metavar="N")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(StorageSettings, ColumnSettings):
    """Settings of :func:`flowerray.evaluate`."""

    labels: str = option("directory that `flowerray label` wrote", positional=True, path=True)
    truth: str = option(
        "table with columns file (or uri, path) and label, or `folders`: each photograph's folder "
        "is its label",
        metavar="CSV",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class VerifySettings(StorageSettings):
    """Settings of :func:`flowerray.commands.verify.verify`."""

    out: str = option("the --out of extract or label", positional=True, path=True)


@dataclass(frozen=True, kw_only=True)
class CheckSettings(PhotographSettings, ColumnSettings):
    """Settings of :func:`flowerray.check`."""

    source: str = option(
        "labelled photographs, as for `flowerray extract`, or its --out, which shows wrong labels "
        "as well",
        positional=True,
        metavar="IMAGES|FEATURES",
        path=True,
    )
    only: str | None = option(
        f"do these checks alone, comma-separated: {', '.join(CHECKS)}", None, metavar="CHECKS"
    )
    out: str | None = option(
        "also write the findings to this CSV, a row each", None, metavar="CSV", path=True
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
            raise UsageError(f"--only names {unknown[0]!r}; choose of {', '.join(CHECKS)}")

    @property
    def checks(self) -> list[str]:
        """The names of the checks to do."""
        return [name.strip() for name in self.only.split(",")] if self.only else list(CHECKS)


@dataclass(frozen=True, kw_only=True)
class ReportSettings(StorageSettings):
    """Settings of :func:`flowerray.report`."""

    source: str = option(
        "classifier that `flowerray train` wrote, or labels that `flowerray label` wrote",
        positional=True,
        metavar="CLASSIFIER|LABELS",
        path=True,
    )
    out: str = option("the page, one HTML file", "report.html", metavar="HTML", path=True)
    thumbnails: int = option("photographs shown at most, in all", 500, minimum=0, metavar="N")


@dataclass(frozen=True, kw_only=True)
class ExportSettings(StorageSettings):
    """Settings of :func:`flowerray.export`."""

    labels: str = option("directory that `flowerray label` wrote", positional=True, path=True)
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
        "VGG16's weights with their top, a Keras .h5 of 528 MB [Keras' download]",
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
class WeightsSettings(Settings):
    """Settings of `flowerray weights`."""

    action: str = option(
        "fetch: get them into the cache; show: list it", positional=True, choices=("fetch", "show")
    )
    base: str = option("pretrained base", "vgg16", metavar="NAME")
    file: str | None = option(
        "take them from this file (Keras .h5 without top) into the cache",
        None,
        metavar="FILE",
        path=True,
    )
