"""The local scheduler: a Prefect server, the work pool `gpu`, one worker and the deployments of prefect.yaml.

    python -m infra.scheduler up | down | status

Everything is kept in .local/prefect. While it is up, prefect.toml here says where its server is, so that any `prefect` command
typed in this folder finds it. ALEXNET_PREFECT_PORT fixes the port; without it 4200, or a free one where that is taken.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from infra import ports
from infra.daemon import Daemon, alone

FOLDER = Path(".local/prefect")
SETTINGS = Path("prefect.toml")
AUTOMATIONS = Path(__file__).with_name("automations.yaml")
POOL = "gpu"
PORT = "ALEXNET_PREFECT_PORT"
_USUAL_PORT = 4200
_START_SECONDS = 180.0  # measured: 30 s on two shared cores, most of it imports and the first migrations
_RUN_GRACE_SECONDS = 40.0  # a worker gives its run 30 s to write a checkpoint


class SchedulerError(RuntimeError):
    """The scheduler could not be started. The message says why and what to do."""


class Scheduler:
    """A Prefect server and a worker on this machine. Every method may be called in any state."""

    def __init__(self, root: Path, port: int | None = None) -> None:
        self.root = root.absolute()
        self.folder = self.root / FOLDER
        self.server = Daemon(self.folder, "server")
        self.worker = Daemon(self.folder, "worker")
        self._port = port

    @property
    def settings(self) -> Path:
        """The file that tells `prefect` where the server is."""
        return self.root / SETTINGS

    @property
    def url(self) -> str:
        """The server's API."""
        return f"http://127.0.0.1:{json.loads((self.folder / 'port.json').read_text())}/api"

    def up(self) -> str:
        """Starts what does not run, and deploys. Returns the URL of the API.

        Raises:
            SchedulerError: a taken port, a server that does not become healthy, a deployment that is refused.
        """
        with alone(self.folder):
            if not self.is_healthy():
                self._stop()
                self._start_server()
            self.settings.write_text(f'home = "{self.folder}"\n\n[api]\nurl = "{self.url}"\n')
            self._prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
            self._prefect("work-pool", "set-concurrency-limit", POOL, "1")
            self._add_automations()
            self._prefect("--no-prompt", "deploy", "--all")
            if not self.worker.runs():
                command = [*_PREFECT, "worker", "start", "--pool", POOL, "--name", "local", "--limit", "1"]
                self.worker.start(command, self._environment(), cwd=self.root)
        return self.url

    def down(self) -> bool:
        """Stops the worker, with the run that it has begun, and the server. Returns whether one was running."""
        if not self.folder.exists():
            return False
        with alone(self.folder):
            return self._stop()

    def is_healthy(self) -> bool:
        """Whether the server runs and answers."""
        if not self.server.runs():
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
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_healthy():
            if not self.server.runs():
                raise SchedulerError(
                    f"scheduler: the server stopped at once: {self.server.last_words()}; see {self.server.log}"
                )
            if time.monotonic() > deadline:
                self._stop()
                raise SchedulerError(f"scheduler: not healthy after {_START_SECONDS:.0f} s; see {self.server.log}")
            time.sleep(0.25)

    def _choose_port(self) -> int:
        if self._port:
            if not ports.is_free(self._port):
                raise SchedulerError(
                    f"scheduler: port {self._port} is taken by another program; set {PORT} to a free one or unset it"
                )
            return self._port
        try:
            last = int(json.loads((self.folder / "port.json").read_text()))
        except (FileNotFoundError, ValueError):
            last = _USUAL_PORT
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
            said = " ".join((reply.stderr or reply.stdout).split())
            raise SchedulerError(f"scheduler: `prefect {' '.join(arguments)}` failed: {said[-600:]}")
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
        worked = self.worker.stop(_RUN_GRACE_SECONDS)
        served = self.server.stop(10.0)
        return worked or served


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
    except (SchedulerError, ValueError) as error:
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
