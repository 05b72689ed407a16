"""Labels for other tools: tables, tasks of Label Studio, a FiftyOne dataset, a folder a class.

Every format is written shard by shard, so memory stays that of one shard for any number of rows.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.compute as pc

from flowerray import lease, shards, stores
from flowerray.bases import fingerprint_of
from flowerray.deadline import Overdue, within
from flowerray.errors import FlowerrayError, UsageError
from flowerray.lease import SCRATCH, HeldFolder
from flowerray.photographs import Limits
from flowerray.progress import Progress, say
from flowerray.settings import ExportSettings
from flowerray.shards import Output
from flowerray.storage import Folder, located, refused, whole_file
from flowerray.stores import is_remote, local_path

# In a directory that an export made: what of, all that it put there, and what is in the making.
MARK, LIST, STAGING = ".flowerray.json", ".flowerray.list", SCRATCH
KIND = "an export"
LOCAL_FILES = "/data/local-files/?d="  # where Label Studio serves the files of its machine
MOST_TASKS = 250_000  # that Label Studio takes in one import, as its API's documentation says
LONGEST_NAME = 255  # bytes of a file's name, on the file systems of Linux and macOS

# How a file that an export wrote begins; another one of the same name is not replaced.
BEGINNINGS = {
    **{ending: (beginning,) for ending, beginning in shards.BEGINNINGS.items()},
    "labelstudio": (b'[{"data": {"image": ', b"[]"),
}


@dataclass(frozen=True)
class ExportSummary:
    """What an export holds: `photographs`; `left_out` are those without a label or not asked for,
    `unreadable` those that could not be copied. `labelling_configuration` is the XML of the Label
    Studio project that the tasks are for."""

    out: str
    format: str
    photographs: int
    left_out: int
    unreadable: int = 0
    labelling_configuration: str | None = None

    @property
    def whole(self) -> bool:
        """Every photograph that should be in the export is."""
        return not self.unreadable


def export(settings: ExportSettings) -> ExportSummary:
    """Write the labels in ``settings.labels`` as another tool reads them.

    Raises:
        FlowerrayError: no labels, or not yet all of them; no verdicts where those accepted are
            asked for; something else in ``settings.out``; photographs that the format can't name.
    """
    output = shards.read_output(settings.labels, "labels")
    output.check_whole()
    out = located(settings.out)
    config = output.run["config"]
    progress = Progress("export", output.manifest.rows)
    progress.ready(0)
    tables = _chosen(output, settings, progress)
    unreadable, configuration = 0, None
    if settings.format == "fiftyone":
        classes = config["classes"]
        photographs, unreadable = _build(
            out, output, settings, lambda root: (fill_fiftyone(tables, root, classes), 0)
        )
    elif settings.format == "folders":
        photographs, unreadable = _build(
            out, output, settings, lambda root: fill_folders(tables, root, settings.copy)
        )
    else:
        _check_replaceable(out, settings.format)
        with whole_file(out) as stream:
            if settings.format == "labelstudio":
                link = _linker(settings)
                photographs = write_label_studio(tables, stream, config["classifier"], link)
                configuration = labelling_configuration(config["classes"])
            else:
                photographs = TABLE_WRITERS[settings.format](tables, stream)
    progress.finish()
    if settings.format == "labelstudio" and photographs > MOST_TASKS:
        say(f"export: Label Studio takes {MOST_TASKS:,} tasks in one import: split {out}")
    return ExportSummary(
        out,
        settings.format,
        photographs,
        output.manifest.rows - photographs - unreadable,
        unreadable,
        configuration,
    )


def write_csv(tables: Iterable[pa.Table], stream: BinaryIO) -> int:
    """All columns of label shards as CSV with a header, top_k as JSON; returns the rows."""
    names, count = shards.LABELS.names, 0
    text = io.TextIOWrapper(stream, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in _rows(tables):
        row["top_k"] = json.dumps(row["top_k"], ensure_ascii=False)
        writer.writerow([row.get(name) for name in names])
        count += 1
    text.detach()  # flushed; who opened the file closes it
    return count


def write_jsonl(tables: Iterable[pa.Table], stream: BinaryIO) -> int:
    """All columns of label shards, a JSON object a line; returns the rows."""
    count = 0
    for row in _rows(tables):
        stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        count += 1
    return count


TABLE_WRITERS: dict[str, Callable[[Iterable[pa.Table], BinaryIO], int]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
}


def write_label_studio(
    tables: Iterable[pa.Table], stream: BinaryIO, classifier: str, link: Callable[[str], str]
) -> int:
    """Label Studio's tasks, a line each, with the label as a prediction; returns their number.

    The format is https://labelstud.io/guide/predictions; `link` gives the address of the image
    behind a uri, and `classifier` is the prediction's model_version.
    """
    count = 0
    stream.write(b"[")
    for row in _rows(tables):
        choice = {
            "id": f"label-{row['image_id']}",
            "from_name": "label",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": [row["label"]]},
        }
        prediction = {"model_version": classifier, "score": row["confidence"], "result": [choice]}
        task = {
            "data": {"image": link(row["uri"]), "uri": row["uri"], **_judgement(row)},
            "predictions": [prediction],
        }
        stream.write(b",\n" if count else b"")
        stream.write(json.dumps(task, ensure_ascii=False).encode())
        count += 1
    stream.write(b"]\n")
    return count


def labelling_configuration(classes: list[str]) -> str:
    """The XML by which a project of Label Studio shows the tasks of `write_label_studio`."""
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in classes)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="label" toName="image" choice="single">\n{choices}  </Choices>\n</View>'
    )


def fill_fiftyone(tables: Iterable[pa.Table], root: Path, classes: list[str]) -> int:
    """A FiftyOneImageClassificationDataset in `root`; returns its photographs.

    The keys of its ``labels.json`` are absolute paths, so the photographs stay where they are:
    https://docs.voxel51.com/user_guide/import_datasets.html. Only a path that is no UTF-8 (its uri
    is file://) has a link in ``data/``, which must be there in any case.
    """
    number = {name: i for i, name in enumerate(classes)}
    count = 0
    (root / "data").mkdir()
    with open(root / "labels.json", "w", encoding="utf-8") as stream:
        stream.write(f'{{"classes": {json.dumps(classes)},\n"labels": {{')
        for row in _rows(tables):
            path = _local(row["uri"], "FiftyOne reads local files alone: choose another --format")
            key = row["uri"]
            if isinstance(path, bytes):
                key = str(row["image_id"])
                suffix = os.path.splitext(path)[1].decode("ascii", "ignore")
                os.symlink(path, os.fsencode(root / "data" / (key + suffix)))
            label = {"label": number[row["label"]], "confidence": row["confidence"]}
            if _judgement(row):
                label["attributes"] = _judgement(row)
            stream.write(",\n" if count else "\n")
            stream.write(f"{json.dumps(key)}: {json.dumps(label)}")
            count += 1
        stream.write("}}\n")
    return count


def fill_folders(tables: Iterable[pa.Table], root: Path, copy: bool) -> tuple[int, int]:
    """``root/CLASS/NAME`` for each photograph: a symbolic link to it, or a copy.

    Where a class has two of one name, the later row's name gets its image_id. Returns how many
    there are, and how many could not be read to be copied.
    """
    put = _copy if copy else _link
    made: set[str] = set()
    count = unreadable = 0
    for row in _rows(tables):
        folder = root / folder_name(row["label"])
        if row["label"] not in made:
            folder.mkdir(exist_ok=True)
            made.add(row["label"])
        for name in _names(row["uri"], row["image_id"]):
            try:
                put(row["uri"], folder / name)
                count += 1
            except FileExistsError:
                continue
            except _Unreadable as error:
                unreadable += 1
                say(f"not copied: {row['uri']}: {error}")
            break
    return count, unreadable


def folder_name(label: str) -> str:
    """`label` as a directory's name: what could lead out of its parent, hide it or not be written
    everywhere is percent-encoded, so that two labels never share one. One that is too long for a
    file system is cut, and gets a hash of the whole."""
    odd = r'[%/\\:*?"<>|\x00-\x1f]|^\.|[. ]$'
    name = re.sub(odd, lambda match: f"%{ord(match[0]):02X}", label) or "%"
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    cut = os.fsencode(name)[: LONGEST_NAME - 17].decode("utf-8", "ignore")
    return f"{cut}%{hashlib.blake2b(label.encode(), digest_size=8).hexdigest()}"


class _Unreadable(Exception):
    """Why a photograph could not be copied."""


def _link(uri: str, path: Path) -> None:
    target = _local(uri, "only local files can be linked: give --copy")
    try:
        os.symlink(os.fsencode(target), os.fsencode(path))
    except FileExistsError:
        raise
    except OSError as error:
        raise FlowerrayError(
            f"can't make links in {path.parent}: {error.strerror}; give --copy, or choose another "
            "--out"
        ) from None


def _copy(uri: str, path: Path) -> None:
    try:
        data = within(Limits().read_seconds, stores.source_at(uri).read, uri)
    except Overdue:
        raise _Unreadable("its storage does not answer") from None
    except (OSError, ValueError, UsageError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise _Unreadable(reason) from None
    with open(path, "xb") as target:
        target.write(data)


def _names(uri: str, image_id: int) -> Iterator[str]:
    """The photograph's own name, then others that are its alone, short enough for a file."""
    path = uri.partition("?")[0] if is_remote(uri) else os.fsdecode(local_path(uri))
    name = path.rpartition("/")[2]
    if len(os.fsencode(name)) <= LONGEST_NAME:
        yield name
    stem, suffix = os.path.splitext(name)
    if len(suffix) > 16:  # no extension, only a dot in a long name
        stem, suffix = name, ""
    for attempt in itertools.count(1):
        end = f"-{image_id}{suffix}" if attempt == 1 else f"-{image_id}-{attempt}{suffix}"
        while len(os.fsencode(stem + end)) > LONGEST_NAME:
            stem = stem[:-1]
        yield stem + end


