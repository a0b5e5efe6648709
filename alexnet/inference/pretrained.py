"""A trained network as it is stored and used: weights and mean image in one safetensors file, the rest as JSON."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from alexnet.config import build, to_json
from alexnet.errors import DataError, ParamsError
from alexnet.files.strict import loads, open_regular, read_bytes, shown
from alexnet.files.tensors import write_tensors
from alexnet.loading.augment import center, stack_crops
from alexnet.loading.config import Precision, Views
from alexnet.model.architecture import ModelConfig, current_model
from alexnet.model.network import AlexNet, full_shapes
from alexnet.shards.manifest import MAX_SIDE_PX, ExifOrientation, Synset, check_synsets

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_MEAN = "pixels.mean_image"


@dataclass(frozen=True)
class Preprocessing:
    """Everything done to an image file before the network sees it. side_px, filter, exif_orientation and crop_px vary.

    side_px: what the resized side measures.
    filter: `triangle` is Pillow's BILINEAR; `area` is Pillow's BOX, and where it enlarges Pillow's BICUBIC.
    filter_semantics: both are antialiased, as Pillow's are; OpenCV's filters of the same names are not.
    exif_orientation: whether a picture is turned as EXIF says, or used as it is stored.
    channel_order: other modes are converted; transparency is dropped, and the upper 8 of 16 bits are kept.
    decode_at_least: a JPEG, or another image of over 8 megapixels, is decoded at 1/2, 1/4 or 1/8 of its size while both sides
        stay at least this many times side_px.
    resize: the side that becomes side_px. square: where the square of that side is cut out.
    crop_px: the side of the center crop, or of each of the ten crops.
    subtract: the central crop of the mean image of the training set, which model.safetensors holds.
    layout: of the network's input.
    """

    side_px: int
    filter: Literal["triangle", "area"]
    exif_orientation: ExifOrientation = "ignored"
    channel_order: Literal["RGB"] = "RGB"
    decode_at_least: Literal[2] = 2
    resize: Literal["shorter side"] = "shorter side"
    square: Literal["center"] = "center"
    filter_semantics: Literal["Pillow"] = "Pillow"
    crop_px: int = 224
    value_range: Literal["0-255"] = "0-255"
    subtract: Literal["pixels.mean_image"] = "pixels.mean_image"
    layout: Literal["NCHW"] = "NCHW"


@dataclass(frozen=True)
class PretrainedConfig:
    """What config.json holds: the architecture, the classes by label, and what is done to an image."""

    model: ModelConfig
    synsets: tuple[Synset, ...]
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        if not self.preprocessing.crop_px == self.model.input_px <= self.preprocessing.side_px <= MAX_SIDE_PX:
            raise ValueError(
                f"preprocessing.crop_px: must be model.input_px, {self.model.input_px}, and at most side_px, got "
                f"{self.preprocessing.crop_px} of {self.preprocessing.side_px}, which may be {MAX_SIDE_PX}"
            )


@dataclass(frozen=True)
class Pretrained:
    """A trained network, ready to use. mean_image: of the training set, RGB, 0 to 255."""

    network: AlexNet
    config: PretrainedConfig
    mean_image: Float[Tensor, "side side 3"]

    def to(self, device: torch.device) -> "Pretrained":
        """The same with network and mean image on the device: crops are cut there, and results are on the CPU."""
        return replace(self, network=self.network.to(device), mean_image=self.mean_image.to(device))

    def at(self, precision: Precision) -> "Pretrained":
        """The same in float32, or with weights and values between layers in bfloat16.

        Norms, fc8 and probabilities stay float32: in bfloat16 the logits of two classes would often be equal.
        """
        return self if precision == "float32" else replace(self, network=_in_bfloat16(self.network))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights before fc8, and of what the network reads."""
        return self.network.parameter_slices()[0][2].dtype

    @property
    def device(self) -> torch.device:
        """Where the network and the mean image are."""
        return self.mean_image.device

    @property
    def mean_crop(self) -> Float[Tensor, "crop crop 3"]:
        """The central square of the mean image, which is subtracted from every crop."""
        return center(self.mean_image, self.config.preprocessing.crop_px)

    def probabilities(self, images: UInt8[Tensor, "n side side 3"], views: Views) -> Float[Tensor, "n classes"]:
        """Class probabilities averaged over a protocol's crops, on the CPU (4.1 averages probabilities, not logits)."""
        return self.by_crop(images, views).mean(0).cpu()

    @torch.inference_mode()
    def by_crop(self, images: UInt8[Tensor, "n side side 3"], views: Views) -> Float[Tensor, "crops n classes"]:
        """Class probabilities by each crop of a protocol, by `stack_crops`, in one pass, on the network's device."""
        self.network.eval()
        logits: Tensor = self.network(stack_crops(images.to(self.device), self.mean_crop, views, self.dtype))
        return logits.float().softmax(1).view(-1, len(images), logits.shape[1])


