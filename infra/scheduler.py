"""The local scheduler: a Prefect server, the work pool `gpu`, one worker, and a supervisor that starts again what has died.

    python -m infra.scheduler up | down | status | prepare

`up` also sets runs that have lost their process to Crashed, and `down` those it ends, so that none holds the pool's only slot.
`prepare` makes pool, limit, automations and deployments on the server of PREFECT_API_URL, before a worker is started there;
`up` does it here. All its files are in .local/prefect. While it is up, prefect.toml in the checkout has the server's URL, so
that any `prefect` command run there finds it. ALEXNET_PREFECT_PORT fixes the port; without it 4200, or a free one where that is
taken.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import psutil

from infra import flow_processes, ports, state
from infra.daemon import Daemon, DaemonError, exclusive
from infra.prefect_api import NOTIFY, POOL, Api, PrefectError, prepare

FOLDER = Path(".local/prefect")
SETTINGS = Path("prefect.toml")
PORT = "ALEXNET_PREFECT_PORT"
_DEFAULT_PORT = 4200
_START_SECONDS = 300.0  # measured: 30 s on two shared cores, most of it imports and the first migrations
_ATTEMPTS = 3  # a free port may be taken between the check and the server's bind
_HANG_SECONDS = 60.0  # a server that runs and does not answer for so long is started again
_RUN_GRACE_SECONDS = 40.0  # a worker gives its run 30 s to write a checkpoint
_SERVER_GRACE_SECONDS = 10.0
_WATCH_SECONDS = 5.0  # between two looks of the supervisor
_SETTLE_SECONDS = 40.0  # a run that changed its state so lately may be starting or ending
# A run takes from the worker's environment where source, store and devices are.
_PLACES = ("ALEXNET_", "AWS_", "CUDA_", "OMP_")
_NOT_PLACES = (PORT, "ALEXNET_STACK_PORT", NOTIFY)
_STACK = Path(".local/stack")  # of infra/stack.py, whose import takes a second
_PREFECT = [sys.executable, "-m", "prefect"]


class Scheduler:
    """A Prefect server and a worker on this machine. Every method may be called whether they run or not."""

    def __init__(self, root: Path, port: int | None = None) -> None:
        self.root = root.absolute()
        self.folder = self.root / FOLDER
        self.server = Daemon(self.folder, "server", "scheduler")
        self.worker = Daemon(self.folder, "worker", "worker")
        self.supervisor = Daemon(self.folder, "supervisor", "supervisor")
        self._port = port

    @property
    def settings(self) -> Path:
        """Prefect's settings file of the checkout, which has the server's URL."""
        return self.root / SETTINGS

    @property
    def url(self) -> str:
        """The URL of the server's API."""
        return f"http://127.0.0.1:{self._last_port()}/api"

    def up(self) -> str:
        """Starts what does not run, and deploys; a worker with another environment is started again. Returns the API's URL.

        Raises:
            ValueError: the chosen port is taken.
            DaemonError: the server does not become healthy, or the environment differs and a run goes on.
            PrefectError: the server refuses what `prepare` asks.
        """
        with exclusive(self.folder):
            self._start_server()
            self._agree_on_environment()
            prepare(Api(self.url), self.root)
            self._heal_worker()
            if not self.supervisor.is_running():
                command = [sys.executable, "-m", "infra.scheduler", "supervise"]
                self.supervisor.start(command, self._environment(), cwd=self.root)
        return self.url

    def down(self) -> bool:
        """Stops the worker with its run, and the server; runs end as Crashed. Returns whether one of them was running."""
        if not self.folder.exists():
            return False
        self._stop_supervisor()  # before the lock, which it may hold
        with exclusive(self.folder):
            self.settings.unlink(missing_ok=True)
            worker_ran = self.worker.stop(_RUN_GRACE_SECONDS)
            flow_processes.end(self.root, orphans_only=False)
            if self.is_healthy():
                Api(self.url).crash_runs(alive=())
            return self.server.stop(_SERVER_GRACE_SECONDS) or worker_ran

    def supervise(self) -> None:
        """Starts server and worker again when they have died, until this process is ended. Says what it does."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        time.sleep(_WATCH_SECONDS)
        while self.supervisor.is_running():  # not so where the checkout has been removed
            try:
                with exclusive(self.folder):
                    self._heal_store()
                    self._start_server()
                    self._heal_worker()
            except (DaemonError, PrefectError, ValueError) as error:
                _log(str(error))
            time.sleep(_WATCH_SECONDS)

    def is_healthy(self) -> bool:
        """Whether the server runs and answers."""
        return self.server.is_running() and self._listens() and Api(self.url).is_healthy()

    def _listens(self) -> bool:
        """Whether it is this checkout's server that has the port: another's may have taken it a moment before."""
        port = urllib.parse.urlsplit(self.url).port
        try:
            server = psutil.Process(self.server.pid)
            sockets = [each for one in (server, *server.children(recursive=True)) for each in one.net_connections("tcp")]
        except psutil.NoSuchProcess:
            return False
        return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in sockets)

    def status(self) -> list[tuple[bool, str]]:
        """For server and worker: whether it is well, and a line about it."""
        healthy, worker = self.is_healthy(), self.worker.is_running()
        if not self.server.is_running():
            server_line = "server   down; `make deploy` starts it"
        else:
            state = "healthy" if healthy else f"does not answer; see {self.server.log}"
            server_line = f"server   {self.url.removesuffix('/api')}, {state}"
        watched = (
            "started again when it dies" if self.supervisor.is_running() else "without a supervisor; `make deploy` starts it"
        )
        if not worker:
            worker_line = "worker   down" + ("; " + watched if self.supervisor.is_running() else "; `make deploy` starts it")
        else:
            runs = [str(run["name"]) for run in Api(self.url).unfinished_runs()] if healthy else []
            doing = f"runs {', '.join(runs)}" if runs else "idle" if healthy else "waits for the server"
            worker_line = f"worker   process {self.worker.pid}, work pool {POOL}, {doing}, {watched}"
        return [(healthy, server_line), (worker and self.supervisor.is_running(), worker_line)]

    def _start_server(self) -> None:
        """Starts the server unless it is healthy; one that only is slow is waited for, since starting again may not cure it."""
        if self.server.is_running():
            deadline = time.monotonic() + _HANG_SECONDS
            while self.server.is_running() and time.monotonic() < deadline:
                if self.is_healthy():
                    self._write_settings()
                    return
                time.sleep(0.5)
            self.server.stop(_SERVER_GRACE_SECONDS)
        for attempt in range(1, _ATTEMPTS + 1):
            port = self._choose_port()
            state.write(self.folder / "port.json", json.dumps(port).encode())
            _log(f"server: starts at port {port}")
            command = [*_PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
            self.server.start(command, self._environment(), cwd=self.root)
            try:
                self.server.await_healthy(lambda: None if self.is_healthy() else "it does not answer", _START_SECONDS)
                break
            except DaemonError:
                self.server.stop(_SERVER_GRACE_SECONDS)
                if attempt == _ATTEMPTS or ports.is_free(port):
                    raise
            except BaseException:
                self.server.stop(_SERVER_GRACE_SECONDS)
                raise
        self._write_settings()

    def _write_settings(self) -> None:
        text = f'home = "{self.folder}"\n\n[api]\nurl = "{self.url}"\n'
        if not self.settings.exists() or self.settings.read_text(encoding="utf-8") != text:
            self.settings.write_text(text, encoding="utf-8")

    def _choose_port(self) -> int:
        if self._port:
            return ports.require_free(self._port, PORT)
        last = self._last_port()
        return last if ports.is_free(last) else ports.find_free(1)[0]

    def _last_port(self) -> int:
        last = state.read_json(self.folder / "port.json")
        return last if ports.is_port(last) else _DEFAULT_PORT

    def _agree_on_environment(self) -> None:
        """Stops a worker whose places differ from this process's; one with a run is left alone.

        Raises:
            DaemonError: a run goes on with the other environment.
        """
        if not self.worker.is_running():
            return
        theirs, ours = _places(psutil.Process(self.worker.pid).environ()), _places(self._environment())
        changed = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        if not changed:
            return
        unfinished = {run["id"] for run in Api(self.url).unfinished_runs()}  # the process of a finished one takes time to end
        if flow_processes.living_runs(self.root) & unfinished:
            raise DaemonError(
                f"worker: has another {', '.join(changed)}, and a run goes on; wait for its end or cancel it, and deploy again"
            )
        _log(f"worker: starts again with this {', '.join(changed)}")
        self._stop_supervisor()
        self.worker.stop(_RUN_GRACE_SECONDS)

    def _stop_supervisor(self) -> None:
        """Ends it, and not what it has started."""
        self.supervisor.stop(_SERVER_GRACE_SECONDS, descendants=False)

    def _heal_worker(self) -> None:
        """Calls runs without a process what they are, and starts the worker unless it runs."""
        running = self.worker.is_running()
        flow_processes.end(self.root, orphans_only=True)
        alive = flow_processes.living_runs(self.root)
        for name in Api(self.url).crash_runs(alive, _SETTLE_SECONDS if running else 0.0):
            _log(f"run {name}: its process is gone; set to Crashed")
        if not running:
            _log("worker: starts")
            command = [*_PREFECT, "worker", "start", "--pool", POOL, "--name", "local", "--limit", "1"]
            self.worker.start(command, self._environment(), cwd=self.root)

    def _heal_store(self) -> None:
        """Starts the local store again where it was not stopped but has died."""
        folder = self.root / _STACK
        if (folder / "places.json").exists() and not Daemon(folder, "server", "local store").is_running():
            _log("store: starts")
            done = subprocess.run(
                [sys.executable, "-m", "infra.stack", "up"], cwd=self.root, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise DaemonError(done.stderr.strip())

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


def _places(environment: dict[str, str]) -> dict[str, str]:
    """The variables that decide what a run does and where."""
    return {
        name: value
        for name, value in environment.items()
        if name == "PREFECT_API_URL" or (name.startswith(_PLACES) and name not in _NOT_PLACES)
    }


def _log(line: str) -> None:
    print(f"{time.strftime('%F %T')} {line}", file=sys.stderr, flush=True)


def _prepare(worker: str | None, image: str | None) -> None:
    """Prepares the server of PREFECT_API_URL. A worker that is about to start has no run alive, and no other worker has it."""
    api = Api(os.environ["PREFECT_API_URL"])
    for line in prepare(api, Path.cwd(), image):
        print(line)
    if worker and not api.other_workers(worker):
        for name in api.crash_runs(alive=()):
            print(f"run {name}: its worker has ended; set to Crashed")


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.scheduler", description="The Prefect server and worker of this checkout.", epilog=_HELP
    )
    parser.add_argument("verb", choices=["up", "down", "status", "prepare", "supervise"])
    parser.add_argument(
        "--worker", metavar="NAME", help="with prepare: the worker that will be started; its unfinished runs are set to Crashed"
    )
    parser.add_argument(
        "--kubernetes", metavar="IMAGE", help="with prepare: runs of a new work pool are Kubernetes Jobs of this image"
    )
    args = parser.parse_args(arguments)
    try:
        scheduler = Scheduler(Path.cwd(), ports.from_environment(PORT))
        if args.verb == "down":
            print("scheduler stopped" if scheduler.down() else "scheduler was not running")
        elif args.verb == "up":
            scheduler.up()
        elif args.verb == "supervise":
            scheduler.supervise()
        elif args.verb == "prepare":
            _prepare(args.worker, args.kubernetes)
    except KeyError as error:
        print(
            f"error: {error.args[0]} is not set; name the API of the Prefect server, or `make deploy` one here", file=sys.stderr
        )
        return 1
    except (DaemonError, PrefectError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.verb in ("down", "prepare"):
        return 0
    from infra import stack  # a second to import

    lines = [stack.status(), *scheduler.status()]
    for _, line in lines:
        print(line)
    if args.verb == "up":
        print(f"log      {scheduler.worker.log}")
        print("start a run:  DO_NOT_TRACK=1 .venv/bin/prefect deployment run train-alexnet --watch")
    return 0 if args.verb == "up" or all(well for well, _ in lines) else 1


_HELP = "up and status print one line each for store, server and worker; status exits with 1 unless all three run."

if __name__ == "__main__":
    sys.exit(main())