def _local(uri: str, otherwise: str) -> str | bytes:
    if is_remote(uri):
        raise FlowerrayError(f"{uri} is remote, and {otherwise}")
    return local_path(uri)


def _linker(settings: ExportSettings) -> Callable[[str], str]:
    """What makes the address, as a web browser asks for it, of a uri's image."""
    prefix = LOCAL_FILES if settings.url_prefix is None else settings.url_prefix
    root = os.fsencode(located(settings.url_root)).rstrip(b"/") + b"/"

    def link(uri: str) -> str:
        if is_remote(uri):
            return uri
        path = os.fsencode(local_path(uri))
        if not path.startswith(root):
            raise FlowerrayError(
                f"{uri} is not below --url-root {settings.url_root}: give a directory that all "
                "photographs lie in"
            )
        return prefix + quote(path.removeprefix(root))

    return link


def _chosen(output: Output, settings: ExportSettings, progress: Progress) -> Iterator[pa.Table]:
    """The rows that are asked for, a table a shard."""
    of_all = settings.format in TABLE_WRITERS
    for table in shards.iter_shards(output):
        progress.add(len(table), 0)
        if not of_all or settings.accepted_only or settings.min_confidence is not None:
            table = table.filter(pc.is_valid(table["label"]))
        if settings.min_confidence is not None:
            least = pa.scalar(settings.min_confidence, pa.float32())  # as the shards have it
            table = table.filter(pc.greater_equal(table["confidence"], least))
        if settings.accepted_only:
            table = table.filter(_accepted(table, output))
        yield table


