"""The processes of a training run: which form it takes, how this process joins the others, and how they are started.

Under torchrun every rank finds its place in torch's own variables. With several devices and no torchrun, this is torchrun.
"""

import atexit
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from alexnet.distributed import ranks
from alexnet.distributed.errors import Lost
from alexnet.distributed.ranks import Rendezvous
from alexnet.distributed.team import Form, Team, pick_form
from alexnet.errors import DataError, ParamsError
from pipelines.runtime import console, environment
from pipelines.runtime.errors import Unreachable

_HUNG = "gave no sign of life"
_APART = ((0, 1), (1, 2))
_UNSAID = "ended before training began; what it said stands above"
STOPPED_STATUS = 128 + signal.SIGTERM  # what a shell says of a process that SIGTERM ended
STOP_SECONDS = 17.0  # from SIGTERM to the end of a rank, whatever it waits for


@dataclass(frozen=True)
class Placement:
    """What this process trains with. devices: one, or one for each of two towers. threads: its share of the cores."""

    team: Team
    devices: tuple[torch.device, ...]
    threads: int
    why: str


def rendezvous() -> Rendezvous | None:
    """This process's place among those that torchrun, or another launcher that sets the same variables, has started."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    try:
        return Rendezvous(
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            host=os.environ["MASTER_ADDR"],
            port=int(os.environ["MASTER_PORT"]),
            launcher_hosts_store=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        )
    except (KeyError, ValueError) as error:
        raise DataError(f"RANK is set, but {error} is missing or no number; start the ranks with torchrun") from None


def local_form(towers: int) -> tuple[Form, str]:
    """The form that training takes when it is started here, and why."""
    names = environment.devices()
    return pick_form(names, _peer_access(names), environment.processes(), towers)


def starts_ranks() -> bool:
    """Whether this process is to start the ranks instead of training itself."""
    return "RANK" not in os.environ and len(environment.devices()) > 1 and environment.processes() != 1


@contextmanager
def join(towers: int) -> Iterator[Placement]:
    """This process, in the form that it was launched for.

    Raises:
        ParamsError: so many processes cannot share the towers.
        Unreachable: another rank ended or hangs.
    """
    place = rendezvous()
    names = environment.devices()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if place else 1
    try:
        form, why = pick_form(names, _peer_access(names), place.world_size if place else 1, towers)
    except ValueError as error:
        raise ParamsError(str(error)) from None
    threads = max(1, environment.workers() // local)
    if place is None:
        devices = tuple(torch.device(name) for name in names[:2]) if form == "two-devices" else (torch.device(names[0]),)
        yield Placement(Team(_APART if form == "two-devices" else None), devices, threads, f"{form}: {why}")
        return
    name, shared = environment.device_of_rank(int(os.environ.get("LOCAL_RANK", "0")), local)
    device = torch.device(name)
    try:
        with (
            _reasons_kept(device),
            ranks.join(
                place,
                device,
                towers=towers,
                shares_device=shared,
                timeout_seconds=environment.timeout_seconds(),
                on_death=_last_words,
            ) as team,
        ):
            if device.type == "cuda" and team.staged and not shared:
                why += "; through host memory by gloo, since another rank has no GPU of its own"
            yield Placement(team, (device,), threads, f"{form}: {why}")
    except Lost as lost:
        raise Unreachable(str(lost)) from lost


def launch(module: str, arguments: Sequence[str], processes: int, progress: Callable[[], object] = lambda: None) -> None:
    """Runs the module in as many ranks of this machine, and again when one was killed or hung.

    Args:
        module: run by every rank.
        arguments: of the module.
        processes: how many ranks.
        progress: the newest checkpoint. ALEXNET_RESTARTS is how often ranks start again without a newer one.

    Raises:
        DataError: what stopped the first rank that failed.
        SystemExit: the run was told to stop.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it says is said below, shorter
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost connection is a page of C++ calls, and then told by us
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, environment.workers() // processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(round(STOP_SECONDS) + 3))  # ranks end themselves before
    left, reached = environment.restarts(), progress()
    while True:
        try:
            command = ["--standalone", f"--nproc-per-node={processes}", "-m", module, *arguments]
            run(parse_args(command))  # as torchrun's own main does
            return
        except SignalException as stop:
            raise SystemExit(128 + stop.sigval) from None
        except ChildFailedError as failed:
            failures = {rank: (failure.exitcode, _text(failure.message)) for rank, failure in failed.failures.items()}
            reason, curable = first_reason(failures)
            if progress() != reached:
                left, reached = environment.restarts(), progress()
            if not curable or not left:
                raise (Unreachable if curable else DataError)(reason) from None
            console.say(f"train: {reason}; starting again from the newest checkpoint, {left} restarts left")
            left -= 1


def first_reason(failures: dict[int, tuple[int, str]]) -> tuple[str, bool]:
    """Of all that went wrong, what came first, and whether starting again can cure it.

    Args:
        failures: by rank, the exit status (negative for a signal) and the message it left.

    Raises:
        SystemExit: the ranks ended because they were told to.
    """
    # A launcher tells those that are left to end when one has.
    found = {rank: end for rank, end in failures.items() if end[0] not in (STOPPED_STATUS, -signal.SIGTERM)}
    if not found:
        raise SystemExit(STOPPED_STATUS)
    said = {rank: (*message.partition(": "), message) for rank, (status, message) in found.items() if status > 0}
    for rank, (kind, _, text, message) in said.items():
        if kind not in ("Lost", "Unreachable", _UNSAID):
            return f"rank {rank}: {text if kind in ('Busy', 'DataError', 'Diverged', 'ParamsError') else message}", False
    for kind, _, text, _ in said.values():
        if kind == "Lost" and _HUNG in text:
            return text, True
    killed = {rank: -status for rank, (status, _) in found.items() if status < 0}
    if killed:
        return "; ".join(f"rank {rank} was killed by {signal.Signals(number).name}" for rank, number in killed.items()), True
    rank, (kind, _, text, message) = min(said.items(), key=lambda item: (item[1][0] == "Lost", item[0]))
    if kind == "Lost":
        return text, True
    return f"rank {rank}: {text or message}", kind == "Unreachable"


def _text(message: object) -> str:
    """What a rank left: torch keeps it as it was written, with more around it."""
    text = str(message["message"]) if isinstance(message, dict) else str(message)
    return _UNSAID if text.startswith("To enable traceback") else text


@contextmanager
def _reasons_kept(device: torch.device) -> Iterator[None]:
    """Leaves the reason of a failure where the launcher looks for it."""
    try:
        yield
    except Exception as error:
        _keep(error)
        if device.type == "cuda":
            atexit.register(_leave)
        raise


def _leave() -> None:
    """Ends a process that has failed and said why. To take down a group whose peer is gone can wait for that peer for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _last_words(message: str) -> None:
    print(f"train: error: {message}", file=sys.stderr, flush=True)
    _keep(Lost(message))


def _keep(error: Exception) -> None:
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        get_error_handler().record_exception(error)


def _peer_access(names: Sequence[str]) -> bool | None:
    """Whether the first two GPUs reach each other's memory."""
    gpus = [torch.device(name) for name in dict.fromkeys(names) if name.startswith("cuda")]
    if len(gpus) < 2 or torch.cuda.device_count() < 2:
        return None
    return torch.cuda.can_device_access_peer(gpus[0], gpus[1])
