"""Tasks of Label Studio."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import BinaryIO
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pyarrow as pa

from flowerray.errors import FlowerrayError
from flowerray.exports.file import own_file
from flowerray.exports.rows import Exported, judgement, labelled_rows
from flowerray.outputs.record import Output
from flowerray.progress import say
from flowerray.settings import ExportSettings
from flowerray.stores import is_remote, local_path
from flowerray.stores.folder import located

LOCAL_FILES = "/data/local-files/?d="  # where Label Studio serves the files of its machine
MOST_TASKS = 250_000  # that Label Studio takes in one import, as its API's documentation says


def write(
    out: str, tables: Iterable[pa.Table], output: Output, settings: ExportSettings
) -> Exported:
    """One file of all tasks."""
    config = output.run["config"]
    with own_file(out, settings.format, b'[{"data": {"image": ', b"[]") as stream:
        photographs = _write_tasks(tables, stream, config["classifier"], _linker(settings))
    if photographs > MOST_TASKS:
        say(f"export: Label Studio takes {MOST_TASKS:,} tasks in one import: split {out}")
    return Exported(photographs, 0, _labelling_configuration(config["classes"]))


def _write_tasks(
    tables: Iterable[pa.Table], stream: BinaryIO, classifier: str, link: Callable[[str], str]
) -> int:
    """Label Studio's tasks, a line each, with the label as a prediction; returns their number.

    The format is https://labelstud.io/guide/predictions; `link` gives the address of the image
    behind a uri, and `classifier` is the prediction's model_version.
    """
    count = 0
    stream.write(b"[")
    for row in labelled_rows(tables):
        choice = {
            "id": f"label-{row['image_id']}",
            "from_name": "label",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": [row["label"]]},
        }
        prediction = {"model_version": classifier, "score": row["confidence"], "result": [choice]}
        task = {
            "data": {"image": link(row["uri"]), "uri": row["uri"], **judgement(row)},
            "predictions": [prediction],
        }
        stream.write(b",\n" if count else b"")
        stream.write(json.dumps(task, ensure_ascii=False).encode())
        count += 1
    stream.write(b"]\n")
    return count


def _labelling_configuration(classes: list[str]) -> str:
    """The XML by which a project of Label Studio shows the tasks."""
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in classes)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="label" toName="image" choice="single">\n{choices}  </Choices>\n</View>'
    )


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
