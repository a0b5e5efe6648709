"""Whole runs, each with a fault at a random moment, and then again until it ends: equal outputs, whatever happened.

    python -m tests.faults.soak [--rounds 50] [--seed 0]

The code must not change meanwhile, for a release names its commit.

A round is a fresh checkout with sixteen pictures and buckets of its own, in which `make run`'s command is given until it
succeeds. Round, seed and nothing else decide fault and moment. A line of JSON for each round is added to results/soak.jsonl;
rounds that have one are left out, so that it can be ended and started again. The exit status is 1 if a round has failed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from infra.stack import Stack
from pipelines.runtime.environment import Store
from tests.faults.cases import SOAK, read_rounds
from tests.support.checkout import Checkout, make_checkout
from tests.support.fault_proxy import Fault, FaultProxy, Request

ATTEMPTS = 6  # of `make run` after a fault; a stage that another still writes says so, and is run again
RUN_SECONDS = 900.0  # of one attempt, on a machine that does other things too
_PLACES = {"artifacts": "an output", ".dvc": "DVC's cache or lock", ".local": "a file of .local", "dvc.lock": "dvc.lock"}
STATE = ("artifacts/*", "artifacts/*/*", ".dvc/cache/files/md5/*/*", ".local/**/*", "dvc.lock", ".dvc/tmp/rwlock")


@dataclass
class Whole:
    """An undisturbed run: the digests of its outputs, and the seconds that the quickest took."""

    digests: dict[str, str]
    seconds: float


@dataclass
class Round:
    """A run that a fault meets. cuts: until when the store answers 503 (`away`), and until when it cuts bodies (`cut`)."""

    checkout: Checkout
    stack: Stack
    proxy: FaultProxy
    draw: random.Random
    process: "subprocess.Popen[bytes] | None" = None
    cuts: dict[str, float] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """What the run's commands print."""
        return self.checkout.root.with_name("log")

    def family(self) -> list[psutil.Process]:
        """dvc, and whatever it has started."""
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            dvc = psutil.Process(self.process.pid)
            return [dvc, *dvc.children(recursive=True)]
        return []

    def signal_all(self, number: int) -> None:
        """Sends a signal to dvc and all that it has started."""
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def _kill_dvc(found: Round) -> str:
    found.family()[0].kill()
    return "dvc killed, its stage lives on"


def _kill_stage(found: Round) -> str:
    stage = found.draw.choice(found.family()[1:] or found.family())
    name = next((word for word in stage.cmdline() if word.startswith("pipelines.")), stage.name())
    stage.kill()
    return f"killed {name}"


def _kill_all(found: Round) -> str:
    found.signal_all(signal.SIGKILL)
    return "dvc and its stage killed"


def _terminate(found: Round) -> str:
    found.signal_all(signal.SIGTERM)
    return "SIGTERM to dvc and its stage"


def _freeze(found: Round) -> str:
    stage = found.draw.choice(found.family()[1:] or found.family())
    stage.suspend()
    time.sleep(found.draw.uniform(1, 6))
    with suppress(psutil.NoSuchProcess):
        stage.resume()
    return "a process stopped for some seconds"


def _kill_store(found: Round) -> str:
    os.kill(found.stack.server.pid, signal.SIGKILL)
    time.sleep(found.draw.uniform(0, 8))
    found.stack.up()
    return "the store killed, and started again some seconds later"


def _away(found: Round) -> str:
    found.cuts["away"] = time.monotonic() + found.draw.uniform(2, 20)
    return "the store answers 503 for some seconds"


def _cut(found: Round) -> str:
    found.cuts["cut"] = time.monotonic() + found.draw.uniform(5, 30)
    return "connections cut within bodies for some seconds"


def _fill_disk(found: Round) -> str:
    """Files grow no longer than some kilobytes: the system refuses a write in its middle, as on a full disk."""
    limit = found.draw.choice((0, 1000, 20_000, 100_000))
    for process in found.family():
        with suppress(psutil.NoSuchProcess):
            process.rlimit(psutil.RLIMIT_FSIZE, (limit, limit))
    return "no file may grow any more"


def _damage(how: str) -> Callable[[Round], str]:
    def damage(found: Round) -> str:
        found.signal_all(signal.SIGKILL)
        root = found.checkout.root
        files = sorted({path for pattern in STATE for path in root.glob(pattern) if path.is_file()})
        if not files:
            return "dvc and its stage killed"
        victim = found.draw.choice(files)
        body = bytearray(victim.read_bytes())
        at = found.draw.randrange(max(1, len(body)))
        if how == "cut":
            del body[at:]
        elif body:
            body[at] ^= 1 << found.draw.randrange(8)
        victim.chmod(0o644)
        victim.write_bytes(body)
        return f"all killed, and {_PLACES[victim.relative_to(root).parts[0]]} {how}"

    return damage


FAULTS: tuple[Callable[[Round], str], ...] = (
    _kill_dvc,
    _kill_stage,
    _kill_all,
    _terminate,
    _freeze,
    _kill_store,
    _away,
    _cut,
    _fill_disk,
    _damage("cut"),
    _damage("flipped"),
)


