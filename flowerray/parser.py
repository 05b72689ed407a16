"""The command line: one subcommand a job, its options made from the job's settings.

Nothing heavy is imported before a command runs, so that help answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowerray import __version__, api, config
from flowerray.commands import shown
from flowerray.errors import FlowerrayError, meant
from flowerray.progress import say
from flowerray.settings import (
    HEADINGS,
    AcceptSettings,
    AuditSettings,
    BaselineSettings,
    CheckSettings,
    ClusterSettings,
    CommandSettings,
    CompareSettings,
    EvaluateSettings,
    ExportSettings,
    ExtractSettings,
    LabelSettings,
    PackageSettings,
    PlanSettings,
    PredictSettings,
    ReportSettings,
    ReviewSettings,
    RunSettings,
    SampleSettings,
    Settings,
    SimilarSettings,
    SuggestSettings,
    TrainSettings,
    VerifySettings,
    WeightsSettings,
    flag_of,
    grouped_options,
    kinds_of,
    option,
)


@dataclass(frozen=True)
class Command:
    """A subcommand: `run` does it and returns what --json prints; `text` is that for a person."""

    help: str
    settings: type[Settings]
    run: Callable[[Any], Any]
    text: Callable[[Any], str]
    examples: tuple[str, ...]


def _sample(settings: SampleSettings) -> Any:
    from flowerray.commands.sample import draw_sample

    try:
        return draw_sample(settings.directory, settings.per_class, settings.seed)
    except FileExistsError as error:
        raise FlowerrayError(str(error)) from None
    except OSError as error:
        raise FlowerrayError(f"can't write {settings.directory}: {error.strerror}") from None


def _weights(settings: WeightsSettings) -> Any:
    return api.run_here(_weights_here, settings)


def _weights_here(settings: WeightsSettings) -> Any:
    from flowerray.bases import weights

    if settings.action == "show":
        return weights.in_cache()
    found = weights.fetch(settings.base, settings.file, say, settings.mirror)
    return {"base": settings.base, "source": found.source, "sha256": found.sha256}


def _predict(settings: PredictSettings) -> Any:
    from flowerray.commands.predict import predict

    return api.run_here(predict, settings)


def _review(settings: ReviewSettings) -> Any:
    from flowerray.commands.review import review

    return api.run_here(review, settings)


def _plan(settings: PlanSettings) -> Any:
    from flowerray.commands.doctor import plan

    return plan(settings)


def _doctor(settings: ClusterSettings) -> Any:
    from flowerray.commands.doctor import diagnose

    return diagnose(settings)


def _bases(settings: Settings) -> Any:
    from flowerray.bases.spec import BASES

    return {name: dataclasses.asdict(base) for name, base in BASES.items()}


JOBS: dict[str, Command] = {
    "extract": Command(
        "turn labelled photographs into features",
        ExtractSettings,
        api.extract,
        shown.extract,
        (
            "flowerray extract flower_photos --out features",
            "flowerray extract flowers --out features --train-per-class 500 --valid-per-class 50",
            "flowerray extract photographs.csv --out features --base resnet50 --actors 4",
        ),
    ),
    "train": Command(
        "fit a classifier's head on features",
        TrainSettings,
        api.train,
        shown.train,
        (
            "flowerray train features --out classifier",
            "flowerray train features --out classifier --recipe logistic",
        ),
    ),
    "label": Command(
        "label photographs with a classifier",
        LabelSettings,
        api.label,
        shown.label,
        (
            "flowerray label pile --classifier classifier --out labels",
            "flowerray label 'pile/**/*.jpg' --classifier classifier --out labels --format csv",
            "flowerray label pile.parquet --classifier classifier --out labels --address auto",
        ),
    ),
    "accept": Command(
        "decide again which labels are accepted, and what people said",
        AcceptSettings,
        api.accept,
        shown.accept,
        (
            "flowerray accept labels --min-precision 0.97",
            "flowerray accept labels --corrections corrections.csv",
        ),
    ),
    "suggest": Command(
        "choose what people should look at next",
        SuggestSettings,
        api.suggest,
        shown.suggest,
        (
            "flowerray suggest labels --number 80",
            "flowerray suggest kept --number 50 --out first.csv",
        ),
    ),
    "audit": Command(
        "tell how right the accepted labels of a pile are, by judging a few",
        AuditSettings,
        api.audit,
        shown.audit,
        (
            "flowerray audit labels",
            "flowerray audit labels --number 300",
            "flowerray audit labels --judged audit.csv",
        ),
    ),
    "run": Command(
        "extract, train and label in one go",
        RunSettings,
        api.run,
        shown.run,
        ("flowerray run flower_photos pile --out results",),
    ),
    "evaluate": Command(
        "score labels against a truth",
        EvaluateSettings,
        api.evaluate,
        shown.evaluate,
        (
            "flowerray evaluate labels --truth truth.csv",
            "flowerray evaluate labels --truth folders",
        ),
    ),
    "verify": Command(
        "check that an output has every photograph once",
        VerifySettings,
        api.verify,
        shown.verify,
        ("flowerray verify labels", "flowerray verify features --json"),
    ),
    "check": Command(
        "find copies, leakage, wrong labels and odd files in a labelled set",
        CheckSettings,
        api.check,
        shown.check,
        (
            "flowerray check flower_photos",
            "flowerray check features --out findings.csv",
            "flowerray check flower_photos --only leakage,two_labels,unreadable --strict",
            "flowerray check kept --keep-one pile.csv",
        ),
    ),
    "compare": Command(
        "try bases and recipes on a labelled set: errors, speed, cost, and which to take",
        CompareSettings,
        api.compare,
        shown.compare,
        (
            "flowerray compare flower_photos --bases vgg16,resnet50 --out compared",
            "flowerray compare flower_photos --bases vgg16,thumbnail --recipes mlp,logistic "
            "--out compared --number 5000000 --price 0.4",
        ),
    ),
    "report": Command(
        "make one HTML page of a classifier or of labels, to look at and to correct labels on",
        ReportSettings,
        api.report,
        shown.report,
        (
            "flowerray report classifier --out classifier.html",
            "flowerray report labels --out labels.html",
            "flowerray report labels --out labels.html --thumbnails 2000",
        ),
    ),
    "export": Command(
        "write labels for other tools: tables, Label Studio, FiftyOne, class folders",
        ExportSettings,
        api.export,
        shown.export,
        (
            "flowerray export labels --format csv --out labels.csv",
            "flowerray export labels --format folders --out sorted --accepted-only",
            "flowerray export labels --format labelstudio --out tasks.json --url-root /data",
            "flowerray export labels --format fiftyone --out dataset --min-confidence 0.8",
        ),
    ),
    "package": Command(
        "write a classifier as one file that runs without flowerray: ONNX, OpenVINO or Keras",
        PackageSettings,
        api.package,
        shown.package,
        (
            "flowerray package classifier --out flowers.onnx",
            "flowerray package classifier --out flowers.xml --format openvino --release 2",
        ),
    ),
    "baseline": Command(
        "show what VGG16 as published says of photographs, in ImageNet's classes",
        BaselineSettings,
        api.baseline,
        shown.baseline,
        (
            "flowerray baseline flower_photos --out baseline",
            "flowerray baseline pile --out baseline "
            "--weights vgg16_weights_tf_dim_ordering_tf_kernels.h5 "
            "--class-names imagenet_class_index.json",
        ),
    ),
    "sample": Command(
        "draw a small sample set (drawn, not photographed)",
        SampleSettings,
        _sample,
        shown.sample,
        ("flowerray sample demo", "flowerray sample demo --per-class 100 --seed 7"),
    ),
    "weights": Command(
        "fetch or show pretrained weights",
        WeightsSettings,
        _weights,
        shown.weights,
        (
            "flowerray weights fetch",
            "flowerray weights fetch --base efficientnet-lite0",
            "flowerray weights fetch --file vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "flowerray weights fetch --base resnet50 --file s3://models/resnet50",
            "flowerray weights fetch --base vgg19 --mirror https://mirror.example/keras",
            "flowerray weights show",
        ),
    ),
    "plan": Command(
        "show the actors that a job would start",
        PlanSettings,
        _plan,
        shown.plan,
        ("flowerray plan", "flowerray plan --address auto --actors 8"),
    ),
    "doctor": Command(
        "say what the machine or cluster can do, and what limits it",
        ClusterSettings,
        _doctor,
        shown.doctor,
        ("flowerray doctor", "flowerray doctor --address 10.0.0.5:6379 --json"),
    ),
    "bases": Command(
        "list the pretrained bases",
        Settings,
        _bases,
        shown.bases,
        ("flowerray bases", "flowerray bases --json"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class ConfigSettings(Settings):
    """Settings of `flowerray config`."""

    name: str = option(
        f"one of {', '.join(JOBS)}", positional=True, choices=tuple(JOBS), metavar="COMMAND"
    )


@dataclass(frozen=True, kw_only=True)
class CompletionSettings(Settings):
    """Settings of `flowerray completion`."""

    shell: str = option("bash, zsh or fish", positional=True, choices=("bash", "zsh", "fish"))


def _config(settings: ConfigSettings) -> str:
    return config.template(settings.name, JOBS[settings.name].settings, CommandSettings)


def _completion(settings: CompletionSettings) -> str:
    import shtab

    return shtab.complete(parser(paths=shtab.FILE), settings.shell)


COMMANDS = {
    **JOBS,
    "review": Command(
        "look at labels and decide, on a page in the browser",
        ReviewSettings,
        _review,
        shown.review,
        (
            "flowerray review labels",
            "flowerray review labels --features features",
            "flowerray review labels --no-browser --port 8080",
        ),
    ),
    "similar": Command(
        "find the photographs of a pile that are most like some others",
        SimilarSettings,
        api.similar,
        shown.similar,
        ("flowerray similar kept rose.jpg --number 50",),
    ),
    "predict": Command(
        "say what a few photographs show, here and now",
        PredictSettings,
        _predict,
        shown.predict,
        (
            "flowerray predict rose.jpg --classifier classifier",
            "flowerray predict *.jpg --classifier classifier --min-precision 0.97 --json",
        ),
    ),
    "config": Command(
        "print a YAML file with every option of a command, to edit and give to its --config",
        ConfigSettings,
        _config,
        str.rstrip,
        ("flowerray config label > job.yaml", "flowerray config run > job.yaml"),
    ),
    "completion": Command(
        "print the script that lets a shell complete commands, options and files",
        CompletionSettings,
        _completion,
        str.rstrip,
        (
            "flowerray completion bash > ~/.local/share/bash-completion/completions/flowerray",
            "flowerray completion zsh > ~/.zfunc/_flowerray",
            "flowerray completion fish > ~/.config/fish/completions/flowerray.fish",
        ),
    ),
}


class Parser(argparse.ArgumentParser):
    """argparse's, which says too what a mistyped choice was probably meant to be."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += meant(str(value), map(str, action.choices or ()))
            raise


