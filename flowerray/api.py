"""The calls of the package: ``flowerray.label("pile", classifier="classifier", out="labels")``.

Each is a command's job; its parameters are the fields of the job's settings, positional as on the
command line or by name. ``flowerray/__init__.pyi`` spells the signatures out for editors and type
checkers; `make stubs` writes it from the settings and a test compares it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowerray import settings as all_settings
from flowerray.errors import meant
from flowerray.settings import (
    AcceptSettings,
    AuditSettings,
    BaselineSettings,
    CheckSettings,
    CompareSettings,
    EvaluateSettings,
    ExportSettings,
    ExtractSettings,
    LabelSettings,
    PackageSettings,
    ReportSettings,
    RunSettings,
    Settings,
    SimilarSettings,
    StorageSettings,
    SuggestSettings,
    TrainSettings,
    VerifySettings,
    is_required,
    kinds_of,
    options_of,
)

if TYPE_CHECKING:
    from flowerray.commands.accept import AcceptSummary
    from flowerray.commands.audit import AuditSummary
    from flowerray.commands.baseline import BaselineSummary
    from flowerray.commands.check import CheckSummary
    from flowerray.commands.compare import CompareSummary
    from flowerray.commands.export import ExportSummary
    from flowerray.commands.extract import ExtractSummary
    from flowerray.commands.label import LabelSummary
    from flowerray.commands.package import PackageSummary
    from flowerray.commands.report import ReportSummary
    from flowerray.commands.run import RunSummary
    from flowerray.commands.similar import Similar
    from flowerray.commands.suggest import SuggestSummary
    from flowerray.commands.train import TrainSummary
    from flowerray.commands.verify import Verdict

Field = dataclasses.Field[Any]


def _call(job: Callable[[Any], Any]) -> Callable[..., Any]:
    """The public call of `job`, which takes the settings that its annotation names, as one object
    (the command line does) or as keywords."""
    settings = getattr(all_settings, job.__annotations__["settings"])
    signature = _signature(settings, job.__annotations__["return"])

    @functools.wraps(job)
    def call(*arguments: Any, **options: Any) -> Any:
        if len(arguments) == 1 and isinstance(arguments[0], settings) and not options:
            return run_here(job, arguments[0])
        for name in options.keys() - signature.parameters:
            mend = meant(name, signature.parameters)
            raise TypeError(f"{job.__name__}() got an unexpected keyword argument {name!r}{mend}")
        try:
            given = signature.bind(*arguments, **options).arguments
        except TypeError as error:
            raise TypeError(f"{job.__name__}() {error}") from None
        return run_here(job, settings(**given))

    call.__module__ = "flowerray"
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__doc__ = _documentation(job.__doc__, settings, signature)
    return call


def run_here(job: Callable[[Any], Any], settings: Settings) -> Any:
    """What `job` returns of `settings`, which say how stores are reached."""
    if isinstance(settings, StorageSettings):
        from flowerray import stores

        stores.use(settings.access)
    return job(settings)


def _signature(settings: type[Settings], returns: str) -> inspect.Signature:
    """The fields as parameters: the positional ones, those that must be given, the others."""
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD
            if field.metadata["positional"]
            else inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if is_required(field) else field.default,
            annotation=_annotation(field, kinds_of(settings)[field.name]),
        )
        for field in options_of(settings)
    ]
    return inspect.Signature(parameters, return_annotation=returns)


def _annotation(field: Field, kind: type) -> str:
    choices = ", ".join(map(repr, field.metadata["choices"] or ()))
    parts = [f"Literal[{choices}]" if choices else kind.__name__]
    if kind is tuple:
        parts = ["str", "PathLike[str]", "Sequence[str | PathLike[str]]"]
    parts += ["PathLike[str]"] if field.metadata["path"] else []
    parts += ["None"] if field.default is None else []
    return " | ".join(parts)


def _documentation(
    summary: str | None, settings: type[Settings], signature: inspect.Signature
) -> str:
    help_of = {field.name: field.metadata["help"] for field in options_of(settings)}
    lines = [f"{summary}", "", "Args:"]
    for parameter in signature.parameters.values():
        given = "" if parameter.default is parameter.empty else f", default {parameter.default!r}"
        text = f"{parameter.name} ({parameter.annotation}{given}): {help_of[parameter.name]}"
        lines += textwrap.wrap(text, 92, initial_indent=" " * 4, subsequent_indent=" " * 8)
    lines += [
        *("", "Returns:", f"    {signature.return_annotation}", "", "Raises:"),
        "    UsageError: an option is of another type, out of range, or contradicts another.",
        "    FlowerrayError: the job can't be done as asked; the message says what to mend.",
    ]
    return "\n".join(lines)


@_call
def extract(settings: ExtractSettings) -> ExtractSummary:
    """Turn labelled photographs into features."""
    from flowerray.commands.extract import extract

    return extract(settings)


@_call
def train(settings: TrainSettings) -> TrainSummary:
    """Fit a classifier's head on features."""
    from flowerray.commands.train import train

    return train(settings)