@contextmanager
def _round(stack: Stack, store: Store, name: str, draw: random.Random) -> Iterator[Round]:
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    proxy = FaultProxy(store.endpoint or "")
    checkout = make_checkout(folder / "checkout", stack, store, name)
    env = checkout.env | {"AWS_ENDPOINT_URL": proxy.endpoint, "ALEXNET_STORE_MINUTES": "1", "ALEXNET_TIMEOUT": "60"}
    made = Round(replace(checkout, env=env), stack, proxy, draw)

    def fault(request: Request) -> Fault | None:
        now = time.monotonic()
        if now < made.cuts.get("away", 0):
            return Fault(status=503, code="ServiceUnavailable")
        if now < made.cuts.get("cut", 0) and request.method == "GET" and request.number % 3 == 0:
            return Fault(cut_at=100, how="reset")
        return None

    proxy.faults = fault
    try:
        yield made
    finally:
        if made.process is not None:
            made.signal_all(signal.SIGKILL)
        for process in psutil.process_iter():  # what a killed dvc has left
            with suppress(psutil.Error):
                if process.cwd().startswith(str(folder)):
                    process.kill()
        proxy.close()
        shutil.rmtree(folder, ignore_errors=True)


def _start(found: Round) -> "subprocess.Popen[bytes]":
    """`make run`, without the Makefile."""
    with found.log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "infra.repro"],
            cwd=found.checkout.root,
            env=found.checkout.env,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _await(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def unbroken(stack: Stack, store: Store, name: str, devices: str) -> Whole:
    """A run without a fault."""
    with _round(stack, store, name, random.Random(0)) as found:
        found.checkout.env["ALEXNET_DEVICES"] = devices
        began = time.monotonic()
        found.process = _start(found)
        assert _await(found.process, RUN_SECONDS) == 0, found.log.read_text()[-3000:]
        return Whole(found.checkout.digests(), time.monotonic() - began)


def survive(number: int, seed: int, stack: Stack, store: Store, wholes: Callable[[str], Whole]) -> dict[str, Any]:
    """One round: what happened, when, and whether the outputs are those of an undisturbed run on the same devices."""
    draw = random.Random(f"{seed} {number}")
    strike, share, devices = draw.choice(FAULTS), draw.random(), draw.choice(("cpu", "cpu", "cpu,cpu"))
    whole = wholes(devices)
    with _round(stack, store, f"soak-{seed}-{number}-{time.monotonic_ns()}", draw) as found:
        found.checkout.env["ALEXNET_DEVICES"] = devices
        began = time.monotonic()
        found.process = _start(found)
        early, said = _await(found.process, share * whole.seconds), "nothing: the run was over before"
        if early == 0:
            whole.seconds = time.monotonic() - began
        with suppress(psutil.NoSuchProcess, IndexError):  # what it would strike has just ended
            said = strike(found) if early is None else said
        status: int | None = early if early is not None else _await(found.process, RUN_SECONDS)
        attempts = 1
        while status != 0 and attempts < ATTEMPTS:
            found.signal_all(signal.SIGKILL)
            stack.up()
            found.process = _start(found)
            status = _await(found.process, RUN_SECONDS)
            attempts += 1
        made = found.checkout.digests() if status == 0 else {}
        different = sorted({path for path, _ in whole.digests.items() ^ made.items()})
        result = {
            "round": number,
            "seed": seed,
            "fault": said,
            "after": round(share, 3),
            "devices": devices,
            "attempts": attempts,
            "survived": status == 0 and not different,
            "seconds": round(time.monotonic() - began),
            "date": datetime.now(UTC).date().isoformat(),
        }
        if not result["survived"]:
            result |= {"status": status, "different": different, "log": found.log.read_text(errors="replace")[-4000:]}
        return result


def main() -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description="Whole runs, each with a random fault.")
    parser.add_argument("--rounds", type=int, default=50, help="default: 50")
    parser.add_argument("--seed", type=int, default=0, help="of the faults and their moments; default: 0")
    args = parser.parse_args()
    SOAK.parent.mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what it has started ends with it
    done = {each["round"] for each in read_rounds() if each["seed"] == args.seed}
    missing = [number for number in range(args.rounds) if number not in done]
    with tempfile.TemporaryDirectory(prefix="soak-store-") as folder:
        stack = Stack(Path(folder))
        try:
            access = stack.up()
            key, secret = stack.admin_key()
            store = Store(access.bucket, access.registry, access.endpoint, key, secret, access.region)
            wholes = cache(lambda devices: unbroken(stack, store, f"whole-{len(devices)}", devices))
            for number in missing:
                result = survive(number, args.seed, stack, store, wholes)
                with SOAK.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
                print(f"round {number}: {result['fault']}: {'survived' if result['survived'] else 'FAILED'}", flush=True)
        finally:
            stack.down()
    return int(not all(each["survived"] for each in read_rounds()))


if __name__ == "__main__":
    os.environ |= {"DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "GX_ANALYTICS_ENABLED": "false", "OMP_NUM_THREADS": "1"}
    sys.exit(main())
