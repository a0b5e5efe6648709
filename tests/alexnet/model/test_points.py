"""The points of the network, in the order of its computation for every variant."""

from dataclasses import replace

import pytest

from alexnet.model.architecture import ModelConfig
from alexnet.model.points import check_points, last_point, points


def test_the_points_of_the_run_are_in_its_order(paper: ModelConfig) -> None:
    assert " ".join(points(paper)) == (
        "conv1 conv1.lrn conv1.pool conv1.relu conv2 conv2.relu conv2.lrn conv2.map_norm conv2.pool conv3 conv3.relu conv4 "
        "conv4.relu conv5 conv5.pool conv5.relu fc6 fc6.relu fc6.dropout fc7 fc7.relu fc7.dropout fc8 softmax"
    )
    assert last_point(paper, "conv2") == "conv2.pool"
    assert last_point(paper, "fc7") == "fc7.dropout"


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"conv1_order": "relu-norm-pool"}, "conv1 conv1.relu conv1.lrn conv1.pool conv2"),
        ({"nonlinearity": "tanh"}, "conv1 conv1.lrn conv1.pool conv1.tanh conv2"),
        ({"dropout": 0.0, "kernels": (4, 8, 8, 8, 8, 8)}, "conv1 conv1.lrn conv1.pool conv1.relu conv2"),
    ],
)
def test_a_variant_has_the_points_that_it_computes(paper: ModelConfig, change: dict[str, object], first: str) -> None:
    config = replace(paper, **change)  # type: ignore[arg-type]  # a partial tree of fields
    assert " ".join(points(config)).startswith(f"{first} ")
    assert ("fc6.dropout" in points(config)) == (config.dropout > 0)
    assert ("conv6.relu" in points(config)) == (len(config.kernels) == 6)


def test_a_network_without_norms_has_no_points_of_them(paper: ModelConfig) -> None:
    config = replace(paper, lrn=replace(paper.lrn, layers=()), map_norm=replace(paper.map_norm, layers=()))
    assert not [name for name in points(config) if "norm" in name or "lrn" in name]


def test_an_unknown_point_is_refused_with_those_that_there_are(paper: ModelConfig) -> None:
    check_points(paper, ("conv1.lrn", "softmax"))
    with pytest.raises(ValueError, match=r"no point conv1\.norm, fc9; this network has conv1, conv1\.lrn, .*, softmax"):
        check_points(paper, ("conv1.norm", "fc8", "fc9"))
