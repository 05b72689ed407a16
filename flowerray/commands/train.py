"""The second job: one Ray task fits a head on feature shards and saves a classifier."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowerray import stores
from flowerray.bases import hardware
from flowerray.bases import weights as pretrained
from flowerray.bases.engines.keras import check_layers_left
from flowerray.bases.spec import BaseSpec, fingerprint_of
from flowerray.commands.added import with_features
from flowerray.errors import FlowerrayError, UsageError
from flowerray.heads import classifier, none, tracking
from flowerray.heads.checkpoint import history_in
from flowerray.heads.classifier import ADDED
from flowerray.heads.training_set import lists_of
from flowerray.outputs import lease, shards
from flowerray.outputs.lease import HeldFolder
from flowerray.outputs.record import Output, read_output
from flowerray.outputs.stored import StoredFeatures
from flowerray.pipeline import connection, conversion, shared_disk, tasks
from flowerray.pipeline.trainer import fit_and_save
from flowerray.progress import say
from flowerray.settings import TrainSettings
from flowerray.sources import answers
from flowerray.sources.answers import Applied
from flowerray.stores.folder import Folder
from flowerray.trust import corrections

KIND = "a classifier"


@dataclass(frozen=True)
class TrainSummary:
    """The classifier, how many photographs it is trained on, its scores on those to validate (see
    ``flowerray.trust.scores.score``), those it gets wrong, the head's fit in seconds, and what
    became of corrections, where some were given."""

    out: str
    classes: list[str]
    trained_on: int
    scores: dict[str, Any]
    mistakes: list[dict[str, Any]]
    fit_seconds: float
    corrections: Applied | None = None


def train(settings: TrainSettings) -> TrainSummary:
    """Fit a head on extracted features and save it as a classifier.

    Raises:
        FlowerrayError: no features, shards missing or of different makes, classes that can't be
            trained on or validated, or an output that holds something else.
    """
    out = Folder.at(settings.out)
    settings = replace(settings, out=str(out))  # the trainer's directory may be another
    output = read_output(settings.features, "features")
    corrected: answers.Corrections = {}
    left_out: dict[str, int] = {}
    stored: StoredFeatures | None = None
    audited: list[str] = []
    chosen = ["recipe", "epochs", "patience", "class_weights", "seed"]
    # Only where given: as before there were such options.
    chosen += [name for name in ("none_class", "from_layer") if getattr(settings, name)]
    output.check_whole()
    if settings.corrections:
        said = answers.read(settings.corrections, settings.columns)
        read = dict(zip(*lists_of(said, "uri", "label"), strict=True))
        audited = said.filter(pc.fill_null(said["audited"], False))["uri"].to_pylist()
        stored = _stored(settings, output)
        if read:
            corrected, left_out = corrections.matched(output, read, settings, stored or ())
    rejected = _surveyed(output, corrected, none.names_of(settings.none_class))
    config = {
        "features": [
            output.manifest.fingerprint,
            output.run["config"],
            *([rejected] if rejected else []),
        ],
        "corrections": sorted(corrected.items()),
        **({"audited": sorted(audited)} if audited else {}),
        **{name: getattr(settings, name) for name in chosen},
    }
    spec, fingerprint = output.run["config"]["base_spec"], fingerprint_of(config)
    anew = settings.overwrite and out.exists("classifier.json")
    if not anew and _is_done(out, config):
        say(f"{out} is trained on these features with these settings already")
        with tracking.started(settings, spec, fingerprint, going_on=True) as trackers:
            trackers.finished()
        done = summary_of(str(out))
    else:
        with lease.held(out, KIND) as held:
            done = _train_into(held, settings, output, corrected, stored, config)
    if settings.corrections is None:
        return done
    return replace(done, corrections=_applied(output, out, corrected, left_out))


def _applied(
    output: Output, out: Folder, corrected: answers.Corrections, left_out: dict[str, int]
) -> Applied:
    """What became of the photographs that were `corrected`: `left_out` of them do nothing, nor do
    those that can't be read, of the features or of those that the classifier in `out` added."""
    unread = {*_rejected(output)}
    with suppress(FlowerrayError):  # there are none
        unread |= {*_rejected(read_output(out.file(ADDED), "features"))}
    lost = sum(name is not None and uri in unread for uri, name in corrected.items())
    left_out = {**left_out, **({"of photographs that can't be read": lost} if lost else {})}
    return Applied(len(corrected) - sum(left_out.values()), left_out)


