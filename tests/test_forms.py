"""Every form of training is the same function: one device, both towers in one process, a process a tower, towers x replicas.

In float64, with dropout and every augmentation on, and with a last batch of the epoch that replicas share unevenly.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from alexnet.distributed.team import TOWERS_APART, Team
from tests.support.training_run import Rank, Run, finish, job, joined, start, trainer

TOWERS_OF_RANKS: dict[str, dict[int, Sequence[tuple[int, int]] | None]] = {
    "one": {0: None},
    "apart": {0: TOWERS_APART},
    "pair": {0: [(0, 1)], 1: [(1, 2)]},
    "mesh": {0: [(0, 1)], 1: [(1, 2)]},
    "other replica": {2: [(0, 1)], 3: [(1, 2)]},
}
FORMS = ("one", "apart", "pair", "mesh")
SIZES = {"one": 1, "apart": 1, "pair": 2, "mesh": 4}
EXACT = {"one": "one", "apart": "tower", "pair": "tower", "mesh": "mesh"}  # which forms compute equal bits
STEPS = 20


def runs(base: Run, form: str) -> list[Run]:
    """All that a form has to do, in one launch: bare steps, a fit, one that stops, and what goes on from others."""
    kind: Literal["one", "apart"] = "apart" if form == "apart" else "one"
    base = replace(base, form=kind, checkpoint_seconds=1e9, timeout_seconds=300.0)  # eight processes on two loaded cores
    bare = replace(base, name=f"{form}-steps", steps=STEPS)
    whole = [replace(base, name=f"{form}-fit"), replace(base, name=f"{form}-stop", stop_at=3)]
    after = [replace(base, name=f"{writer}-then-{form}", resumes=f"{writer}-stop") for writer in FORMS]
    return [bare, *whole, *after]


@dataclass(frozen=True)
class FormResults:
    """A folder with what all forms left, and the run that they share."""

    folder: Path
    run: Run

    def full(self, form: str, kind: str, ranks_of: str) -> dict[str, Tensor]:
        """The full tensors that a form ended with."""
        return joined(self.run, self.folder / f"{form}-steps", kind, TOWERS_OF_RANKS[ranks_of])


WIDTHS = [
    pytest.param(Run(), id="tiny"),
    pytest.param(Run(kernels=(6, 16, 24, 24, 16), units=256, classes=15), id="eighth", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=WIDTHS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FormResults:
    """All forms, at once."""
    folder = tmp_path_factory.mktemp("towers")
    ranks: list[Rank] = []
    for form in FORMS:
        ranks += start(runs(request.param, form), folder, SIZES[form])
    finish(ranks)
    return FormResults(folder, request.param)


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of a tensor, relative to its largest number."""
    return max(((found[name] - tensor).abs().max() / tensor.abs().max()).item() for name, tensor in expected.items())


@pytest.mark.parametrize("form", ["apart", "pair", "mesh", "other replica"])
def test_every_form_has_the_gradients_and_the_weights_of_one_device(made: FormResults, form: str) -> None:
    base = "mesh" if form == "other replica" else form
    for kind in ("grad", "weight", "velocity"):
        one = made.full("one", kind, "one")
        assert worst(made.full(base, kind, form), one) < 1e-12, kind


@pytest.mark.parametrize("form", ["apart", "pair", "mesh"])
def test_every_form_has_the_losses_of_one_device(made: FormResults, form: str) -> None:
    one = load_file(made.folder / "one-steps" / "pieces-0.safetensors")["losses"]
    for rank in range(SIZES[form]):
        found = load_file(made.folder / f"{form}-steps" / f"pieces-{rank}.safetensors")["losses"]
        assert (found / one - 1).abs().max() < 1e-12


def test_two_processes_are_two_parts_of_one_process_to_the_bit(made: FormResults) -> None:
    for kind in ("grad", "weight", "velocity"):
        apart, pair = (made.full(form, kind, form) for form in ("apart", "pair"))
        assert all(torch.equal(pair[name], tensor) for name, tensor in apart.items())


def test_replicas_have_equal_bits(made: FormResults) -> None:
    for tower in (0, 1):
        first, second = (
            load_file(made.folder / "mesh-steps" / f"pieces-{tower + 2 * replica}.safetensors") for replica in (0, 1)
        )
        assert all(torch.equal(second[name], tensor) for name, tensor in first.items() if name != "bytes")


def test_every_rank_has_the_same_history_and_it_is_that_of_one_device(made: FormResults) -> None:
    one = json.loads((made.folder / "one-fit" / "history-0.json").read_text())
    for form in ("apart", "pair", "mesh"):
        histories = [(made.folder / f"{form}-fit" / f"history-{rank}.json").read_text() for rank in range(SIZES[form])]
        assert len(set(histories)) == 1
        for row, expected in zip(json.loads(histories[0]), one, strict=True):
            assert row == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("reader", FORMS)
