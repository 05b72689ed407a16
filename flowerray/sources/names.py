"""Names that people hold equal are equal here: in classes, uris, truths and corrections.

A name typed on a Mac may be decomposed (NFD) where another program composes it (NFC), and a space
at an end can't be seen. Letters of another case stay another name: `flowerray check` tells them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

# Spaces of any script, and marks without a width that editors leave at a text's ends.
ENDS = re.compile(r"^[\s\u200b\ufeff]+|[\s\u200b\ufeff]+$")


@lru_cache(1 << 16)
def class_name(written: str | None) -> str | None:
    """The one form of a class's name; None where nothing but spaces is written: no label."""
    return same(written) or None if written is not None else None


def same(written: str) -> str:
    """The form, composed and without spaces at the ends, that all spellings of a name share."""
    return ENDS.sub("", unicodedata.normalize("NFC", written))


def alike(names: Iterable[str]) -> list[list[str]]:
    """Those of `names` that differ in case, or in how many spaces part words, alone."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        # NFKC makes full-width letters and ligatures plain ones.
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())
        groups.setdefault(key, []).append(name)
    return [group for group in groups.values() if len(group) > 1]
