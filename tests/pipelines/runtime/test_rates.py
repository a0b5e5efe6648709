"""Committed rates of training."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config import params
from pipelines.runtime import rates
from tests.pipelines.claims.test_cells import ROOT

MODEL = params.load(ROOT / "params.yaml").model


def test_a_gpu_and_cores_have_rates_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cpu, gpu = (rates.training_rate(MODEL, "bf16", 128, on_gpu=on_gpu) for on_gpu in (False, True))
    assert cpu
    assert gpu
    assert " cores of " in cpu[1]
    assert "NVIDIA" in gpu[1]
    assert gpu[0] > 10 * cpu[0]


def test_a_narrower_network_is_faster_by_its_multiply_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    whole, half = (
        rates.training_rate(replace(MODEL, units=units), "bf16", 128, on_gpu=True) or (0.0, "")
        for units in (MODEL.units, MODEL.units // 2)
    )
    assert half[0] > whole[0] > 0
    assert "times the full net's rate" in half[1]


def test_without_results_there_is_no_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rates.training_rate(MODEL, "bf16", 128, on_gpu=True) is None