@pytest.mark.parametrize("writer", FORMS)
def test_a_checkpoint_of_any_form_goes_on_in_any_other(made: FormResults, writer: str, reader: str) -> None:
    found = load_file(made.folder / f"{writer}-then-{reader}" / "weights.safetensors")
    unbroken = load_file(made.folder / f"{reader}-fit" / "weights.safetensors")
    if EXACT[writer] == EXACT[reader]:
        assert all(torch.equal(found[name], tensor) for name, tensor in unbroken.items())
    assert worst(found, unbroken) < 1e-12
    notes = (made.folder / f"{writer}-then-{reader}" / "notes").read_text()
    assert "resumed at step" in notes


@pytest.mark.slow
def test_a_checkpoint_at_full_width_holds_training_up_for_less_than_two_seconds() -> None:
    run = Run(double=False, kernels=(96, 256, 384, 384, 256), units=4096, classes=1000)
    made = trainer(run, Team())
    pauses = []
    for _ in range(3):
        began = time.thread_time()  # all of it is copying by this thread; other programs of a loaded machine do not count
        tensors = made.tensors()
        pauses.append(time.thread_time() - began)
    assert sum(tensor.nbytes for tensor in tensors.values()) > 480e6
    assert min(pauses) < 2


def test_bytes_between_towers_are_counted(made: FormResults) -> None:
    """Forward and backward of every cross connection: conv3's input, sums of fc6, fc7's input and sums of fc8, by one tower."""
    config = job(made.run).model
    numbers = 2 * config.kernels[1] * 13 * 13 + 2 * config.units + 2 * config.units + config.classes
    for rank in (0, 1):
        found = load_file(made.folder / "pair-steps" / f"pieces-{rank}.safetensors")["bytes"]
        assert found.item() == numbers * 8


@pytest.mark.gpu
@pytest.mark.parametrize("devices", ["cuda:0", "cuda:0,cuda:1"], ids=["one GPU by gloo", "two GPUs by NCCL"])
def test_on_gpus_two_processes_are_one_device(tmp_path: Path, devices: str) -> None:
    if torch.cuda.device_count() < len(devices.split(",")):
        pytest.skip("needs two GPUs")  # on a machine with one, the other case holds the rest
    run = Run(steps=STEPS, devices=devices)
    for name, size in (("one", 1), ("pair", 2)):
        finish(start([replace(run, name=name)], tmp_path, size))
    for kind in ("grad", "weight", "velocity"):
        one, two = (joined(run, tmp_path / name, kind, TOWERS_OF_RANKS[name]) for name in ("one", "pair"))
        assert worst(two, one) < 1e-12, kind


@pytest.mark.slow
def test_one_tower_in_two_processes_is_trained_by_replicas(tmp_path: Path) -> None:
    run = Run(towers=1, steps=8)
    for name, size in (("one", 1), ("two", 2)):
        finish(start([replace(run, name=name)], tmp_path, size))
    one = joined(run, tmp_path / "one", "weight", {0: None})
    for rank in (0, 1):
        assert worst(joined(run, tmp_path / "two", "weight", {rank: None}), one) < 1e-12


@pytest.mark.parametrize("blind", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_rank_without_the_file_gets_the_checkpoint_from_the_one_that_has_it(tmp_path: Path, blind: int) -> None:
    """Also rank 0, when it was started on another machine than before."""
    base = Run(checkpoint_seconds=1e9)
    runs = [
        replace(base, name="stop", stop_at=3),
        replace(base, name="on", resumes="stop", rank_without_files=blind),
        replace(base, name="fit"),
    ]
    finish(start(runs, tmp_path, 2))
    found, unbroken = (load_file(tmp_path / name / "weights.safetensors") for name in ("on", "fit"))
    assert all(torch.equal(found[name], tensor) for name, tensor in unbroken.items())
    assert ("from rank 1" in (tmp_path / "on" / "notes").read_text()) == (blind == 0)


def test_ranks_with_another_recipe_refuse_to_start(tmp_path: Path) -> None:
    ranks = start([Run(odd_rank=1)], tmp_path, 2)
    assert [rank.end() for rank in ranks] == [1, 1]
    for rank in ranks:
        assert "job.train.batch_size: is 5 on rank 1, but 4 on rank 0; start every rank with the same" in rank.output


@pytest.mark.slow
def test_replicas_with_the_same_samples_refuse_to_train(tmp_path: Path) -> None:
    ranks = start([Run(towers=1, same_samples=True)], tmp_path, 2)
    assert [rank.end() for rank in ranks] == [1, 1]
    assert "batch: two replicas have the same sample" in ranks[0].output


def test_towers_with_different_samples_refuse_to_train(tmp_path: Path) -> None:
    ranks = start([Run(odd_samples_rank=1)], tmp_path, 2)
    assert [rank.end() for rank in ranks] == [1, 1]
    for rank in ranks:
        assert "batch: the towers of replica 0 have different samples; start both with the same data and seed" in rank.output


def test_a_rank_that_fails_ends_all_and_says_why(tmp_path: Path) -> None:
    ranks = start([Run(fail_rank=1)], tmp_path, 2)
    assert [rank.end(60) for rank in ranks] == [1, 1]
    assert "rank 1 ended: RuntimeError: a broken disk" in ranks[0].output
