"""A trained network as files that need nothing of this project: model.onnx, and model.pt2, a program of torch.export.

Both read center crops as they are (float32, n x 3 x side x side, RGB, 0 to 255), subtract the mean image themselves, take any
number of images and return logits. They hold no path, time or pickle: equal networks are equal bytes, by one version of torch.
"""

import io
import json
import zipfile
from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write_bytes
from alexnet.inference.pretrained import CONFIG, Pretrained, load_pretrained
from pipelines.registry.release import Export

if TYPE_CHECKING:
    from torch.export import ExportedProgram

KINDS: tuple[Export, ...] = get_args(Export)
OPSET = 18  # of ONNX: onnxruntime 1.14 and newer run it
_INPUT, _OUTPUT = "images", "logits"
_ABOUT = (
    f"{_INPUT}: center crops, RGB, 0 to 255, prepared as `preprocessing` of the metadata `config` says, up to the mean image, "
    f"which is subtracted here; {_OUTPUT}: a number a class, whose names are `synsets` there, softmax to be taken."
)


class _Whole(nn.Module):
    """The network behind the subtraction of the mean image."""

    mean: Tensor

    def __init__(self, model: Pretrained) -> None:
        super().__init__()
        self.network = deepcopy(model.network).to(memory_format=torch.contiguous_format)
        self.register_buffer("mean", model.mean_crop.permute(2, 0, 1).contiguous())

    def forward(self, images: Tensor) -> Tensor:
        """Logits of center crops."""
        logits: Tensor = self.network(images - self.mean)
        return logits


def export(model_folder: Path, to: Path, kinds: Collection[Export]) -> list[Path]:
    """Writes model.onnx and model.pt2, or one of them, into a folder. Raises DataError: the first holds no model."""
    model = load_pretrained(model_folder)
    side = model.config.preprocessing.crop_px
    program = _program(model, side)
    written = []
    for kind in sorted(kinds):
        body = _onnx(program, (model_folder / CONFIG).read_text(encoding="utf-8")) if kind == "onnx" else _pt2(program)
        to.mkdir(parents=True, exist_ok=True)
        written.append(to / f"model.{kind}")
        atomic_write_bytes(written[-1], body)
    return written


def _program(model: Pretrained, side_px: int) -> "ExportedProgram":
    whole = _Whole(model).eval().requires_grad_(False)
    images = torch.zeros(2, 3, side_px, side_px)  # of one image torch would keep the number
    program = torch.export.export(whole, (images,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    program.example_inputs = None  # they are written as a pickle
    for node in program.graph.nodes:  # names of functions and files of this machine
        for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
            node.meta.pop(name, None)
    return program


def _pt2(program: "ExportedProgram") -> bytes:
    """An archive of JSON and plain tensors. `torch.export.load` unpickles what an archive asks it to: this one asks nothing."""
    file = io.BytesIO()
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        configs = [json.loads(archive.read(name))["config"] for name in archive.namelist() if name.endswith("s_config.json")]
        pickles = [name for config in configs for name, entry in config.items() if entry["use_pickle"]]
        pickles += [each.filename for each in archive.infolist() if each.filename.endswith(".pt") and each.file_size]
    if pickles:
        raise DataError(f"model.pt2: this version of torch pickles {', '.join(pickles)}; use the version in requirements.lock")
    return file.getvalue()


def _onnx(program: "ExportedProgram", config: str) -> bytes:
    """The model's bytes, checked, with config.json in its metadata."""
    import onnx

    made: Any = torch.onnx.export(
        program,
        dynamo=True,
        external_data=False,
        verbose=False,
        opset_version=OPSET,
        input_names=[_INPUT],
        output_names=[_OUTPUT],
    )
    model = made.model_proto
    model.doc_string = _ABOUT
    del model.graph.metadata_props[:], model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.helper.set_model_props(model, {"config": config})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
