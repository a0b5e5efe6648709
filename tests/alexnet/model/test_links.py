"""The link between towers in one process, against sums and joins written by hand."""

import torch

from alexnet.model.links import LocalLink
from tests.support.links import tower_outputs


def test_two_parts_of_one_process_gather_join_and_add() -> None:
    a, b = tower_outputs()
    link = LocalLink()
    whole = torch.cat([a, b], 1)
    assert all(torch.equal(found, whole) for found in link.gather([a, b]))
    assert [found.tolist() for found in link.sum_scatter([a, b])] == [(a + b)[:, :2].tolist(), (a + b)[:, 2:].tolist()]
    assert torch.equal(link.sum([a, b])[0], a + b)


def test_one_part_is_left_as_it_is() -> None:
    a, _ = tower_outputs()
    link = LocalLink()
    assert link.gather([a])[0] is a
    assert link.sum_scatter([a])[0] is a
    assert torch.equal(link.sum([a])[0], a)


def test_what_stays_on_its_device_is_not_counted() -> None:
    link = LocalLink()
    link.gather(tower_outputs())
    assert link.bytes_sent == 0
