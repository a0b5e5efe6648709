"""The values at any points of the network (`alexnet.model.points`), several of them in one forward pass."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from alexnet.inference.pretrained import Pretrained
from alexnet.loading.augment import center_crop
from alexnet.model.network import AlexNet
from alexnet.model.points import SOFTMAX, check_points


@torch.inference_mode()
def activations(
    network: AlexNet, crops: Float[Tensor, "n 3 side side"], names: Sequence[str]
) -> dict[str, Float[Tensor, "n ..."]]:
    """The values at the named points in test mode, in the order of `names`, on the network's device.

    They are [n, channels, height, width] in convolutional layers and [n, units] after them, of both towers: tower a's channels,
    then tower b's. Nothing is computed beyond the last layer that is asked for.

    Args:
        network: in any form that is in one process.
        crops: as the network reads them, the mean image subtracted.
        names: of `points`; of a layer's points, its name alone comes before its non-linearity.

    Raises:
        ValueError: there is no such point; lists those that there are.
    """
    check_points(network.config, tuple(names))
    found: dict[str, Tensor] = {}

    def keep(name: str, maps: list[Tensor]) -> None:
        if name in names:
            found[name] = network.link.gather(maps)[0]

    network.eval()
    layers = [row.name for row in network.layers]
    last = max((layers.index(name.split(".")[0]) if name != SOFTMAX else len(layers) - 1 for name in names), default=0)
    output = network(crops, upto=layers[last], tap=keep)
    if SOFTMAX in names:
        found[SOFTMAX] = output.float().softmax(1)
    return {name: found[name] for name in names}


def center_activations(
    model: Pretrained, images: UInt8[Tensor, "n side side 3"], names: Sequence[str]
) -> dict[str, Float[Tensor, "n ..."]]:
    """The same for the center crop of images as a trained network's preprocessing resizes them, in the network's precision."""
    crops = center_crop(images.to(model.device), model.mean_crop)
    return activations(model.network, crops.to(model.dtype), names)
