"""Compiled functions: the same numbers as without a compiler, which may be missing."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from alexnet.ops.compile import compile_function, compile_on_gpu


def check(what: str) -> None:
    environment = {name: text for name, text in os.environ.items() if name != "TORCHDYNAMO_DISABLE"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.compiled", what], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_a_compiled_function_has_the_numbers_of_the_function() -> None:
    check("compiled")


@pytest.mark.gpu
def test_a_gpu_trains_as_a_cpu_does_without_the_host_waiting_for_it() -> None:
    check("cuda")


def test_without_a_c_compiler_functions_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def double(x: Tensor) -> Tensor:
        return 2 * x

    def triple(x: Tensor) -> Tensor:
        return 3 * x

    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: torch.abs)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert compile_function(double) is double
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name == "cc" else None)
    assert compile_function(triple) is torch.abs


def test_only_a_gpus_functions_are_compiled() -> None:
    def double(x: Tensor) -> Tensor:
        return 2 * x

    assert compile_on_gpu(double, torch.device("cpu")) is double
