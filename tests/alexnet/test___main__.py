"""`python -m alexnet`."""

import os
import subprocess
import sys

import pytest

import alexnet
from alexnet.__main__ import hello
from pipelines.cli import main as cli


def test_it_says_what_the_package_offers_and_what_to_try() -> None:
    text = hello()
    for name in alexnet.__all__:
        assert f"alexnet.{name} " in text
    for command in ("doctor", "show"):
        assert f"  alexnet {command} " in text
        assert command in cli._parser().format_help()


@pytest.mark.parametrize(
    "command", [["alexnet"], ["pipelines.cli.main", "--help"], ["pipelines.cli.main", "show"]], ids=" ".join
)
def test_a_reader_that_has_seen_enough_is_no_error(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", *command], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
