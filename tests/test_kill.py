"""Kills, hangs and damage of a training run: resuming from disk ends with bit-equal weights, and no process waits forever."""

import hashlib
import itertools
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from alexnet.distributed.team import Team
from alexnet.errors import DataError
from alexnet.randomness.keys import random_key
from alexnet.training.checkpoint import Checkpoints
from alexnet.training.loop import Diverged
from pipelines.runtime.launch import STOP_SECONDS, STOPPED_STATUS
from tests.support.training_run import ENVIRONMENT, Run, execute, finish, options, start

# A checkpoint after every step; steps are slowed down so that signals arrive within one.
RUN = Run(double=False, epochs=3, slow_ms=20)
LONG = replace(RUN, epochs=40)
TIMEOUT = 12.0


def digest(folder: Path) -> str:
    """SHA-256 of a finished run's weights and velocities."""
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


def draw(limit: int, *words: int | str) -> int:
    """A number below the limit, the same in every test run."""
    return random_key("kill", *words) % limit


def wait(until: Callable[[], bool], seconds: float = 100.0) -> None:
    """Waits for a condition. Fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"not after {seconds:.0f} s"
        time.sleep(0.01)


def steps(folder: Path) -> int:
    """Number of steps that rank 0 has done, over all attempts."""
    try:
        return sum(line.startswith("0 ") for line in (folder / "steps").read_text().splitlines())
    except FileNotFoundError:
        return 0


def wait_steps(folder: Path, count: int, extra_ms: int) -> None:
    """Waits for so many more steps, and then for so many milliseconds, to stand within a step."""
    seen = steps(folder)
    wait(lambda: steps(folder) >= seen + count)
    time.sleep(extra_ms / 1000)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Run, int], str]:
    """The digest of an undisturbed run by so many ranks."""
    found: dict[tuple[Run, int], str] = {}

    def digest_of(run: Run, size: int) -> str:
        if (run, size) not in found:
            folder = tmp_path_factory.mktemp("unbroken")
            finish(start([replace(run, slow_ms=0, checkpoint_seconds=1e9)], folder, size))
            found[run, size] = digest(folder / run.name)
        return found[run, size]

    return digest_of


def kill_repeatedly(run: Run, folder: Path, kills: int) -> None:
    """Trains in one process that is killed so many times, and then lets it finish."""
    for number in range(kills):
        (rank,) = start([run], folder)
        wait_steps(folder / run.name, 1 + draw(4, "steps", number), draw(60, "moment", number))
        rank.kill()
        assert rank.end() == -signal.SIGKILL
    finish(start([replace(run, slow_ms=0)], folder))


@pytest.mark.slow
def test_one_process_killed_once_ends_with_the_unbroken_weights(tmp_path: Path, unbroken: Callable[[Run, int], str]) -> None:
    kill_repeatedly(RUN, tmp_path, 1)
    assert digest(tmp_path / "run") == unbroken(RUN, 1)
    rows = json.loads((tmp_path / "run" / "history-0.json").read_text())
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert all(math.isfinite(row["val_loss"]) for row in rows)


@pytest.mark.slow
def test_one_process_killed_twenty_times_ends_with_the_unbroken_weights(
    tmp_path: Path, unbroken: Callable[[Run, int], str]
) -> None:
    kill_repeatedly(LONG, tmp_path, 20)
    assert digest(tmp_path / "run") == unbroken(LONG, 1)


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sigterm_writes_a_checkpoint_and_ends_all_ranks(tmp_path: Path, size: int, unbroken: Callable[[Run, int], str]) -> None:
    ranks = start([replace(RUN, checkpoint_seconds=1e9)], tmp_path, size)
    wait_steps(tmp_path / "run", 2, 5)
    began = time.monotonic()
    ranks[-1].kill(signal.SIGTERM)  # one rank gets the signal; all stop at the same step
    finish(ranks, STOPPED_STATUS)
    assert time.monotonic() - began < 20
    assert "its checkpoint is written" in ranks[0].output
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 1
    finish(start([replace(RUN, slow_ms=0)], tmp_path, size))
    assert digest(tmp_path / "run") == unbroken(RUN, size)


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_rank_whose_peer_is_killed_reports_it_and_ends(tmp_path: Path, victim: int) -> None:
    """Rank 0 hosts the store, so with it all heartbeats end."""
    ranks = start([LONG], tmp_path, 2)
    wait_steps(tmp_path / "run", 1, 10)
    ranks[victim].kill()
    assert ranks[1 - victim].end(LONG.timeout_seconds) == 1
    assert f"rank {1 - victim}: rank {victim} gave no heartbeat for 3 s: killed" in ranks[1 - victim].output


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_rank_whose_peer_hangs_reports_it_and_ends_within_the_timeout(tmp_path: Path, victim: int) -> None:
    """Also if the peer is rank 0, which hosts the store. The peer ends once it goes on."""
    ranks = start([replace(LONG, timeout_seconds=TIMEOUT)], tmp_path, 2)
    wait_steps(tmp_path / "run", 1, 10)
    ranks[victim].kill(signal.SIGSTOP)
    began = time.monotonic()
    assert ranks[1 - victim].end(2 * TIMEOUT) == 1
    assert time.monotonic() - began < TIMEOUT
    assert f"rank {1 - victim}: rank {victim} gave no heartbeat for {TIMEOUT / 2:.0f} s" in ranks[1 - victim].output
    ranks[victim].kill(signal.SIGCONT)
    assert ranks[victim].end(TIMEOUT) == 1


class Launch:
    """The train stage's launcher over two ranks, in a process of its own."""

    def __init__(self, run: Run, folder: Path, restarts: int) -> None:
        self.folder = folder / run.name
        arguments = options(run, folder)[2:]
        code = (
            f"from pathlib import Path\nfrom alexnet.training.checkpoint import Checkpoints\n"
            f"from alexnet.errors import DataError\nfrom pipelines.runtime.launch import launch\n"
            f"progress = Checkpoints(Path({str(self.folder / 'checkpoints')!r})).last\n"
            f"try:\n    launch('tests.support.training_run', {arguments!r}, 2, progress)\n"
            f"except DataError as error:\n    raise SystemExit(f'train: error: {{error}}')"
        )
        environment = (
            os.environ | ENVIRONMENT | {"ALEXNET_RESTARTS": str(restarts), "ALEXNET_TIMEOUT": str(run.timeout_seconds)}
        )
        self._log = folder / f"launch-{next(_numbers)}"
        with self._log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=log, stderr=subprocess.STDOUT)

    @property
    def output(self) -> str:
        return self._log.read_text()

    def rank(self, number: int) -> int:
        """Process id of a rank of the latest attempt."""
        return int((self.folder / f"pid-{number}").read_text())

    def wait_for_ranks(self) -> None:
        """Waits until both ranks have ended."""
        wait(lambda: not any(_alive(self.rank(number)) for number in (0, 1)), 15)


