"""kuberay/*.yaml against KubeRay's and Kubernetes' own schemas, unknown fields refused."""

import json
import shlex
from importlib.resources import files

import kubernetes_validate
import pytest
import yaml
from conftest import REPOSITORY
from jsonschema import Draft202012Validator, ValidationError
from ray.runtime_env import RuntimeEnv
from referencing import Registry, Resource

from flowerray.parser import parser

pytestmark = pytest.mark.slow

KUBERNETES = "1.34"


def read(name):
    return yaml.safe_load((REPOSITORY / "kuberay" / name).read_text())


@pytest.fixture(scope="module")
def kuberay():
    """A validator of RayCluster and RayJob, their pods by Kubernetes' schema of that version."""
    pods = f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict/_definitions.json"
    definitions = json.loads((files("kubernetes_validate") / pods).read_text())
    schema = json.loads((REPOSITORY / "tests/schemas/kuberay-v1.6.2.json").read_text())
    registry = Resource.from_contents(definitions) @ Registry()
    return Draft202012Validator(schema, registry=registry)


def pods_of(cluster):
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kuberay_files_hold_what_the_schemas_have(kuberay, name):
    kuberay.validate(read(name))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("idleTimeoutSeconds",), 60),
        (("headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("headGroupSpec", "template", "spec", "toleration"), []),
        (("authOptions", "mode"), "none"),
    ],
)
def test_a_field_or_value_that_the_schemas_lack_is_refused(kuberay, path, value):
    cluster = read("raycluster.yaml")
    *way, last = path
    there = cluster["spec"]
    for key in way:
        there = there[key]
    there[last] = value
    with pytest.raises(ValidationError):
        kuberay.validate(cluster)


def test_the_claim_is_one_that_every_pod_mounts():
    claim = read("storage.yaml")
    kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    for pod in pods_of(read("raycluster.yaml")["spec"]):
        (volume,), (container,) = pod["volumes"], pod["containers"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"]]


def test_requests_are_limits_and_every_pod_tells_its_metrics():
    cluster = read("raycluster.yaml")["spec"]
    for pod in pods_of(cluster):
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"name": "metrics", "containerPort": 8080} in container["ports"]
        assert container["image"].startswith(f"rayproject/ray:{cluster['rayVersion']}-")


def test_the_job_runs_on_the_same_cluster_with_a_command_that_flowerray_takes():
    job = read("rayjob.yaml")["spec"]
    assert job["rayClusterSpec"] == read("raycluster.yaml")["spec"]
    program, *arguments = shlex.split(job["entrypoint"])
    options = parser().parse_args(arguments)
    largest = max(group["maxReplicas"] for group in job["rayClusterSpec"]["workerGroupSpecs"])
    assert program == "flowerray" and options.actors <= largest
    runtime_env = yaml.safe_load(job["runtimeEnvYAML"])
    RuntimeEnv(**runtime_env)  # Ray's own check
    ours = yaml.safe_load((REPOSITORY / "runtime_env.yaml").read_text())
    (wheel,) = (package for package in runtime_env["pip"] if package.endswith(".whl"))
    assert wheel.rpartition("/")[2] == ours["pip"][0].rpartition("/")[2]
