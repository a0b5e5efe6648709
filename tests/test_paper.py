"""Facts of the paper, and of the run behind its numbers, that arithmetic can check."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from alexnet.model.architecture import LAYERS, LayerCounts, ModelConfig, layer_counts, table, total_counts
from alexnet.model.network import AlexNet, initial_weights, keyed_dropout
from alexnet.model.response_norm import local_response_norm
from pipelines.config import params

# cuda-convnet2's input_meta: of RGB values in 0..255 over ImageNet.
COLOR_AXES = torch.tensor(  # an axis a row
    [[0.41795513, -0.81698062, 0.39731118], [-0.71257945, -0.02354167, 0.70119634], [-0.56351045, -0.5761844, -0.59200296]]
)
COLOR_STDS = torch.tensor([19.72083305, 37.09388853, 121.78006099])
TRAIN_2010, TRAIN_2012 = 1_261_406, 1_281_167  # images


@pytest.fixture(scope="module")
def paper() -> ModelConfig:
    return params.load(preset="imagenet").model


def network_of(variant: str | None = None) -> tuple[LayerCounts, ...]:
    return layer_counts(params.load(preset="imagenet", variant=variant).model)


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


def test_a_tower_has_half_of_every_layer_and_nothing_of_fc8() -> None:
    """layers-145.cfg gives the kernels of each tower; its fc8 is on one GPU alone, and reads both."""
    layers = network_of()
    assert [(c.name, c.tower_kernels) for c in layers] == [
        ("conv1", 48),
        ("conv2", 128),
        ("conv3", 192),
        ("conv4", 192),
        ("conv5", 128),
        ("fc6", 2048),
        ("fc7", 2048),
        ("fc8", 0),
    ]
    assert [c.tower_parameters for c in layers] == [
        48 * 11 * 11 * 3 + 48,
        128 * 5 * 5 * 48 + 128,  # reads its own tower's conv1
        192 * 3 * 3 * 256 + 192,  # reads both
        192 * 3 * 3 * 192 + 192,
        128 * 3 * 3 * 192 + 128,
        2048 * 9216 + 2048,
        2048 * 4096 + 2048,
        0,
    ]
    assert [c.tower_macs for c in layers[:5]] == [52_707_600, 111_974_400, 74_760_192, 56_070_144, 37_380_096]
    whole = total_counts(layers)
    assert 2 * whole.tower_parameters + 4_097_000 == whole.parameters
    assert 2 * whole.tower_macs + 4_096_000 == whole.macs


def test_the_network_has_60_million_parameters_and_650_000_neurons() -> None:
    whole = total_counts(network_of())
    assert (whole.weights, whole.biases) == (60_954_656, 10_568)
    assert whole.parameters == 60_965_224  # the abstract rounds it to 60 million
    assert whole.neurons == 659_272  # and this to 650,000
    assert whole.macs == 724_406_816
    assert sum(c.macs for c in network_of()[:5]) == 665_784_864  # of the convolutions


def test_nine_tenths_of_the_parameters_are_fc6s_and_fc7s() -> None:
    shares = [round(100 * c.parameters / total_counts(network_of()).parameters, 2) for c in network_of()]
    assert shares == [0.06, 0.50, 1.45, 1.09, 0.73, 61.93, 27.53, 6.72]


def test_figure_2_prints_too_few_neurons_for_conv1() -> None:
    """253,440 is a 55 x 48 rectangle of 96 maps; only with the right figure is the sum the paper's 650,000."""
    conv1, whole = network_of()[0], total_counts(network_of())
    assert 55 * 48 * conv1.kernels == 253_440
    assert whole.neurons - conv1.neurons + 253_440 == 622_312


def test_the_convolutions_leave_55_27_13_and_6_pixels_of_224(paper: ModelConfig) -> None:
    sizes = [(row.size_px, row.out_px) for row in table(paper)[:5]]
    assert sizes == [(55, 27), (27, 13), (13, 13), (13, 13), (13, 6)]
    assert table(replace(paper, conv1=replace(paper.conv1, edge=0)))[0].size_px == 54  # rounded down