@_call
def label(settings: LabelSettings) -> LabelSummary:
    """Label photographs with a classifier."""
    from flowerray.commands.label import label

    return label(settings)


@_call
def accept(settings: AcceptSettings) -> AcceptSummary:
    """Decide again which labels are accepted, and what people said of them."""
    from flowerray.commands.accept import accept

    return accept(settings)


@_call
def suggest(settings: SuggestSettings) -> SuggestSummary:
    """Choose the photographs of a pile that people should look at next."""
    from flowerray.commands.suggest import suggest

    return suggest(settings)


@_call
def similar(settings: SimilarSettings) -> list[Similar]:
    """Find the photographs of a pile that are most like some others."""
    from flowerray.commands.similar import similar

    return similar(settings)


@_call
def audit(settings: AuditSettings) -> AuditSummary:
    """Tell how right the accepted labels of a pile are, by people's judgement of a sample."""
    from flowerray.commands.audit import audit

    return audit(settings)


@_call
def run(settings: RunSettings) -> RunSummary:
    """Extract, train and label in one go."""
    from flowerray.commands.run import run

    return run(settings)


@_call
def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Score labels against a truth."""
    from flowerray.commands.evaluate import evaluate

    return evaluate(settings.labels, settings.truth, settings.columns)


@_call
def verify(settings: VerifySettings) -> Verdict:
    """Check that an output has every photograph once."""
    from flowerray.commands.verify import verify

    return verify(settings.out)


@_call
def check(settings: CheckSettings) -> CheckSummary:
    """Find copies, leakage, wrong labels and odd files in a labelled set."""
    from flowerray.commands.check import check

    return check(settings)


@_call
def compare(settings: CompareSettings) -> CompareSummary:
    """Try bases and recipes on a labelled set: errors, speed, cost, and which to take."""
    from flowerray.commands.compare import compare

    return compare(settings)


@_call
def report(settings: ReportSettings) -> ReportSummary:
    """Make one HTML page of a classifier or of labels, to look at and to correct labels on."""
    from flowerray.commands.report import report

    return report(settings)


@_call
def export(settings: ExportSettings) -> ExportSummary:
    """Write labels for other tools: tables, Label Studio, FiftyOne, class folders."""
    from flowerray.commands.export import export

    return export(settings)


@_call
def package(settings: PackageSettings) -> PackageSummary:
    """Write a classifier as one file that runs without flowerray: ONNX, OpenVINO or Keras."""
    from flowerray.commands.package import package

    return package(settings)


@_call
def baseline(settings: BaselineSettings) -> BaselineSummary:
    """Show what VGG16 as published says of photographs, in ImageNet's classes."""
    from flowerray.commands.baseline import baseline

    return baseline(settings)


CALLS = {
    call.__name__: call
    for call in (
        *(extract, train, label, accept, suggest, audit, similar, run, evaluate, verify),
        *(check, compare, report, export, package, baseline),
    )
}


def stub() -> str:
    """The text of ``flowerray/__init__.pyi``."""
    signatures = {name: inspect.signature(call) for name, call in CALLS.items()}
    lines = [
        '"""The calls\' signatures, for editors and type checkers: written by `make stubs`."""',
        "",
        "from collections.abc import Sequence",
        "from os import PathLike",
        "from typing import Any, Literal",
        "",
        *(
            f"from flowerray.commands.{name} import {found[0]}"
            for name, signature in sorted(signatures.items())
            if (found := re.findall(r"\b(?!Any\b)[A-Z]\w+", signature.return_annotation))
        ),
        "from flowerray.commands.predict import load as load",
        "from flowerray.errors import FlowerrayError as FlowerrayError",
        "from flowerray.errors import UsageError as UsageError",
        "",
        "__version__: str",
        "__all__: list[str]",
    ]
    for name, signature in signatures.items():
        lines += ["", f"def {name}("]
        before = None
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and before is not parameter.kind:
                lines.append("    *,")
            before = parameter.kind
            default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
            lines.append(f"    {parameter.name}: {parameter.annotation}{default},")
        lines.append(f") -> {signature.return_annotation}:")
        lines.append(textwrap.indent(f'"""{CALLS[name].__doc__}\n"""', "    "))
    return "\n".join([*lines, ""])
