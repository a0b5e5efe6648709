"""What a stage prints: progress bars on a terminal, plain lines otherwise, and one line when it fails."""

import argparse
import errno
import io
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from alexnet.errors import DataError, ParamsError
from alexnet.files.atomic import atomic_write_bytes
from alexnet.files.locks import Busy, flock
from pipelines.runtime import environment, streams, timings
from pipelines.runtime.errors import Unreachable

T = TypeVar("T")
_STATUS = environment.LOCAL / "status"  # how each stage last ended, by which the flow decides on a retry
_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit statuses of a stage that a signal stopped, and that cleaned up
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOCKS = environment.LOCAL / "locks"  # a file for each stage and its arguments, which name its outputs
_LIMITS = {errno.EMFILE: "n", errno.EFBIG: "f"}  # by the letter of the shell's `ulimit`
_STAGE = "ALEXNET_STAGE"  # tells programs that a stage starts which it is
# Control characters but for those that part words, and marks of no width or of direction but for the two that join letters.
_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
LINE_SECONDS = 15.0  # between lines of progress where there is no terminal


def escaped(text: object) -> str:
    """The text on one line: line breaks, control characters and marks that turn the direction of writing as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def legible(text: T) -> T:
    """Text for a page or a picture: what is not seen or turns the direction of writing stands there as its number, [202E]."""
    if not isinstance(text, str) or hasattr(text, "__html__"):
        return text
    return _UNSEEN.sub(lambda found: f"[{ord(found[0]):04X}]", text)  # type: ignore[return-value]  # T is str here


def say(text: str) -> None:
    """Prints lines without breaking a progress bar. Names in them cannot steer the terminal."""
    tqdm.write("\n".join(map(escaped, text.split("\n"))), file=sys.stdout)
    sys.stdout.flush()


def note(line: str) -> None:
    """The same on stderr, for a line that is not part of a command's output."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def is_terminal() -> bool:
    """Whether stderr is a terminal, which can show a progress bar."""
    return sys.stderr.isatty()


def track(
    items: Iterable[T], total: int, label: str, unit: str = "img", size: Callable[[T], int] = lambda item: 1
) -> Iterator[T]:
    """Yields the items, showing how many of `total` units are done and how fast; an item is of `size(item)` units."""
    with progress(total, label, unit) as advance:
        for item in items:
            yield item
            advance(size(item))