_numbers = itertools.count()


def _alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return _stat(pid)[0] != "Z"
    except FileNotFoundError:
        return False


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@pytest.fixture
def launched() -> Iterator[Callable[[Run, Path, int], Launch]]:
    """Starts launchers, which are killed at the end of the test."""
    made: list[Launch] = []

    def launch(run: Run, folder: Path, restarts: int) -> Launch:
        folder.mkdir(parents=True, exist_ok=True)
        made.append(Launch(run, folder, restarts))
        return made[-1]

    yield launch
    for launcher in made:
        launcher.process.kill()
        launcher.process.wait()


def test_a_killed_rank_is_started_again_and_ends_with_the_unbroken_weights(
    tmp_path: Path, launched: Callable[[Run, Path, int], Launch], unbroken: Callable[[Run, int], str]
) -> None:
    launch = launched(RUN, tmp_path, 1)
    wait_steps(launch.folder, 2, 15)
    os.kill(launch.rank(1), signal.SIGKILL)
    assert launch.process.wait(100) == 0, launch.output
    assert "rank 1: killed by SIGKILL; starting again from the newest checkpoint" in launch.output
    assert digest(launch.folder) == unbroken(RUN, 2)


@pytest.mark.slow
def test_a_killed_rank_a_killed_launcher_and_a_flipped_bit_do_not_change_the_weights(
    tmp_path: Path, launched: Callable[[Run, Path, int], Launch], unbroken: Callable[[Run, int], str]
) -> None:
    run = replace(RUN, epochs=4)
    launch = launched(run, tmp_path, 1)
    wait_steps(launch.folder, 2, 15)
    os.kill(launch.rank(1), signal.SIGKILL)
    wait_steps(launch.folder, 3, 15)
    kill_launcher(launch)
    damage(launch.folder / "checkpoints", "a bit of the tensors", 0)
    assert "rank 1: killed by SIGKILL; starting again from the newest checkpoint" in launch.output
    assert "is gone" in launch.output  # printed by the ranks
    finish(start([replace(run, slow_ms=0)], tmp_path, 2))
    assert set_aside(launch.folder) == 1
    assert digest(launch.folder) == unbroken(run, 2)


