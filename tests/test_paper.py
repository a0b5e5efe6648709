"""Facts of the paper, and of the run behind its numbers, that arithmetic can check."""

import math

import pytest
import torch
from torch.nn import functional

from alexnet.describe import Count, counts, total
from alexnet.model import ModelConfig, table
from alexnet.network import AlexNet, Draw, initial
from pipelines import params


@pytest.fixture(scope="module")
def paper() -> ModelConfig:
    return params.load(preset="imagenet").model


def network_of(variant: str | None = None) -> tuple[Count, ...]:
    return counts(params.load(preset="imagenet", variant=variant).model)


def test_the_table_of_the_reference_is_the_papers_figure_2() -> None:
    found = [(c.name, c.weights, c.biases, c.neurons, c.macs) for c in network_of()]
    assert found == [
        ("conv1", 34_848, 96, 290_400, 105_415_200),
        ("conv2", 307_200, 256, 186_624, 223_948_800),
        ("conv3", 884_736, 384, 64_896, 149_520_384),
        ("conv4", 663_552, 384, 64_896, 112_140_288),
        ("conv5", 442_368, 256, 43_264, 74_760_192),
        ("fc6", 37_748_736, 4_096, 4_096, 37_748_736),
        ("fc7", 16_777_216, 4_096, 4_096, 16_777_216),
        ("fc8", 4_096_000, 1_000, 1_000, 4_096_000),
    ]


def test_the_network_has_60_million_parameters_and_650_000_neurons() -> None:
    whole = total(network_of())
    assert whole.parameters == 60_965_224  # the abstract rounds it to 60 million
    assert whole.neurons == 659_272  # and this to 650,000; figure 2 prints 253,440 for conv1's 290,400
    assert whole.macs == 724_406_816


def test_the_convolutions_leave_55_27_13_and_6_pixels_of_224() -> None:
    sizes = [(row.size_px, row.out_px) for row in table(params.load(preset="imagenet").model)[:5]]
    assert sizes == [(55, 27), (27, 13), (13, 13), (13, 13), (13, 6)]


@pytest.mark.parametrize(
    ("variant", "parameters", "macs"),
    [
        ("one-tower", 59_798_312, 391_514_384),  # footnote 2: as many parameters, half the kernels
        ("one-weird-trick", 61_100_840, 714_188_480),
        ("six-conv", 61_555_304, 745_640_480),
    ],
)
def test_the_variants_have_their_published_sizes(variant: str, parameters: int, macs: int) -> None:
    whole = total(network_of(variant))
    assert (whole.parameters, whole.macs) == (parameters, macs)


def test_non_overlapping_pooling_leaves_the_sizes_of_run_147() -> None:
    sizes = [row.out_px for row in table(params.load(preset="imagenet", variant="non-overlapping-pool").model)[:5]]
    assert sizes == [28, 13, 13, 13, 6]


def test_only_fc_layers_and_conv3_and_conv4_hold_more_than_a_hundredth_of_the_parameters() -> None:
    """Section 1 says no convolution does; conv3 holds 1.45 % and conv4 1.09 %."""
    large = [c.name for c in network_of() if c.parameters > 0.01 * total(network_of()).parameters]
    assert large == ["conv3", "conv4", "fc6", "fc7", "fc8"]


def test_padding_by_3_at_right_and_bottom_is_the_runs_rounding_up(paper: ModelConfig) -> None:
    """A 227-pixel image whose last three rows and columns are zero gives the same conv1, unpadded."""
    full = initial(paper, seed=1, dtype=torch.float64)
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    padded = torch.zeros(1, 3, 227, 227, dtype=torch.float64)
    padded[:, :, :224, :224] = images
    edge = functional.pad(images, (0, 3, 0, 3))
    weight = full["conv1.weight"]
    assert torch.equal(functional.conv2d(edge, weight, stride=4), functional.conv2d(padded, weight, stride=4))


def test_start_values_are_those_of_the_run(paper: ModelConfig) -> None:
    full = initial(paper, seed=1)
    for row in table(paper):
        std = 0.03 if row.name in ("conv3", "conv4", "conv5") else 0.01
        weight = full[f"{row.name}.weight"]
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(weight.numel()))
        ones = row.name in ("conv2", "conv4", "conv5", "fc6", "fc7")
        assert torch.equal(full[f"{row.name}.bias"], torch.full((row.outputs,), float(ones)))


def test_the_first_loss_of_the_reference_is_that_of_the_logs_of_2012(paper: ModelConfig) -> None:
    """cuda-convnet2's training log begins at 7.156 on raw-scale images; a net that says nothing has ln 1000 = 6.908."""
    network = AlexNet(paper)
    network.load_full(initial(paper, seed=2))
    images = pink_images(16)
    with torch.no_grad():
        trained = network(images, Draw(3, torch.arange(16)))
        tested = network(images)
    loss = functional.cross_entropy(trained, torch.arange(16) * 60).item()
    assert 7.0 < loss < 7.4
    assert 0.02 < tested.std(0).mean().item() < 0.08  # 0.039 from image to image with the run's 0.03 in conv3-5


def pink_images(count: int) -> torch.Tensor:
    """Images whose spectrum falls as 1/f and whose channels have ImageNet's covariance, mean subtracted, 0-255 scale."""
    generator = torch.Generator().manual_seed(7)
    spectrum = torch.fft.fft2(torch.randn(count, 3, 224, 224, generator=generator))
    frequency = torch.fft.fftfreq(224)
    distance = torch.sqrt(frequency[:, None] ** 2 + frequency[None, :] ** 2)
    distance[0, 0] = 1 / 224
    noise = torch.fft.ifft2(spectrum / distance).real
    noise = noise / noise.std()
    axes = torch.tensor([[0.418, -0.817, 0.397], [-0.713, -0.024, 0.701], [-0.564, -0.576, -0.592]])
    return torch.einsum("nchw,cr->nrhw", noise * torch.tensor([19.7, 37.1, 121.8])[:, None, None], axes)


def test_the_published_color_constants_are_standard_deviations() -> None:
    """Their squares along the eigenvectors rebuild channel deviations of 74, 72 and 77 (cuda-convnet2's input_meta)."""
    axes = torch.tensor(
        [[0.41795513, -0.81698062, 0.39731118], [-0.71257945, -0.02354167, 0.70119634], [-0.56351045, -0.5761844, -0.59200296]]
    )
    stds = torch.tensor([19.72083305, 37.09388853, 121.78006099])
    rebuilt = (stds**2 @ axes**2).sqrt()  # an axis a row
    assert torch.allclose(rebuilt, torch.tensor([74.0, 72.0, 77.0]), atol=0.5)
