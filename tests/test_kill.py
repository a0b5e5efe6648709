"""Whatever ends a training run, going on from what is on disk makes the same weights to the bit, and nothing waits for ever."""

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
from pipelines.runtime.launch import STOPPED_STATUS
from tests.support.team import ENVIRONMENT, Run, execute, finish, options, start

# A checkpoint after every step; steps long enough to be hit in the middle.
RUN = Run(double=False, epochs=3, slow_ms=20)
LONG = replace(RUN, epochs=40)
TIMEOUT = 12.0


def digest(folder: Path) -> str:
    """Of the weights and velocities at the end of a run."""
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


def draw(limit: int, *words: int | str) -> int:
    """A number below the limit, the same in every test run."""
    return random_key("kill", *words) % limit


def wait(until: Callable[[], bool], seconds: float = 100.0) -> None:
    """Returns when it is so."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def steps(folder: Path) -> int:
    """Steps that rank 0 has done, over all attempts."""
    try:
        return sum(line.startswith("0 ") for line in (folder / "steps").read_text().splitlines())
    except FileNotFoundError:
        return 0


def after(folder: Path, more: int, moment: int) -> None:
    """Returns so many steps later, at some moment within a step."""
    seen = steps(folder)
    wait(lambda: steps(folder) >= seen + more)
    time.sleep(moment / 1000)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Run, int], str]:
    """Digest of a run by as many ranks that nothing disturbed."""
    found: dict[tuple[Run, int], str] = {}

    def run_it(run: Run, size: int) -> str:
        if (run, size) not in found:
            folder = tmp_path_factory.mktemp("unbroken")
            finish(start([replace(run, slow_ms=0, checkpoint_seconds=1e9)], folder, size))
            found[run, size] = digest(folder / run.name)
        return found[run, size]

    return run_it


def kill_alone(run: Run, folder: Path, kills: int) -> None:
    """One process, killed at as many moments, and then left to end."""
    for number in range(kills):
        (rank,) = start([run], folder)
        after(folder / run.name, 1 + draw(4, "steps", number), draw(60, "moment", number))
        rank.kill()
        assert rank.end() == -signal.SIGKILL
    finish(start([replace(run, slow_ms=0)], folder))


def test_one_process_killed_twice_ends_with_the_unbroken_weights(tmp_path: Path, unbroken: Callable[[Run, int], str]) -> None:
    run = replace(RUN, epochs=4)
    kill_alone(run, tmp_path, 2)
    assert digest(tmp_path / "run") == unbroken(run, 1)
    rows = json.loads((tmp_path / "run" / "history-0.json").read_text())
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert all(math.isfinite(row["val_loss"]) for row in rows)


@pytest.mark.slow
def test_one_process_killed_twenty_times_ends_with_the_unbroken_weights(
    tmp_path: Path, unbroken: Callable[[Run, int], str]
) -> None:
    kill_alone(LONG, tmp_path, 20)
    assert digest(tmp_path / "run") == unbroken(LONG, 1)


@pytest.mark.parametrize("size", [1, 2])
def test_sigterm_writes_a_checkpoint_and_ends_all_ranks(tmp_path: Path, size: int, unbroken: Callable[[Run, int], str]) -> None:
    ranks = start([replace(RUN, checkpoint_seconds=1e9)], tmp_path, size)
    after(tmp_path / "run", 2, 5)
    began = time.monotonic()
    ranks[-1].kill(signal.SIGTERM)  # one rank is told; all stop at the same step
    finish(ranks, STOPPED_STATUS)
    assert time.monotonic() - began < 20
    assert "its checkpoint is written" in ranks[0].said
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 1
    finish(start([replace(RUN, slow_ms=0)], tmp_path, size))
    assert digest(tmp_path / "run") == unbroken(RUN, size)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_whose_peer_is_killed_says_so_and_ends(tmp_path: Path, victim: int) -> None:
    """Rank 0 keeps the store, so that with it every sign ends."""
    ranks = start([LONG], tmp_path, 2)
    after(tmp_path / "run", 1, 10)
    ranks[victim].kill()
    assert ranks[1 - victim].end(LONG.timeout_seconds) == 1
    assert f"rank {1 - victim}: rank {victim} gives no sign of life: killed" in ranks[1 - victim].said


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_whose_peer_hangs_ends_within_the_timeout_and_names_it(tmp_path: Path, victim: int) -> None:
    """So does one whose store hangs with rank 0, and answers nobody."""
    ranks = start([replace(LONG, timeout_seconds=TIMEOUT)], tmp_path, 2)
    after(tmp_path / "run", 1, 10)
    ranks[victim].kill(signal.SIGSTOP)
    began = time.monotonic()
    assert ranks[1 - victim].end(2 * TIMEOUT) == 1
    assert time.monotonic() - began < TIMEOUT
    assert f"rank {1 - victim}: rank {victim} gave no sign of life for {TIMEOUT / 2:.0f} s" in ranks[1 - victim].said
    assert ranks[victim].end(5) == -signal.SIGKILL


class Launch:
    """The train stage's own launcher over two ranks, as a process of its own."""

    def __init__(self, run: Run, folder: Path, restarts: int) -> None:
        self.folder = folder / run.name
        arguments = options(run, folder)[2:]
        code = (
            f"from pathlib import Path\nfrom alexnet.training.checkpoint import Checkpoints\n"
            f"from alexnet.errors import DataError\nfrom pipelines.runtime.launch import launch\n"
            f"progress = Checkpoints(Path({str(self.folder / 'checkpoints')!r})).last\n"
            f"try:\n    launch('tests.support.team', {arguments!r}, 2, progress)\n"
            f"except DataError as error:\n    raise SystemExit(f'train: error: {{error}}')"
        )
        environment = (
            os.environ | ENVIRONMENT | {"ALEXNET_RESTARTS": str(restarts), "ALEXNET_TIMEOUT": str(run.timeout_seconds)}
        )
        self._log = folder / f"launch-{next(_numbers)}"
        with self._log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=log, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def rank(self, number: int) -> int:
        """Process id of a rank of the newest attempt."""
        return int((self.folder / f"pid-{number}").read_text())

    def orphans_end(self) -> None:
        """Waits until no rank is left."""
        wait(lambda: not any(_alive(self.rank(number)) for number in (0, 1)), 15)


