"""The rooms of docs/architecture.md: each imports only those before it."""

import ast
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "flowerray"
ROOMS = (
    *("stores", "sources", "bases", "outputs", "heads", "trust"),
    *("reports", "exports", "packages", "review", "pipeline", "commands"),
)
SHARED = {"errors", "progress", "settings", "version"}  # beside the rooms, for all of them
WITH_RAY = {"pipeline", "commands"}


def imported_by(file: Path):
    """What `file` imports anywhere in it: whole names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_those_before_it_alone(room):
    may = {*ROOMS[: ROOMS.index(room) + 1], *SHARED}
    for file in (PACKAGE / room).rglob("*.py"):
        for name in imported_by(file):
            top, _, rest = name.partition(".")
            place = rest.partition(".")[0]
            assert top != "flowerray" or place in may, f"{file} imports {name}"
            assert top != "ray" or room in WITH_RAY, f"{file} imports Ray"


def test_every_file_has_a_room():
    there = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert there - SHARED == set(ROOMS)


def test_no_module_is_called_as_a_call_is():
    import flowerray

    assert not set(flowerray.__all__) & {path.stem for path in PACKAGE.iterdir()}
