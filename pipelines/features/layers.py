"""What a linear probe reads: the output of every layer, averaged over pixels until it is few enough numbers."""

from math import isqrt

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from alexnet.inference.activations import activations
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.augment import center_crop
from alexnet.model.architecture import ModelConfig
from alexnet.model.points import points

PIXELS = "pixels"  # the crop itself, before any layer


def layer_points(config: ModelConfig) -> dict[str, str]:
    """The last point of every layer, as the next layer reads it but for dropout's constant factor."""
    return {name.split(".")[0]: name for name in points(config)[:-1] if not name.endswith(".dropout")}


def hidden_layer(config: ModelConfig) -> str:
    """The last layer before fc8, in whose outputs images are compared (figure 4): fc7 where there is one."""
    return list(layer_points(config))[-2]


@torch.inference_mode()
def layer_outputs(
    model: Pretrained, images: UInt8[Tensor, "n side side 3"], numbers: int
) -> dict[str, Float[Tensor, "n numbers"]]:
    """PIXELS and every layer's output by the layer's name, for the center crop, on the network's device.

    Channels are averaged over the finest grid of k x k squares, as adaptive average pooling lays it, that leaves at most
    `numbers` of them. Fully connected layers are given whole.
    """
    crops = center_crop(images.to(model.device), model.mean_crop)
    found = activations(model.network, crops, list(layer_points(model.config.model).values()))
    outputs = {PIXELS: crops} | {name.split(".")[0]: values.float() for name, values in found.items()}
    return {name: _pool(values, numbers) for name, values in outputs.items()}


def _pool(values: Float[Tensor, "n ..."], numbers: int) -> Float[Tensor, "n numbers"]:
    if values.ndim == 2:
        return values
    side = max(1, min(values.shape[-1], isqrt(numbers // values.shape[1])))
    return functional.adaptive_avg_pool2d(values, side).flatten(1)
