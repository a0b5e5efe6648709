"""What moves between two towers in two processes, and its gradient, against one process."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet.distributed.errors import Lost
from alexnet.distributed.tower_link import TowerLink
from alexnet.model.architecture import ModelConfig
from alexnet.model.links import LocalLink
from alexnet.model.network import AlexNet, keyed_dropout
from tests.support.links import exchange, tower_outputs
from tests.support.training_run import CONTEXT


def tower(number: int, folder: Path, staged: bool) -> None:
    """One process of a pair."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=number, world_size=2, timeout=timedelta(seconds=20)
    )
    group = dist.group.WORLD
    assert group is not None
    link = TowerLink(group, number, staged=staged)
    found = exchange(link, [tower_outputs()[number]])
    found["bytes"] = torch.tensor([link.bytes_sent])
    maps = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2).to(memory_format=torch.channels_last) + 100 * number
    joined = link.gather([maps.bfloat16()])[0]
    assert joined.is_contiguous(memory_format=torch.channels_last)
    found["maps"] = joined.contiguous()
    save_file(found, folder / f"tower-{number}")
    if number == 0:
        with pytest.raises(Lost, match="swap between towers"):
            link.gather([maps])


def pair(folder: Path, *, staged: bool = False) -> list[dict[str, Tensor]]:
    """The results of both processes of a pair."""
    processes = [CONTEXT.Process(target=tower, args=(number, folder, staged)) for number in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    return [load_file(folder / f"tower-{number}") for number in (0, 1)]


@pytest.mark.parametrize("staged", [False, True])
def test_two_processes_exchange_what_two_parts_of_one_do(tmp_path: Path, staged: bool) -> None:
    """The loss after `sum` is the same on both sides, so each takes its gradient once."""
    first, second = pair(tmp_path, staged=staged)
    local = exchange(LocalLink(), tower_outputs())
    for name in ("gather", "sum_scatter"):
        assert torch.equal(first[f"{name}/0"], local[f"{name}/0"])
        assert torch.equal(second[f"{name}/0"], local[f"{name}/1"])
    for found in (first, second):
        assert torch.equal(found["sum/0"], local["sum/0"])
    for name in ("gather", "sum_scatter", "sum"):
        assert torch.equal(first[f"{name}/grad/0"], local[f"{name}/grad/0"])
        assert torch.equal(second[f"{name}/grad/0"], local[f"{name}/grad/1"])
    whole = torch.arange(24.0).view(2, 3, 2, 2)
    assert torch.equal(first["maps"], torch.cat([whole, whole + 100], 1).bfloat16())


def test_bytes_sent_are_those_of_both_directions(tmp_path: Path) -> None:
    for found in pair(tmp_path):
        number = 3 * 8  # bytes of a column of three samples
        gather, sum_scatter, total = 2 * 4, 2 * 2, 4
        assert found["bytes"].item() == number * (gather + sum_scatter + total)


class Echo(TowerLink):
    """Counts bytes and returns what was sent, for tests of sizes."""

    def __init__(self, number: int) -> None:
        self.tower, self.bytes_sent = number, 0

    def swap(self, x: Tensor, layout: torch.memory_format) -> Tensor:  # noqa: ARG002 - the base class has it
        """See TowerLink."""
        self.bytes_sent += x.numel() * x.element_size()
        return x.clone()


@pytest.mark.parametrize("number", [0, 1])
def test_at_full_width_a_tower_sends_209_824_bytes_per_sample(paper: ModelConfig, number: int) -> None:
    """In float32, both ways; on the meta device, where tensors have only shapes."""
    link = Echo(number)
    with torch.device("meta"):
        network = AlexNet(paper, tower_ranges=[(number, number + 1)], link=link)
        logits = network(torch.zeros(2, 3, 224, 224), keyed_dropout(1, torch.zeros(2, dtype=torch.int64)))
    assert logits.shape == (2, 1000)
    logits.sum().backward()
    assert link.bytes_sent == 2 * 209_824
