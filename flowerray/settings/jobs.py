"""The settings of the three jobs, and of all in one."""

from __future__ import annotations

from dataclasses import dataclass

from flowerray.errors import UsageError
from flowerray.settings.groups import (
    AcceptanceSettings,
    ClusterSettings,
    ColumnSettings,
    InferenceSettings,
    StorageSettings,
    ThresholdSettings,
    UriColumnSettings,
    weights_option,
)
from flowerray.settings.options import MOST_SEED, option

LABEL_FORMATS = ("parquet", "csv", "jsonl")
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
PREPARATIONS = ("vgg", "tf", "torch", "none", "efficientnet", "lite", "article")
POOLS = ("embedding", "avg", "cls", "none")
RECIPES = ("mlp", "logistic", "article", "finetune")
CLASSIFIER_HELP = "directory that `flowerray train` wrote, or an ONNX file of `flowerray package`"


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
    base: str = option(
        "pretrained base: a name that `flowerray bases` lists, or an image encoder of your own: a "
        ".onnx or .keras file, or the directory that it and preprocessor_config.json are in, by "
        "its path or its address (as of --weights)",
        "vgg16",
        metavar="NAME",
        path=True,
    )
    layer: str | None = option(
        "take the features after this layer, of an ONNX file this output of it [the last; the "
        "first output]",
        None,
    )
    preparation: str | None = option(
        "how pixels are prepared: vgg, tf, torch, none, efficientnet, lite or article [the base's "
        "own]",
        None,
        choices=PREPARATIONS,
    )
    pool: str | None = option(
        "what is kept of the base's features: embedding (1 KB a photograph for vgg16), avg (their "
        "mean over the map or the tokens), cls (the first token), or none (the map whole, for the "
        "recipes article and finetune) [embedding; none with --layer]",
        None,
        choices=POOLS,
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

    features: str = option(
        "directory that `flowerray extract` wrote", positional=True, output="only"
    )
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
    from_layer: str | None = option(
        "for finetune: learn the layers after this one alone; the features are of it, or of one "
        "before it [all after the features']",
        None,
        metavar="LAYER",
    )
    patience: int | None = option(
        "stop after so many epochs without a smaller loss on photographs held out (for finetune "
        "by folds, for article those to validate), and keep the best epoch's head [all epochs, "
        "the last one's]",
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
        "tables, with commas between, of what people said: uri and label, as a report exports them "
        "and labels keep them, or findings of `flowerray check`; photographs that the features "
        "lack are trained on too, the label none says that none of the classes is there, an empty "
        "one leaves a photograph out",
        None,
        metavar="CSV",
        path=True,
    )
    pile_features: str | None = option(
        "stored features of the pile, which photographs that corrections name are taken from",
        None,
        metavar="DIR",
        output="only",
    )
    none_class: str | None = option(
        "the class that stands for none of the others: it is learned, and never given as a label "
        "[none or other, where there is one]",
        None,
        metavar="NAME",
    )
    weights: str = weights_option("the base's, for finetune: ")
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.from_layer is not None and self.recipe != "finetune":
            raise UsageError("--from-layer is for --recipe finetune, the one that learns layers")


@dataclass(frozen=True, kw_only=True)
class LabelSettings(InferenceSettings, AcceptanceSettings, UriColumnSettings):
    """Settings of :func:`flowerray.label`."""

    images: str = option(
        "directory (searched to any depth), a glob, a .txt list, "
        "or a .parquet or .csv table with a uri column; local, or s3://, gs://, az://, hdfs://, "
        "https://; or the --out of extract or --keep-features, to label from stored features",
        positional=True,
        metavar="IMAGES|FEATURES",
        output="or photographs",
    )
    classifier: str = option(CLASSIFIER_HELP, output="only")
    keep_features: str | None = option(
        "compute the features into this directory, and label from there: to label again, by "
        "another classifier of the same base, takes seconds",
        None,
        metavar="DIR",
        path=True,
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


@dataclass(frozen=True, kw_only=True)
class RunSettings(ThresholdSettings, ClusterSettings, StorageSettings):
    """Settings of :func:`flowerray.commands.run.run`: all three jobs, each with its defaults."""

    images: str = option(
        "labelled photographs, as for `flowerray extract`", positional=True, path=True
    )
    pile: str = option("photographs to label, as for `flowerray label`", positional=True, path=True)
    out: str = option(
        "directory for features/, classifier/, pile_features/ (but for the recipe article), "
        "labels/, labels.png and labels.html",
        metavar="DIR",
        path=True,
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
    weights: str = weights_option()
    seed: int = option("seed of split and training", 0, minimum=0, maximum=MOST_SEED, metavar="N")