@contextmanager
def progress(total: int, label: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields a function to call, from any thread, with the number of units that are done now; progress is shown on stderr."""
    lock, done, start = threading.Lock(), 0, time.monotonic()
    last = start
    with tqdm(
        total=total, desc=label, unit=unit, unit_scale=unit == "B", leave=False, dynamic_ncols=True, disable=not is_terminal()
    ) as bar:

        def amount(number: float) -> str:
            return tqdm.format_sizeof(number, unit) if unit == "B" else f"{number:,.0f} {unit}"

        def advance(count: int) -> None:
            nonlocal done, last
            with lock:
                done += count
                bar.update(count)
                now = time.monotonic()
                if bar.disable and now - last >= LINE_SECONDS:
                    last = now
                    rate = amount(done / (now - start))
                    print(f"{label}: {amount(done)} of {amount(total)} ({rate}/s)", file=sys.stderr, flush=True)

        yield advance
    if unit == "img":
        timings.count_images(done, time.monotonic() - start)


def run_on_paths(stage: str, main: Callable[..., None], switches: Mapping[str, str] | None = None, **paths: str) -> None:
    """Runs a stage, see `run`, on the paths that its command line gives: each a required option, by its name and help.

    switches: options without a value, by name and help; true where they are given.
    """
    about, form = sys.modules[main.__module__].__doc__, argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=f"python -m pipelines.{stage}", description=about, formatter_class=form)
    for name, text in paths.items():
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)
    for name, text in (switches or {}).items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    given = vars(parser.parse_args())
    run(stage, lambda: main(*(given[name] for name in paths), **{name: given[name] for name in switches or {}}))


def spell_out() -> None:
    """Lets what is printed hold letters that the terminal's encoding lacks: they are spelled out, by their Unicode numbers."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def until_unread(main: Callable[[], int]) -> int:
    """What `main` returns; 0 where nobody reads what it prints any more, say `head`, which has seen enough."""
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed at the end
        return 0


def run(stage: str, main: Callable[[], None]) -> None:
    """Runs a stage's main function. A mistake of the user's ends it with one line and exit status 1, a bug with its traceback.

    A stage that cannot print is stopped as by SIGTERM: the flow was killed, the terminal closed, `head` has seen enough.
    Writes {"ok", "error", "retryable"} to .local/status/STAGE.json: DVC's own exit status is 255 whatever happened. What the
    stage took is in .local/timings, see `pipelines.runtime.timings`.
    """
    spell_out()
    outermost = _STAGE not in os.environ
    outer = os.environ.setdefault(_STAGE, stage)
    try:
        with streams.written_as(stage if outer == stage and os.environ.get("ALEXNET_LOG") == "json" else None):
            _run(stage, main)
    finally:
        if outermost:
            os.environ.pop(_STAGE)


def _run(stage: str, main: Callable[[], None]) -> None:
    error, retryable = None, False
    try:
        environment.logs_json()  # raises what is wrong with the variable
        with _sole(stage), timings.measured(stage) if _is_whole(stage) else nullcontext():
            main()
    except (ParamsError, DataError) as mistake:
        error = str(mistake)
        retryable = isinstance(mistake, Unreachable | Busy)
    except OSError as failure:
        if not (failure.filename or failure.errno in (*_FULL, *_LIMITS)):
            traceback.print_exc()
        reason = os.strerror(failure.errno) if failure.errno else failure
        error = f"{failure.filename or 'disk'}: {reason}{_advice(stage, failure.errno)}"
    except SystemExit as end:
        if end.code:
            stopped = end.code in _STOPPED
            reason = "stopped from outside; what it had finished is kept" if stopped else f"exit status {end.code}"
            _write_status(stage, reason, stopped)
        raise
    except BaseException as bug:
        _write_status(stage, f"{type(bug).__name__}: {bug}", retryable=False)
        raise
    _write_status(stage, error, retryable)
    if error:
        print(f"{stage}: error: {escaped(error)}", file=sys.stderr, flush=True)
        sys.exit(1)


def _is_whole(stage: str) -> bool:
    """Whether this is no part of another stage: evaluation trains variants, and how that ends is nothing of the train stage."""
    return os.environ[_STAGE] == stage


def _sole(stage: str) -> AbstractContextManager[None]:
    """Keeps other processes from making the same outputs: of a DVC that was killed, the stage may still run."""
    if "RANK" in os.environ:  # the rank's launcher holds the lock
        return nullcontext()
    try:
        _LOCKS.mkdir(parents=True, exist_ok=True)
    except OSError:  # what the stage then cannot do either says more
        return nullcontext()
    outputs = zlib.crc32("\0".join(sys.argv[1:]).encode())
    return flock(_LOCKS / f"{stage}-{outputs:08x}", environment.timeout_seconds(), f"{stage}: its outputs")


def advice(number: int | None) -> str:
    """What to do about an error of the system, by its number; empty where it says that itself."""
    if number in _FULL:
        return "; free some space and run again, what is finished is kept"
    if letter := _LIMITS.get(number or 0):
        return f"; raise this process's limit, `ulimit -{letter}`, and run again, what is finished is kept"
    return ""


def _advice(stage: str, number: int | None) -> str:
    if known := advice(number):
        return known
    return f"; what earlier stages make, `dvc repro {stage}` makes first" if number == errno.ENOENT else ""


def _write_status(stage: str, error: str | None, retryable: bool) -> None:
    if os.environ.get("RANK", "0") != "0" or not _is_whole(stage):
        return  # the first rank writes it for all
    status = {"ok": error is None, "error": error, "retryable": retryable}
    with suppress(OSError):  # a full disk must not hide the error itself
        atomic_write_bytes(_STATUS / f"{stage}.json", json.dumps(status).encode())