def test_pooling_windows_never_hang_over_the_edge_unless_they_do_not_overlap(paper: ModelConfig) -> None:
    """So rounding matters to run #147 alone: rounded down, 2/2 pooling would leave 27 pixels of 55."""

    def hang_over(config: ModelConfig) -> list[str]:
        return [row.name for row in table(config) if row.pools and (row.size_px - config.pool.size) % config.pool.stride]

    assert hang_over(paper) == []
    assert hang_over(params.load(preset="imagenet", variant="non-overlapping-pool").model) == ["conv1", "conv5"]


@pytest.mark.parametrize(
    ("variant", "parameters", "neurons", "macs"),
    [
        ("one-tower", 59_798_312, 355_864, 391_514_384),  # footnote 2: as many parameters, half the kernels
        ("one-weird-trick", 61_100_840, 494_184, 714_188_480),
        ("torchvision", 61_100_840, 494_184, 714_188_480),
        ("six-conv", 61_555_304, 668_488, 745_640_480),
    ],
)
def test_the_variants_have_their_published_sizes(variant: str, parameters: int, neurons: int, macs: int) -> None:
    whole = total_counts(network_of(variant))
    assert (whole.parameters, whole.neurons, whole.macs) == (parameters, neurons, macs)


def test_other_connections_and_other_classes_have_their_published_sizes(paper: ModelConfig) -> None:
    ungrouped = total_counts(layer_counts(replace(paper, cross_connections=LAYERS)))
    assert (ungrouped.parameters, ungrouped.macs) == (62_378_344, 1_135_256_096)
    without_conv3 = tuple(name for name in paper.cross_connections if name != "conv3")
    assert total_counts(layer_counts(replace(paper, cross_connections=without_conv3))).parameters == 60_522_856
    six = params.load(preset="imagenet", variant="six-conv").model
    assert total_counts(layer_counts(replace(six, classes=10_184))).parameters == 99_182_152  # Fall 2009


def test_non_overlapping_pooling_leaves_the_sizes_of_run_147() -> None:
    sizes = [
        (row.size_px, row.out_px) for row in table(params.load(preset="imagenet", variant="non-overlapping-pool").model)[:5]
    ]
    assert sizes == [(55, 28), (26, 13), (13, 13), (13, 13), (11, 6)]


def test_a_step_of_128_images_needs_two_cards_of_3_gb(paper: ModelConfig) -> None:
    """In float32: weights, momentum and gradient, and the outputs of every layer, which have gradients too; in MiB."""
    assert round(total_counts(network_of()).parameters * 3 * 4 / 2**20) == 698
    outputs = sum(
        row.outputs * (row.size_px**2 * (1 + len(row.norms)) + row.out_px**2 * (row.pools + row.drops)) for row in table(paper)
    )
    assert round(128 * outputs * 4 / 2**20) == 710


def test_an_image_costs_4_gflop_to_train_on() -> None:
    forward = 2 * total_counts(network_of()).macs
    assert round(3 * forward / 1e9, 2) == 4.35
    assert round((3 * forward - 2 * network_of()[0].macs) / 1e9, 3) == 4.136  # conv1 needs no gradient of its input
    training = 90 * TRAIN_2012 * 3 * forward
    assert training == pytest.approx(5.0e17, rel=0.01)
    assert [round(training / rate / 60) for rate in (200e12, 40e12)] == [42, 209]  # minutes


def test_90_epochs_in_five_to_six_days_are_219_to_267_images_a_second() -> None:
    rates = [90 * images / (days * 86_400) for images in (TRAIN_2010, TRAIN_2012) for days in (5, 6)]
    assert (round(min(rates)), round(max(rates))) == (219, 267)


def test_the_rates_of_run_170_fall_by_250_in_three_equal_ratios_at_the_quarters_of_95_epochs() -> None:
    train = params.load(preset="imagenet").train
    assert [rate.epoch for rate in train.schedule.weights] == [round(train.epochs * i / 4) for i in range(4)]
    assert [rate.lr for rate in train.schedule.weights] == pytest.approx([0.01 * 250 ** (-i / 3) for i in range(4)], rel=1e-4)


def test_crops_and_flips_make_2178_images_of_one_where_the_text_says_2048() -> None:
    run, text = (params.load(preset="imagenet", variant=variant).train.augment for variant in (None, "paper-text"))
    assert (2 * run.crop_offsets**2, 2 * text.crop_offsets**2) == (2178, 2048)


