"""The local scheduler: a Prefect server, the work pool `gpu`, one worker and the deployments of prefect.yaml.

    python -m infra.scheduler up | down | status

All its files are in .local/prefect. While it is up, prefect.toml in the checkout has the server's URL, so that any `prefect`
command run there finds it. ALEXNET_PREFECT_PORT fixes the port; without it 4200, or a free one where that is taken.
"""

import argparse
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from infra import ports
from infra.daemon import Daemon, DaemonError, exclusive

FOLDER = Path(".local/prefect")
SETTINGS = Path("prefect.toml")
AUTOMATIONS = Path(__file__).with_name("automations.yaml")
POOL = "gpu"
PORT = "ALEXNET_PREFECT_PORT"
_DEFAULT_PORT = 4200
_START_SECONDS = 180.0  # measured: 30 s on two shared cores, most of it imports and the first migrations
_RUN_GRACE_SECONDS = 40.0  # a worker gives its run 30 s to write a checkpoint
_SERVER_GRACE_SECONDS = 10.0


class Scheduler:
    """A Prefect server and a worker on this machine. Every method may be called whether they run or not."""

    def __init__(self, root: Path, port: int | None = None) -> None:
        self.root = root.absolute()
        self.folder = self.root / FOLDER
        self.server = Daemon(self.folder, "server", "scheduler")
        self.worker = Daemon(self.folder, "worker", "worker")
        self._port = port

    @property
    def settings(self) -> Path:
        """Prefect's settings file of the checkout, which has the server's URL."""
        return self.root / SETTINGS

    @property
    def url(self) -> str:
        """The URL of the server's API."""
        return f"http://127.0.0.1:{json.loads((self.folder / 'port.json').read_text())}/api"

    def up(self) -> str:
        """Starts the server and the worker unless they run, and deploys. Returns the URL of the API.

        Raises:
            ValueError: the chosen port is taken.
            DaemonError: the server does not become healthy, or a `prefect` command fails.
        """
        with exclusive(self.folder):
            if not self.is_healthy():
                self._stop()
                self._start_server()
            self.settings.write_text(f'home = "{self.folder}"\n\n[api]\nurl = "{self.url}"\n')
            self._prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
            self._prefect("work-pool", "set-concurrency-limit", POOL, "1")
            self._add_automations()
            self._prefect("--no-prompt", "deploy", "--all")
            if not self.worker.is_running():
                command = [*_PREFECT, "worker", "start", "--pool", POOL, "--name", "local", "--limit", "1"]
                self.worker.start(command, self._environment(), cwd=self.root)
        return self.url

    def down(self) -> bool:
        """Stops the worker with its run, and the server. Returns whether one of them was running."""
        if not self.folder.exists():
            return False
        with exclusive(self.folder):
            return self._stop()

    def is_healthy(self) -> bool:
        """Whether the server runs and answers."""
        if not self.server.is_running():
            return False
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply:  # noqa: S310 - our own server, over http
                return bool(reply.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def _start_server(self) -> None:
        port = self._choose_port()
        (self.folder / "port.json").write_text(json.dumps(port))
        command = [*_PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        self.server.start(command, self._environment(), cwd=self.root)
        try:
            self.server.await_healthy(lambda: None if self.is_healthy() else "it does not answer", _START_SECONDS)
        except BaseException:
            self._stop()
            raise

    def _choose_port(self) -> int:
        if self._port:
            return ports.require_free(self._port, PORT)
        try:
            last = int(json.loads((self.folder / "port.json").read_text()))
        except (FileNotFoundError, ValueError):
            last = _DEFAULT_PORT
        return last if ports.is_free(last) else ports.find_free(1)[0]

    def _add_automations(self) -> None:
        if "alexnet-zombies" not in self._prefect("automation", "ls"):
            self._prefect("automation", "create", "--from-file", str(AUTOMATIONS))

    def _prefect(self, *arguments: str) -> str:
        reply = subprocess.run(
            [*_PREFECT, *arguments],
            cwd=self.root,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if reply.returncode:
            output = " ".join((reply.stderr or reply.stdout).split())
            raise DaemonError(f"scheduler: `prefect {' '.join(arguments)}` failed: {output[-600:]}")
        return reply.stdout

    def _environment(self) -> dict[str, str]:
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return os.environ | {
            "PATH": programs,
            "PREFECT_HOME": str(self.folder),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLI_COLORS": "false",
            "DO_NOT_TRACK": "1",
            "ALEXNET_HOME": str(self.root),
            "COLUMNS": "200",
        }

    def _stop(self) -> bool:
        self.settings.unlink(missing_ok=True)
        worker_ran = self.worker.stop(_RUN_GRACE_SECONDS)
        server_ran = self.server.stop(_SERVER_GRACE_SECONDS)
        return worker_ran or server_ran


_PREFECT = [sys.executable, "-m", "prefect"]


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.scheduler", description="A Prefect server and worker on this machine."
    )
    parser.add_argument("verb", choices=["up", "down", "status"])
    verb = parser.parse_args(arguments).verb
    try:
        scheduler = Scheduler(Path.cwd(), ports.from_environment(PORT))
        if verb == "down":
            print("scheduler stopped" if scheduler.down() else "scheduler was not running")
            return 0
        if verb == "up":
            scheduler.up()
    except (DaemonError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not scheduler.is_healthy():
        print("scheduler is down; `make deploy` starts it")
        return 1
    print(f"scheduler: {scheduler.url.removesuffix('/api')}, work pool {POOL}, log of the worker in {scheduler.worker.log}")
    print("start a run:  DO_NOT_TRACK=1 .venv/bin/prefect deployment run train-alexnet/train-alexnet --watch")
    return 0


if __name__ == "__main__":
    sys.exit(main())
