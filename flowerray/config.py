"""Settings from a YAML file: `flowerray config label` prints one, `flowerray label --config FILE`
reads it. Keys are a command's options, with dashes or underscores. The command line
wins over the file.
"""

from __future__ import annotations

import textwrap
from typing import Any

from flowerray.errors import UsageError, meant
from flowerray.settings import Settings, fault_of, is_required, kinds_of, options_of


def read(path: str, command: str, *parts: type[Settings]) -> dict[str, Any]:
    """The options in the file at `path`, which must be fields of `parts`; ``null`` for an option
    that must be given stands for none.

    Raises:
        UsageError: no such file, not YAML, an unknown option, or a value that is none of its own.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as stream:
            content = yaml.safe_load(stream)
    except OSError as error:
        raise UsageError(
            f"can't read {path}: {error.strerror}; `flowerray config {command} > FILE` writes a "
            "file with every option"
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # no UTF-8, or a date that no calendar has
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else path
        raise UsageError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold a line such as `out: labels` for each option")
    options: dict[str, Any] = {}
    fields = {field.name: (part, field) for part in parts for field in options_of(part)}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in fields:
            mend = meant(name.replace("_", "-"), (name.replace("_", "-") for name in fields))
            mend = mend or f"; `flowerray config {command}` lists them"
            raise UsageError(f"{path}: {key} is no option of `flowerray {command}`{mend}")
        if name in options:
            raise UsageError(f"{path}: {key} is there twice")
        part, field = fields[name]
        kind = kinds_of(part)[name]
        if value is None and is_required(field):
            continue
        fault = fault_of(field, kind, value)
        if fault:
            quotes = " (in quotes)" if kind is str and not isinstance(value, str) else ""
            raise UsageError(f"{path}: {key} {fault}{quotes}")
        options[name] = value
    return options


def template(command: str, *parts: type[Settings]) -> str:
    """A file with every option of `parts`: its help as a comment, its default as its value."""
    import yaml

    lines = [
        f"# Settings of `flowerray {command} --config FILE`. Options of the command line win over",
        "# these; paths are taken from the directory in which the command runs.",
    ]
    for field in (field for part in parts for field in options_of(part)):
        required = is_required(field)
        text = field.metadata["help"] + (" (must be given)" if required else "")
        lines += ["", *textwrap.wrap(text, 98, initial_indent="# ", subsequent_indent="# ")]
        if field.metadata["choices"]:
            lines.append(f"# one of: {', '.join(field.metadata['choices'])}")
        key = field.name.replace("_", "-")
        lines.append(yaml.safe_dump({key: None if required else field.default}).rstrip())
    return "\n".join([*lines, ""])