def test_only_fc_layers_and_conv3_and_conv4_hold_more_than_a_hundredth_of_the_parameters() -> None:
    """Section 1 says no convolution does; conv3 holds 1.45 % and conv4 1.09 %."""
    large = [c.name for c in network_of() if c.parameters > 0.01 * total_counts(network_of()).parameters]
    assert large == ["conv3", "conv4", "fc6", "fc7", "fc8"]


def test_padding_by_3_at_right_and_bottom_is_the_runs_rounding_up(paper: ModelConfig) -> None:
    """A 227-pixel image whose last three rows and columns are zero gives the same conv1, unpadded."""
    full = initial_weights(paper, seed=1, dtype=torch.float64)
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    padded = torch.zeros(1, 3, 227, 227, dtype=torch.float64)
    padded[:, :, :224, :224] = images
    edge = functional.pad(images, (0, 3, 0, 3))
    weight = full["conv1.weight"]
    assert torch.equal(functional.conv2d(edge, weight, stride=4), functional.conv2d(padded, weight, stride=4))


def test_start_values_are_those_of_the_run(paper: ModelConfig) -> None:
    full = initial_weights(paper, seed=1)
    for row in table(paper):
        std = 0.03 if row.name in ("conv3", "conv4", "conv5") else 0.01
        weight = full[f"{row.name}.weight"]
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(weight.numel()))
        ones = row.name in ("conv2", "conv4", "conv5", "fc6", "fc7")
        assert torch.equal(full[f"{row.name}.bias"], torch.full((row.outputs,), float(ones)))