def kill_launcher(launch: Launch) -> None:
    """Kills it once there are two checkpoints, so that one can be damaged."""
    wait(lambda: len(list((launch.folder / "checkpoints").glob("step-*"))) >= 2)
    launch.process.kill()
    launch.wait_for_ranks()


def set_aside(folder: Path) -> int:
    """Number of checkpoints that a run has found damaged."""
    return (folder / "notes").read_text().count("checkpoint set aside")


# The process and the signal of a draw.
LAUNCHER = -1
SIGNALS = (
    (0, signal.SIGSTOP),
    (1, signal.SIGSTOP),
    (0, signal.SIGKILL),
    (0, signal.SIGKILL),
    (1, signal.SIGKILL),
    (LAUNCHER, signal.SIGKILL),
    (1, signal.SIGKILL),
    (LAUNCHER, signal.SIGKILL),
)
DAMAGES = ("torn tensors", "a bit of the tensors", "no tensors", "an empty state", "a bit of the state")


@pytest.mark.slow
def test_twenty_signals_to_a_rank_or_the_launcher_do_not_change_the_weights(
    tmp_path: Path, launched: Callable[[Run, Path, int], Launch], unbroken: Callable[[Run, int], str]
) -> None:
    run = replace(LONG, timeout_seconds=60.0)
    launch = launched(run, tmp_path, 2)  # allowed restarts without progress; every attempt makes some
    damaged = 0
    for number in range(20):
        wait_steps(launch.folder, 1 + draw(4, "steps of a pair", number), draw(60, "moment of a pair", number))
        victim, weapon = SIGNALS[draw(len(SIGNALS), "victim", number)]
        seen, began = steps(launch.folder), time.monotonic()
        if victim == LAUNCHER:
            kill_launcher(launch)
            damage(launch.folder / "checkpoints", DAMAGES[damaged % len(DAMAGES)], number)
            damaged += 1
            launch = launched(run, tmp_path, 2)
        else:
            send_signal(launch, victim, weapon, run.timeout_seconds)
        wait_progress(launch.folder, seen, began + 3 * run.timeout_seconds - time.monotonic())
    assert launch.process.wait(300) == 0, launch.output
    assert set_aside(launch.folder) == damaged > len(DAMAGES)
    assert digest(launch.folder) == unbroken(run, 2)


def send_signal(launch: Launch, victim: int, weapon: signal.Signals, seconds: float) -> None:
    """Sends a signal to one of two ranks, and waits for the end of both.

    seconds: after so much silence a stopped rank's peer ends itself; torchrun then gives the stopped one half a minute.
    """
    pids = [launch.rank(0), launch.rank(1)]
    os.kill(pids[victim], weapon)
    wait(lambda: not any(_alive(pid) for pid in pids), 2 * seconds)


def wait_progress(folder: Path, seen: int, seconds: float) -> None:
    """Waits for a step after those seen."""
    wait(lambda: steps(folder) > seen, seconds)


