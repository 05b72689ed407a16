"""Which columns of a table hold what: by the names that a user gives, or the likeliest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flowerray.errors import FlowerrayError
from flowerray.progress import say, some_names

# The columns that have a meaning here, and by which other names they are known, likeliest first.
# Compared without case, spaces, dashes and underscores.
MEANINGS: dict[str, tuple[str, ...]] = {
    "uri": (
        *("uri", "path", "filepath", "imagepath", "file", "filename", "imagefile"),
        *("imagefilename", "imagename", "image", "img", "imgpath", "url", "imageurl"),
        *("photograph", "photo", "picture"),
    ),
    "label": (
        *("label", "class", "classname", "category", "categoryname", "species", "target"),
        *("labelname", "groundtruth", "truth"),
    ),
    "split": ("split",),
    # These three are of what `flowerray check --out` writes.
    "check": ("check",),
    "score": ("score",),
    "suggested_label": ("suggestedlabel",),
    # And these of answers.
    "who": ("who",),
    "when": ("when",),
    "round": ("round",),
    "audited": ("audited",),
}


@dataclass(frozen=True)
class Columns:
    """The columns that hold a photograph's uri and its label, where a user names them."""

    uri: str | None = None
    label: str | None = None


LIKELY = Columns()  # the likeliest ones are taken


# Columns


class WantedColumns:
    """Which columns of a table are read as what; a guess is said once."""

    def __init__(self, path: str, columns: Columns, uri: str, wanted: tuple[str, ...]) -> None:
        self.path, self.wanted, self._said = path, wanted, False
        self.given = {"uri": columns.uri, "label": columns.label}
        self.known = {
            meaning: (uri, *(n for n in MEANINGS[meaning] if n != uri))
            if meaning == "uri"
            else MEANINGS[meaning]
            for meaning in wanted
        }

    def place(self, meaning: str, names: list[str]) -> int | None:
        """Which of `names` has `meaning`; None where none does."""
        keys = [comparable(name) for name in names]
        given = self.given.get(meaning)
        for known in [comparable(given)] if given is not None else self.known[meaning]:
            if keys.count(known) > 1:
                exact = [i for i, name in enumerate(names) if name == (given or known)]
                if len(exact) != 1:
                    twice = names[keys.index(known)].strip()
                    raise FlowerrayError(f"{self.path} has two columns {twice}: rename one")
                return exact[0]
            if known in keys:
                return keys.index(known)
        return None

    def chosen(self, names: list[str]) -> dict[str, int]:
        """The place in `names` of each column that is wanted and there.

        Raises:
            FlowerrayError: there is none for the uri, or none of a name that was given.
        """
        found = {meaning: self.place(meaning, names) for meaning in self.wanted}
        there = some_names(name.strip() for name in names if name.strip())
        for meaning, given in self.given.items():
            if given is not None and meaning in found and found[meaning] is None:
                raise FlowerrayError(f"{self.path} has no column {given}: it has {there}")
        if found["uri"] is None:
            raise self._without_uri(names, there)
        if not self._said:
            self._say(names, found)
        return {meaning: place for meaning, place in found.items() if place is not None}

    def _say(self, names: list[str], found: dict[str, int | None]) -> None:
        self._said = True
        for meaning in ("uri", "label"):
            place = found.get(meaning)
            right = self.known.get(meaning, ("",))[0]
            if (
                place is None
                or self.given[meaning] is not None
                or comparable(names[place]) == right
            ):
                continue
            name = names[place].strip()
            say(
                f"{self.path}: column {name} is taken for the {meaning}; --{meaning}-column names "
                "another"
            )

    def _without_uri(self, names: list[str], there: str) -> FlowerrayError:
        if not there:
            return FlowerrayError(f"{self.path} is empty")
        if any("/" in name or "\\" in name or re.search(r"\.\w{2,4}$", name) for name in names):
            return FlowerrayError(
                f"{self.path} has no header, or one without a uri column: make its first line "
                f"{self.known['uri'][0]},label or as its columns are"
            )
        return FlowerrayError(
            f"{self.path} has no {self.known['uri'][0]} column: name the one of {there} by "
            "--uri-column, or rename it"
        )


def comparable(name: str) -> str:
    return re.sub(r"[\s_\-\ufeff]+", "", name).casefold()