def _accepted(table: pa.Table, output: Output) -> pa.ChunkedArray:
    if "accepted" not in table.column_names or table["accepted"].null_count:
        raise FlowerrayError(
            f"{output.folder} does not say which labels are accepted: label into another --out "
            "with --min-precision or --min-confidence, or leave --accepted-only out"
        )
    return table["accepted"]


def _rows(tables: Iterable[pa.Table]) -> Iterator[dict[str, Any]]:
    for table in tables:
        yield from table.to_pylist()


def _judgement(row: dict[str, Any]) -> dict[str, Any]:
    """How novel the photograph is and whether its label was accepted, where the labels say so."""
    return {name: row[name] for name in ("novelty", "accepted") if row.get(name) is not None}


def _check_replaceable(out: str, format: str) -> None:
    """Refuse to replace what no export of this format wrote: a device, say, or another file."""
    there = not is_remote(out) and os.path.lexists(out)
    if there and (os.path.islink(out) or not os.path.isfile(out)):
        raise FlowerrayError(
            f"{out} is a directory, link or device: --format {format} writes a file of its own"
        )
    try:
        with stores.store_at(out).open(out) as stream:
            beginning = stream.read(64)
    except FileNotFoundError:
        return
    except OSError as error:
        raise FlowerrayError(f"can't use {out}: {error.strerror}; choose another --out") from None
    if beginning and not beginning.startswith(BEGINNINGS[format]):
        raise FlowerrayError(
            f"{out} is there and is no {format} export: choose another --out, or delete it first"
        )


