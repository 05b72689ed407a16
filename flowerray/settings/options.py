"""What an option is: a dataclass field with its help, bounds and place in the help."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import shlex
import types
import typing
from dataclasses import dataclass
from typing import Any

from flowerray.errors import UsageError, meant


def option(
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    positional: bool = False,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    metavar: str | None = None,
    path: bool = False,
    output: str | None = None,
) -> Any:
    """A dataclass field that is also a command-line option; its bounds are inclusive, and a `path`
    may be given as a ``pathlib.Path``. One that reads an `output` directory of flowerray's, "only"
    or "or photographs", takes a file in there for it, see `directory_meant`."""
    metadata = {
        "help": help,
        "positional": positional,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "metavar": metavar,
        "path": path or output is not None,
        "output": output,
    }
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(field: dataclasses.Field[Any]) -> str:
    """The option's name on the command line."""
    return field.name if field.metadata["positional"] else "--" + field.name.replace("_", "-")


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether the option must be given."""
    return field.default is dataclasses.MISSING


# Below these an option is shown, last in the help; those of the job itself come before.
HEADINGS = ("accepting", "tables", "photographs", "where it runs", "stores")


def options_of(settings: type[Settings]) -> list[dataclasses.Field[Any]]:
    """The options of `settings` in the order of need, as `grouped_options` has them."""
    return [field for group in grouped_options(settings).values() for field in group]


def grouped_options(settings: type[Settings]) -> dict[str, list[dataclasses.Field[Any]]]:
    """The options of `settings` by heading: those that are given by their place, those that must be
    given, the job's own, then what it shares with others, of these the widest shared first."""
    groups: dict[str, list[dataclasses.Field[Any]]] = {
        name: [] for name in ("positional", "required", "options", *HEADINGS)
    }
    fields = {field.name: field for field in dataclasses.fields(settings)}
    for ancestor in settings.__mro__:
        shared = []
        for name in vars(ancestor).get("__annotations__", ()):
            if (field := fields.pop(name, None)) is None:
                continue
            if field.metadata["positional"]:
                groups["positional"].append(field)
            elif is_required(field):
                groups["required"].append(field)
            elif "heading" in vars(ancestor):
                shared.append(field)
            else:
                groups["options"].append(field)
        if shared:
            groups[vars(ancestor)["heading"]][:0] = shared
    return {heading: group for heading, group in groups.items() if group}


def command_line(command: str, settings: Settings) -> str:
    """The command line that `settings` stand for: what isn't its default, and decides what is made;
    neither where it ran nor which stores it reached."""
    words = ["flowerray", command]
    for heading, fields in grouped_options(type(settings)).items():
        for field in fields:
            value = getattr(settings, field.name)
            if heading in ("where it runs", "stores") or value in (field.default, None):
                continue
            several = value if isinstance(value, tuple) else (value,)
            given = [] if value is True else map(str, several)
            words += [*([] if field.metadata["positional"] else [flag_of(field)]), *given]
    return shlex.join(words)


def kinds_of(settings: type[Settings]) -> dict[str, type]:
    """The type of each option, str, int, float, bool or tuple (of str), whether it may be None."""
    kinds = typing.get_type_hints(settings)
    for name, kind in kinds.items():
        if isinstance(kind, types.UnionType):
            kinds[name] = next(k for k in typing.get_args(kind) if k is not types.NoneType)
        elif typing.get_origin(kind) is tuple:
            kinds[name] = tuple
    return kinds


MOST_SEED = 2**32 - 1  # that Keras and scikit-learn take
KINDS = {str: str, int: numbers.Integral, float: numbers.Real, bool: bool, tuple: tuple}
KIND_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "names",
}


def fault_of(field: dataclasses.Field[Any], kind: type, value: Any) -> str | None:
    """What is wrong with an option's value, to say after its name; None where nothing is."""
    rule = field.metadata
    if value is None and field.default is None:
        return None
    if not isinstance(value, KINDS[kind]) or (kind is not bool and isinstance(value, bool)):
        return f"is {value!r}; it must be {KIND_NAMES[kind]}"
    whole = isinstance(value, numbers.Integral)
    if isinstance(value, numbers.Real) and not whole and not math.isfinite(value):
        return f"is {value}; it must be finite"
    if rule["choices"] and value not in rule["choices"]:
        mend = meant(str(value), rule["choices"])
        return f"is {value!r}; choose one of {', '.join(rule['choices'])}{mend}"
    if rule["minimum"] is not None and value < rule["minimum"]:
        return f"is {value}; it must be at least {rule['minimum']}"
    if rule["maximum"] is not None and value > rule["maximum"]:
        return f"is {value}; it must be at most {rule['maximum']}"
    return None


PACKAGE = ".onnx"  # a classifier in one file
RECORDS = ("run.json", "classifier.json")  # one is in every output directory


def directory_meant(path: str, photographs: bool = False) -> str:
    """The output directory that `path` stands for: a record for the directory that it is of, and,
    where no `photographs` could be meant, which a table lists too, any local file in there but a
    package."""
    from flowerray.stores import expanded, is_remote  # it takes Arrow with it

    above, _, name = path.rpartition("/")
    if name in RECORDS:
        return above or "."
    other = photographs or is_remote(path) or path.endswith(PACKAGE)
    if other or not os.path.isfile(expanded(path)):
        return path
    further = os.path.dirname(above) or "." if above else ".."  # as of a file in shards/
    for directory in (above or ".", further):
        if any(os.path.isfile(os.path.join(expanded(directory), record)) for record in RECORDS):
            return directory
    return path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all settings share: every field is checked against its own type and bounds when made.

    Raises:
        UsageError: a value is of another type, out of its range or not one of its choices.
    """

    def __post_init__(self) -> None:
        kinds = kinds_of(type(self))
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), kinds[field.name]
            if kind is tuple:
                several = (value,) if isinstance(value, (str, os.PathLike)) else tuple(value)
                value = tuple(map(os.fspath, several))
            if isinstance(value, os.PathLike):
                value = os.fspath(value)
            fault = fault_of(field, kind, value)
            if fault:
                raise UsageError(f"{flag_of(field)} {fault}")
            if field.metadata["path"] and "://" in str(value):
                from flowerray.stores.credentials import bare  # it takes Arrow with it

                value = bare(value)  # no message, report or run.json is to let anybody in
            if field.metadata["output"] and value:
                value = directory_meant(value, field.metadata["output"] == "or photographs")
            # 3 where 3.0 is meant, or numpy's 3, must make the same fingerprint.
            object.__setattr__(self, field.name, value if value is None else kind(value))
