"""A flow's log as JSON: its own lines, and those of stages with what these say of themselves."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows import log


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Configures JSON on a root logger that is put back; returns what was written."""
    stream, root = io.StringIO(), logging.getLogger()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("ALEXNET_LOG", "json")
    before = root.handlers[:]
    log.configure()
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = before


def _of_a_run(record: logging.LogRecord) -> bool:
    """As Prefect's loggers mark their records."""
    record.flow_run_id = "r1"
    return True


def test_lines_of_stages_keep_their_level_and_release(records: Any) -> None:
    logger = logging.getLogger("a flow's")
    logger.setLevel(logging.INFO)
    logger.addFilter(_of_a_run)
    line = json.dumps({"level": "error", "stage": "publish", "release": "alexnet@01", "message": "publish: error: 100% {}"})
    assert log.log(logger, line, "publish") == "publish: error: 100% {}"
    assert log.log(logger, "Running stage 'publish':", "publish") == "Running stage 'publish':"
    assert log.log(logger, '{"no": "message"}', "publish") == '{"no": "message"}'
    assert log.log(logger, '{"message": "no level"}', "publish") == "no level"
    assert log.log(logger, deep := '{"a":' * 20_000, "publish") == deep
    logger.warning("run's own")
    assert [tuple(one.values())[1:] for one in records()] == [
        ("error", "r1", "publish", "alexnet@01", "publish: error: 100% {}"),
        ("info", "r1", "publish", None, "Running stage 'publish':"),
        ("info", "r1", "publish", None, '{"no": "message"}'),
        ("info", "r1", "publish", None, "no level"),
        ("info", "r1", "publish", None, '{"a":' * 20_000),
        ("warning", "r1", None, None, "run's own"),
    ]


def test_an_exception_is_a_part_of_its_object(records: Any) -> None:
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("a flow's").exception("failed")
    (found,) = records()
    assert found["message"].startswith("failed\nTraceback")


def test_without_the_variable_the_log_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALEXNET_LOG", raising=False)
    before = logging.getLogger().handlers[:]
    log.configure()
    assert logging.getLogger().handlers == before


LOGS = """
import logging, sys
from prefect.logging.configuration import setup_logging
from flows import log
setup_logging()
log.configure()
sys.stdin.readline()
for line in range(3):
    logging.getLogger("prefect.flow").info("line %s", line)
print("ended", file=open("ended", "w"))
"""


@pytest.mark.parametrize("form", ["", "json"])
def test_a_run_outlives_the_worker_that_reads_its_log(form: str, tmp_path: Path) -> None:
    env = os.environ | {"ALEXNET_LOG": form, "PYTHONPATH": str(Path(log.__file__).parents[1]), "PREFECT_HOME": str(tmp_path)}
    flow = subprocess.Popen(
        [sys.executable, "-c", LOGS],
        cwd=tmp_path,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert flow.stdin
    assert flow.stdout
    flow.stdout.close()
    flow.stdin.write(b"\n")
    flow.stdin.close()
    assert flow.wait() == 0
    assert (tmp_path / "ended").exists()
