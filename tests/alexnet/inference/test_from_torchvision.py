"""torchvision's AlexNet in ours: the same logits, the same dropout, and nothing that is not it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import AlexNet_Weights, alexnet
from torchvision.transforms._presets import ImageClassification

from alexnet.errors import DataError
from alexnet.inference.from_torchvision import (
    LAYERS,
    from_torchvision,
    model_config,
    read_labels,
    read_state_dict,
    synsets_of,
)
from alexnet.inference.pretrained import Pretrained, load_pretrained, save_pretrained
from alexnet.loading.augment import center_crop
from alexnet.model.architecture import table
from alexnet.model.network import keyed_dropout
from pipelines.config import params

CATEGORIES = AlexNet_Weights.IMAGENET1K_V1.meta["categories"]


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    torch.manual_seed(0)
    return alexnet(weights=None, num_classes=10).eval()  # type: ignore[no-any-return]  # torchvision is untyped


@pytest.fixture(scope="module")
def ours(theirs: torch.nn.Module) -> Pretrained:
    return from_torchvision(theirs.state_dict(), synsets_of(CATEGORIES[:10]))


def photographs(count: int) -> Tensor:
    """Smooth noise, 256 x 256, RGB."""
    coarse = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 255
    return torch.nn.functional.interpolate(coarse, 256, mode="bicubic").clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def normalized(images: Tensor) -> Tensor:
    """Images of 256 pixels as torchvision's own preprocessing makes them."""
    found: Tensor = ImageClassification(crop_size=224)(images.permute(0, 3, 1, 2))
    return found


def test_a_state_dict_gives_the_same_logits_and_probabilities(theirs: torch.nn.Module, ours: Pretrained) -> None:
    images = photographs(4)
    with torch.no_grad():
        expected = theirs(normalized(images))
        found = ours.network(center_crop(images, ours.mean_crop))
    assert expected.std() > 0.005
    assert (found - expected).abs().max() <= 1e-6
    assert (ours.probabilities(images, "center") - expected.softmax(1)).abs().max() <= 1e-6


def test_dropout_sits_where_torchvision_has_it(theirs: torch.nn.Module, ours: Pretrained) -> None:
    """In training our masks, put in place of its own two, give its logits: before fc6 and fc7, what is kept doubled."""
    seen: list[Tensor] = []
    key = keyed_dropout(3, torch.arange(2))
    images = photographs(2)

    def tap(name: str, maps: list[Tensor]) -> None:
        if name in ("conv5.dropout", "fc6.dropout"):
            seen.append(maps[0].flatten(1))

    with torch.no_grad():
        found = ours.network(center_crop(images, ours.mean_crop), key, tap=tap)
        pooled = theirs.avgpool(theirs.features(normalized(images))).flatten(1)  # type: ignore[operator]  # modules by name
        x, dropped = pooled, 0
        for layer in theirs.classifier:  # type: ignore[union-attr]
            if isinstance(layer, torch.nn.Dropout):
                assert layer.p == ours.config.model.dropout
                kept = seen[dropped] != 0
                assert 0.4 < kept[x > 0].float().mean() < 0.6
                x, dropped = torch.where(kept, 2 * x, 0.0), dropped + 1
            else:
                x = layer(x)
    assert dropped == 2
    assert (found - x).abs().max() <= 1e-6


def test_it_reads_back_as_a_trained_network(ours: Pretrained, tmp_path: Path) -> None:
    weights = {name: tensor for name, _, tensor in ours.network.parameter_slices()}
    save_pretrained(tmp_path, ours.config, weights, ours.mean_image)
    read = load_pretrained(tmp_path)
    images = photographs(2)
    assert read.config == ours.config
    assert torch.equal(read.probabilities(images, "ten"), ours.probabilities(images, "ten"))


def test_the_variant_is_this_architecture() -> None:
    variant = params.load(preset="imagenet", variant="torchvision").model
    assert replace(variant, init=model_config(1000).init) == model_config(1000)  # a state dict needs no start values
    small = params.load(variant="torchvision").model
    assert [row.name for row in table(small)] == list(LAYERS.values())
    assert replace(small, classes=1000, kernels=variant.kernels, units=variant.units, init=variant.init) == variant


def test_another_state_dict_is_refused_by_name(theirs: torch.nn.Module) -> None:
    state = theirs.state_dict()
    with pytest.raises(DataError, match="not that of torchvision's alexnet: classifier.6.bias should not be, or be missing"):
        from_torchvision({name: tensor for name, tensor in state.items() if name != "classifier.6.bias"}, ())
    with pytest.raises(DataError, match="conv2.weight: has shape"):
        from_torchvision({**state, "features.3.weight": torch.zeros(2, 2, 5, 5)}, synsets_of(CATEGORIES[:10]))
    with pytest.raises(DataError, match="labels: must name 10 classes, a line each, as the network has; found 3"):
        from_torchvision(state, synsets_of(["a", "b", "c"]))


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(DataError, match=r"a\.pth: not a safetensors file; no pickle is read here, .* weights_only=True"):
        read_state_dict(tmp_path / "a.pth")
    with pytest.raises(DataError, match=r"b\.safetensors: .*No such file"):
        read_state_dict(tmp_path / "b.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    assert read_state_dict(tmp_path / "a.safetensors")["a"].item() == 1


def test_a_line_of_labels_is_a_name_with_or_without_its_wordnet_id(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("n01440764 tench, Tinca tinca\ngreat white shark\n")
    found = read_labels(tmp_path / "labels.txt")
    assert [(synset.label, synset.wnid, synset.name) for synset in found] == [
        (0, "n01440764", "tench, Tinca tinca"),
        (1, "1", "great white shark"),
    ]
    with pytest.raises(DataError, match=r"none\.txt: No such file"):
        read_labels(tmp_path / "none.txt")
    (tmp_path / "bytes.txt").write_bytes(np.arange(128, 160, dtype=np.uint8).tobytes())
    with pytest.raises(DataError, match=r"bytes\.txt: must be UTF-8"):
        read_labels(tmp_path / "bytes.txt")