def _rejected(features: Output) -> list[str]:
    table = shards.read_table(features, ["uri", "error"])
    return table.filter(pc.is_valid(table["error"]))["uri"].to_pylist()


def _train_into(
    out: HeldFolder,
    settings: TrainSettings,
    output: Output,
    corrected: dict[str, str | None],
    stored: StoredFeatures | None,
    config: dict[str, Any],
) -> TrainSummary:
    spec, fingerprint = output.run["config"]["base_spec"], fingerprint_of(config)
    anew = settings.overwrite and out.exists("classifier.json")
    if not anew and _is_done(out, config):  # by another that ended meanwhile
        return summary_of(str(out))
    added = with_features(output, corrected, stored, settings) if corrected else None
    weights = None
    if settings.recipe == "article" and spec.get("pool") == "embedding":
        raise UsageError("--recipe article learns from the whole map: extract it with --pool none")
    if settings.recipe == "finetune":
        check_layers_left(BaseSpec.from_dict(spec))
        weights = pretrained.checked(BaseSpec.from_dict(spec), settings.weights, say).arrays
    begun = not anew and bool(history_in(out, fingerprint))
    with (
        tracking.started(settings, spec, fingerprint, going_on=begun) as trackers,
        connection.connection(settings.address),
    ):
        import ray

        features = [output.folder.file("run.json")] if output.folder.is_local else []
        shared_disk.check(Path(out.uri) if out.is_local else None, features)
        resources = tasks.trainer_resources()
        tasks.say_if_full("train", *resources.values())
        fit = ray.remote(fit_and_save).options(num_returns="streaming", **resources)
        messages: Any = fit.remote(
            stores.in_use(),
            out,
            output,
            added,
            settings,
            config,
            corrected,
            config.get("audited", []),
            weights,
            resources,
        )
        try:
            for reference in messages:
                message = ray.get(reference)
                if isinstance(message, str):
                    say(message)
                elif isinstance(message, list):
                    trackers.epochs(message)
                elif hardware.has_openvino():
                    conversion.keep_head(*message)
        except BaseException:
            with suppress(Exception):  # a Ray that stays would train on, beside the next try
                ray.cancel(messages, force=True)
            raise
        trackers.finished()
    return summary_of(str(out))


def summary_of(directory: str) -> TrainSummary:
    """What the training of the classifier in `directory` gave."""
    about = classifier.load(directory).about
    return TrainSummary(
        directory,
        about["classes"],
        about["trained_on"],
        about["scores"],
        about["mistakes"],
        about["fit_seconds"],
    )


def _stored(settings: TrainSettings, output: Output) -> StoredFeatures | None:
    """The pile's features, where the settings name some.

    Raises:
        FlowerrayError: they are none, or of another make than those to train on.
    """
    if settings.pile_features is None:
        return None
    stored = StoredFeatures(read_output(settings.pile_features, "features"))
    spec = BaseSpec.from_dict(output.run["config"]["base_spec"])
    if differences := stored.spec.differences(spec):
        raise UsageError(
            f"{settings.pile_features} holds features of another make than {output.folder} "
            f"({differences}): leave --pile-features out, and the photographs are read"
        )
    return stored


