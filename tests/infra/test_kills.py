"""Kills at random moments of real runs: the truth within a minute, no orphan, no slot held, the same bits at the end.

The run is a tiny one in two ranks, deployed to a server and a worker of its own; -s shows a line for each kill.
ALEXNET_KILLS=30 ends each victim so often, ALEXNET_KILLS_SEED chooses other moments.
"""

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import yaml

from infra import flow_processes, ports
from infra.prefect_api import Api, PrefectError
from infra.scheduler import Scheduler
from infra.stack import Stack
from pipelines.runtime.environment import Store
from tests.support.checkout import ROOT, Checkout, make_checkout

pytestmark = pytest.mark.slow
SEED = os.environ.get("ALEXNET_KILLS_SEED", "2012")
KILLS = int(os.environ.get("ALEXNET_KILLS", "3"))  # of each victim
TRUTH_SECONDS = 60.0
IN_PROGRESS = ("PENDING", "RUNNING", "CANCELLING")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PLACES = {
    "ALEXNET_DEVICES": "cpu,cpu",
    "ALEXNET_CHECKPOINT_MINUTES": "0.02",
    "ALEXNET_STORE_MINUTES": "5",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
}


@dataclasses.dataclass(frozen=True)
class Operated:
    """A checkout with a store, a server and a worker of its own."""

    checkout: Checkout
    scheduler: Scheduler
    stack: Stack

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The reply of the server, also of one that is just being started again."""
        for _ in range(240):
            with contextlib.suppress(PrefectError):
                return Api(self.scheduler.url).call(method, path, body)
            time.sleep(0.5)
        raise AssertionError("the server does not come back")

    def start(self) -> str:
        """Asks for a run up to training. Returns its id."""
        deployment = self.call("GET", "/deployments/name/train-alexnet/train-alexnet")
        wanted = {"state": {"type": "SCHEDULED"}, "parameters": {"target": "train"}}
        return str(self.call("POST", f"/deployments/{deployment['id']}/create_flow_run", wanted)["id"])

    def state(self, run: str) -> str:
        return str(self.call("GET", f"/flow_runs/{run}")["state"]["type"])

    def has_ended(self, run: str) -> bool:
        return self.state(run) in ENDED

    def end(self, run: str) -> str:
        """Waits for the run's end. Returns its state."""
        _await(lambda: self.has_ended(run), 600)
        return self.state(run)

    def seconds_until_true(self, run: str) -> float:
        """Waits until the server tells the truth; a minute is enough for it."""
        started = time.monotonic()
        _await(lambda: not self.untruth(run), TRUTH_SECONDS, lambda: self.untruth(run))
        return time.monotonic() - started

    def is_well(self) -> bool:
        """Whether store, server and worker run again."""
        return self.stack.access() is not None and all(well for well, _ in self.scheduler.status())

    def forget_training(self) -> None:
        """Removes the network and DVC's memory of it, so that the next run trains it from the first step."""
        lock = yaml.safe_load((self.checkout.root / "dvc.lock").read_text())
        for out in lock["stages"]["train"]["outs"]:
            (self.checkout.root / ".dvc/cache/files/md5" / out["md5"][:2] / out["md5"][2:]).unlink(missing_ok=True)
        for path in (".dvc/cache/runs", ".local/checkpoints", "artifacts/model"):
            shutil.rmtree(self.checkout.root / path, ignore_errors=True)

    def programs(self, word: str) -> dict[psutil.Process, dict[str, str]]:
        """What runs `python -m WORD` in the checkout, and the environment of each."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if word in process.cmdline() and process.cwd() == str(self.checkout.root) and flow_processes.is_alive(process):
                    found[process] = process.environ()
        return found

    def training(self, ranks: bool) -> list[psutil.Process]:
        """The ranks, or what has started them."""
        return [process for process, env in self.programs("pipelines.train").items() if ("RANK" in env) == ranks]

    def untruth(self, run: str) -> str:
        """What the server says of the pool's runs that is not so, and who trains without a living DVC; empty if all is true."""
        alive = flow_processes.living_runs(self.checkout.root)
        stages = {env.get("ALEXNET_STAGE_RUN") for env in self.programs("dvc").values()}
        orphans = [one.pid for one, env in self.programs("pipelines.train").items() if env["ALEXNET_STAGE_RUN"] not in stages]
        state = self.state(run)
        held = {one["id"] for one in self.call("POST", "/flow_runs/filter", {}) if one["state"]["type"] in IN_PROGRESS}
        wrong = [f"{one} holds a slot" for one in held - alive] + [f"{one} trains as an orphan" for one in orphans]
        return "; ".join(wrong + [f"{state} with a process"] * (run in alive and state in ENDED))


