"""What the network predicts for every image of a split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64

from alexnet.inference.metrics import ErrorRates, TopK, concatenate, error_rates, topk
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.augment import CENTER_VIEW
from alexnet.loading.config import Views
from alexnet.loading.dataset import ShardDataset
from pipelines.evaluation import inference


@dataclass(frozen=True)
class Predictions:
    """The most probable classes of every image of a split, in the manifest's order, by both protocols."""

    keys: list[str]
    labels: Int64[np.ndarray, " n"]
    topk: dict[Views, TopK]

    def error_rates(self, views: Views) -> ErrorRates:
        """Top-1 and top-5 error by a protocol."""
        return error_rates(self.topk[views], self.labels)

    def write(self, path: Path) -> None:
        """Writes Parquet, one row an image: key, label, and the most probable labels with their probabilities."""
        columns: dict[str, pa.Array] = {"key": pa.array(self.keys), "label": pa.array(self.labels, pa.int32())}
        for views, top in self.topk.items():
            k = top.labels.shape[1]
            columns[f"{views}_labels"] = pa.FixedSizeListArray.from_arrays(pa.array(top.labels.ravel(), pa.int32()), k)
            columns[f"{views}_probabilities"] = pa.FixedSizeListArray.from_arrays(pa.array(top.probabilities.ravel()), k)
        pq.write_table(pa.table(columns), path, compression="zstd")


def predict(model: Pretrained, samples: ShardDataset, batch_size: int) -> Predictions:
    """The network's predictions for every image, which is decoded once: the center crop is one of the ten."""
    keys: list[str] = []
    labels: list[Int64[np.ndarray, " n"]] = []
    center: list[TopK] = []
    ten: list[TopK] = []
    for batch in inference.load_batches(samples, batch_size, "evaluate", model.device):
        by_view = model.by_view(batch.images, "ten")
        both = torch.stack([by_view[CENTER_VIEW], by_view.mean(0)]).cpu().numpy()  # one copy, for which the host waits
        keys += inference.sample_keys(samples, batch)
        labels.append(batch.labels.cpu().numpy().copy())
        center.append(topk(both[0]))
        ten.append(topk(both[1]))
    return Predictions(keys, np.concatenate(labels), {"center": concatenate(center), "ten": concatenate(ten)})
