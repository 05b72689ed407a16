"""Writes docs/commands.md from the commands' own --help.

python docs/commands.py
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from flowerray import parser as command_line

DOCUMENT = Path(__file__).parent / "commands.md"
BEGINNING = """# Commands

What `flowerray COMMAND --help` prints, written by `make docs`. Each command's settings are a
dataclass of the same names in `flowerray/settings/`.

Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted. Results go to stdout, with `--json` for
programs; progress goes to stderr.
"""


def main() -> None:
    DOCUMENT.write_text(document(), encoding="utf-8")


def document() -> str:
    """The whole of docs/commands.md."""
    os.environ["COLUMNS"] = "100"  # its lines are as wide on any terminal
    names = command_line.COMMANDS
    parts = [f"## {name}\n\n```text\n{help_of(name).strip()}\n```\n" for name in names]
    return "\n".join([BEGINNING, *parts])


def help_of(command: str) -> str:
    """What `flowerray COMMAND --help` prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        command_line.parser().parse_args([command, "--help"])
    return text.getvalue()


if __name__ == "__main__":
    main()