def _surveyed(
    output: Output, corrected: answers.Corrections, none_names: tuple[str, ...]
) -> list[int]:
    """The image_id of each photograph without features; later it may have some.

    Raises:
        FlowerrayError: the classes can't be trained on and validated, by the features and by what
            they are `corrected` to.
    """
    columns = ["image_id", "uri", "label", "split", "error", "error_detail"]
    table = shards.read_table(output, columns if corrected else [c for c in columns if c != "uri"])
    if table["split"].null_count == len(table):
        raise FlowerrayError(
            f"{output.folder} has no labelled photographs: it is a pile's; extract a folder of "
            "classes, or a table with columns uri and label"
        )
    if corrected:
        uris, labels = lists_of(table, "uri", "label")
        there = set(uris)
        new = [n for u, n in corrected.items() if n is not None and u not in there]
        labels = [corrected.get(u, n) for u, n in zip(uris, labels, strict=True)]
        table = table.drop_columns(["uri", "label"]).append_column(
            "label", pa.array(labels, pa.string())
        )
        added = pa.table({"label": new, "split": ["train"] * len(new)})
        table = pa.concat_tables([table, added], promote_options="permissive")
    place = table.schema.get_field_index("label")
    table = table.set_column(place, "label", none.renamed(table["label"], none_names))
    _check_classes(output, table, {none.NONE, *(n for n in corrected.values() if n)})
    rejected = table.filter(pc.is_valid(table["error"]))
    return rejected["image_id"].to_pylist()


def _check_classes(output: Output, photographs: pa.Table, corrected: set[str]) -> None:
    """Refuse `photographs` (label, split, error, error_detail) of which a class has none to train
    on or to validate; of classes that people `corrected` to, none need be there to validate."""
    where = output.folder
    labelled = photographs.filter(pc.is_valid(photographs["label"]))
    classes = sorted(labelled["label"].unique().to_pylist())
    if not classes:
        raise FlowerrayError(
            f"{where} has no labelled photographs: extract a folder of classes, or a table with "
            "columns uri and label"
        )
    if classes == [none.NONE]:
        raise FlowerrayError(
            f"{where} has only {classes[0]!r}, which stands for none of the others: add a class"
        )
    if len(classes) == 1:
        raise FlowerrayError(f"{where} has only one class, {classes[0]!r}: two are needed")
    usable = labelled.filter(pc.is_null(labelled["error"]))
    all_of, there = shards.counted(labelled["label"]), shards.counted(usable["label"])
    for name in classes:
        if name not in there:
            bad = labelled.filter(pc.equal(labelled["label"], name))
            raise FlowerrayError(
                f"class {name!r} of {where}: all {all_of[name]:,} photographs rejected, "
                f"{_reasons(bad)}: convert or replace them, or remove the class, and extract again"
            )
    for part, purpose in (("train", "train on"), ("valid", "validate")):
        counts = shards.counted(usable.filter(pc.equal(usable["split"], part))["label"])
        for name in classes:
            if name in counts or (part == "valid" and name in corrected):
                continue
            bad = labelled.filter(
                pc.and_(pc.equal(labelled["label"], name), pc.equal(labelled["split"], part))
            )
            why = f" ({len(bad):,} rejected, {_reasons(bad)})" if len(bad) else ""
            raise FlowerrayError(
                f"class {name!r} of {where} has no readable photographs to {purpose}{why}: add some"
            )


def _reasons(rejected: pa.Table) -> str:
    """Why photographs are `rejected`: how many for each reason, with what is said of the first."""
    counts = shards.counted(rejected["error"])
    said = []
    for reason in sorted(counts, key=lambda reason: -counts[reason]):
        details = rejected.filter(pc.equal(rejected["error"], reason))["error_detail"]
        detail = details.drop_null().slice(0, 1).to_pylist()
        said.append(f"{counts[reason]:,} {reason}" + "".join(f" ({one})" for one in detail))
    return ", ".join(said)


def _is_done(out: Folder, config: dict[str, Any]) -> bool:
    there = out.exists("classifier.json")
    lease.check_ours(out, KIND, recorded=there)
    if not there:
        return False
    if classifier.load(str(out)).about["config_fingerprint"] == fingerprint_of(config):
        return True
    raise FlowerrayError(
        f"{out} holds a classifier of other features or settings: choose another --out, "
        "or --overwrite it"
    )