def _request(output: Output, settings: ExportSettings) -> dict[str, Any]:
    """What an exported directory was made of; any change to a label changes `state`."""
    state: list[Any] = []
    for page in stores.store_at(output.folder.uri).files(output.folder.file("shards")):
        for uri, size in page:
            # Stores know no time of change, only sizes.
            changed = os.stat(uri).st_mtime_ns if output.folder.is_local else None
            state.append((uri.rpartition("/")[2], size, changed))
    return {
        "labels": str(output.folder),
        "state": fingerprint_of(state),
        "format": settings.format,
        "copy": settings.copy,
        "accepted_only": settings.accepted_only,
        "min_confidence": settings.min_confidence,
    }


def _build(
    place: str,
    output: Output,
    settings: ExportSettings,
    fill: Callable[[Path], tuple[int, int]],
) -> tuple[int, int]:
    """Make the directory `place`: `fill` does so in its scratch, whose entries then move up.

    A mark in it says what it was made of and whether it is done, a list what was put there. One
    that is done is left as it is, one that is not is made anew, and one of another request is
    refused. What the list lacks is never removed or replaced. Returns what `fill` did: the
    photographs, and those that could not be read, for whose sake it is not done.
    """
    if is_remote(place):
        raise FlowerrayError(f"{place} is remote: --format {settings.format} needs a local --out")
    request = _request(output, settings)
    try:
        done = _done_before(Folder(place), request, settings)
        if done is None:
            with lease.held(Folder(place), KIND) as folder:
                done = _done_before(folder, request, settings)
                return (done, 0) if done is not None else _build_into(folder, request, fill)
    except OSError as error:
        raise refused(place, error) from None
    say(f"export: {place} is done already")
    return done, 0


def _done_before(folder: Folder, request: dict[str, Any], settings: ExportSettings) -> int | None:
    """The photographs of the export in `folder`; None where it is to be made.

    Raises:
        FlowerrayError: the folder is not this export's to be made in.
    """
    before = _mark_in(folder)
    if before is None:
        return None
    if before["request"] != request and not settings.overwrite:
        raise FlowerrayError(
            f"{folder} holds an export of {_difference(before['request'], request)}: choose "
            "another --out, or --overwrite it"
        )
    if before["photographs"] is not None and not settings.overwrite:
        return int(before["photographs"])
    if not folder.exists(LIST):
        raise FlowerrayError(
            f"{folder} holds an export of an earlier version, which kept no list of its files: "
            "delete it, or choose another --out"
        )
    return None


