"""The Ray engine on a real cluster of two nodes: the tables of a local run, also when a node is lost."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

PLUGINS = Path(__file__).parent / "plugins"
TINY = ["run", str(PLUGINS / "tiny.yaml"), "--plugin", str(PLUGINS / "tiny.py")]
TABLES = ("results.csv", "scores.parquet", "analysis/headline.csv")
pytestmark = pytest.mark.survival


@pytest.fixture
def cluster():
    """A head that does no work, and two nodes of one processor."""
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        started.add_node(num_cpus=1)
    yield started
    started.shutdown()


def start(cluster: Cluster, folder: Path, *more: str) -> "subprocess.Popen[str]":
    """A run with a cache of its own, which must train."""
    command = [sys.executable, "-m", "attribug", *TINY, "--engine", "ray", "--address", cluster.address, *more]
    environment = os.environ | {"ATTRIBUG_CACHE": str(folder / "cache")}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **piped)


def test_tables_are_those_of_a_local_run(cluster: Cluster, tiny_run: Path, tmp_path: Path) -> None:
    process = start(cluster, tmp_path, "--out", "run")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for name in TABLES:
        assert (tmp_path / "run" / name).read_bytes() == (tiny_run / name).read_bytes(), name
    assert len(list((tmp_path / "cache" / "models").glob("*.safetensors"))) == 3


def test_a_lost_node_costs_no_row(cluster: Cluster, tiny_run: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "from attribug import methods\n\n@methods.register('slow')\ndef slow(query):\n"
        "    import time\n    time.sleep(1)\n    return query.gradient()\n"
    )
    process = start(cluster, tmp_path, "--out", "run", "--plugin", str(slow))
    records = tmp_path / "run" / "records"
    deadline = time.monotonic() + 200
    while not list(records.glob("*.record")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    lost = cluster.worker_nodes.copy().pop()
    threading.Thread(target=cluster.remove_node, args=(lost, False)).start()  # killed, not asked
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    rows = (tmp_path / "run" / "results.csv").read_text().splitlines()
    assert [line for line in rows if ",slow," not in line] == (tiny_run / "results.csv").read_text().splitlines()
    assert any(",slow," in line for line in rows)