_numbers = itertools.count()


def _alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return _stat(pid)[0] != "Z"
    except FileNotFoundError:
        return False


def _stat(pid: int) -> list[str]:
    """State, parent, and what else the kernel says of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@pytest.fixture
def launched() -> Iterator[Callable[[Run, Path, int], Launch]]:
    """Starts launches; what is left of them ends with the test."""
    made: list[Launch] = []

    def begin(run: Run, folder: Path, restarts: int) -> Launch:
        folder.mkdir(parents=True, exist_ok=True)
        made.append(Launch(run, folder, restarts))
        return made[-1]

    yield begin
    for launch in made:
        launch.process.kill()
        launch.process.wait()


def test_a_killed_rank_a_killed_launcher_and_a_flipped_bit_do_not_change_the_weights(
    tmp_path: Path, launched: Callable[[Run, Path, int], Launch], unbroken: Callable[[Run, int], str]
) -> None:
    run = replace(RUN, epochs=4)
    launch = launched(run, tmp_path, 1)
    after(launch.folder, 2, 15)
    os.kill(launch.rank(1), signal.SIGKILL)
    after(launch.folder, 3, 15)
    kill_launcher(launch)
    damage(launch.folder / "checkpoints", "a bit of the tensors", 0)
    assert "rank 1 was killed by SIGKILL; starting again from the newest checkpoint" in launch.said
    assert "is gone" in launch.said  # the ranks say why they end
    finish(start([replace(run, slow_ms=0)], tmp_path, 2))
    assert set_aside(launch.folder) == 1
    assert digest(launch.folder) == unbroken(run, 2)


def kill_launcher(launch: Launch) -> None:
    """With two checkpoints on disk, so that one may be damaged."""
    wait(lambda: len(list((launch.folder / "checkpoints").glob("step-*"))) >= 2)
    launch.process.kill()
    launch.orphans_end()


def set_aside(folder: Path) -> int:
    """How many checkpoints a run has found damaged."""
    return (folder / "notes").read_text().count("checkpoint set aside")


# Whom a draw hits, and by what.
LAUNCHER = -1
STRIKES = (
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
def test_twenty_strikes_at_a_rank_or_the_launcher_do_not_change_the_weights(
    tmp_path: Path, launched: Callable[[Run, Path, int], Launch], unbroken: Callable[[Run, int], str]
) -> None:
    run = replace(LONG, timeout_seconds=60.0)
    launch = launched(run, tmp_path, 2)  # so many without progress; there is progress every time
    damaged = 0
    for number in range(20):
        after(launch.folder, 1 + draw(4, "steps of a pair", number), draw(60, "moment of a pair", number))
        victim, weapon = STRIKES[draw(len(STRIKES), "victim", number)]
        seen, began = steps(launch.folder), time.monotonic()
        if victim == LAUNCHER:
            kill_launcher(launch)
            damage(launch.folder / "checkpoints", DAMAGES[damaged % len(DAMAGES)], number)
            damaged += 1
            launch = launched(run, tmp_path, 2)
        else:
            strike(launch, victim, weapon, run.timeout_seconds)
        goes_on(launch.folder, seen, began + 2 * run.timeout_seconds - time.monotonic())
    assert launch.process.wait(300) == 0, launch.said
    assert set_aside(launch.folder) == damaged > len(DAMAGES)
    assert digest(launch.folder) == unbroken(run, 2)


def strike(launch: Launch, victim: int, weapon: signal.Signals, seconds: float) -> None:
    """Sends one of two ranks a signal, and waits so long at most for the end of both."""
    pids = [launch.rank(0), launch.rank(1)]
    os.kill(pids[victim], weapon)
    wait(lambda: not any(_alive(pid) for pid in pids), seconds)


def goes_on(folder: Path, seen: int, seconds: float) -> None:
    """Waits so long at most for a step more than those seen."""
    wait(lambda: steps(folder) > seen, seconds)


def damage(checkpoints: Path, kind: str, number: int) -> None:
    """Spoils the newest of two checkpoints."""
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
    after(launch.folder, 2, 15)
    hung = launch.rank(1)
    os.kill(hung, signal.SIGSTOP)
    began = time.monotonic()
    wait(lambda: not _alive(hung))
    assert time.monotonic() - began < TIMEOUT + 5
    assert launch.process.wait(120) == 0, launch.said
    assert "rank 1 gave no sign of life" in launch.said
    assert digest(launch.folder) == unbroken(run, 2)


@pytest.mark.slow
def test_sigterm_to_the_launcher_stops_every_rank_with_a_checkpoint(
    tmp_path: Path, launched: Callable[[Run, Path, int], Launch]
) -> None:
    launch = launched(replace(LONG, checkpoint_seconds=1e9), tmp_path, 0)
    after(launch.folder, 3, 15)
    began = time.monotonic()
    launch.process.send_signal(signal.SIGTERM)
    assert launch.process.wait(60) == STOPPED_STATUS
    assert time.monotonic() - began < 20
    assert len(list((launch.folder / "checkpoints").glob("step-*"))) == 1


@pytest.mark.slow
def test_a_rank_that_raises_is_named_and_not_started_again(
    tmp_path: Path, launched: Callable[[Run, Path, int], Launch]
) -> None:
    launch = launched(replace(RUN, fail_rank=1), tmp_path, 5)
    assert launch.process.wait(120) == 1
    assert "train: error: rank 1: RuntimeError: a broken disk" in launch.said
    assert "starting again" not in launch.said


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = replace(RUN, slow_ms=0, late_lr=1e30, checkpoint_seconds=1e9)
    with pytest.raises(
        Diverged, match=r"step 6: the loss is (nan|inf); lower train.schedule's rates; last good checkpoint: none yet"
    ):
        execute(run, tmp_path, Team())


def test_weights_that_are_no_numbers_never_become_a_checkpoint(tmp_path: Path) -> None:
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


def test_a_run_whose_checkpoints_are_all_damaged_stops_with_their_list(tmp_path: Path) -> None:
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
    after(tmp_path / "run", 1, 0)
    with pytest.raises(DataError, match=f"another trainer \\(process {ranks[0].process.pid}\\) uses it"):
        execute(RUN, tmp_path / "run", Team())
    ranks[0].kill()
    ranks[0].end()


@pytest.mark.slow
def test_two_machines_train_as_one_and_end_together(tmp_path: Path, unbroken: Callable[[Run, int], str]) -> None:
    """Two launchers of torchrun's own on one address: what a second machine adds is only the wire."""
    run = replace(RUN, epochs=6, timeout_seconds=TIMEOUT)
    launchers = two_launchers(run, tmp_path)
    after(tmp_path / "run", 3, 10)
    launchers[1].kill()
    launchers[1].wait()
    assert launchers[0].wait(90) == 1
    wait(lambda: not any(_alive(int(path.read_text())) for path in (tmp_path / "run").glob("pid-*")), 30)
    assert [launcher.wait(200) for launcher in two_launchers(run, tmp_path)] == [0, 0]
    assert digest(tmp_path / "run") == unbroken(run, 4)


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_torchruns_own_restarts_go_on_from_the_newest_checkpoint(
    tmp_path: Path, machines: int, unbroken: Callable[[Run, int], str]
) -> None:
    """It keeps its store, and what ranks have left there, over restarts; two of them count restarts differently."""
    run = replace(RUN, epochs=8, timeout_seconds=30.0)
    folder = tmp_path / "run"
    launchers = (
        two_launchers(run, tmp_path, restarts=4)
        if machines == 2
        else [torchrun(run, tmp_path, "--standalone", "--max-restarts=4")]
    )
    for victim in (1, 0, 2 * machines - 1):
        after(folder, 2, 10)
        os.kill(int((folder / f"pid-{victim}").read_text()), signal.SIGKILL)
    assert [launcher.wait(300) for launcher in launchers] == [0] * machines
    assert digest(folder) == unbroken(run, 2 * machines)


@pytest.mark.slow
def test_when_the_machine_that_keeps_the_store_freezes_the_ranks_of_the_other_end(tmp_path: Path) -> None:
    launchers = two_launchers(replace(LONG, timeout_seconds=TIMEOUT), tmp_path)
    after(tmp_path / "run", 2, 10)
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
    assert "gave no sign of life" in said


def torchrun(run: Run, folder: Path, *options_of_torchrun: str) -> "subprocess.Popen[str]":
    """torchrun itself, as a user starts it, with two ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *options_of_torchrun, *options(run, folder)]
    with (folder / f"launcher-{next(_numbers)}").open("w") as log:
        return subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=log, stderr=log, text=True)


def two_launchers(run: Run, folder: Path, restarts: int = 0) -> "list[subprocess.Popen[str]]":
    """torchrun twice, as on two machines."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"--rdzv-endpoint=127.0.0.1:{probe.getsockname()[1]}"
    where = ["--nnodes=2", "--rdzv-backend=c10d", "--rdzv-id=kill", endpoint, f"--max-restarts={restarts}"]
    return [torchrun(run, folder, *where) for _ in (0, 1)]
