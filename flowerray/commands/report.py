"""One HTML page of a classifier or of a label run: it holds all it shows and asks for nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass

from flowerray import stores
from flowerray.errors import FlowerrayError
from flowerray.settings import ReportSettings
from flowerray.stores.folder import Folder, located, whole_file

MARK = b'<meta name="generator" content="flowerray'  # near the start of every page


@dataclass(frozen=True)
class ReportSummary:
    """The page: what it is of (classifier or labels), its size, how many of the `photographs` that
    it speaks of it shows."""

    out: str
    kind: str
    photographs: int
    shown: int
    bytes: int


def report(settings: ReportSettings) -> ReportSummary:
    """Write the page of the classifier or of the labels in ``settings.source``.

    Raises:
        FlowerrayError: there is neither, it is damaged, or ``settings.out`` is something else's.
    """
    from flowerray.reports import classifier_page, labels_page

    source, out = Folder.at(settings.source), located(settings.out)
    check_replaceable(out)
    there = source.names(".")
    if "classifier.json" in there:
        kind, page = "classifier", classifier_page.render(settings.source, settings.thumbnails)
    elif "run.json" in there:
        kind, page = "labels", labels_page.render(settings.source, settings.thumbnails)
    else:
        raise FlowerrayError(
            f"no classifier and no labels in {settings.source}: give the --out of "
            "`flowerray train` or `flowerray label`"
        )
    html = page.html.encode()
    with whole_file(out) as stream:
        stream.write(html)
    return ReportSummary(out, kind, page.photographs, page.shown, len(html))


def check_replaceable(out: str) -> None:
    """Refuse before the work, not after it."""
    if not stores.is_remote(out) and os.path.isdir(out):
        raise FlowerrayError(f"{out} is a directory: choose a file for --out")
    try:
        with stores.store_at(out).open(out) as stream:
            ours = MARK in stream.read(2048)
    except FileNotFoundError:
        return
    except OSError as error:
        raise FlowerrayError(f"can't replace {out}: {error.strerror}") from None
    if not ours:
        raise FlowerrayError(f"{out} is no report of flowerray's: choose another --out")
