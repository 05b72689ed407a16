"""The files of a repository at Hugging Face, by its own library: a process that prints where they
lie. See ``flowerray.bases.fetched``, which starts it.

The library obeys HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from flowerray.bases.fetched import fault_of, files_of


def directory_of(
    repository: str, revision: str, patterns: list[str], most: int | None, most_bytes: int
) -> str:
    """The directory with the files of `repository` that any of `patterns` takes, `most` of them:
    the library's cache's where that has them, else downloaded.

    Raises:
        LocalEntryNotFoundError, HfHubHTTPError: no such repository or revision, or no connection.
        OSError: nothing matches, or more than `most` files or `most_bytes`.
        ValueError: a name that leads out of the repository.
    """
    from huggingface_hub import list_repo_files, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        kept = snapshot_download(
            repository, revision=revision, allow_patterns=patterns, local_files_only=True
        )
        if kept_files := [name for name, _ in files_of(Path(kept), patterns)]:
            if fault := fault_of(kept_files, kept_files, patterns, most):
                raise OSError(fault)
            return kept
    except LocalEntryNotFoundError:
        pass
    found = snapshot_download(repository, revision=revision, allow_patterns=patterns, dry_run=True)
    names = [one.filename for one in found]
    there = names or list_repo_files(repository, revision=revision)
    if fault := fault_of(names, there, patterns, most):
        raise OSError(fault)
    size = sum(one.file_size or 0 for one in found)
    if size > most_bytes:
        raise OSError(
            f"has {size / 1e9:,.1f} GB, more than the {most_bytes / 1e9:,.1f} GB that are fetched: "
            "bring the file over by hand"
        )
    return snapshot_download(repository, revision=revision, allow_patterns=names)


def _reason(error: Exception) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        DryRunError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = constants.ENDPOINT
    if isinstance(error, DryRunError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, GatedRepoError):
        return f"{at} asks for a licence to be accepted there, and for HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"there is no such revision at {at}"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such model at {at}, or it is private: set HF_TOKEN"
    if constants.HF_HUB_OFFLINE:
        return f"it is not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set"
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    if isinstance(error, (HfHubHTTPError, OSError, ValueError)) and not isinstance(
        error, LocalEntryNotFoundError
    ):
        return said
    return f"it is not in {constants.HF_HUB_CACHE}, and {at} can't be reached ({said})"


if __name__ == "__main__":
    # Nobody would see the bars, and who labels with what is nobody else's business.
    os.environ |= dict.fromkeys(("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY"), "1")
    try:
        print(directory_of(*json.loads(sys.argv[1])))
    except Exception as error:  # the library's own, its HTTP client's, the system's
        sys.exit(_reason(error))
