"""The processes of a training run: which form it takes, how this process joins the others, and how they are started.

Under torchrun every rank finds the others by torch's own environment variables. Without torchrun but with several devices,
`launch` runs it, and starts the ranks again after a failure that a restart can cure.
"""

import atexit
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from alexnet.distributed import ranks
from alexnet.distributed.errors import ExitStatus, Lost
from alexnet.distributed.team import TOWERS_APART, Form, Team, pick_form
from alexnet.errors import DataError, ParamsError
from pipelines.runtime import console, environment
from pipelines.runtime.errors import Unreachable

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

STOPPED_STATUS = 128 + signal.SIGTERM  # the exit status of a process that SIGTERM ended, as a shell reports it
STOP_SECONDS = 17.0  # from SIGTERM to the end of a rank, whatever it waits for
_ROOT_FIRST = ("failed", "hung", "killed", "unknown", "retryable", "lost")  # causes: one makes other ranks end by a later one


@dataclass(frozen=True)
class Placement:
    """What this process trains with. devices: one, or one for each of two towers. threads: its share of the cores."""

    team: Team
    devices: tuple[torch.device, ...]
    threads: int
    why: str


def rendezvous() -> ranks.Rendezvous | None:
    """How this process finds the other ranks; None where no launcher has set torch's variables."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    try:
        return ranks.Rendezvous(
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            host=os.environ["MASTER_ADDR"],
            port=int(os.environ["MASTER_PORT"]),
            launcher_hosts_store=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        )
    except (KeyError, ValueError) as error:
        raise DataError(f"RANK is set, but {error} is missing or no number; start the ranks with torchrun") from None


def local_form(towers: int) -> tuple[Form, str]:
    """The form that training takes when it is started by this process, and why."""
    names = environment.devices()
    return pick_form(names, _peer_access(names), environment.processes(), towers)


def starts_ranks() -> bool:
    """Whether this process is to start the ranks instead of training itself."""
    return "RANK" not in os.environ and len(environment.devices()) > 1 and environment.processes() != 1


@contextmanager
def join(towers: int) -> Iterator[Placement]:
    """Joins the other ranks, if there are any, in the form that they were started in.

    Raises:
        ParamsError: so many processes cannot share the towers.
        Unreachable: another rank ended or hangs.
    """
    found = rendezvous()
    names = environment.devices()
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if found else 1
    try:
        form, why = pick_form(names, _peer_access(names), found.world_size if found else 1, towers)
    except ValueError as error:
        raise ParamsError(str(error)) from None
    threads = max(1, environment.workers() // local_ranks)
    if found is None:
        devices = tuple(torch.device(name) for name in names[:2]) if form == "two-devices" else (torch.device(names[0]),)
        yield Placement(Team(TOWERS_APART if form == "two-devices" else None), devices, threads, f"{form}: {why}")
        return
    name, shared = environment.device_of_rank(int(os.environ.get("LOCAL_RANK", "0")), local_ranks)
    device = torch.device(name)
    timeout = environment.timeout_seconds()
    try:
        with (
            _records_failure(device),
            ranks.join(found, device, towers=towers, shares_device=shared, timeout_seconds=timeout, on_death=_on_death) as team,
        ):
            if device.type == "cuda" and team.staged and not shared:
                why += "; through host memory by gloo, since another rank has no GPU of its own"
            yield Placement(team, (device,), threads, f"{form}: {why}")
    except Lost as lost:
        raise Unreachable(str(lost)) from lost


def launch(module: str, arguments: Sequence[str], processes: int, progress: Callable[[], object] = lambda: None) -> None:
    """Runs the module in as many ranks of this machine, and again after a failure that a restart can cure.

    Args:
        progress: names the newest checkpoint. ALEXNET_RESTARTS counts restarts without a newer one.

    Raises:
        DataError: what stopped the first rank that failed.
        SystemExit: a signal stopped the run.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # its report is replaced by one line below
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # otherwise a lost connection prints a page of C++ calls
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, environment.workers() // processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(round(STOP_SECONDS) + 3))  # ranks end themselves before
    left, reached = environment.restarts(), progress()
    with tempfile.TemporaryDirectory(prefix="ranks-") as notes:  # torch's folder of its own would stay
        while True:
            try:
                command = ["--standalone", f"--nproc-per-node={processes}", f"--log-dir={notes}", "-m", module, *arguments]
                run(parse_args(command))  # as torchrun's own main does
                return
            except SignalException as stop:
                raise SystemExit(128 + stop.sigval) from None
            except ChildFailedError as failed:
                reason, retryable = first_reason({rank: read_status(failure) for rank, failure in failed.failures.items()})
                if progress() != reached:
                    left, reached = environment.restarts(), progress()
                if not retryable or not left:
                    raise (Unreachable if retryable else DataError)(reason) from None
                console.say(f"train: {reason}; starting again from the newest checkpoint, {left} restarts left")
                left -= 1


