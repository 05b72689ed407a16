"""What people say of photographs that they looked at: a CSV with columns uri and label.

An empty label says that the photograph is none of the classes.
"""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.csv

from flowerray import catalog, shards, storage, stores
from flowerray.bases import BaseSpec
from flowerray.errors import FlowerrayError
from flowerray.extract import extract_listed
from flowerray.settings import ExtractSettings, TrainSettings
from flowerray.shards import Output

Corrections = dict[str, str | None]  # uri: label, None for none of the classes


def read(path: str, key: str = "uri") -> Corrections:
    """The labels in the CSV at `path` by its column `key`; of several for one the last holds. A
    relative uri counts from the CSV's directory, as in a list of photographs.

    Raises:
        FlowerrayError: there is no such file, or it has other columns.
    """
    texts = pa.csv.ConvertOptions(column_types={key: pa.string(), "label": pa.string()})
    lines = pa.csv.ParseOptions(newlines_in_values=True)
    try:
        uri = storage.located(path)
        data = stores.store_at(uri).open(uri)
        table = pa.csv.read_csv(data, parse_options=lines, convert_options=texts)
        rows = list(zip(table[key].to_pylist(), table["label"].to_pylist(), strict=True))
    except OSError as error:
        reason = error.strerror or error
        raise FlowerrayError(
            f"can't read {path}: {reason}; it should be a CSV with columns {key} and label"
        ) from None
    except (KeyError, pa.ArrowInvalid) as error:
        raise FlowerrayError(f"{path} is no CSV with columns {key} and label: {error}") from None
    if key == "uri":
        at = path if stores.is_remote(path) else os.path.abspath(stores.expanded(path))
        rows = [(catalog.absolute(uri, os.path.dirname(at)), label) for uri, label in rows]
    return {name: label or None for name, label in rows}


def with_new_photographs(
    output: Output, corrections: Corrections, settings: TrainSettings
) -> Output:
    """`output` with the features of corrected photographs that it lacks, to train on.

    Raises:
        FlowerrayError: a label that is no class of the features; as ``flowerray.extract``.
    """
    table = shards.read_table(output, ["uri", "label"])
    there, classes = set(table["uri"].to_pylist()), set(table["label"].unique().to_pylist())
    strange = sorted({name for name in corrections.values() if name is not None} - classes)
    if strange:
        raise FlowerrayError(
            f"{settings.corrections} names {strange[0]!r}, which is no class of {output.folder}: "
            f"take one of {', '.join(sorted(filter(None, classes)))}"
        )
    new = {u: name for u, name in corrections.items() if name is not None and u not in there}
    if not new:
        return output
    spec = BaseSpec.from_dict(output.run["config"]["base_spec"])
    rows = {"uri": list(new), "label": list(new.values()), "split": ["train"] * len(new)}
    found = pa.table({**rows, "size": [None] * len(new)}).cast(catalog.FOUND)
    extraction = ExtractSettings(
        images=str(settings.corrections),
        out=str(output.folder),
        base=spec.base,
        layer=spec.layer,
        preparation=spec.preparation,
        pool=spec.pool,
        augment=output.run["config"].get("augment"),
        weights="random" if spec.weights == "random" else settings.weights,
        address=settings.address,
        endpoint_url=settings.endpoint_url,
        anonymous=settings.anonymous,
        allow_redirects=settings.allow_redirects,
        append=True,
    )
    extract_listed(extraction, found.to_batches())
    return shards.read_output(str(output.folder), "features")
