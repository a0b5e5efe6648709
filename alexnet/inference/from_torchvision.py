"""torchvision's AlexNet, the one-tower network of 2014 (arXiv 1404.5997), as a network of ours: its weights give its logits."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from alexnet.errors import DataError
from alexnet.inference.pretrained import Preprocessing, Pretrained, PretrainedConfig
from alexnet.model.architecture import ConvConfig, InitConfig, LrnConfig, MapNormConfig, ModelConfig, PoolConfig
from alexnet.model.network import AlexNet
from alexnet.shards.manifest import Synset

LAYERS = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB in 0..1, which its inputs are normalized by
_SIDE_PX = 256
_WNID = re.compile(r"(n\d{8})\s+(.+)")


def model_config(classes: int) -> ModelConfig:
    """Its architecture: no norms, and inverted dropout of what fc6 and fc7 read. The start values are those of the run."""
    three = ConvConfig(size=3, stride=1, padding=1, edge=0)
    return ModelConfig(
        classes=classes,
        input_px=224,
        towers=1,
        kernels=(64, 192, 384, 256, 256),
        units=4096,
        without=(),
        conv1=ConvConfig(size=11, stride=4, padding=2, edge=0),
        conv2=ConvConfig(size=5, stride=1, padding=2, edge=0),
        conv3=three,
        conv4=three,
        conv5=three,
        conv6=three,
        cross_connections=("conv3", "conv6", "fc6", "fc7", "fc8"),
        nonlinearity="relu",
        conv1_order="norm-pool-relu",
        pool=PoolConfig(layers=("conv1", "conv2", "conv5"), size=3, stride=2),
        lrn=LrnConfig(layers=(), size=5, alpha=1e-4, beta=0.75, k=2.0, alpha_over="mean"),
        map_norm=MapNormConfig(layers=(), size=5, alpha=0.001, beta=0.75, k=1.0),
        dropout=0.5,
        dropout_layers=("conv5", "fc6"),
        dropout_inverted=True,
        init=InitConfig(std=0.01, middle_std=0.03, ones=("conv2", "conv4", "conv5", "conv6", "fc6", "fc7")),
    )


def from_torchvision(state: Mapping[str, Tensor], synsets: Sequence[Synset]) -> Pretrained:
    """The network of a state dict of `torchvision.models.alexnet`, on the CPU.

    Ours reads pixels in 0..255 with the mean subtracted, so conv1's weights are divided by 255 times the standard deviations.

    Raises:
        DataError: not such a state dict, or the classes are not as many as it has.
    """
    named = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in LAYERS.items() for kind in ("weight", "bias")}
    if set(state) != set(named):
        odd = sorted(set(state) ^ set(named))
        raise DataError(f"state dict: not that of torchvision's alexnet: {', '.join(odd[:4])} should not be, or be missing")
    tensors = {named[name]: tensor.detach() for name, tensor in state.items()}
    if len(synsets) != (classes := len(tensors["fc8.bias"])):
        raise DataError(f"labels: must name {classes} classes, a line each, as the network has; found {len(synsets)}")
    scale = 255 * torch.tensor(STD, dtype=torch.float64)
    kernels = tensors["conv1.weight"]
    tensors["conv1.weight"] = (kernels.double() / scale[:, None, None]).to(kernels.dtype)
    network = AlexNet(model_config(classes)).to(kernels.dtype).to(memory_format=torch.channels_last)
    try:
        network.load_full(tensors)
    except ValueError as error:
        raise DataError(f"state dict: not that of torchvision's alexnet: {error}") from None
    mean_image = (255 * torch.tensor(MEAN)).expand(_SIDE_PX, _SIDE_PX, 3).contiguous()
    return Pretrained(
        network, PretrainedConfig(network.config, tuple(synsets), Preprocessing(_SIDE_PX, "triangle")), mean_image
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        DataError: there is no such file, or it is another, such as one written by torch.save: that is a pickle, and reading one
            runs code.
    """
    try:
        return load_file(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except SafetensorError:
        raise DataError(
            f"{path}: not a safetensors file; no pickle is read here, so convert a .pth where you trust it: "
            "safetensors.torch.save_file(torch.load(PTH, weights_only=True), SAFETENSORS)"
        ) from None


def read_labels(path: Path) -> tuple[Synset, ...]:
    """The classes that a text file names, a line each in the order of the outputs: `n01440764 tench`, or `tench` alone.

    Raises:
        DataError: there is no such file, or it is no text.
    """
    try:
        return synsets_of(path.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: must be UTF-8 text with a class in every line") from None


def imagenet_classes() -> tuple[Synset, ...]:
    """ImageNet's 1,000 classes as torchvision lists them. Raises DataError where torchvision is not installed."""
    try:
        from torchvision.models import AlexNet_Weights  # an optional dependency
    except ImportError:
        raise DataError(
            "labels: name a file with a class in every line, or install torchvision, which has ImageNet's "
            "(pip install 'alexnet-pipeline[torchvision]')"
        ) from None
    return synsets_of(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])


def synsets_of(names: Sequence[str]) -> tuple[Synset, ...]:
    """The classes of these names; one without a WordNet id has its label instead."""
    found = [(_WNID.fullmatch(name.strip()), name.strip()) for name in names]
    return tuple(Synset(label, *(match.groups() if match else (str(label), name))) for label, (match, name) in enumerate(found))
