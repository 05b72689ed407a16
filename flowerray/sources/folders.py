"""Folders as classes and splits: root/CLASS/, or root/train/CLASS/ and root/valid/CLASS/.

Local directories and object stores obey the same rules, told in docs/inputs.md; whatever is left
out is said in a line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from flowerray.errors import FlowerrayError
from flowerray.progress import Progress, say, some_names
from flowerray.sources import names
from flowerray.sources.listing import (
    FOUND,
    batch,
    files_below,
    files_in_store,
    is_left_out,
    split_named,
)

# Of files that say something of photographs and are none.
NOTES = (".txt", ".xml", ".json", ".csv", ".yaml", ".yml", ".md")


class Tree(Protocol):
    """Folders and files below a root, wherever they lie, hidden and systems' own aside."""

    def folders(self, at: str) -> list[str]:
        """The names of the folders in `at`, sorted."""

    def has_files(self, at: str) -> bool:
        """Whether `at` itself holds a file."""

    def below(self, at: str, label: str, split: str | None) -> Iterator[pa.RecordBatch]:
        """Every file below `at`, as FOUND."""


@dataclass(frozen=True)
class Layout:
    """Where classes lie: as folders of each of `places`, to which split (None: to be drawn)."""

    root: str
    places: tuple[tuple[str, str | None], ...]

    @property
    def has_splits(self) -> bool:
        """Whether folders beside the classes' would not be classes."""
        return self.places != ((self.root, None),)


def photographs_in_classes(tree: Tree, root: str, trainable: bool) -> Iterator[pa.RecordBatch]:
    """The photographs below `root` with the class and split that their folders name; what lies
    beside them is said.

    Raises:
        FlowerrayError: as `layout_of`; a class has no photographs and the set is to be `trainable`.
    """
    layout = layout_of(tree, root, said=True)
    for place, split in layout.places:
        folders = tree.folders(place)
        if tree.has_files(place):
            say(f"{place}: the files beside its folders are of no class and left out")
        for folder in folders:
            yield from _class_in(tree, f"{place}/{folder}", folder, split, trainable)


def layout_of(tree: Tree, root: str, said: bool = False) -> Layout:
    """Where the classes of `root` lie. A folder is a split if it is called so and holds folders;
    what is not taken is told where it is to be `said`.

    Raises:
        FlowerrayError: there is something to validate with and nothing to train on.
    """
    while True:
        folders = tree.folders(root)
        splits = {f: s for f in folders if (s := split_named(f)) and tree.folders(f"{root}/{f}")}
        if splits or len(folders) != 1 or not tree.folders(f"{root}/{folders[0]}"):
            break
        root = f"{root}/{folders[0]}"  # as archives unpack: flowers/flowers/CLASS
        if said:
            say(f"classes are looked for in {root}, the one folder there")
    kinds = set(splits.values())
    if "train" not in kinds:
        if kinds:
            there = min(splits)
            raise FlowerrayError(
                f"{root} has {there}/ but no train/: give {root}/{there} itself to have a split "
                "drawn"
            )
        if folders and all(map(split_named, folders)):
            raise FlowerrayError(
                f"{root} has {' and '.join(folders)} but no folder a class in them: sort the "
                "photographs into one folder a class, or give a table with columns uri and label"
            )
        return Layout(root, ((root, None),))
    drawn = "valid" not in kinds
    if said:
        _say_left_out(root, folders, splits, drawn)
    places = [(f"{root}/{f}", None if drawn else s) for f, s in splits.items() if s != "test"]
    return Layout(root, tuple(places))


def _say_left_out(root: str, folders: list[str], splits: dict[str, str], drawn: bool) -> None:
    taken = " and ".join(f"{f}/" for f in folders if splits.get(f) in ("train", "valid"))
    if drawn:
        say(f"{root} has no valid/: photographs to validate with are drawn from {taken}")
    beside = [folder for folder in folders if splits.get(folder) not in ("train", "valid")]
    for folder in beside:
        if split_named(folder) == "test":
            place = f"{root}/{folder}"
            say(
                f"{place} is left out, for a test: once trained, `flowerray label {place} "
                "--classifier CLASSIFIER --out LABELS`, then `flowerray evaluate LABELS --truth "
                "folders`"
            )
    others = [f"{root}/{folder}" for folder in beside if split_named(folder) != "test"]
    if others:
        are = "is" if len(others) == 1 else "are"
        say(f"{some_names(others)} {are} left out: the classes are those in {taken}")


def _class_in(
    tree: Tree, place: str, folder: str, split: str | None, trainable: bool
) -> Iterator[pa.RecordBatch]:
    name = names.class_name(folder)
    if name is None:
        raise FlowerrayError(f"{place!r} has no name but spaces: rename it, for it is a class")
    endings: set[str] = set()
    for found in tree.below(place, name, split):
        endings.update(os.path.splitext(uri)[1].lower() for uri in found["uri"].to_pylist())
        yield found
    if endings and endings <= set(NOTES):
        raise FlowerrayError(
            f"{place} holds {' and '.join(sorted(endings))} files alone, as boxes for detection "
            "are kept (YOLO, Pascal VOC, COCO): give one folder of photographs a class, or a table "
            "with columns uri and label"
        )
    if not endings and trainable:
        raise FlowerrayError(
            f"class {name!r} has no photographs in {place}: add some or remove the folder"
        )


class LocalTree:
    """See Tree: directories of this machine; `progress` counts the files that are seen."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def folders(self, at: str) -> list[str]:
        try:
            with os.scandir(at) as entries:
                found = [e.name for e in entries if not is_left_out(e.name, folder=True)]
        except OSError as error:
            raise FlowerrayError(f"can't list {at}: {error.strerror}") from None
        found = sorted(name for name in found if os.path.isdir(os.path.join(at, name)))
        for name in found:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise FlowerrayError(
                    f"{os.fsencode(name)!r} in {at} is no UTF-8 and so no class: rename the folder"
                ) from None
        return found

    def has_files(self, at: str) -> bool:
        with os.scandir(at) as entries:
            return any(not is_left_out(e.name) and e.is_file() for e in entries)

    def below(self, at: str, label: str, split: str | None) -> Iterator[pa.RecordBatch]:
        return files_below(at, self._progress, label, split)


class StoredTree:
    """See Tree: what a store lists below `root`, in the order that a local directory has;
    `progress` counts it.

    Raises:
        FlowerrayError: it can't be listed, or holds nothing.
    """

    def __init__(self, root: str, progress: Progress) -> None:
        found = pa.Table.from_batches(files_in_store(root, progress), FOUND)
        if not len(found):
            raise FlowerrayError(f"no photographs found in {root}")
        self._files: dict[str, list[tuple[str, int | None]]] = {}
        self._folders: dict[str, set[str]] = {}
        for uri, size in zip(found["uri"].to_pylist(), found["size"].to_pylist(), strict=True):
            at = uri.rpartition("/")[0]
            self._files.setdefault(at, []).append((uri, size))
            while at != root and at.startswith(root):
                above, _, name = at.rpartition("/")
                self._folders.setdefault(above, set()).add(name)
                at = above

    def folders(self, at: str) -> list[str]:
        return sorted(self._folders.get(at, ()))

    def has_files(self, at: str) -> bool:
        return at in self._files

    def below(self, at: str, label: str, split: str | None) -> Iterator[pa.RecordBatch]:
        files = sorted(self._files.get(at, ()))
        if files:
            yield batch([uri for uri, _ in files], [size for _, size in files], label, split)
        for folder in self.folders(at):
            yield from self.below(f"{at}/{folder}", label, split)
