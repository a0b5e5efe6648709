"""Features in images per second: fc7 of every image by the extract stage's own functions, and as people take features in torch.

    python -m benchmarks.extract               # at full width, 64 images a batch

All start from decoded images of 256 pixels and end with rows of a Parquet file. `hook`: torch's forward hook on the same
network written the obvious way (`train_step.Obvious`), a batch at a time, rows as lists in one table at the end.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from alexnet.inference.activations import center_activations
from alexnet.inference.pretrained import Pretrained
from alexnet.ops.malloc import disable_malloc_trim
from benchmarks import timing
from benchmarks.evaluate import full_width
from benchmarks.train_step import Obvious

_BATCH, _BATCHES = 64, 3


def _ours(model: Pretrained, images: Tensor, folder: Path) -> None:
    rows = [center_activations(model, images, ["fc7.relu"])["fc7.relu"].float().cpu().numpy() for _ in range(_BATCHES)]
    values = np.concatenate(rows)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    pq.write_table(pa.table({"fc7.relu": column}), folder / "ours.parquet", compression="zstd")


@torch.inference_mode()
def _hook(network: Obvious, images: Tensor, folder: Path) -> None:
    rows: list[Any] = []
    handle = network.fc7.register_forward_hook(
        lambda module, given, output: rows.extend(functional.relu(output).cpu().tolist())
    )
    for _ in range(_BATCHES):
        network(v2.functional.center_crop(images.permute(0, 3, 1, 2).float() - 120, [224, 224]))
    handle.remove()
    pq.write_table(pa.table({"fc7": rows}), folder / "peer.parquet", compression="zstd")


def measure(rounds: int, device: torch.device) -> dict[str, Any]:
    """Both, interleaved."""
    images = torch.randint(0, 256, (_BATCH, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).to(
        device
    )
    model, obvious = full_width(device), Obvious().eval().to(device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = timing.interleave(
            {
                "ours": lambda: _ours(model, images, folder),
                "ours, bf16": lambda: _ours(model.at("bf16"), images, folder),
                "hook": lambda: _hook(obvious, images, folder),
            },
            rounds,
        )
    total = _BATCH * _BATCHES
    return {
        "images_per_second": {each: round(total / statistics.median(times), 1) for each, times in seconds.items()},
        "faster_than_hook": {each: round(timing.ratio(seconds["hook"], seconds[each]), 2) for each in ("ours", "ours, bf16")},
    }


def main() -> None:
    """Measures and writes results/extract.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    args = parser.parse_args()
    disable_malloc_trim()  # for the peer as well
    timing.write("extract", measure(args.rounds, torch.device("cuda" if torch.cuda.is_available() else "cpu")))


if __name__ == "__main__":
    main()
