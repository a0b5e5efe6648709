"""A flow's log as JSON, an object a line, where ALEXNET_LOG=json asks for it; else it is as Prefect writes it.

The lines of stages are passed on: what such a program prints has the same form, see `pipelines.runtime.console`.
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console

_VARIABLE = "ALEXNET_LOG"
_OWN = ("stage", "release")  # what a stage's line has beside its message


def parse(line: str) -> dict[str, Any]:
    """A line of a stage, which may be JSON: its message, and what belongs to it."""
    try:
        found = json.loads(line) if line.startswith("{") else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) and isinstance(found.get("message"), str) else {"message": line, "level": "info"}


def log(logger: "logging.Logger | logging.LoggerAdapter[Any]", line: str, stage: str) -> str:
    """Logs a line that a stage, or DVC for it, has printed, at its own level. Returns its message."""
    found = {"stage": stage} | parse(line)
    level = logging.getLevelNamesMapping().get(str(found.get("level")).upper(), logging.INFO)
    logger.log(level, "%s", found["message"], extra={name: found.get(name) for name in _OWN})
    return str(found["message"])


def configure() -> None:
    """Lets this process's log be JSON, if that is asked for, and outlive the worker that reads it.

    Prefect's server gets the messages alone, as ever.
    """
    # rich's own ends the process, and with it the run.
    setattr(Console, "on_broken_pipe", _drop_output)  # noqa: B010 - the types forbid a plain assignment to a method
    if os.environ.get(_VARIABLE) != "json":
        return
    handler = _Handler(sys.stderr)
    handler.set_name("console")  # by which Prefect finds it when it sets up logging again
    handler.setFormatter(_Json())
    logging.getLogger().handlers[:] = [handler]


def _drop_output(_: object) -> None:
    """Drops what this process and its children print from here on: whoever read it has been killed."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)


class _Handler(logging.StreamHandler[TextIO]):
    """Outlives who reads it. What was not written would otherwise fail again when the process ends, with status 120."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging names it
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            _drop_output(self)
        else:
            super().handleError(record)


class _Json(logging.Formatter):
    """time (UTC), level, run, stage, release, message; null where a record has none."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += f"\n{self.formatException(record.exc_info)}"
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        run = getattr(record, "flow_run_id", None)
        own = {name: getattr(record, name, None) for name in _OWN}
        return json.dumps({"time": at, "level": record.levelname.lower(), "run": run and str(run), **own, "message": text})
