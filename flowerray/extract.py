"""The first job: photographs into features."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from flowerray import catalog, cluster, inference, precision, shards
from flowerray import weights as pretrained
from flowerray.bases import PREPARATIONS, BaseSpec, base_named
from flowerray.engines import Engine, open_engine
from flowerray.photographs import Rejected
from flowerray.progress import say
from flowerray.settings import ExtractSettings


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
        FlowerrayError: no photographs or weights, an output that holds something else, a cluster
            that can't be reached.
    """
    base = base_named(settings.base)
    preparation = settings.preparation or base.preparation
    with cluster.reached(settings.address):
        found = catalog.photographs_to_extract(settings)
        weights = pretrained.load(settings.base, settings.weights, say)
        spec = BaseSpec(
            base=settings.base,
            layer=settings.layer,
            input_size=base.input_size,
            preparation=preparation,
            resize=PREPARATIONS[preparation].resize,
            precision=settings.precision,
            engine=settings.engine if base.engine == "keras" else base.engine,
            weights="random" if settings.weights == "random" else "imagenet",
            weights_sha256=weights.sha256,
            pool=settings.pool,
        )
        spec = precision.settled(spec, shards.recorded_spec(settings, "features"), settings.device)
        config = {"base_spec": dataclasses.asdict(spec)}
        output = shards.open_output(settings, "features", config, found)
        with cluster.connection(settings.address) if output.to_do() else nullcontext():
            output, spec, model = precision.with_model(output, spec, weights, output.folder)
            timing = inference.run(output, FeatureWork(spec), model, settings, "extract")
    return ExtractSummary(
        str(output.folder),
        output.manifest.rows,
        shards.rejects(output),
        **dataclasses.asdict(timing),
    )


class FeatureWork:
    """Pixels to a feature shard (see ``flowerray.inference.Work``)."""

    def __init__(self, spec: BaseSpec) -> None:
        self.spec = spec
        self.shape: tuple[int, ...] = ()

    def open(self, model: list[np.ndarray], threads: int) -> Engine:
        engine = open_engine(self.spec, model, threads)
        self.shape = engine.feature_shape
        return engine

    def table(self, rows: pa.Table, outcomes: list[Any]) -> pa.Table:
        length = int(np.prod(self.shape))
        bad = np.array([isinstance(outcome, Rejected) for outcome in outcomes])
        values = np.zeros((len(outcomes), length), np.float16)
        for i in np.flatnonzero(~bad):
            # float16 ends at 65504: an activation beyond becomes the largest, not infinity.
            values[i] = np.clip(outcomes[i].ravel(), -65504, 65504)
        features = pa.FixedSizeListArray.from_arrays(
            pa.array(values.ravel()), length, mask=pa.array(bad)
        )
        schema = shards.features_schema(length).with_metadata(
            {"feature_shape": json.dumps(self.shape)}
        )
        columns = [rows[name].combine_chunks() for name in ("image_id", "uri", "label", "split")]
        return pa.table([*columns, features, *shards.error_columns(outcomes)], schema=schema)