def _build_into(
    folder: HeldFolder, request: dict[str, Any], fill: Callable[[Path], tuple[int, int]]
) -> tuple[int, int]:
    out = Path(folder.uri)
    content = out / STAGING / "content"
    new = not folder.exists(MARK)
    _delete_listed(out)
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir()
    folder.write(LIST, b"")
    folder.write(MARK, _mark(request, None))
    try:
        photographs, unreadable = fill(content)
        with folder.create(LIST) as stream:
            for kind, name in _contained(content):
                _check_free(os.path.join(os.fsencode(out), name), kind)
                stream.write(kind + name + b"\0")
        _move_up(content, out)
    except FlowerrayError:  # nothing to go on with: leave nothing behind
        _delete_listed(out)
        shutil.rmtree(content, ignore_errors=True)
        if new:
            folder.remove(MARK)
            folder.remove(LIST)
        raise
    if not unreadable:
        folder.write(MARK, _mark(request, photographs))
    return photographs, unreadable


def _contained(content: Path) -> Iterator[tuple[bytes, bytes]]:
    root = os.fsencode(content)
    return ((kind, os.path.relpath(path, root)) for kind, path in _walked(root))


def _check_free(path: bytes, kind: bytes) -> None:
    """Refuse what would replace a user's file, before anything is moved."""
    if os.path.lexists(path) and not (kind == b"d" and os.path.isdir(path)):
        raise FlowerrayError(
            f"{os.fsdecode(path)} is there and of no export: move it away, or choose another --out"
        )


def _walked(directory: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All below `directory` as kind (link, file, directory) and path, a directory after its own."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walked(entry.path)
                yield b"d", entry.path
            else:
                yield b"l" if entry.is_symlink() else b"f", entry.path


def _move_up(content: Path, out: Path) -> None:
    for entry in sorted(content.iterdir()):
        target = out / entry.name
        if target.is_dir() and entry.is_dir() and not entry.is_symlink():
            _move_up(entry, target)  # beside what a user has put there
        else:
            entry.rename(target)


def _delete_listed(out: Path) -> None:
    """Remove what an export put into `out`, as far as that is what is there now."""
    root = os.fsencode(out)
    for kind, name in _listed(out):
        path = os.path.join(root, name)
        if kind == b"d":
            with suppress(OSError):  # not empty, or gone
                os.rmdir(path)
        elif os.path.lexists(path) and os.path.islink(path) == (kind == b"l"):
            os.unlink(path)


def _listed(out: Path) -> Iterator[tuple[bytes, bytes]]:
    """Kind and path, from `out`, of what an export put there."""
    rest = b""
    try:
        with open(out / LIST, "rb") as stream:
            while data := stream.read(1 << 20):
                *entries, rest = (rest + data).split(b"\0")
                for entry in entries:
                    if not entry.startswith(b"/", 1) and b".." not in entry[1:].split(b"/"):
                        yield entry[:1], entry[1:]
    except FileNotFoundError:
        return


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    changed = [key for key in now if before.get(key) != now[key]]
    if changed == ["state"]:
        return "these labels, which have changed since"
    return "another " + " and ".join(key.replace("_", "-") for key in changed if key != "state")


def _mark_in(folder: Folder) -> dict[str, Any] | None:
    """The mark of the export in `folder`; None where nothing is there yet."""
    there = folder.exists(MARK)
    lease.check_ours(folder, KIND, recorded=there)
    if not there:
        return None
    try:
        mark = json.loads(folder.read(MARK))
        return {"request": dict(mark["request"]), "photographs": mark["photographs"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise FlowerrayError(
            f"{folder.file(MARK)} is no record of flowerray's: choose another --out"
        ) from None


def _mark(request: dict[str, Any], photographs: int | None) -> bytes:
    return json.dumps({"request": request, "photographs": photographs}, indent=2).encode()
