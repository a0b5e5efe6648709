"""A trained network as it is stored and used: weights and mean image in one safetensors file, the rest as JSON."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from alexnet.config import build
from alexnet.errors import DataError
from alexnet.files.tensors import write_tensors
from alexnet.loading.augment import center, center_crop, ten_crops
from alexnet.model.architecture import ModelConfig
from alexnet.model.network import AlexNet, full_shapes
from alexnet.shards.manifest import Synset

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_MEAN = "pixels.mean_image"


@dataclass(frozen=True)
class Model:
    """A network ready to use on images of side_px x side_px pixels."""

    network: AlexNet
    config: ModelConfig
    synsets: tuple[Synset, ...]
    side_px: int
    mean_image: Float[Tensor, "side side 3"]

    def to(self, device: torch.device) -> "Model":
        """The model with its network and mean image on the device: crops are made there, and results are on the CPU."""
        return replace(self, network=self.network.to(device), mean_image=self.mean_image.to(device))

    @property
    def device(self) -> torch.device:
        """Where the network and the mean image are."""
        return self.mean_image.device

    def probabilities(
        self, images: UInt8[Tensor, "n side side 3"], views: Literal["center", "ten"]
    ) -> Float[Tensor, "n classes"]:
        """Class probabilities: of the center crop, or averaged over ten crops (4.1 averages probabilities, not logits)."""
        return self.by_view(images, views).mean(0).cpu()

    @torch.inference_mode()
    def by_view(
        self, images: UInt8[Tensor, "n side side 3"], views: Literal["center", "ten"]
    ) -> Float[Tensor, "views n classes"]:
        """Class probabilities by the center crop, or by each of the ten crops in their order; still on the model's device."""
        self.network.eval()
        images, mean = images.to(self.device), center(self.mean_image)
        # One pass a view: with a batch as large as evaluation's, a pass over all views at once is no faster.
        crops = [center_crop(images, mean)] if views == "center" else ten_crops(images, mean)
        return torch.stack([self.network(crop).float().softmax(1) for crop in crops])

    @torch.inference_mode()
    def features(self, images: UInt8[Tensor, "n side side 3"], layer: str) -> Float[Tensor, "n units"]:
        """A layer's output for the center crop, one row an image."""
        self.network.eval()
        numbers: Tensor = self.network(center_crop(images.to(self.device), center(self.mean_image)), upto=layer)
        return numbers.float().flatten(1).cpu()


def save_model(folder: Path, model: Model, weights: dict[str, Tensor]) -> None:
    """Writes the folder; weights are the full tensors. Equal models are equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().float().contiguous().cpu() for name, tensor in weights.items()}
    write_tensors({**tensors, _MEAN: model.mean_image.float()}, folder / WEIGHTS)
    config = {
        "model": asdict(model.config),
        "synsets": [asdict(synset) for synset in model.synsets],
        "side_px": model.side_px,
        "input": "RGB, 0-255, shorter side to side_px, central square, center 224x224, pixels.mean_image's center subtracted",
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def load_model(folder: Path) -> Model:
    """Reads the folder.

    Raises:
        DataError: a file is missing or damaged, or the weights do not fit the configuration.
    """
    for path in (folder / CONFIG, folder / WEIGHTS):
        if not path.is_file():
            raise DataError(f"{path}: no such file; a model is a folder with {WEIGHTS} and {CONFIG}")
    try:
        config = json.loads((folder / CONFIG).read_text())
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{folder}: damaged: {error}; pull or train the model again") from None
    try:
        kind = build(ModelConfig, config["model"], f"{folder / CONFIG}: model")
        synsets = tuple(Synset(**synset) for synset in config["synsets"])
        mean_image = tensors.pop(_MEAN)
        if set(tensors) != set(full_shapes(kind)):
            raise DataError(f"{folder / WEIGHTS}: holds {', '.join(sorted(tensors))}, not the layers of {CONFIG}")
        network = AlexNet(kind).to(memory_format=torch.channels_last)
        try:
            network.load_full(tensors)
        except ValueError as error:
            raise DataError(f"{folder / WEIGHTS}: {error}; it does not belong to this {CONFIG}") from None
        return Model(network, kind, synsets, config["side_px"], mean_image)
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / CONFIG}: lacks {error}; pull or train the model again") from None
