"""On few CPUs, and on a Ray cluster by `ray job submit`."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset
import pytest
import yaml
from conftest import HEAD_PORT, RAY, REPOSITORY, ray_head

from flowerray.commands.verify import verify

pytestmark = pytest.mark.slow

RAY_DIRECTORY = "/tmp/flowerray-test-ray"


def labels_of(out):
    table = pyarrow.dataset.dataset(out / "shards").to_table(columns=["image_id", "uri", "label"])
    return table.sort_by("image_id").to_pylist()


@pytest.mark.skipif(not shutil.which("taskset"), reason="taskset, of util-linux, is not here")
def test_one_cpu_is_enough(command, few, tmp_path):
    done = command(
        *("run", few.labelled, few.pile, "--out", tmp_path / "r", "--truth", few.truth),
        "--json",
        prefix=("taskset", "-c", "0"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["evaluation"]["accuracy"] >= 0.9


def test_more_actors_than_cpus_do_not_hang(command, sample, tmp_path):
    out = tmp_path / "features"
    done = command(
        *("extract", sample.labelled, "--out", out, "--actors", 4, "--shard-size", 4, "--json"),
        *("--base", "mobilenetv3small", "--weights", "random"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["actors"] == 4 and "RANDOM WEIGHTS" in done.stderr
    assert len(list((out / "shards").iterdir())) == 8


def test_a_cluster_that_is_not_there(command, sample, tmp_path):
    out = tmp_path / "f"
    done = command("extract", sample.labelled, "--out", out, "--address", "127.0.0.1:9")
    assert done.returncode == 1 and done.stdout == ""
    assert "can't reach the Ray cluster at 127.0.0.1:9" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not out.exists()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray of its own processes, with the dashboard that takes jobs, behind a token. The last test
    that uses it kills it."""
    log = tmp_path_factory.mktemp("cluster") / "ray.log"
    with ray_head(sys.executable, log, RAY_DIRECTORY) as environment:
        yield environment


def submit(environment, *entrypoint):
    return subprocess.run(
        [RAY, "job", "submit", "--working-dir", ".", "--", *map(str, entrypoint)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=400,
        env=environment,
    )


def test_jobs_on_a_cluster_give_the_labels_of_local_mode(command, few, tmp_path, cluster):
    features, classifier, labels, local = (
        tmp_path / name for name in ("features", "classifier", "labels", "local")
    )
    for script, *arguments in (
        ("extract_features", few.labelled, "--out", features),
        ("train_head", features, "--out", classifier),
        ("label_images", few.pile, "--classifier", classifier, "--out", labels),
    ):
        done = submit(cluster, sys.executable, f"jobs/{script}.py", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    refused = submit(cluster, sys.executable, "jobs/train_head.py", features, "--out", "here")
    assert refused.returncode != 0 and "absolute" in refused.stdout + refused.stderr
    done = command("label", few.pile, "--classifier", classifier, "--out", local)
    assert done.returncode == 0, done.stderr
    assert labels_of(labels) == labels_of(local)


def test_a_head_that_is_lost_ends_the_job_with_a_line_that_says_so(sample, tmp_path, cluster):
    out = tmp_path / "features"
    arguments = ("extract", sample.labelled, "--out", out, "--shard-size", 2, "--actors", 1)
    environment = {k: v for k, v in cluster.items() if k != "RAY_API_SERVER_ADDRESS"}
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "flowerray.cli",
            *map(str, arguments),
            "--address",
            f"127.0.0.1:{HEAD_PORT}",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    while process.poll() is None and not list((out / "shards").glob("*.parquet")):
        time.sleep(0.1)
    subprocess.run(["pkill", "-9", "-f", f"gcs_server.*{RAY_DIRECTORY}"], check=True)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "head" in errors.splitlines()[-1] and "run the same command again" in errors
    assert verify(str(out)).present > 0


MIXED = """
import json, sys
import ray
from ray.cluster_utils import Cluster
from ray.util.state import list_actors
from flowerray.pipeline.connection import connection
from flowerray.pipeline.plan import planned
from flowerray.commands.extract import extract
from flowerray.settings import ExtractSettings
images, out = sys.argv[1:]
nodes = Cluster(initialize_head=True, head_node_args={
    "num_cpus": 2, "include_dashboard": True, "dashboard_port": 8301,
})
nodes.add_node(num_cpus=2, num_gpus=1)  # Ray hands it out, though there is none
settings = ExtractSettings(
    images=images, out=out, base="mobilenetv3small", weights="random", shard_size=1, batch_size=1,
    precision="float32", address=nodes.address,
)
with connection(nodes.address):
    groups = planned(settings).groups
    done = extract(settings)
    workers = [a for a in list_actors(detail=True) if "MapWorker" in a.class_name]
    actors = [a.required_resources for a in workers]
print(json.dumps({
    "groups": [[g.device, g.actors, g.cpus, g.gpus] for g in groups],
    "resources": sorted([a.get("CPU"), a.get("GPU", 0)] for a in actors),
    "computed": done.computed,
}))
"""


def test_gpu_and_cpu_nodes_work_at_once(sample, tmp_path):
    """The GPU is one in name, for Ray's placing alone."""
    done = subprocess.run(
        [sys.executable, "-c", MIXED, sample.labelled, tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=300,
        env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["groups"] == [["gpu", 1, 2, 1], ["cpu", 2, 1, 0]]
    assert told["resources"] == [[1, 0], [1, 0], [2, 1]] and told["computed"] == 30


def test_cluster_yaml_passes_rays_own_checks():
    import ray.autoscaler
    from jsonschema import validate

    config = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    schema = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    validate(config, json.loads(schema.read_text()))
    assert config["head_node_type"] in config["available_node_types"]
    for start in (*config["head_start_ray_commands"], *config["worker_start_ray_commands"]):
        assert "ray start" not in start or "RAY_AUTH_MODE=token ray start" in start
    home = f"/home/{config['auth']['ssh_user']}"  # where Ray looks for its token, here and there
    assert config["file_mounts"][f"{home}/.ray/auth_token"] == "~/.ray/auth_token"
    gpu = config["available_node_types"]["gpu_worker"]
    assert gpu["min_workers"] == 0 < gpu["max_workers"] <= config["max_workers"]
