"""The settings that several commands share, a heading of the help each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from flowerray.errors import UsageError
from flowerray.settings.options import Settings, option

if TYPE_CHECKING:
    from flowerray.sources.columns import Columns
    from flowerray.sources.photographs import Limits
    from flowerray.stores import Access


def weights_option(of: str = "") -> str:
    """The option that says where a base's weights are."""
    chosen: str = option(
        f"{of}imagenet; a file of weights, or a directory with one, by its path or its address "
        "(s3://, gs://, az://, https://, hf://ORG/MODEL); or random (for smoke tests)",
        "imagenet",
        metavar="WEIGHTS",
        path=True,
    )
    return chosen


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
    anonymous: bool = option(
        "read photographs and weights in object stores without credentials", False
    )
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
class ThresholdSettings(Settings):
    """Which labels are accepted, by what is asked of all classes."""

    heading: ClassVar[str] = "accepting"
    min_precision: float | None = option(
        "accept a class' labels down to the confidence at which so large a share of them is right, "
        "by the bound that the classifier's evidence allows; the rest is for people to review",
        None,
        minimum=0.5,
        maximum=1.0,
        metavar="P",
    )
    min_confidence: float | None = option(
        "accept labels of this confidence; the rest is for people to review",
        None,
        minimum=0.0,
        maximum=1.0,
        metavar="C",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_precision is not None and self.min_confidence is not None:
            raise UsageError("give one of --min-precision and --min-confidence")


@dataclass(frozen=True, kw_only=True)
class AcceptanceSettings(ThresholdSettings):
    """Which labels are accepted, and what people said of them."""

    heading: ClassVar[str] = "accepting"
    thresholds: str | None = option(
        "accept by this JSON file, a confidence a class, and nothing of a class that it lacks; "
        "whichever way is asked for, what is not accepted is in review.parquet",
        None,
        metavar="FILE",
        path=True,
    )
    corrections: str | None = option(
        "tables, with commas between, of what people said: uri, label, and perhaps who, when, "
        "round; their labels stand, and never come to review again",
        None,
        metavar="CSV",
        path=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        asked = (self.min_precision, self.min_confidence)
        if self.thresholds is not None and any(one is not None for one in asked):
            raise UsageError("give one of --min-precision, --min-confidence and --thresholds")


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
    weights: str = weights_option()
    engine: str = option(
        "what computes: keras, onnxruntime (ONNX files), or openvino on CPUs [openvino where it is "
        "installed]",
        "auto",
        choices=("auto", "keras", "openvino", "onnxruntime"),
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
