"""Jobs on a Ray cluster that has nothing of flowerray: runtime_env.yaml brings it."""

import shutil
import subprocess
import time

import pytest
import yaml
from conftest import RAY, REPOSITORY, ray_head

from flowerray.commands.verify import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare_cluster(empty_environment, tmp_path_factory):
    """A cluster whose nodes lack flowerray and some of what it requires."""
    python = empty_environment("nodes", "keras", "imagehash", "openvino")
    log = tmp_path_factory.mktemp("bare") / "ray.log"
    settings = {"PYTHONPATH": "", "PIP_CONSTRAINT": str(REPOSITORY / "constraints.txt")}
    with ray_head(python, log, "/tmp/flowerray-test-bare", **settings) as environment:
        yield environment


@pytest.fixture(scope="module")
def checkout(built, tmp_path_factory):
    """Where a user submits from: runtime_env.yaml and beside it dist/ with the wheel."""
    directory = tmp_path_factory.mktemp("checkout")
    (directory / "dist").mkdir()
    (wheel,) = built.glob("*.whl")
    shutil.copy(wheel, directory / "dist")
    shutil.copy(REPOSITORY / "runtime_env.yaml", directory)
    return directory


def ray_job(cluster, checkout, *arguments):
    return subprocess.Popen(
        [RAY, "job", *map(str, arguments)],
        cwd=checkout,
        env=cluster,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_runtime_env_yaml_names_the_wheel_that_is_built(checkout):
    runtime_env = yaml.safe_load((checkout / "runtime_env.yaml").read_text())
    (wheel,) = (checkout / runtime_env["working_dir"]).iterdir()
    assert wheel.name == runtime_env["pip"][0].rpartition("/")[2]


def test_a_stopped_job_goes_on_where_it_was(bare_cluster, checkout, sample, tmp_path):
    found = "import sys; from importlib.util import find_spec as find; import ray; "
    found += "sys.exit(any(map(find, ('flowerray', 'keras'))))"
    without = ray_job(bare_cluster, checkout, "submit", "--", "python", "-c", found)
    said, _ = without.communicate()
    assert without.returncode == 0, said

    out = tmp_path / "features"
    job = ("flowerray", "extract", sample.labelled.parent, "--out", out)
    job += ("--shard-size", 2, "--actors", 1, "--precision", "float32")
    submit = ("submit", "--runtime-env", "runtime_env.yaml")
    first = ray_job(bare_cluster, checkout, *submit, "--submission-id", "flowers-1", "--", *job)
    while first.poll() is None and not list((out / "shards").glob("*.parquet")):
        time.sleep(0.1)
    ray_job(bare_cluster, checkout, "stop", "flowers-1").communicate()
    said, _ = first.communicate()
    assert "Job 'flowers-1' was stopped" in said, said
    # What a job says last need not reach whoever follows it; its log has it.
    log, _ = ray_job(bare_cluster, checkout, "logs", "flowers-1").communicate()
    assert "flowerray: interrupted" in log, log

    stopped = verify(str(out))
    assert stopped.present and stopped.missing and not stopped.damaged
    kept = {shard: shard.stat().st_mtime_ns for shard in (out / "shards").iterdir()}
    second = ray_job(bare_cluster, checkout, *submit, "--submission-id", "flowers-2", "--", *job)
    said, _ = second.communicate()
    assert second.returncode == 0, said
    assert verify(str(out)).whole
    assert {shard: shard.stat().st_mtime_ns for shard in kept} == kept
