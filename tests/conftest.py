"""Fixtures: real photographs where they are at hand, drawn ones everywhere, one Ray for all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowerray.sample import SampleSet, draw_sample

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("FLOWERRAY_SHARED", REPOSITORY.parent / "shared"))

S3_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
}


@pytest.fixture(scope="session")
def flower_photos() -> Path:
    """Real photographs in train/CLASS and valid/CLASS."""
    photographs = SHARED / "flower_photos"
    if not photographs.is_dir():
        pytest.skip(f"real photographs are not at {photographs} (FLOWERRAY_SHARED names the place)")
    return photographs


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    """A small drawn sample set: 10 a class, labelled and in a pile, and four broken files."""
    return draw_sample(tmp_path_factory.mktemp("drawn") / "sample", per_class=10)


@pytest.fixture(scope="session")
def local_ray():
    """One local Ray that every job of the tests uses, as nested connections do. Its workers have
    the credentials of the tests' S3 server."""
    from flowerray.cluster import connection

    with pytest.MonkeyPatch.context() as patch:
        for name, value in S3_CREDENTIALS.items():
            patch.setenv(name, value)
        with connection(None):
            yield


@pytest.fixture
def command():
    """Run the `flowerray` command as a user does; returns the completed process."""

    def run(
        *arguments: object, prefix: tuple[str, ...] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, sys.executable, "-m", "flowerray.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=600,
        )

    return run