def test_torchs_norm_is_the_runs_at_the_papers_alpha_and_the_papers_formula_at_five_times_that() -> None:
    """torch, like the run, divides alpha by the size of the window; the text's equation does not."""
    maps = torch.randn(2, 48, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 100

    def formula(alpha: float) -> torch.Tensor:
        squares = functional.pad(maps**2, (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
        return maps / (2 + alpha * squares) ** 0.75

    for torchs, alpha in ((1e-4, 2e-5), (5e-4, 1e-4)):
        assert torch.allclose(functional.local_response_norm(maps, 5, torchs, 0.75, 2.0), formula(alpha), rtol=1e-14, atol=0)
        ours = local_response_norm(maps, towers=1, size=5, alpha=alpha, beta=0.75, k=2.0)
        assert torch.allclose(ours, formula(alpha), rtol=1e-14, atol=0)
    run, text = (params.load(preset="imagenet", variant=variant).model.lrn for variant in (None, "paper-text"))
    assert (run.alpha, run.alpha_over, text.alpha, text.alpha_over) == (1e-4, "mean", 1e-4, "sum")


def test_small_activity_is_divided_by_1_68_where_caffe_leaves_it() -> None:
    """k is 2 in text and run, 1 in bvlc_alexnet."""
    faint = torch.full((1, 5, 1, 1), 1e-3, dtype=torch.float64)
    ours, caffes = (local_response_norm(faint, towers=1, size=5, alpha=2e-5, beta=0.75, k=k) for k in (2.0, 1.0))
    assert torch.allclose(ours * 2**0.75, caffes, rtol=1e-9)
    assert round(2**0.75, 2) == 1.68


def untrained(config: ModelConfig, seed: int) -> AlexNet:
    """The network as it starts."""
    network = AlexNet(config)
    network.load_full(initial_weights(config, seed))
    return network


def first_pass(network: AlexNet, images: torch.Tensor) -> tuple[float, float]:
    """The loss in training, over all labels alike, and how far apart images lie at the logits in testing."""
    with torch.no_grad():
        trained, tested = network(images, keyed_dropout(3, torch.arange(len(images)))), network(images)
    return (trained.logsumexp(1) - trained.mean(1)).mean().item(), tested.std(0).mean().item()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_the_first_loss_of_the_reference_is_that_of_the_logs_of_2012(paper: ModelConfig, seed: int) -> None:
    """cuda-convnet2's training log begins at 7.156 on raw-scale images; a net that says nothing has ln 1000 = 6.908."""
    loss, spread = first_pass(untrained(paper, seed), pink_images(16))
    assert 7.12 < loss < 7.30
    assert spread == pytest.approx(0.0391, rel=0.2)


def test_the_runs_start_values_and_raw_pixels_make_the_signal_that_the_text_lacks(paper: ModelConfig) -> None:
    """A factor of 14 at the logits from the run's 0.03 in conv3 to conv5, and of 36 from pixels on the scale of 0 to 255."""
    images, network = pink_images(8), untrained(paper, seed=1)
    _, run = first_pass(network, images)
    loss_of_unit, unit = first_pass(network, images / images.std())
    of_text = untrained(params.load(preset="imagenet", variant="paper-text").model, seed=1)
    loss_of_text, text = first_pass(of_text, images)
    assert 6.9 < loss_of_text < 7.12
    assert 6.9 < loss_of_unit < 7.12
    assert run / text == pytest.approx(14, rel=0.15)
    assert run / unit == pytest.approx(36, rel=0.15)


def pink_images(count: int) -> torch.Tensor:
    """Images whose spectrum falls as 1/f and whose channels have ImageNet's covariance, mean subtracted, 0-255 scale."""
    generator = torch.Generator().manual_seed(7)
    spectrum = torch.fft.fft2(torch.randn(count, 3, 224, 224, generator=generator))
    frequency = torch.fft.fftfreq(224)
    distance = torch.sqrt(frequency[:, None] ** 2 + frequency[None, :] ** 2)
    distance[0, 0] = 1 / 224
    noise = torch.fft.ifft2(spectrum / distance).real
    noise = noise / noise.std()
    return torch.einsum("nchw,cr->nrhw", noise * COLOR_STDS[:, None, None], COLOR_AXES)


def test_the_published_color_constants_are_standard_deviations() -> None:
    """Their squares along the eigenvectors rebuild channel deviations of 74, 72 and 77."""
    assert torch.allclose(COLOR_AXES @ COLOR_AXES.T, torch.eye(3), atol=1e-6)
    assert torch.allclose(COLOR_STDS**2, torch.tensor([388.9, 1376.0, 14830.4]), atol=0.06)
    rebuilt = (COLOR_STDS**2 @ COLOR_AXES**2).sqrt()
    assert torch.allclose(rebuilt, torch.tensor([74.0, 72.0, 77.0]), atol=0.1)
    assert torch.allclose(rebuilt / 255, torch.tensor([0.290, 0.282, 0.302]), atol=0.0006)


def test_color_noise_by_the_eigenvalue_would_drown_raw_pixels() -> None:
    """The text read literally; hence the variant's eigenvalues of pixels in 0..1."""
    assert round((0.1 * COLOR_STDS**2).max().item()) == 1483


def test_the_widely_copied_color_constants_are_variances_and_make_noise_too_weak() -> None:
    """fb.resnet.torch's 0.2175, 0.0188 and 0.0045, of pixels in 0..1, taken for what the run's standard deviations are."""
    copied = torch.tensor([0.0045, 0.0188, 0.2175])
    assert torch.allclose((COLOR_STDS / 255) ** 2, torch.tensor([0.0060, 0.0212, 0.2281]), atol=6e-5)
    noise = params.load(preset="imagenet").train.augment.color_noise
    ours = noise.std * COLOR_STDS / 255 / noise.divide
    assert torch.allclose(ours, torch.tensor([0.0070, 0.0132, 0.0434]), atol=6e-5)
    assert (ours / (0.1 * copied)).round().tolist() == [16, 7, 2]


@pytest.mark.parametrize(
    ("without", "with_it", "said"),
    [
        ((39.1680, 18.2287), (37.4727, 16.9987), (1.7, 1.2)),  # 3.2: two GPUs; runs 145-half and 145-2010
        ((42.0340, 19.3620), (40.6640, 18.2100), (1.4, 1.2)),  # 3.3: response norms; runs 148 and 145
        ((41.0580, 18.5100), (40.6640, 18.2100), (0.4, 0.3)),  # 3.4: overlapping pooling; runs 147 and 145
    ],
)
def test_the_papers_gains_are_differences_of_logged_errors(
    without: tuple[float, float], with_it: tuple[float, float], said: tuple[float, float]
) -> None:
    assert tuple(round(a - b, 1) for a, b in zip(without, with_it, strict=True)) == said


def test_chance_moves_a_top1_error_near_two_fifths_by_a_fifth_of_a_point() -> None:
    """A standard error; the gain by overlapping pooling is within two of them."""
    assert [round(100 * math.sqrt(0.4 * 0.6 / images), 2) for images in (50_000, 150_000)] == [0.22, 0.13]
