"""Label any number of photographs with a classifier."""

from __future__ import annotations

import dataclasses
import datetime
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from flowerray.bases import hardware
from flowerray.bases.spec import BaseSpec
from flowerray.commands.accept import (
    closed,
    decided,
    decision_asked,
    finished,
    undecided,
)
from flowerray.commands.extract import ExtractSummary, Like, extract_listed
from flowerray.commands.pile_shift import pile_shift
from flowerray.errors import UsageError
from flowerray.heads import classifier
from flowerray.heads.classifier import Classifier
from flowerray.heads.prepared import PreparedHead
from flowerray.outputs import kinds, shards
from flowerray.outputs.derived import EVIDENCE, acceptance_of, check_derived
from flowerray.outputs.record import (
    Output,
    recorded_spec,
    with_record,
    without_record,
    writing,
)
from flowerray.outputs.setup import open_output
from flowerray.outputs.stored import StoredFeatures, stored_features
from flowerray.pipeline import connection, conversion, from_features, inference
from flowerray.pipeline.inference import Timing
from flowerray.pipeline.labels import LabelWork
from flowerray.pipeline.precision import asked_of, settled
from flowerray.pipeline.prepare import prepared_head, prepared_to_label, weights_of
from flowerray.progress import say
from flowerray.reports import gallery
from flowerray.settings import ExtractSettings, InferenceSettings, LabelSettings, command_line
from flowerray.sources.answers import Applied
from flowerray.sources.labelled import check_apart
from flowerray.sources.listing import photographs_to_label
from flowerray.sources.photographs import Limits
from flowerray.stores.folder import Folder, whole_file

GALLERY_PHOTOGRAPHS = 25
CAPTIONED = ("uri", "label", "confidence")


@dataclass(frozen=True)
class LabelSummary:
    """What a labelling did. `labels` counts by class, `rejected` by reason; `accepted` counts the
    labels that thresholds accept, None where none were asked for; `human` the photographs that
    people decided, `unlabelled` those that are none of the classes, `novel` those unlike all that
    was trained on; `shifted` names what of the pile doesn't look like the classifier's evidence;
    `agreement` says of how many `photographs` the label is the `same` as at the classifier's own
    precision, `corrections` what became of those that were given; the rest is of this run alone,
    see ``flowerray.pipeline.inference.Timing``."""

    out: str
    photographs: int
    labels: dict[str, int]
    accepted: int | None
    human: int
    unlabelled: int
    novel: int
    shifted: list[str]
    rejected: dict[str, int]
    precision: str
    agreement: dict[str, int] | None
    corrections: Applied | None
    computed: int
    redone: int
    startup_seconds: float
    seconds: float
    actors: int


def label(settings: LabelSettings) -> LabelSummary:
    """Label every photograph behind ``settings.images``: one row each, labelled or rejected.

    Raises:
        FlowerrayError: no photographs or none that could be used, no such classifier, other weights
            than the classifier's, an output that holds something else, a cluster that can't be
            reached.
    """
    command, extracted = command_line("label", settings), None
    if settings.keep_features is not None:
        settings, extracted = _with_kept_features(settings)
    stored = stored_features(settings.images)
    if stored is None:
        kinds.check_photographs(settings.images)
        for written in filter(None, (settings.out, settings.gallery)):
            check_apart(settings.images, written)
    with writing(settings, "labels") as folder:
        return _label_into(folder, settings, stored, extracted, command)


def _with_kept_features(settings: LabelSettings) -> tuple[LabelSettings, ExtractSummary]:
    """Extract the pile by the classifier's base; how to label what was stored instead."""
    kinds.check_photographs(settings.images)
    trained, kept = classifier.load(settings.classifier), str(settings.keep_features)
    if trained.base is not None:
        raise UsageError(
            "--keep-features keeps features to train on, which a package's can't be: give the "
            "directory that the package was made of"
        )
    if settings.precision not in (None, trained.base_spec.precision):
        raise UsageError(
            f"--keep-features keeps what the classifier's own precision, "
            f"{trained.base_spec.precision}, makes: leave --precision out"
        )
    check_apart(settings.images, kept)
    shared = {f.name for f in dataclasses.fields(InferenceSettings)} - {"out"}
    extraction = ExtractSettings(
        images=settings.images,
        out=kept,
        base=trained.base_spec.base,
        uri_column=settings.uri_column,
        **{name: getattr(settings, name) for name in shared},
    )
    found = photographs_to_label(settings.images, settings.columns)
    like = Like(trained.base_spec, Folder.at(settings.classifier))
    done = extract_listed(extraction, found, like)
    return dataclasses.replace(settings, images=kept, keep_features=None), done


