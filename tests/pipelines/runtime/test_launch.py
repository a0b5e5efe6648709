"""How ranks are started, find each other, and why they ended."""

import json
import signal
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from alexnet.distributed.errors import ExitStatus, Lost
from alexnet.errors import DataError, ParamsError
from alexnet.training.loop import Diverged
from pipelines.runtime import launch
from pipelines.runtime.errors import Unreachable


class Throttled(Unreachable):
    """A store's answer that is worth another attempt."""


FAILED = ExitStatus("failed", "k1: torn")
HUNG = ExitStatus("hung", "rank 0: rank 1 gave no heartbeat")
KILLED = ExitStatus("killed", "killed by SIGKILL")
LOST = ExitStatus("lost", "rank 0: rank 1 ended")
RETRYABLE = ExitStatus("retryable", "s3://data/k: no answer")
STOPPED = ExitStatus("stopped")
UNKNOWN = ExitStatus("unknown", "ended before training began")


def recorded(error: Exception, path: Path, monkeypatch: pytest.MonkeyPatch) -> ExitStatus:
    """What the launcher reads of a rank that this error has ended, through torch's own error file."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    launch.record_status(launch.exit_status(error))
    return launch.read_status(ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(path)))


@pytest.mark.parametrize(
    ("error", "cause", "message"),
    [
        (Lost("rank 0: rank 1 ended"), "lost", "rank 0: rank 1 ended"),
        (Unreachable("s3://data/k: no answer"), "retryable", "s3://data/k: no answer"),
        (Throttled("s3://data/k: slow down"), "retryable", "s3://data/k: slow down"),
        (DataError("Lost: k1 gave no heartbeat"), "failed", "Lost: k1 gave no heartbeat"),
        (Diverged("step 6: the loss is nan"), "failed", "step 6: the loss is nan"),
        (ParamsError("model.towers: must be 1 or 2"), "failed", "model.towers: must be 1 or 2"),
        (ZeroDivisionError("division by zero"), "failed", "ZeroDivisionError: division by zero"),
    ],
)
def test_the_cause_follows_from_the_type_of_an_error_and_never_from_its_text(
    error: Exception, cause: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = recorded(error, tmp_path / "error.json", monkeypatch)
    assert (found.cause, found.message) == (cause, message)


def test_without_torchrun_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    launch.record_status(FAILED)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "cause", "message"),
    [
        (-signal.SIGKILL, "killed", "killed by SIGKILL"),
        (-signal.SIGTERM, "stopped", ""),
        (launch.STOPPED_STATUS, "stopped", ""),
        (1, "unknown", "ended before training began; its error is printed above"),
    ],
)
def test_a_rank_that_recorded_nothing_is_judged_by_its_exit_status(code: int, cause: str, message: str) -> None:
    found = launch.read_status(ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file="none"))
    assert (found.cause, found.message) == (cause, message)


@pytest.mark.parametrize("code", [-signal.SIGTERM, launch.STOPPED_STATUS])
def test_what_a_rank_recorded_counts_also_when_torchrun_then_ended_it(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(DataError("k1: torn"), tmp_path / "error.json", monkeypatch)
    error_file = str(tmp_path / "error.json")
    assert launch.read_status(ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file=error_file)) == FAILED


def test_torchruns_own_report_names_the_recorded_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(DataError("k1: torn"), tmp_path / "error.json", monkeypatch)
    tree = json.loads((tmp_path / "error.json").read_text())
    assert tree["message"]["message"] == "k1: torn"
    assert int(tree["message"]["extraInfo"]["timestamp"]) > 0


@pytest.mark.parametrize(
    ("statuses", "reason", "retryable"),
    [
        ({0: LOST, 1: KILLED}, "rank 1: killed by SIGKILL", True),
        ({0: KILLED, 1: KILLED}, "rank 0: killed by SIGKILL; rank 1: killed by SIGKILL", True),
        ({0: LOST, 1: FAILED}, "rank 1: k1: torn", False),
        ({0: HUNG, 1: KILLED}, "rank 0: rank 1 gave no heartbeat", True),  # torchrun kills the rank that hangs
        ({0: LOST}, "rank 0: rank 1 ended", True),
        ({1: RETRYABLE}, "rank 1: s3://data/k: no answer", True),
        ({0: LOST, 1: RETRYABLE}, "rank 1: s3://data/k: no answer", True),
        ({0: KILLED, 1: FAILED}, "rank 1: k1: torn", False),
        ({0: HUNG, 1: FAILED}, "rank 1: k1: torn", False),
        ({0: STOPPED, 1: KILLED}, "rank 1: killed by SIGKILL", True),
        ({0: STOPPED, 1: LOST}, "rank 0: rank 1 ended", True),
        ({0: UNKNOWN, 1: STOPPED}, "rank 0: ended before training began", False),
        ({0: LOST, 1: UNKNOWN}, "rank 1: ended before training began", False),
    ],
)
def test_the_reason_is_the_status_that_the_others_follow_from(
    statuses: dict[int, ExitStatus], reason: str, retryable: bool
) -> None:
    assert launch.first_reason(statuses) == (reason, retryable)


def test_ranks_that_a_signal_stopped_are_no_failure() -> None:
    with pytest.raises(SystemExit) as stop:
        launch.first_reason({0: STOPPED, 1: STOPPED})
    assert stop.value.code == 143


def test_with_two_devices_this_process_is_the_launcher_unless_one_has_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_DEVICES", "cpu,cpu")
    monkeypatch.delenv("RANK", raising=False)
    assert launch.starts_ranks()
    monkeypatch.setenv("RANK", "0")  # torchrun --nproc-per-node 1
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not launch.starts_ranks()


def test_a_variable_that_the_launcher_does_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(
        DataError, match="RANK is set, but 'MASTER_ADDR' is missing or no number; start the ranks with torchrun"
    ):
        launch.rendezvous()


def test_three_ranks_are_too_many_for_two_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ParamsError, match="3 ranks cannot share 2 towers"), launch.join(2):
        pass