def save_pretrained(
    folder: Path, config: PretrainedConfig, weights: Mapping[str, Tensor], mean_image: Float[Tensor, "side side 3"]
) -> None:
    """Writes model.safetensors and config.json. weights: the full tensors by name. Equal networks are equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().float().contiguous().cpu() for name, tensor in weights.items()}
    write_tensors({**tensors, _MEAN: mean_image.float()}, folder / WEIGHTS)
    (folder / CONFIG).write_bytes(to_json(config))


def load_pretrained(folder: Path) -> Pretrained:
    """The trained network in a folder, on the CPU.

    Raises:
        DataError: a file is missing or damaged, or the weights do not fit the configuration.
    """
    for path in (folder / CONFIG, folder / WEIGHTS):
        if not path.exists():
            raise DataError(f"{path}: no such file; a model is a folder with {WEIGHTS} and {CONFIG}")
    try:
        config = build(PretrainedConfig, _current(loads(read_bytes(folder / CONFIG))), str(folder / CONFIG))
        _check_classes(config)
        with open_regular(folder / WEIGHTS):
            tensors = load_file(folder / WEIGHTS)
    except ParamsError as error:
        raise DataError(f"{error}; pull or train the model again") from None
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{folder}: damaged: {error}; pull or train the model again") from None
    _check_tensors(tensors, config, folder / WEIGHTS)
    mean_image = tensors.pop(_MEAN)
    network = AlexNet(config.model).to(memory_format=torch.channels_last)
    network.load_full(tensors)
    return Pretrained(network, config, mean_image.clone())  # a tensor of the mapped file keeps all of it in memory


def _check_classes(config: PretrainedConfig) -> None:
    check_synsets(config.synsets)
    if len(config.synsets) != config.model.classes:
        raise ValueError(f"{CONFIG}: model.classes is {config.model.classes}, but there are {len(config.synsets)} synsets")


def _check_tensors(tensors: Mapping[str, Tensor], config: PretrainedConfig, path: Path) -> None:
    """Raises DataError unless they are this architecture's, finite float32: then a network of the file's size can be made."""
    side = config.preprocessing.side_px
    try:
        shapes = full_shapes(config.model) | {_MEAN: (side, side, 3)}
    except ValueError as error:
        raise DataError(f"{path.with_name(CONFIG)}: model.{error}; pull or train the model again") from None
    if set(tensors) != set(shapes):
        raise DataError(f"{path}: holds {shown(sorted(tensors))}, not the layers of {CONFIG} and {_MEAN}")
    for name, shape in shapes.items():
        found = tensors[name]
        if found.shape != shape or found.dtype != torch.float32:
            raise DataError(
                f"{path}: {name}: has shape {tuple(found.shape)} of {found.dtype}, this network needs {shape} of "
                f"torch.float32; it does not belong to this {CONFIG}"
            )
        if not all(edge.isfinite() for edge in found.aminmax()):  # NaN if any is; isfinite() of all takes 8 times as long
            raise DataError(f"{path}: {name}: holds numbers that are not finite; pull or train the model again")


def _in_bfloat16(network: AlexNet) -> AlexNet:
    """A copy with all weights but those of fc8 in bfloat16."""
    network = deepcopy(network)
    for name, _, parameter in network.parameter_slices():
        if not name.startswith("fc8."):
            parameter.data = parameter.data.to(torch.bfloat16)
    return network


def _current(tree: object) -> object:
    """config.json in today's form, also of a file written before the architecture's was, or before `preprocessing` existed.

    The latter has side_px, but does not say by which filter images were resized: `triangle` is assumed, the only one that
    params.yaml or a preset ever had.
    """
    if isinstance(tree, dict) and "model" in tree:
        tree = tree | {"model": current_model(tree["model"])}
    if not isinstance(tree, dict) or "preprocessing" in tree or type(tree.get("side_px")) is not int:
        return tree
    preprocessing = asdict(Preprocessing(tree["side_px"], "triangle"))
    return {name: tree[name] for name in tree if name not in ("side_px", "input")} | {"preprocessing": preprocessing}