def _label_into(
    folder: Folder,
    settings: LabelSettings,
    stored: StoredFeatures | None,
    extracted: ExtractSummary | None,
    command: str,
) -> LabelSummary:
    trained = classifier.load(settings.classifier)
    if settings.format != "parquet":
        check_derived(folder, settings.format)
    recorded = recorded_spec(folder, settings, "labels")
    top_k = min(settings.top_k, len(trained.classes))
    with nullcontext() if stored else connection.reached(settings.address):
        if stored is not None:
            spec = _spec_of_stored(stored, trained, settings)
        else:
            spec = settled(asked_of(trained, settings), recorded, settings.device)
        if settings.min_precision is not None and spec.precision != trained.base_spec.precision:
            raise UsageError(
                f"--min-precision rests on evidence at {trained.base_spec.precision}, not at "
                f"{spec.precision}: leave --precision out, or extract and train at {spec.precision}"
            )
        config = {
            "classifier": trained.id,
            "classes": trained.classes,
            "base_spec": dataclasses.asdict(spec),
            "top_k": top_k,
            **({"none_class": trained.none_class} if trained.none_class else {}),
        }
        if stored is not None:
            found, sized = (
                stored.photographs(),
                dataclasses.replace(settings, shard_size=stored.shard_size),
            )
            output = open_output(folder, sized, "labels", config, found)
            work = LabelWork(trained, _head_here(trained, spec), top_k)
            if output.to_do():
                output = undecided(output)  # or a kill before the new would leave it
            timing, _ = from_features.run(output, stored, work)
            if extracted is not None and extracted.computed:
                timing = _together(extracted, timing)
            if output.run.get("features") != str(stored.output.folder):
                output = with_record(output, features=str(stored.output.folder))
        else:
            weights = weights_of(trained, settings.weights)
            found = photographs_to_label(settings.images, settings.columns)
            output = open_output(folder, settings, "labels", config, found)
            to_do = bool(output.to_do())
            with connection.connection(settings.address) if to_do else nullcontext():
                output, base, head = prepared_to_label(output, spec, trained, weights, settings)
                work = LabelWork(trained, head, top_k)
                if to_do:
                    output = undecided(output)
                timing, _ = inference.run(output, work, base, settings, "label")
    if timing.computed:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        made = {"command": command, "classifier": settings.classifier, "when": now}
        output = with_record(output, timing=timing.recorded, made=made)
    # Evidence speaks of the classifier's own precision.
    if spec.precision == trained.base_spec.precision and not folder.exists(EVIDENCE):
        folder.write(EVIDENCE, classifier.evidence_file(settings.classifier))
    decision, applied = decision_asked(output, settings, settings.columns)
    formats: list[str] = []
    if decision is not None:
        output, formats = decided(output, decision)
    if settings.format != "parquet":
        formats = [*{*formats, settings.format}]
    entries: list[tuple[str, str]] = []
    captions = partial(_add_captions, entries) if settings.gallery else None
    counts = finished(output, formats, captions, CAPTIONED)
    if settings.gallery:
        _draw_gallery(output, entries, settings.gallery, settings.limits)
    output = closed(output)
    shifted = list[str]()
    if stored and spec.pool == "embedding":
        output, shifted = _with_shift(output, stored)
    else:
        output = without_record(output, "shift")
    rejected = dict(counts.rejected.most_common())
    shards.check_some_used(output.manifest.rows, rejected, shards.RETRY)
    return LabelSummary(
        str(output.folder),
        output.manifest.rows,
        {name: counts.labels[name] for name in output.classes},
        None if acceptance_of(output.run)["thresholds"] is None else counts.accepted.total(),
        counts.human,
        counts.unlabelled,
        counts.novel,
        shifted,
        rejected,
        spec.precision,
        output.run.get("agreement"),
        applied,
        **dataclasses.asdict(timing),
    )


def _together(extracted: ExtractSummary, labelled: Timing) -> Timing:
    """The timing of an extraction and of labelling from it: as one that did both."""
    return Timing(
        labelled.computed,
        extracted.redone,
        extracted.startup_seconds,
        extracted.seconds + labelled.startup_seconds + labelled.seconds,
        extracted.actors,
    )


def _head_here(trained: Classifier, spec: BaseSpec) -> PreparedHead:
    """The head for this process: OpenVINO's where it is installed."""
    engine = spec.engine if hardware.has_openvino() else "keras"
    return prepared_head(trained, dataclasses.replace(spec, engine=engine), conversion.here)


def _with_shift(output: Output, stored: StoredFeatures) -> tuple[Output, list[str]]:
    """`output` with how it differs from the evidence in its record, and in what it doesn't look
    like that, which is said."""
    differences = pile_shift(output, stored)
    shift = [dataclasses.asdict(one) for one in differences]
    if output.run.get("shift") != shift:
        output = with_record(output, shift=shift)
    found = [one.name for one in differences if one.shifted]
    if found:
        say(
            f"label: this pile doesn't look like what the classifier was tried on "
            f"({', '.join(found)}): precisions are of photographs like those; `flowerray audit "
            f"{output.folder}` measures it here"
        )
    return output, found


def _spec_of_stored(
    stored: StoredFeatures, trained: Classifier, settings: LabelSettings
) -> BaseSpec:
    """The base spec of the features, which must be the classifier's.

    Raises:
        UsageError: it is another.
    """
    spec = trained.base_spec
    asked = dataclasses.replace(spec, precision=settings.precision or spec.precision)
    if differences := stored.spec.differences(spec) or spec.differences(asked):
        raise UsageError(
            f"{settings.images} holds features of another make than {settings.classifier} takes "
            f"({differences}): label the photographs, with --keep-features to keep what fits"
        )
    return spec


def _add_captions(entries: list[tuple[str, str]], table: pa.Table) -> None:
    """Add the first photographs that have a label, captioned with it and its confidence."""
    missing = GALLERY_PHOTOGRAPHS - len(entries)
    if missing > 0:
        shown = table.filter(pc.is_valid(table["label"])).slice(0, missing)
        entries += [
            (row["uri"], f"{row['label']}\n{row['confidence']:.3f}")
            for row in shown.select(["uri", "label", "confidence"]).to_pylist()
        ]


def _draw_gallery(
    output: Output, entries: list[tuple[str, str]], path: str, limits: Limits
) -> None:
    title = f"{len(entries)} of {output.manifest.rows:,} photographs, label and confidence"
    png = gallery.draw(entries, title, limits)
    with whole_file(path) as stream:
        stream.write(png)
    say(f"gallery: {path}")
