"""The `flowerray` command: what it was asked, done, and told with the right exit code."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from flowerray import config
from flowerray.commands import shown
from flowerray.errors import GO_ON, FlowerrayError
from flowerray.parser import COMMANDS, JOBS, parser
from flowerray.progress import promptly, say
from flowerray.settings import (
    CommandSettings,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""
    _prepare_streams(again=arguments is None)
    words = sys.argv[1:] if arguments is None else list(arguments)
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        chosen = vars(parser(*_from_file(words)).parse_args(words))
        name, in_json = chosen.pop("command"), chosen.pop("json")
        command = COMMANDS[name]
        chosen.pop("config", None)
        with promptly(name):
            done = command.run(command.settings(**chosen))
        _print(shown.as_json(done) if in_json else command.text(done))
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
    if not {"extract", "train", "label", "run", "compare"} & set(words[:1]):
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


if __name__ == "__main__":
    sys.exit(main())