def damage(checkpoints: Path, kind: str, number: int) -> None:
    """Damages the newest of two checkpoints."""
    found = sorted(checkpoints.glob("step-*"))
    assert len(found) >= 2
    tensors, state = found[-1] / "tensors.safetensors", found[-1] / "state.json"
    file = state if "state" in kind else tensors
    content = file.read_bytes()
    if kind == "torn tensors":
        file.write_bytes(content[: len(content) // 2])
    elif kind == "no tensors":
        file.unlink()
    elif kind == "an empty state":
        file.write_text("")
    else:
        at = draw(len(content), "bit", number)
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


@pytest.mark.slow
def test_a_rank_that_hangs_is_ended_and_training_starts_again(
    tmp_path: Path, launched: Callable[[Run, Path, int], Launch], unbroken: Callable[[Run, int], str]
) -> None:
    run = replace(RUN, epochs=8, timeout_seconds=TIMEOUT)
    launch = launched(run, tmp_path, 1)
    wait_steps(launch.folder, 2, 15)
    hung = launch.rank(1)
    os.kill(hung, signal.SIGSTOP)
    began = time.monotonic()
    wait(lambda: not _alive(hung))
    assert time.monotonic() - began < TIMEOUT + STOP_SECONDS + 8  # torchrun gives it STOP_SECONDS and a few, then kills it
    assert launch.process.wait(120) == 0, launch.output
    assert "rank 1 gave no heartbeat" in launch.output
    assert digest(launch.folder) == unbroken(run, 2)


@pytest.mark.slow
def test_sigterm_to_the_launcher_stops_every_rank_with_a_checkpoint(
    tmp_path: Path, launched: Callable[[Run, Path, int], Launch]
) -> None:
    launch = launched(replace(LONG, checkpoint_seconds=1e9), tmp_path, 0)
    wait_steps(launch.folder, 3, 15)
    began = time.monotonic()
    launch.process.send_signal(signal.SIGTERM)
    assert launch.process.wait(60) == STOPPED_STATUS
    assert time.monotonic() - began < 20
    assert len(list((launch.folder / "checkpoints").glob("step-*"))) == 1


@pytest.mark.slow
def test_a_rank_that_raises_is_reported_and_not_restarted(tmp_path: Path, launched: Callable[[Run, Path, int], Launch]) -> None:
    launch = launched(replace(RUN, fail_rank=1), tmp_path, 5)
    assert launch.process.wait(120) == 1
    assert "train: error: rank 1: RuntimeError: a broken disk" in launch.output
    assert "starting again" not in launch.output


def test_a_loss_that_is_not_finite_stops_training_and_names_step_and_checkpoint(tmp_path: Path) -> None:
    run = replace(RUN, slow_ms=0, late_lr=1e30, checkpoint_seconds=1e9)
    with pytest.raises(
        Diverged, match=r"step 6: the loss is (nan|inf); lower train.schedule's rates; last good checkpoint: none yet"
    ):
        execute(run, tmp_path, Team())


def test_weights_that_are_not_finite_are_never_checkpointed(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"step 5: .* is no longer finite; .* last good checkpoint: step-00000004"):
        execute(replace(RUN, slow_ms=0, late_lr=1e39), tmp_path, Team())
    found = Checkpoints(tmp_path / "checkpoints").newest()
    assert found is not None
    assert found[0] == "step-00000004"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 8}, "seed: is 8, but the checkpoint was made with 7"),
        ({"batch_size": 2}, "train.batch_size: is 2, but the checkpoint was made with 4"),
        ({"classes": 6}, "model.classes: is 6, but the checkpoint was made with 5"),
        ({"data": "other"}, "data: is 'other', but the checkpoint was made with 'data'"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    run = replace(RUN, slow_ms=0, epochs=1, stop_at=1)
    assert execute(run, tmp_path, Team())
    with pytest.raises(DataError, match=message):
        execute(replace(run, **change), tmp_path, Team())  # type: ignore[arg-type]  # fields by name


def test_a_run_lists_its_checkpoints_if_all_are_damaged(tmp_path: Path) -> None:
    run = replace(RUN, slow_ms=0, stop_at=3)
    execute(run, tmp_path, Team())
    found = sorted((tmp_path / "checkpoints").glob("step-*"))
    assert len(found) == 2
    for checkpoint in found:
        (checkpoint / "tensors.safetensors").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"every checkpoint is damaged: .*step-0000000\d .*; .*step-0000000\d .*remove the folder"
    ):
        execute(run, tmp_path, Team())


