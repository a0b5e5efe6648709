"""The training loop: what it learns, what it reports, and where it goes on. test_kill ends it in every other way."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file

from alexnet.errors import DataError
from alexnet.model.architecture import ModelConfig
from alexnet.training.checkpoint import Checkpoints
from alexnet.training.loop import Callbacks, EpochRow, LoopState, Progress, TrainingStopped, fit
from alexnet.training.schedule import Rate, TrainConfig
from tests.support.bars import Bars, trainer


def test_a_network_learns_what_there_is_to_learn(tiny: ModelConfig, recipe: TrainConfig, tmp_path: Path) -> None:
    schedule = replace(recipe.schedule, weights=(Rate(0, 0.01), Rate(1, 0.001)))
    quiet = replace(recipe, epochs=2, schedule=schedule, augment=replace(recipe.augment, flip=False))
    model = replace(tiny, classes=4, dropout=0.0)
    history = fit(trainer(model, quiet), Bars(64, 8), Bars(24, 8), Checkpoints(tmp_path), Callbacks())
    assert [(row.epoch, row.step, row.lr) for row in history] == [(0, 8, 0.01), (1, 16, 0.001)]
    assert history[0].train_top1_error > 0.3
    assert history[-1].val_top1_error < 0.2
    assert all(0 <= row.val_top5_error <= row.val_top1_error <= 1 for row in history)


def run(model: ModelConfig, recipe: TrainConfig, folder: Path, callbacks: Callbacks) -> list[EpochRow]:
    """Two epochs of three steps."""
    return fit(trainer(model, replace(recipe, epochs=2)), Bars(24, 8), Bars(8, 8), Checkpoints(folder), callbacks)


def test_losses_may_be_fetched_for_several_steps_at_once(tiny: ModelConfig, recipe: TrainConfig, tmp_path: Path) -> None:
    found: dict[int, list[Progress]] = {1: [], 2: []}
    rows = [
        run(tiny, recipe, tmp_path / str(every), Callbacks(on_step=found[every].append, fetch_loss_every=every))
        for every in found
    ]
    assert rows[0] == rows[1]
    assert [(progress.epoch, progress.step) for progress in found[2]] == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert found[2] == [progress for progress in found[1] if progress.step > 1]


@pytest.mark.parametrize(("after", "at"), [(0, 1), (2, 3), (3, 3), (4, 5)])
def test_training_goes_on_from_where_it_was_stopped(
    tiny: ModelConfig, recipe: TrainConfig, tmp_path: Path, after: int, at: int
) -> None:
    """In an epoch, at its last step, and in its validation, which then comes next."""
    whole = run(tiny, recipe, tmp_path / "whole", Callbacks())
    seen: list[Progress] = []
    stop = Callbacks(on_step=seen.append, should_stop=lambda: len(seen) >= after)
    with pytest.raises(TrainingStopped, match=f"stopped at step {at}; its checkpoint is written, run again to go on from it"):
        run(tiny, recipe, tmp_path / "stopped", stop)
    notes: list[str] = []
    assert run(tiny, recipe, tmp_path / "stopped", Callbacks(on_note=notes.append)) == whole
    assert notes == [f"resumed at step {at}, epoch {(at - 1) // 3}"]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_on_a_gpu_too_training_that_was_stopped_ends_with_the_same_bits(
    tiny: ModelConfig,
    recipe: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: Literal["float32", "bf16"],
) -> None:
    """A step is recorded after three: before the stop it is replayed, after it computed operation by operation again."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)  # as the train stage does
    quick = replace(recipe, epochs=3, precision=precision)

    def train(folder: Path, callbacks: Callbacks) -> tuple[list[EpochRow], dict[str, torch.Tensor]]:
        runner = trainer(tiny, quick, device="cuda")
        return fit(runner, Bars(40, 8), Bars(8, 8), Checkpoints(folder), callbacks), dict(runner.tensors())

    history, weights = train(tmp_path / "whole", Callbacks())
    seen: list[Progress] = []
    with pytest.raises(TrainingStopped, match="stopped at step 8"):
        train(tmp_path / "stopped", Callbacks(on_step=seen.append, should_stop=lambda: len(seen) >= 7))
    resumed_history, resumed = train(tmp_path / "stopped", Callbacks())
    assert resumed_history == history
    assert [name for name in weights if not torch.equal(weights[name], resumed[name])] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("velocity/fc7.bias"), "velocity/fc7.bias is missing"),
        (lambda tensors: tensors.update({"fc9.bias": torch.zeros(1)}), "fc9.bias is unknown"),
        (
            lambda tensors: tensors.update({"fc8.bias": torch.zeros(1, 7)}),
            r"fc8.bias has shape \(1, 7\) of F32, this network needs \(10,\) of F32",
        ),
        (
            lambda tensors: tensors.update({"fc8.bias": tensors["fc8.bias"].long()}),
            "fc8.bias .* of I64, this network needs .* of F32",
        ),
    ],
)
def test_tensors_of_another_network_are_named(
    tiny: ModelConfig, recipe: TrainConfig, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    """In a checkpoint whose digest is right."""
    run(tiny, recipe, tmp_path, Callbacks(checkpoint_seconds=0.0))
    checkpoints = Checkpoints(tmp_path)
    name, state = checkpoints.newest() or ("", {})
    tensors = load_file(tmp_path / name / "tensors.safetensors")
    change(tensors)
    checkpoints.save(state["step"] + 1, tensors, state)
    with pytest.raises(DataError, match=f"step-00000007: {said}.*; remove the folder of checkpoints"):
        run(tiny, recipe, tmp_path, Callbacks())
    shutil.rmtree(tmp_path)
    run(tiny, recipe, tmp_path, Callbacks())


def test_a_checkpoint_has_the_state_of_the_loop_as_json(tiny: ModelConfig, recipe: TrainConfig, tmp_path: Path) -> None:
    """In these names, which checkpoints of interrupted runs have on disk."""
    rows = run(tiny, recipe, tmp_path, Callbacks(checkpoint_seconds=0.0))
    state = json.loads((tmp_path / "step-00000006" / "state.json").read_text())
    assert {field.name for field in fields(LoopState)} | {"job", "sha256"} == set(state)
    assert set(state) == {"step", "epoch", "step_in_epoch", "loss", "right", "samples", "history", "job", "sha256"}
    assert (state["step"], state["epoch"], state["step_in_epoch"], state["samples"]) == (6, 1, 3, 24)
    assert state["history"] == [asdict(rows[0])]
    assert run(tiny, recipe, tmp_path, Callbacks()) == rows
