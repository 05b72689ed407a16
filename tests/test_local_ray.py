"""A local Ray leaves its caller's process as it was, and starts on odd machines or says why not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowerray.errors import FlowerrayError
from flowerray.pipeline import connection, local_ray

pytestmark = pytest.mark.slow

CALLER = """
import os, sys
import flowerray
import ray
images, out = sys.argv[1:]
def own():
    ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=100 << 20)
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    ray.shutdown()
def left():
    ours = ("AUTH", "RAY_USAGE_STATS", "RAY_ACCEL", "RAY_DATA")
    return {k: v for k, v in os.environ.items() if any(name in k for name in ours)}
for number in range(2):
    flowerray.extract(images, out=f"{out}/{number}", base="thumbnail")
    print("after flowerray", left(), flush=True)
own()
print("after the caller's own", left(), flush=True)
flowerray.extract(images, out=f"{out}/2", base="thumbnail")
print("after all", left())
"""


def test_the_callers_own_ray_starts_after_flowerrays_and_flowerrays_after_it(few, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", CALLER, str(few.labelled), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=500,
        env={**environment, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "DeprecationWarning" not in done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("after")]
    assert told[:2] == ["after flowerray {}"] * 2
    # What the caller's own Ray left, its mode and more, is Ray's; flowerray adds nothing to it.
    own, after_all = (line.partition("{")[2] for line in told[2:])
    assert own == after_all and "RAY_AUTH_MODE" in own and "RAY_AUTH_TOKEN" not in own


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup. This\ncould happen because"),
        RuntimeError("Timed out waiting for file gcs_server_port"),
        OSError(28, "No space left on device"),
        AssertionError(),
    ],
)
def test_a_ray_that_does_not_start_is_one_line(error, monkeypatch):
    """What Ray raises in its start-up, which no test can bring about at will."""
    import ray

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(ray, "init", fails)
    for address, start in ((None, "can't start a local Ray: "), ("auto", "can't reach the Ray ")):
        with pytest.raises(FlowerrayError) as told:
            connection._connect(address, None)
        assert str(told.value).startswith(start) and "\n" not in str(told.value)


PYTHON = os.path.realpath(sys.base_prefix)
OTHERS = "setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nowhere"
MACHINE = f"""
set -e
mount --make-rprivate /
mount --bind {PYTHON} /mnt  # root's home may hold it, where nobody else may go
mount -t tmpfs -o mode=755 none {Path.home()}
mkdir -p {PYTHON}
mount --bind /mnt {PYTHON}
mount -t tmpfs -o mode=1777 none /tmp
cd /
"""
NO_SHARED_MEMORY = """
mount -t tmpfs -o mode=755,dev none /dev
for node in null:3 zero:5 random:8 urandom:9; do
  mknod -m 666 /dev/${node%:*} c 1 ${node#*:}
done
"""
START = """
from flowerray.pipeline.connection import connection
with connection(None):
    import ray
    print("started", ray.get(ray.remote(lambda: 7).remote()))
"""


def on_machine(change, code):
    """Run Python `code` as a user without a home, in mounts of its own that `change` made odd."""
    script = f"{MACHINE}\n{change}\nexec {OTHERS} {sys.executable} -c '{code}'"
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=200
    )


@pytest.fixture(scope="module")
def other_users():
    """Root alone makes mounts and other users; a checkout in root's home is nobody else's."""
    if os.geteuid() or not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("needs root, and setpriv and unshare of util-linux")
    tried = on_machine("", "import flowerray.pipeline.connection")
    if tried.returncode:
        pytest.skip(f"another user can't run this here: {tried.stderr}")


@pytest.mark.parametrize(
    "change",
    [
        "mkdir -m 755 /tmp/ray",
        "touch /tmp/ray",
        "mount -t tmpfs -o size=16m none /dev/shm",
        "mount -t tmpfs -o mode=755 none /dev/shm",
        NO_SHARED_MEMORY,
    ],
    ids=["ray_of_root", "ray_is_a_file", "small_shm", "shm_of_root", "no_shm"],
)
def test_a_local_ray_starts_for_a_user_without_a_home_on_an_odd_machine(other_users, change):
    done = on_machine(change, START)
    assert done.returncode == 0 and "started 7" in done.stderr, done.stderr


def test_where_ray_would_go_is_not_taken_if_it_is_no_directory(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        assert not local_ray._takes_sockets(os.fspath(tmp_path / name))
    assert Path(local_ray.usual_directory()).name == "ray"
