"""Photographs to features."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from flowerray.bases import weights as pretrained
from flowerray.bases.own import base as own
from flowerray.bases.spec import PREPARATIONS, BaseSpec, base_named
from flowerray.bases.weights import Weights
from flowerray.errors import UsageError
from flowerray.outputs import kinds, shards
from flowerray.outputs.record import recorded_spec, with_record, writing
from flowerray.outputs.setup import open_output
from flowerray.pipeline import connection, inference
from flowerray.pipeline.features import FeatureWork
from flowerray.pipeline.precision import settled
from flowerray.pipeline.prepare import prepared
from flowerray.progress import say
from flowerray.settings import ExtractSettings
from flowerray.sources.labelled import check_apart, photographs_to_extract
from flowerray.stores.folder import Folder


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did. `rejected` counts by reason; the rest is of this run alone, see
    ``flowerray.pipeline.inference.Timing``."""

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
    check_apart(settings.images, settings.out, labelled=True)
    with connection.reached(settings.address):
        return extract_listed(settings, photographs_to_extract(settings))


@dataclass(frozen=True)
class Like:
    """The very base to extract by: that of a spec, the quantised one of int8 being in `folder`."""

    spec: BaseSpec
    folder: Folder


def extract_listed(
    settings: ExtractSettings, found: Iterable[pa.RecordBatch], like: Like | None = None
) -> ExtractSummary:
    """As `extract`, of the photographs `found` (see ``flowerray.sources.listing.FOUND``) instead
    of those behind ``settings.images``; by the base of `like`, where given."""
    with writing(settings, "features") as folder:
        return _extract_into(folder, settings, found, like)


def _extract_into(
    folder: Folder,
    settings: ExtractSettings,
    found: Iterable[pa.RecordBatch],
    like: Like | None,
) -> ExtractSummary:
    with connection.reached(settings.address):
        if like is not None:
            spec = like.spec
            weights = pretrained.checked(spec, settings.weights, say)
        else:
            spec, weights = _spec_of(settings, folder)
        config: dict[str, Any] = {"base_spec": dataclasses.asdict(spec)}
        if settings.augment:
            config["augment"] = settings.augment
        output = open_output(folder, settings, "features", config, found)
        to_do = output.to_do()
        with connection.connection(settings.address) if to_do else nullcontext():
            output, base = prepared(output, spec, weights, settings.limits, (like or output).folder)
            work = FeatureWork(settings.augment == "mirror")
            timing, counts = inference.run(output, work, base, settings, "extract")
    if timing.computed:
        output = with_record(output, timing=timing.recorded)
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
    recorded = recorded_spec(folder, settings, "features")
    if own.is_own(settings.base):
        spec, weights = _own(settings, recorded)
        return settled(spec, recorded, settings.device), weights
    base = base_named(settings.base)
    preparation = settings.preparation or base.preparation
    weights = pretrained.load(settings.base, settings.weights, say)
    spec = replace(
        _asked(settings, recorded),
        base=settings.base,
        input_size=base.input_size,
        preparation=preparation,
        resize=PREPARATIONS[preparation].resize,
        weights="random" if settings.weights == "random" else "imagenet",
        weights_sha256=weights.sha256,
        colour=PREPARATIONS[preparation].colour,
    )
    return settled(spec, recorded, settings.device), weights


def _own(settings: ExtractSettings, recorded: BaseSpec | None) -> tuple[BaseSpec, Weights]:
    """Of a base in a file of the user's own."""
    if settings.weights != "imagenet":
        raise UsageError("a file as --base has its weights inside: leave --weights out")
    model = own.read(settings.base)
    say(f"{model.name}: {model.file}, sha256 {model.sha256[:12]}...")
    spec = own.spec_of(model, _asked(settings, recorded))
    own.keep(model, pretrained.cache_directory())
    return spec, Weights(model.arrays, model.sha256, str(model.file))


def _asked(settings: ExtractSettings, recorded: BaseSpec | None) -> BaseSpec:
    """What the settings say of a spec; the base says the rest."""
    return BaseSpec(
        base=settings.base,
        layer=settings.layer,
        input_size=0,
        preparation=settings.preparation or "",
        resize="",
        precision=settings.precision,
        engine=settings.engine,
        weights="",
        weights_sha256="",
        pool=_pool(settings, recorded),
        colour="srgb",
    )


def _pool(settings: ExtractSettings, recorded: BaseSpec | None) -> str | None:
    """Unless it is said, what the job that goes on with an output began with."""
    if settings.pool is None and recorded is not None:
        return recorded.pool
    whole = settings.layer and not own.is_own(settings.base)  # for finetune, which needs the map
    default = "none" if whole else "embedding"
    pool = settings.pool or default
    return None if pool == "none" else pool
