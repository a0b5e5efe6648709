"""The code that runs on a GPU, where there is none: under FakeTensorMode of torch, which knows devices and shapes, no values.

An operation that mixes devices fails here as it does on a GPU. The backward pass needs a real device: `make test-gpu`.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from alexnet.inference import ranking
from alexnet.inference.activations import center_activations
from alexnet.inference.pretrained import Preprocessing, Pretrained, PretrainedConfig
from alexnet.loading.augment import Augment
from alexnet.model.network import AlexNet, keyed_dropout
from alexnet.randomness import tensors
from alexnet.shards.manifest import Synset
from pipelines.config import params

GPU = torch.device("cuda:0")
IMAGENET = params.load(preset="imagenet")
CLASSES = IMAGENET.model.classes


@pytest.fixture(autouse=True)
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors have no values, and may be on a GPU; functions that are compiled for a GPU run uncompiled."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)  # FakeTensorMode has none
    monkeypatch.setattr(tensors, "_columns", tensors._columns.__wrapped__)  # pretended ones must not stay in its cache
    torch.compiler.set_stance("force_eager")
    try:
        with FakeTensorMode():
            yield
    finally:
        torch.compiler.set_stance("default")


def network() -> AlexNet:
    with GPU:
        return AlexNet(IMAGENET.model)


def pretrained() -> Pretrained:
    synsets = tuple(Synset(label, f"n{label:08}", str(label)) for label in range(CLASSES))
    config = PretrainedConfig(IMAGENET.model, synsets, Preprocessing(256, "triangle"))
    return Pretrained(network(), config, torch.empty(256, 256, 3, device=GPU))


def images(count: int) -> Tensor:
    return torch.empty(count, 256, 256, 3, dtype=torch.uint8, device=GPU)


def labels(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64, device=GPU)


def test_devices_that_mix_are_an_error_here() -> None:
    with pytest.raises(Exception, match="device"):
        torch.empty(2, device=GPU) + torch.empty(2)


def test_augmentation_and_a_step_forward_stay_on_the_gpu() -> None:
    augment = Augment(IMAGENET.train.augment, torch.empty(256, 256, 3, device=GPU), torch.empty(3, 3), torch.empty(3), seed=1)
    crops = augment(images(4), torch.arange(4), epoch=0)
    logits = network().train()(crops, keyed_dropout(1, torch.arange(4)))
    losses = functional.cross_entropy(logits, labels(4), reduction="none")
    assert [(each.shape, each.device) for each in (crops, logits, losses)] == [
        ((4, 3, 224, 224), GPU),
        ((4, CLASSES), GPU),
        ((4,), GPU),
    ]


def test_probabilities_of_ten_crops_are_ranked_on_the_gpu() -> None:
    model = pretrained()  # in bfloat16 it would be a copy, which FakeTensorMode gives another mode
    probabilities = model.by_crop(images(3), "ten").mean(0)
    parts = [*ranking.summarize(probabilities, labels(3)), ranking.gaps(probabilities)]
    assert (probabilities.shape, probabilities.dtype) == ((3, CLASSES), torch.float32)
    assert {each.device for each in parts} == {GPU}


def test_values_at_every_point_stay_on_the_gpu() -> None:
    values = center_activations(pretrained(), images(2), ["conv1.lrn", "conv5.pool", "fc7.relu", "softmax"])
    assert {each.device for each in values.values()} == {GPU}
    assert values["fc7.relu"].shape == (2, 4096)