def test_a_second_trainer_is_refused(tmp_path: Path) -> None:
    ranks = start([LONG], tmp_path)
    wait_steps(tmp_path / "run", 1, 0)
    with pytest.raises(DataError, match=f"another trainer: process {ranks[0].process.pid} has held"):
        execute(RUN, tmp_path / "run", Team())
    ranks[0].kill()
    ranks[0].end()


@pytest.mark.slow
def test_two_machines_train_as_one_and_end_together(tmp_path: Path, unbroken: Callable[[Run, int], str]) -> None:
    """Two torchrun launchers with one rendezvous endpoint, as on two machines but for the network."""
    run = replace(RUN, epochs=6, timeout_seconds=TIMEOUT)
    launchers = two_launchers(run, tmp_path)
    wait_steps(tmp_path / "run", 3, 10)
    launchers[1].kill()
    launchers[1].wait()
    assert launchers[0].wait(90) == 1
    wait(lambda: not any(_alive(int(path.read_text())) for path in (tmp_path / "run").glob("pid-*")), 30)
    assert [launcher.wait(200) for launcher in two_launchers(run, tmp_path)] == [0, 0]
    assert digest(tmp_path / "run") == unbroken(run, 4)


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_torchruns_restarts_resume_from_the_newest_checkpoint(
    tmp_path: Path, machines: int, unbroken: Callable[[Run, int], str]
) -> None:
    """torchrun keeps its store with the ranks' keys over restarts; two launchers count restarts differently."""
    run = replace(RUN, epochs=8, timeout_seconds=30.0)
    folder = tmp_path / "run"
    launchers = (
        two_launchers(run, tmp_path, restarts=4)
        if machines == 2
        else [torchrun(run, tmp_path, "--standalone", "--max-restarts=4")]
    )
    for victim in (1, 0, 2 * machines - 1):
        wait_steps(folder, 2, 10)
        os.kill(int((folder / f"pid-{victim}").read_text()), signal.SIGKILL)
    assert [launcher.wait(300) for launcher in launchers] == [0] * machines
    assert digest(folder) == unbroken(run, 2 * machines)


@pytest.mark.slow
def test_ranks_end_when_the_other_machine_with_the_store_freezes(tmp_path: Path) -> None:
    launchers = two_launchers(replace(LONG, timeout_seconds=TIMEOUT), tmp_path)
    wait_steps(tmp_path / "run", 2, 10)
    ranks = [int(path.read_text()) for path in sorted((tmp_path / "run").glob("pid-*"))]
    machine = {pid: int(_stat(pid)[1]) for pid in ranks}
    frozen = [machine[ranks[0]], *(pid for pid in ranks if machine[pid] == machine[ranks[0]])]
    try:
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        others = [pid for pid in ranks if pid not in frozen]
        assert len(others) == 2
        wait(lambda: not any(_alive(pid) for pid in others), 2 * TIMEOUT)
    finally:
        for launcher in launchers:
            launcher.kill()
            launcher.wait()
        for pid in ranks:
            if _alive(pid):
                os.kill(pid, signal.SIGKILL)
    said = "".join(path.read_text() for path in tmp_path.glob("launcher-*"))
    assert "gave no heartbeat" in said


def torchrun(run: Run, folder: Path, *options_of_torchrun: str) -> "subprocess.Popen[str]":
    """Starts torchrun, as a user does, with two ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *options_of_torchrun, *options(run, folder)]
    with (folder / f"launcher-{next(_numbers)}").open("w") as log:
        return subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=log, stderr=log, text=True)


def two_launchers(run: Run, folder: Path, restarts: int = 0) -> "list[subprocess.Popen[str]]":
    """Starts torchrun twice, as on two machines."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"--rdzv-endpoint=127.0.0.1:{probe.getsockname()[1]}"
    where = ["--nnodes=2", "--rdzv-backend=c10d", "--rdzv-id=kill", endpoint, f"--max-restarts={restarts}"]
    return [torchrun(run, folder, *where) for _ in (0, 1)]
