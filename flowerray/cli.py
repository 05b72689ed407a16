"""The `flowerray` command: one subcommand a job, its options made from the job's settings.

Nothing heavy is imported before a command runs, so that help answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowerray import __version__, api, config
from flowerray.errors import GO_ON, FlowerrayError
from flowerray.progress import say
from flowerray.settings import (
    CHECKS,
    BaselineSettings,
    CheckSettings,
    ClusterSettings,
    CommandSettings,
    EvaluateSettings,
    ExportSettings,
    ExtractSettings,
    LabelSettings,
    PlanSettings,
    ReportSettings,
    RunSettings,
    SampleSettings,
    Settings,
    TrainSettings,
    VerifySettings,
    WeightsSettings,
    flag_of,
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
    from flowerray.sample import draw_sample

    try:
        return draw_sample(settings.directory, settings.per_class, settings.seed)
    except FileExistsError as error:
        raise FlowerrayError(str(error)) from None
    except OSError as error:
        raise FlowerrayError(f"can't write {settings.directory}: {error.strerror}") from None


def _weights(settings: WeightsSettings) -> Any:
    from flowerray import weights

    if settings.action == "show":
        return weights.in_cache()
    found = weights.fetch(settings.base, Path(settings.file) if settings.file else None, say)
    return {"base": settings.base, "source": found.source, "sha256": found.sha256}


def _plan(settings: PlanSettings) -> Any:
    from flowerray.doctor import plan

    return plan(settings)


def _doctor(settings: ClusterSettings) -> Any:
    from flowerray.doctor import diagnose

    return diagnose(settings)


def _bases(settings: Settings) -> Any:
    from flowerray.bases import BASES

    return {name: dataclasses.asdict(base) for name, base in BASES.items()}


def _rejected_text(rejected: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in rejected.items()) or "none"


def _extract_text(done: Any) -> str:
    rejected = _rejected_text(done.rejected)
    return f"{done.photographs:,} photographs, rejected: {rejected}\nfeatures: {done.out}"


def _train_text(done: Any) -> str:
    from flowerray.scores import as_text

    lines = [as_text(done.scores), ""]
    lines += [
        f"{m['uri']}: original label {m['original_label']}, prediction {m['prediction']}, "
        f"confidence {m['confidence']:.3f}"
        for m in done.mistakes
    ]
    return "\n".join([*lines, "", f"fitted in {done.fit_seconds:.1f} s", f"classifier: {done.out}"])


def _label_text(done: Any) -> str:
    labels = ", ".join(f"{count:,} {name}" for name, count in done.labels.items())
    lines = [
        f"{done.photographs:,} photographs: {labels}; rejected: {_rejected_text(done.rejected)}",
        f"novel, unlike all that was trained on: {done.novel:,}",
        f"labels: {done.out}",
    ]
    if done.accepted is not None:
        labelled = sum(done.labels.values())
        share = done.accepted / labelled if labelled else 0
        lines[2:2] = [f"accepted: {done.accepted:,} of {labelled:,} ({share:.0%})"]
        lines += [f"review: {done.out}/review.parquet"]
    return "\n".join(lines)


def _run_text(done: Any) -> str:
    label = done.label
    rate = f", {label.computed / label.seconds:.1f} a second" if label.computed else ""
    lines = [
        f"classes    {', '.join(done.train.classes)}",
        f"trained    on {done.train.trained_on:,} photographs; validation accuracy "
        f"{done.train.scores['accuracy']:.4f}, errors {done.train.scores['errors']}/"
        f"{done.train.scores['photographs']}",
        f"labelled   {label.photographs:,} photographs{rate}",
        f"rejected   {_rejected_text(label.rejected)}",
    ]
    if done.evaluation:
        lines.append(
            f"accuracy   {done.evaluation['accuracy']:.4f} on the pile, "
            f"errors {done.evaluation['errors']}/{done.evaluation['photographs']}"
        )
    where = label.out.removesuffix("labels")
    return "\n".join([*lines, f"results    {where}features, classifier, labels, labels.png"])


def _evaluate_text(done: Any) -> str:
    from flowerray.scores import as_text

    return (
        f"{as_text(done)}\n\nwithout a label: {done['without_label']}, "
        f"without a truth: {done['without_truth']}"
    )


def _verify_text(done: Any) -> str:
    lines = [
        f"{done.present:,} of {done.expected:,} rows present, {done.missing:,} missing, "
        f"{done.doubled:,} doubled",
        f"rejected: {_rejected_text(done.rejected)}",
    ]
    for what, names in (("damaged", done.damaged), ("of another run", done.foreign)):
        lines += [f"{what}: {name}" for name in names]
    mend = ": run the same job again to finish it"
    if done.doubled and not (done.missing or done.damaged or done.foreign):
        mend = ": --overwrite it"
    if done.damaged or done.foreign:
        mend = ": remove the files named above, then run the same job again"
    mend = "" if done.whole else mend
    return "\n".join([*lines, f"{done.out} is {'whole' if done.whole else 'not whole'}{mend}"])


CHECK_LINES = 10  # findings of each check that are shown


def _check_text(done: Any) -> str:
    labels = ", ".join(f"{count:,} {name}" for name, count in done.labels.items())
    lines = [f"{done.photographs:,} photographs: {labels or 'no labels'}"]
    for name, count in done.counts.items():
        if not count:
            continue
        lines += ["", f"{name}: {count:,} {CHECKS[name]}"]
        for finding in [f for f in done.findings if f.check == name][:CHECK_LINES]:
            photographs = " = ".join(uri for uri in (finding.uri, finding.other_uri) if uri)
            lines.append("  " + ": ".join(part for part in (photographs, finding.detail) if part))
        if count > CHECK_LINES:
            lines.append(f"  and {count - CHECK_LINES:,} more: --json or --out has all")
    nothing = ", ".join(name for name, count in done.counts.items() if not count)
    lines += ["", f"nothing found: {nothing}"] if nothing else []
    lines += [f"note: {note}" for note in done.notes]
    return "\n".join([*lines, f"findings: {done.out}"] if done.out else lines)


def _report_text(done: Any) -> str:
    return (
        f"{done.shown:,} of {done.photographs:,} photographs shown\n"
        f"report: {done.out} ({done.bytes / 1e6:.1f} MB)"
    )


def _export_text(done: Any) -> str:
    lines = [
        f"{done.photographs:,} photographs, {done.left_out:,} left out\n{done.format}: {done.out}"
    ]
    if done.labelling_configuration:
        lines.append(f"labelling configuration of the project:\n{done.labelling_configuration}")
    if done.unreadable:
        lines.append(
            f"{done.unreadable:,} could not be copied: run the same command again when they can be"
        )
    return "\n".join(lines)


def _baseline_text(done: Any) -> str:
    lines = []
    for row in done.rows:
        top = ", ".join(f"{t['label']} {t['probability']:.3f}" for t in row["top_k"] or [])
        lines.append(f"{row['uri']}: {top or row['error']}")
    return "\n".join([*lines, f"baseline: {done.out}"])


def _sample_text(done: Any) -> str:
    return (
        f"{done.photographs} flowers, drawn and not photographed, and {done.broken} broken files\n"
        f"labelled: {done.labelled}\npile:     {done.pile}\ntruth:    {done.truth}"
    )


def _weights_text(done: Any) -> str:
    if isinstance(done, dict):
        return f"{done['base']}: sha256 {done['sha256']}, from {done['source']}"
    return (
        "\n".join(f"{w['base']}: sha256 {w['sha256']}, {w['file']}" for w in done) or "none cached"
    )


def _plan_text(done: Any) -> str:
    lines = [
        f"{g['actors']} actors on {g['device'].upper()}s, each with {g['cpus']:g} CPUs"
        f"{' and a GPU' if g['gpus'] else ''}, {g['threads']} threads, "
        f"batches of {g['batch_size']} photographs"
        for g in done.groups
    ]
    return "\n".join([*lines, f"--precision auto is {done.precision}, --engine auto {done.engine}"])


def _doctor_text(done: Any) -> str:
    lines = []
    for node in done.nodes:
        able = [name for name in ("bfloat16", "int8", "openvino") if node[name]]
        lines += [
            f"{node['address']}: {node['processor']}, {node['ray_cpus']} CPUs, "
            f"{node['ray_gpus']} GPUs and {node['ray_memory_bytes'] / 2**30:.0f} GiB for Ray",
            f"  has {', '.join([*able, *node['gpus']]) or 'float32 alone'}",
        ]
    lines.append(f"weights cached here: {', '.join(done.weights) or 'none'}")
    return "\n".join([*lines, *(f"limit: {limit}" for limit in done.limits)])


def _bases_text(done: Any) -> str:
    lines = [f"{'base':<20}{'input':>9}  preparation"]
    for name, base in done.items():
        side = base["input_size"]
        lines.append(f"{name:<20}{f'{side}x{side}':>9}  {base['preparation']}")
    return "\n".join(lines)


JOBS: dict[str, Command] = {
    "extract": Command(
        "turn labelled photographs into features",
        ExtractSettings,
        api.extract,
        _extract_text,
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
        _train_text,
        (
            "flowerray train features --out classifier",
            "flowerray train features --out as-in-the-article --recipe article",
        ),
    ),
    "label": Command(
        "label photographs with a classifier",
        LabelSettings,
        api.label,
        _label_text,
        (
            "flowerray label pile --classifier classifier --out labels",
            "flowerray label 'pile/**/*.jpg' --classifier classifier --out labels --format csv",
            "flowerray label pile.parquet --classifier classifier --out labels --address auto",
        ),
    ),
    "run": Command(
        "extract, train and label in one go",
        RunSettings,
        api.run,
        _run_text,
        ("flowerray run flower_photos pile --out results",),
    ),
    "evaluate": Command(
        "score labels against a truth",
        EvaluateSettings,
        api.evaluate,
        _evaluate_text,
        (
            "flowerray evaluate labels --truth truth.csv",
            "flowerray evaluate labels --truth folders",
        ),
    ),
    "verify": Command(
        "check that an output has every photograph once",
        VerifySettings,
        api.verify,
        _verify_text,
        ("flowerray verify labels", "flowerray verify features --json"),
    ),
    "check": Command(
        "find copies, leakage, wrong labels and odd files in a labelled set",
        CheckSettings,
        api.check,
        _check_text,
        (
            "flowerray check flower_photos",
            "flowerray check features --out findings.csv",
            "flowerray check flower_photos --only leakage,two_labels,unreadable --strict",
        ),
    ),
    "report": Command(
        "make one HTML page of a classifier or of labels, to look at and to correct labels on",
        ReportSettings,
        api.report,
        _report_text,
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
        _export_text,
        (
            "flowerray export labels --format csv --out labels.csv",
            "flowerray export labels --format folders --out sorted --accepted-only",
            "flowerray export labels --format labelstudio --out tasks.json --url-root /data",
            "flowerray export labels --format fiftyone --out dataset --min-confidence 0.8",
        ),
    ),
    "baseline": Command(
        "show what VGG16 as published says of photographs, in ImageNet's classes",
        BaselineSettings,
        api.baseline,
        _baseline_text,
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
        _sample_text,
        ("flowerray sample demo", "flowerray sample demo --per-class 100 --seed 7"),
    ),
    "weights": Command(
        "fetch or show pretrained weights",
        WeightsSettings,
        _weights,
        _weights_text,
        (
            "flowerray weights fetch",
            "flowerray weights fetch --file vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "flowerray weights show",
        ),
    ),
    "plan": Command(
        "show the actors that a job would start",
        PlanSettings,
        _plan,
        _plan_text,
        ("flowerray plan", "flowerray plan --address auto --actors 8"),
    ),
    "doctor": Command(
        "say what the machine or cluster can do, and what limits it",
        ClusterSettings,
        _doctor,
        _doctor_text,
        ("flowerray doctor", "flowerray doctor --address 10.0.0.5:6379 --json"),
    ),
    "bases": Command(
        "list the pretrained bases",
        Settings,
        _bases,
        _bases_text,
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


def parser(
    command: str | None = None, given: dict[str, Any] | None = None, paths: Any = None
) -> argparse.ArgumentParser:
    """The whole command line, to which the options of `command` are `given` by a file already; a
    shell completes options that are paths by `paths`, see shtab."""
    top = argparse.ArgumentParser(
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
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, chosen in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=chosen.help,
            description=chosen.help[0].upper() + chosen.help[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in chosen.examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        for part in (chosen.settings, CommandSettings):
            _add_options(sub, part, (given or {}) if name == command else {}, paths)
        if name in JOBS:
            action = sub.add_argument(
                "--config",
                metavar="YAML",
                help="take options from this file, which `flowerray config` writes; those given "
                "here win, --no-OPTION over an option that is true there",
            )
            _complete(action, paths)
    return top


def _add_options(
    sub: argparse.ArgumentParser, settings: type[Settings], given: dict[str, Any], paths: Any
) -> None:
    kinds = kinds_of(settings)
    for field in dataclasses.fields(settings):
        rule, kind, flag = field.metadata, kinds[field.name], flag_of(field)
        default = given.get(field.name, field.default)
        if kind is bool:
            sub.add_argument(flag, action="store_true", default=default, help=rule["help"])
            sub.add_argument(
                flag.replace("--", "--no-", 1),
                action="store_false",
                dest=field.name,
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )
            continue
        arguments: dict[str, Any] = {"help": rule["help"], "type": kind, "metavar": rule["metavar"]}
        if rule["choices"]:
            arguments["choices"] = rule["choices"]
        if default is not dataclasses.MISSING:
            arguments["default"] = default
        if rule["positional"]:
            arguments["metavar"] = rule["metavar"] or field.name.upper()
            if default is not dataclasses.MISSING:
                arguments["nargs"] = "?"
            action = sub.add_argument(field.name, **arguments)
        else:
            if default is dataclasses.MISSING:
                arguments["required"] = True
            elif default is not None:
                arguments["help"] += f" [{default}]".replace("%", "%%")
            action = sub.add_argument(flag, **arguments)
        if rule["path"]:
            _complete(action, paths)


def _complete(action: argparse.Action, paths: Any) -> None:
    if paths is not None:
        action.complete = paths  # type: ignore[attr-defined]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""
    _prepare_streams(again=arguments is None)
    words = sys.argv[1:] if arguments is None else list(arguments)
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        chosen = vars(parser(*_from_file(words)).parse_args(words))
        command, as_json = COMMANDS[chosen.pop("command")], chosen.pop("json")
        chosen.pop("config", None)
        done = command.run(command.settings(**chosen))
        _print(json.dumps(_plain(done), indent=2) if as_json else command.text(done))
        return 0 if getattr(done, "whole", True) and getattr(done, "passed", True) else 1
    except FlowerrayError as error:
        say(f"flowerray: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say(f"flowerray: interrupted{_to_go_on(words)}")
        return 130
    finally:
        signal.signal(signal.SIGINT, before)


def _to_go_on(words: Sequence[str]) -> str:
    """What to do after an interruption: only what keeps its work in shards or epochs goes on."""
    if not {"extract", "train", "label", "run"} & set(words[:1]):
        return ""
    return f"; {GO_ON}" + (", without --overwrite" if "--overwrite" in words else "")


def _prepare_streams(again: bool) -> None:
    """Have no character that a stream can't show, and no stream that is closed, end a command. In
    a locale whose file names aren't UTF-8 Python starts `again`, in its UTF-8 mode."""
    if again and sys.getfilesystemencoding() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"  # for the workers
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file opened would take its place, and what is printed
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print(text: str) -> None:
    """Print the result. A reader that has gone, as `head` does, has what it wanted.

    Raises:
        FlowerrayError: it can't be written (disk full).
    """
    try:
        print(text, flush=True)
    except OSError as error:
        # Python would try to write the rest when it ends.
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise FlowerrayError(
                f"the job is done, but its result can't be printed: {error.strerror}"
            ) from None


def _from_file(words: list[str]) -> tuple[str | None, dict[str, Any]]:
    """The command and the options that the file of its --config gives."""
    command = words[0] if words else None
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", nargs="?")
    file = early.parse_known_args(words)[0].config
    if file is None or command not in JOBS:
        return None, {}
    return command, config.read(file, command, JOBS[command].settings, CommandSettings)


def _interrupt(number: int, frame: Any) -> None:
    """The first Ctrl-C ends the job in order, a second one at once."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    raise KeyboardInterrupt


def _plain(done: Any) -> Any:
    if dataclasses.is_dataclass(done) and not isinstance(done, type):
        return json.loads(json.dumps(dataclasses.asdict(done), default=str))
    return done


if __name__ == "__main__":
    sys.exit(main())