class CommandParser(Parser):
    """The parser of one command, which does so for mistyped options: before it asks for those that
    are missing, since one of these may be meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's."""
        known = [flag for action in self._actions for flag in action.option_strings]
        for word in itertools.takewhile(lambda word: word != "--", args or ()):
            option = word.partition("=")[0]
            if re.match("--?[a-zA-Z]", word) and " " not in word and option not in known:
                self.error(f"unrecognized arguments: {word}{meant(option, known)}")
        return super().parse_known_args(args, namespace)


def parser(
    command: str | None = None, given: dict[str, Any] | None = None, paths: Any = None
) -> argparse.ArgumentParser:
    """The whole command line, to which the options of `command` are `given` by a file already; a
    shell completes options that are paths by `paths`, see shtab."""
    top = Parser(
        "flowerray",
        description="Label large piles of photographs by transfer learning, on Ray.",
        epilog="examples:\n  flowerray extract flower_photos --out features\n"
        "  flowerray train features --out classifier\n"
        "  flowerray label pile --classifier classifier --out labels\n\n"
        "`flowerray COMMAND --help` tells of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"flowerray {__version__}")
    commands = top.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=CommandParser
    )
    for name, chosen in COMMANDS.items():
        sub = commands.add_parser(
            name,
            usage=_usage(name, chosen.settings),
            help=chosen.help,
            description=chosen.help[0].upper() + chosen.help[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in chosen.examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,  # or it would be above what must be given
        )
        groups: dict[str, Any] = {"positional": sub}
        groups |= {
            title: sub.add_argument_group(title) for title in ("required", "options", *HEADINGS)
        }
        for part in (chosen.settings, CommandSettings):
            _add_options(groups, part, (given or {}) if name == command else {}, paths)
        if name in JOBS:
            action = groups["options"].add_argument(
                "--config",
                metavar="YAML",
                help="take options from this file, which `flowerray config` writes; those given "
                "here win, --no-OPTION over an option that is true there",
            )
            _complete(action, paths)
        groups["options"].add_argument(
            "-h", "--help", action="help", help="show this help message and exit"
        )
    return top


def _usage(name: str, settings: type[Settings]) -> str:
    """A line of what must be given; the options are listed below it."""
    words, kinds, groups = ["flowerray", name], kinds_of(settings), grouped_options(settings)
    for field in groups.get("positional", ()):
        several = " ..." if kinds[field.name] is tuple else ""
        words.append(f"{_metavar(field)}{several}")
    words += [f"{flag_of(field)} {_metavar(field)}" for field in groups.get("required", ())]
    return " ".join([*words, "[options]"])


def _metavar(field: dataclasses.Field[Any]) -> str:
    return field.metadata["metavar"] or field.name.upper()


def _add_options(
    groups: dict[str, Any], settings: type[Settings], given: dict[str, Any], paths: Any
) -> None:
    kinds = kinds_of(settings)
    for heading, fields in grouped_options(settings).items():
        for field in fields:
            action = _add_option(groups[heading], field, kinds[field.name], given)
            if field.metadata["path"]:
                _complete(action, paths)


def _add_option(
    group: Any, field: dataclasses.Field[Any], kind: type, given: dict[str, Any]
) -> argparse.Action:
    rule, flag = field.metadata, flag_of(field)
    default = given.get(field.name, field.default)
    if kind is bool:
        action = group.add_argument(flag, action="store_true", default=default, help=rule["help"])
        group.add_argument(
            flag.replace("--", "--no-", 1),
            action="store_false",
            dest=field.name,
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
        return action
    arguments: dict[str, Any] = {"help": rule["help"], "type": kind, "metavar": rule["metavar"]}
    if kind is tuple:
        arguments |= {"type": str, "nargs": "+"}
    if rule["choices"]:
        arguments["choices"] = rule["choices"]
    if default is not dataclasses.MISSING:
        arguments["default"] = default
    if rule["positional"]:
        arguments["metavar"] = _metavar(field)
        if default is not dataclasses.MISSING:
            arguments["nargs"] = "?"
        return group.add_argument(field.name, **arguments)
    if default is dataclasses.MISSING:
        arguments["required"] = True
    elif default is not None:
        arguments["help"] += f" [{default}]".replace("%", "%%")
    return group.add_argument(flag, **arguments)


def _complete(action: argparse.Action, paths: Any) -> None:
    if paths is not None:
        action.complete = paths  # type: ignore[attr-defined]
