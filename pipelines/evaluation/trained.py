"""Networks that the evaluate stage trains itself: variants of this run's, under the same budget, to stand beside its own."""

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from alexnet.errors import DataError
from pipelines.runtime import console, environment

_FOLDER = environment.SHARED / "baselines"  # of the networks, kept until somebody removes them
_STOPPED = 128 + signal.SIGTERM


def train(variant: str, recipe: Mapping[str, object], data: Sequence[Path]) -> Path:
    """The folder of a variant's network, which the train stage's own program makes, unless it has made it before.

    A training that was stopped goes on from its checkpoint.

    Args:
        variant: its name.
        recipe: the numbers that decide the network, as JSON can hold them.
        data: the manifest and the pixel statistics.

    Raises:
        DataError: the training failed; it has printed why.
        SystemExit: a signal stopped it.
    """
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in data]
    made_of = hashlib.sha256(json.dumps([recipe, digests], sort_keys=True).encode()).hexdigest()[:16]
    folder = _FOLDER / f"{variant}-{made_of}"
    if not (folder / "model").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        options = ("--manifest", "--pixels", "--model", "--history")
        paths = [*data, folder / "model", folder / "history.csv"]
        _run(variant, [str(word) for pair in zip(options, paths, strict=True) for word in pair])
    return folder / "model"


def _run(variant: str, arguments: Sequence[str]) -> None:
    """Passes on what the program prints, through a pipe: should this process end, that one stops, with a checkpoint."""
    command = [sys.executable, "-m", "pipelines.train", "--variant", variant, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        for line in program.stdout or ():
            console.say(f"evaluate: {variant}: {line.rstrip()}")
    if program.returncode == _STOPPED:
        raise SystemExit(_STOPPED)
    if program.returncode:
        raise DataError(f"evaluate.baselines: training {variant} ended with status {program.returncode}; above it says why")
