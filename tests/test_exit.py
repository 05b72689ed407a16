"""A process that has read or written ends with the code that it means, not in an abort.

Arrow's threads let go of what they read a little later than the reader returns. `slow.cc` makes
that frequent: with memory of Python's behind an Arrow reader more than half of them abort.
"""

import os
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SHARED

pytestmark = pytest.mark.slow

TIMES = 15

SCRIPT = """
import sys, time
sys.setswitchinterval(1)
{work}
end = time.perf_counter() + 0.08
while time.perf_counter() < end:
    pass
"""


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """The environment in which threads of C++ let go late."""
    source, compiler = SHARED / "abort" / "slow.cc", shutil.which("g++")
    if not source.is_file() or not compiler:
        pytest.skip("needs g++ and the shared abort/slow.cc")
    library = tmp_path_factory.mktemp("late") / "slow.so"
    build = [compiler, "-shared", "-fPIC", "-DSLEEP_US=300", "-o", library, source, "-ldl"]
    subprocess.run(build, check=True, timeout=120)
    return {**os.environ, "LD_PRELOAD": str(library)}


@pytest.fixture
def files(tmp_path):
    """A truth, a list in a table, and a Parquet file of a hundred thousand rows."""
    rows = "".join(f"a{i}.jpg,rose\n" for i in range(300))
    (tmp_path / "truth.csv").write_text("file,label\n" + rows)
    (tmp_path / "list.csv").write_text("uri,label\n" + rows)
    labels = {"n": range(100_000), "label": ["rose"] * 100_000}
    pq.write_table(pa.table(labels), tmp_path / "labels.parquet", row_group_size=10_000)
    return tmp_path


def codes(late, work):
    """How processes that do `work`, and end a little later, end."""
    script = [sys.executable, "-c", SCRIPT.format(work=work)]
    return [
        subprocess.run(script, env=late, capture_output=True, timeout=120).returncode
        for _ in range(TIMES)
    ]


def test_a_process_that_read_a_truth_ends_well(late, files):
    work = f"from flowerray.sources import answers\nanswers.truths('{files}/truth.csv')"
    assert codes(late, work) == [0] * TIMES


def test_a_process_that_listed_a_table_ends_well(late, files):
    work = (
        "from flowerray.sources.listing import photographs_to_label\n"
        f"list(photographs_to_label('{files}/list.csv'))"
    )
    assert codes(late, work) == [0] * TIMES


@pytest.mark.parametrize("where", ["local", "web", "memory"])
@pytest.mark.parametrize("name", ["truth.csv", "labels.parquet"])
def test_a_process_that_read_from_a_store_ends_well(late, files, where, name):
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(files))

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = {
        "local": f"{files}/{name}",
        "web": f"http://127.0.0.1:{server.server_port}/{name}",
        "memory": f"memory://here/{name}",
    }[where]
    reader = "pyarrow.csv.read_csv" if name.endswith("csv") else "pyarrow.parquet.read_table"
    work = f"""
import pyarrow.csv, pyarrow.parquet
from flowerray import stores
from flowerray.stores.folder import Folder
if '{where}' == 'memory':
    Folder('memory://here').write('{name}', open('{files}/{name}', 'rb').read())
assert len({reader}(stores.source_at('{uri}').open('{uri}')))
"""
    try:
        assert codes(late, work) == [0] * TIMES
    finally:
        server.shutdown()


@pytest.mark.parametrize("where", ["local", "memory"])
def test_a_process_that_wrote_a_table_ends_well(late, files, where):
    root = files if where == "local" else "memory://here"
    work = f"""
import pyarrow as pa, pyarrow.parquet as pq
from flowerray.stores.folder import Folder
with Folder('{root}').create('out.parquet') as stream:
    pq.write_table(pa.table({{'n': range(100_000)}}), stream, row_group_size=1000)
"""
    assert codes(late, work) == [0] * TIMES
