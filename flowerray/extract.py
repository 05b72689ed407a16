"""The first job: photographs into features."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from flowerray import catalog, cluster, inference, kinds, precision, shards
from flowerray import weights as pretrained
from flowerray.bases import PREPARATIONS, BaseSpec, base_named
from flowerray.engines import open_engine
from flowerray.photographs import Rejected
from flowerray.progress import say
from flowerray.settings import ExtractSettings
from flowerray.shards import Output
from flowerray.storage import Folder
from flowerray.weights import Weights


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did. `rejected` counts by reason; the rest is of this run alone, see
    ``flowerray.inference.Timing``."""

    out: str
    photographs: int
    rejected: dict[str, int]
    computed: int
    redone: int
    startup_seconds: float
    seconds: float
    actors: int


def extract(settings: ExtractSettings) -> ExtractSummary:
    """Turn the photographs of a labelled set into feature shards.

    Raises:
        FlowerrayError: no photographs or weights, none that could be used, an output that holds
            something else, a cluster that can't be reached.
    """
    kinds.check_photographs(settings.images)
    catalog.check_apart(settings.images, settings.out, labelled=True)
    with cluster.reached(settings.address):
        return extract_listed(settings, catalog.photographs_to_extract(settings))


def extract_listed(
    settings: ExtractSettings, found: Iterable[pa.RecordBatch], like: Output | None = None
) -> ExtractSummary:
    """As `extract`, of the photographs `found` (see ``flowerray.catalog.FOUND``) instead of those
    behind ``settings.images``; by the very base of the features `like`, where they are given."""
    with shards.written(settings, "features") as folder:
        return _extract_into(folder, settings, found, like)


def _extract_into(
    folder: Folder,
    settings: ExtractSettings,
    found: Iterable[pa.RecordBatch],
    like: Output | None,
) -> ExtractSummary:
    with cluster.reached(settings.address):
        if like is not None:
            spec = BaseSpec.from_dict(like.run["config"]["base_spec"])
            weights = pretrained.checked(spec, settings.weights, say)
        else:
            spec, weights = _spec_of(settings, folder)
        config: dict[str, Any] = {"base_spec": dataclasses.asdict(spec)}
        if settings.augment:
            config["augment"] = settings.augment
        output = shards.open_output(folder, settings, "features", config, found)
        to_do = output.to_do()
        with cluster.connection(settings.address) if to_do else nullcontext():
            output, spec, model = precision.with_model(
                output, spec, weights, settings.limits, (like or output).folder
            )
            work = FeatureWork(spec, settings.augment == "mirror")
            timing, counts = inference.run(output, work, model, settings, "extract")
    counts += shards.rejects(output, but=to_do)
    rejected = dict(counts.most_common())
    shards.check_some_used(output.manifest.rows, rejected, shards.RETRY)
    return ExtractSummary(
        str(output.folder),
        output.manifest.rows,
        rejected,
        **dataclasses.asdict(timing),
    )


def _spec_of(settings: ExtractSettings, folder: Folder) -> tuple[BaseSpec, Weights]:
    base = base_named(settings.base)
    preparation = settings.preparation or base.preparation
    weights = pretrained.load(settings.base, settings.weights, say)
    spec = BaseSpec(
        base=settings.base,
        layer=settings.layer,
        input_size=base.input_size,
        preparation=preparation,
        resize=PREPARATIONS[preparation].resize,
        precision=settings.precision,
        engine=settings.engine,
        weights="random" if settings.weights == "random" else "imagenet",
        weights_sha256=weights.sha256,
        pool=settings.pool,
        colour=PREPARATIONS[preparation].colour,
    )
    recorded = shards.recorded_spec(folder, settings, "features")
    return precision.settled(spec, recorded, settings.device), weights


class FeatureWork:
    """Pixels to a feature shard (see ``flowerray.inference.Work``), with `mirror` to the features
    of each photograph's mirror image too."""

    def __init__(self, spec: BaseSpec, mirror: bool) -> None:
        self.spec, self.mirror = spec, mirror
        self.shape: tuple[int, ...] = ()

    def open(
        self, model: list[np.ndarray], threads: int
    ) -> Callable[[np.ndarray], Sequence[Sequence[np.ndarray]]]:
        engine = open_engine(self.spec, model, threads)
        self.shape = engine.feature_shape

        def compute(pixels: np.ndarray) -> Sequence[Sequence[np.ndarray]]:
            copies = [pixels, np.ascontiguousarray(pixels[:, :, ::-1])] if self.mirror else [pixels]
            return list(zip(*map(engine, copies), strict=True))

        return compute

    def table(self, rows: pa.Table, outcomes: list[Any]) -> pa.Table:
        length = int(np.prod(self.shape))
        schema = shards.features_schema(length, self.mirror).with_metadata(
            {"feature_shape": json.dumps(self.shape)}
        )
        columns = [rows[name].combine_chunks() for name in ("image_id", "uri", "label", "split")]
        columns += [_column(outcomes, copy, length) for copy in range(2 if self.mirror else 1)]
        return pa.table([*columns, *shards.error_columns(outcomes)], schema=schema)


def _column(outcomes: list[Any], copy: int, length: int) -> pa.FixedSizeListArray:
    bad = np.array([isinstance(outcome, Rejected) for outcome in outcomes], bool)
    values = np.zeros((len(outcomes), length), np.float16)
    for i in np.flatnonzero(~bad):
        # float16 ends at 65504: an activation beyond becomes the largest, not infinity.
        values[i] = np.clip(outcomes[i][copy].ravel(), -65504, 65504)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), length, mask=pa.array(bad))
