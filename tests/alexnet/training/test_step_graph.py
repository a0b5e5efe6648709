"""alexnet/training/step_graph.py."""

import pytest
import torch
from torch import Tensor

from alexnet.training.step_graph import Inputs, StepGraph


class Scaled:
    """Multiplies by a number that is read on the host, and counts its calls."""

    def __init__(self) -> None:
        self.factor, self.calls = 2.0, 0

    def __call__(self, inputs: Inputs) -> tuple[Tensor, ...]:
        self.calls += 1
        return (inputs["x"] * self.factor,)


@pytest.mark.gpu
def test_later_calls_are_replayed_with_their_own_inputs_and_outputs() -> None:
    function = Scaled()
    graph = StepGraph(function, torch.device("cuda"))
    outputs = [graph({"x": torch.full((3,), float(number)).pin_memory()})[0] for number in range(8)]
    assert [output.tolist() for output in outputs] == [[2.0 * number] * 3 for number in range(8)]
    assert function.calls == 4
    assert graph({"x": torch.ones(5).pin_memory()})[0].tolist() == [2.0] * 5  # an epoch's last batch is smaller
    assert function.calls == 5
    function.factor = 3.0
    graph.reset()
    assert graph({"x": torch.ones(3).pin_memory()})[0].tolist() == [3.0] * 3