@dataclasses.dataclass(frozen=True)
class Victim:
    """What is ended: all that is found or one of it; at a moment of the run or of training; and how the run then ends."""

    find: Callable[[Operated], list[psutil.Process]]
    one: bool = False
    within_training: bool = False
    number: int = signal.SIGKILL
    ends: str = "COMPLETED"


def _worker_and_all_below(operated: Operated) -> list[psutil.Process]:
    worker = psutil.Process(operated.scheduler.worker.pid)
    return [worker, *worker.children(recursive=True)]


VICTIMS = {
    "worker": Victim(lambda operated: [psutil.Process(operated.scheduler.worker.pid)]),
    "flow": Victim(lambda operated: list(operated.programs("prefect.engine")), ends="CRASHED"),
    "dvc": Victim(lambda operated: list(operated.programs("dvc"))),
    "training": Victim(lambda operated: operated.training(ranks=False), within_training=True),
    "rank": Victim(lambda operated: operated.training(ranks=True), one=True, within_training=True),
    "server": Victim(lambda operated: [psutil.Process(operated.scheduler.server.pid)]),
    "store": Victim(lambda operated: [psutil.Process(operated.stack.server.pid)]),
    "SIGTERM to worker, flow, dvc and training": Victim(_worker_and_all_below, number=signal.SIGTERM, ends="CRASHED"),
}


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    root = tmp_path_factory.mktemp("operated")
    stack = Stack(root / ".local" / "stack")
    access = dataclasses.asdict(stack.up())
    access["access_key"], access["secret_key"] = stack.admin_key()
    checkout = make_checkout(root, stack, Store(**access), "kills")
    checkout.change("train", epochs=30)
    shutil.copytree(ROOT / "flows", root / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", root)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (checkout.env | PLACES).items():
            patch.setenv(name, value)
        scheduler = Scheduler(root, ports.find_free(1)[0])
        try:
            scheduler.up()
            yield Operated(checkout, scheduler, stack)
        finally:
            scheduler.down()
            stack.down()


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """What a run makes that nothing disturbs, and how long its flow and its training take."""

    digests: dict[str, str]
    seconds: float
    training_seconds: float


@pytest.fixture(scope="module")
def undisturbed(operated: Operated) -> Undisturbed:
    times = []
    run = operated.start()
    for condition in (
        lambda: operated.programs("prefect.engine"),
        lambda: operated.training(ranks=True),
        lambda: not operated.programs("pipelines.train"),
    ):
        _await(condition)
        times.append(time.monotonic())
    assert operated.end(run) == "COMPLETED"
    return Undisturbed(operated.checkout.digests(), time.monotonic() - times[0], times[2] - times[1])


@pytest.mark.parametrize("name", VICTIMS)
def test_a_kill_at_any_moment_is_told_within_a_minute_and_costs_no_bit(
    operated: Operated, undisturbed: Undisturbed, name: str
) -> None:
    victim, draw = VICTIMS[name], random.Random(f"{SEED} {name}")
    kills, longest = 0, undisturbed.training_seconds if victim.within_training else undisturbed.seconds
    for _ in range(3 * KILLS):
        operated.forget_training()
        run = operated.start()
        after = draw.uniform(0, longest)
        killed = _kill(operated, run, victim, after, draw)
        true = operated.seconds_until_true(run)
        state = operated.end(run)
        assert state in (victim.ends, "COMPLETED")
        _await(lambda: operated.programs("pipelines.train") == {}, TRUTH_SECONDS)
        if state != "COMPLETED":
            assert operated.end(operated.start()) == "COMPLETED"  # which the pool's only slot must be free for
        assert operated.checkout.digests() == undisturbed.digests
        _await(operated.is_well)
        kills += killed
        print(f"\n{name}: killed {killed} after {after:.1f} s, true after {true:.1f} s, ended as {state}", flush=True)
        longest = longest if killed else after / 2  # the machine is quicker now
        if kills == KILLS:
            return
    raise AssertionError(f"only {kills} of the moments were within the run")


def _kill(operated: Operated, run: str, victim: Victim, after: float, draw: random.Random) -> bool:
    """Ends the victim so many seconds after the run, or its training, has begun. Returns whether it did."""
    _await(lambda: operated.training(ranks=True) if victim.within_training else operated.programs("prefect.engine"))
    moment = time.monotonic() + after
    _await(lambda: operated.has_ended(run) or (time.monotonic() >= moment and victim.find(operated)), 600)
    if operated.has_ended(run):
        return False
    found = victim.find(operated)
    for process in [draw.choice(found)] if victim.one and found else found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(victim.number)
    return found != []


def _await(condition: Callable[[], Any], seconds: float = 240, why: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not after {seconds:.0f} s: {why()}"
        time.sleep(0.2)