def first_reason(statuses: Mapping[int, ExitStatus]) -> tuple[str, bool]:
    """The reason that a run ended, of several ranks' statuses by rank, and whether a restart can cure it.

    Raises:
        SystemExit: a signal stopped the ranks.
    """
    # When one rank has ended, torchrun sends SIGTERM to the others, and kills those that do not end.
    causes = {status.cause for status in statuses.values()} - {"stopped"}
    if not causes:
        raise SystemExit(STOPPED_STATUS)
    cause = next(cause for cause in _ROOT_FIRST if cause in causes)
    found = [
        status.message if cause in ("lost", "hung") else f"rank {rank}: {status.message}"
        for rank, status in statuses.items()
        if status.cause == cause
    ]
    return "; ".join(found) if cause == "killed" else found[0], cause not in ("failed", "unknown")


def exit_status(error: Exception) -> ExitStatus:
    """The status of a rank that this error ends."""
    if isinstance(error, Lost):
        return ExitStatus("lost", str(error))
    expected = isinstance(error, DataError | ParamsError)
    message = str(error) if expected else f"{type(error).__name__}: {error}"
    return ExitStatus("retryable" if isinstance(error, Unreachable) else "failed", message)


def record_status(status: ExitStatus) -> None:
    """Writes the status of this rank to torch's error file, if torchrun has named one, in torch's own format."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        message = asdict(status) | {"extraInfo": {"timestamp": str(int(time.time()))}}
        Path(path).write_text(json.dumps({"message": message}), encoding="utf-8")


def read_status(failure: "ProcessFailure") -> ExitStatus:
    """The status of a rank that torchrun has seen end: what the rank recorded, or what its exit status tells."""
    code, recorded = failure.exitcode, cast("object", failure.message)
    if isinstance(recorded, dict) and "cause" in recorded:
        return ExitStatus(recorded["cause"], recorded["message"])
    if code in (STOPPED_STATUS, -signal.SIGTERM):
        return ExitStatus("stopped")
    if code < 0:
        return ExitStatus("killed", f"killed by {signal.Signals(-code).name}")
    return ExitStatus("unknown", "ended before training began; its error is printed above")


@contextmanager
def _records_failure(device: torch.device) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        record_status(exit_status(error))
        if device.type == "cuda":
            atexit.register(_exit)
        raise


def _exit() -> None:
    """Ends this process at once: taking down a NCCL group whose other rank is gone can block for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _on_death(status: ExitStatus) -> None:
    print(f"train: error: {status.message}", file=sys.stderr, flush=True)
    record_status(status)


def _peer_access(names: Sequence[str]) -> bool | None:
    gpus = [torch.device(name) for name in dict.fromkeys(names) if name.startswith("cuda")]
    if len(gpus) < 2 or torch.cuda.device_count() < 2:
        return None
    return torch.cuda.can_device_access_peer(gpus[0], gpus[1])
