import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parents[2]
READ = """
import sys
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
for name in sys.argv[2:]:
    try:
        SyncPrefectClient(sys.argv[1]).read_deployment_by_name(name)
    except ObjectNotFound:
        pass
"""


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """The address of a server that has no deployment, and the paths that are asked of it."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api", paths
        server.shutdown()


def test_a_deployment_is_found_with_and_without_the_name_of_its_flow(asked: tuple[str, list[str]]) -> None:
    address, paths = asked
    command = [sys.executable, "-c", READ, address, "train-alexnet", "train-alexnet/train-alexnet"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert [path for path in paths if "name" in path] == ["/api/deployments/name/train-alexnet/train-alexnet"] * 2


def test_outside_the_checkout_prefect_is_as_it_comes(asked: tuple[str, list[str]], tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", READ, asked[0], "train-alexnet"], cwd=tmp_path, capture_output=True, text=True)
    assert "Invalid deployment name format: train-alexnet" in run.stderr
