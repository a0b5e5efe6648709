"""Links: what moves between towers, and its gradient, against sums and joins written by hand."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet.distributed.errors import Lost, raises_lost
from alexnet.distributed.tower_link import TowerLink
from alexnet.model.architecture import ModelConfig
from alexnet.model.links import Link, LocalLink
from alexnet.model.network import AlexNet, DropoutKey
from tests.support.team import CONTEXT


def parts() -> list[Tensor]:
    """What two towers made."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 4, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2)]


def test_two_parts_of_one_process_gather_join_and_add() -> None:
    a, b = parts()
    link = LocalLink()
    whole = torch.cat([a, b], 1)
    assert all(torch.equal(found, whole) for found in link.gather([a, b]))
    assert [found.tolist() for found in link.sum_scatter([a, b])] == [(a + b)[:, :2].tolist(), (a + b)[:, 2:].tolist()]
    assert torch.equal(link.sum([a, b])[0], a + b)


def test_one_part_is_left_as_it_is() -> None:
    a, _ = parts()
    link = LocalLink()
    assert link.gather([a])[0] is a
    assert link.sum_scatter([a])[0] is a
    assert torch.equal(link.sum([a])[0], a)


def test_what_stays_on_its_device_is_not_counted() -> None:
    link = LocalLink()
    link.gather(parts())
    assert link.bytes_sent == 0


def move(link: Link, held: list[Tensor]) -> dict[str, Tensor]:
    """Every movement, and the gradient of a weighted sum of what it gave."""
    found = {}
    movements: dict[str, Callable[[list[Tensor]], list[Tensor]]] = {
        "gather": link.gather,
        "sum_scatter": link.sum_scatter,
        "sum": link.sum,
    }
    for name, movement in movements.items():
        leaves = [part.detach().clone().requires_grad_() for part in held]
        for i, moved in enumerate(movement(leaves)):
            found[f"{name}/{i}"] = moved.detach().contiguous()
            weights = torch.arange(1, moved.numel() + 1, dtype=torch.float64).view(moved.shape)
            (moved * weights).sum().backward(retain_graph=True)
        found |= {f"{name}/grad/{i}": leaf.grad.contiguous() for i, leaf in enumerate(leaves) if leaf.grad is not None}
    return found


def tower(number: int, folder: Path, staged: bool) -> None:
    """One process of a pair."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=number, world_size=2, timeout=timedelta(seconds=20)
    )
    group = dist.group.WORLD
    assert group is not None
    link = TowerLink(group, number, staged=staged)
    found = move(link, [parts()[number]])
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
    """What both processes of a pair found."""
    processes = [CONTEXT.Process(target=tower, args=(number, folder, staged)) for number in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    return [load_file(folder / f"tower-{number}") for number in (0, 1)]


@pytest.mark.parametrize("staged", [False, True])
def test_two_processes_move_what_two_parts_of_one_move(tmp_path: Path, staged: bool) -> None:
    """The loss after `sum` is the same on both sides, so each takes its gradient once."""
    first, second = pair(tmp_path, staged=staged)
    local = move(LocalLink(), parts())
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


def test_memory_that_this_process_lacks_is_not_another_lost_one() -> None:
    with pytest.raises(torch.OutOfMemoryError), raises_lost("swap"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(Lost, match="swap: connection closed by peer"), raises_lost("swap"):
        raise RuntimeError("connection closed by peer")


class Echo(TowerLink):
    """Counts, and answers with what was sent: enough for sizes."""

    def __init__(self, number: int) -> None:
        self.tower, self.bytes_sent = number, 0

    def swap(self, x: Tensor, layout: torch.memory_format) -> Tensor:  # noqa: ARG002 - the base class has it
        """See TowerLink."""
        self.bytes_sent += x.numel() * x.element_size()
        return x.clone()


@pytest.mark.parametrize("number", [0, 1])
def test_at_full_width_a_tower_sends_209_824_bytes_per_sample(paper: ModelConfig, number: int) -> None:
    """In float32, both ways. Without memory: shapes alone go through the network."""
    link = Echo(number)
    with torch.device("meta"):
        network = AlexNet(paper, tower_ranges=[(number, number + 1)], link=link)
        logits = network(torch.zeros(2, 3, 224, 224), DropoutKey(1, torch.zeros(2, dtype=torch.int64)))
    assert logits.shape == (2, 1000)
    logits.sum().backward()
    assert link.bytes_sent == 2 * 209_824
