"""What networks predict for every image of a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64
from torch import Tensor

from alexnet.inference.ensemble import Ensemble
from alexnet.inference.metrics import TOP, Ranks, TopK
from alexnet.inference.pretrained import Pretrained
from alexnet.inference.ranking import from_tensors, summarize
from alexnet.loading.augment import CROPS_OF
from alexnet.loading.config import Views
from alexnet.loading.dataset import ShardDataset
from alexnet.shards.manifest import Synset
from pipelines.evaluation import inference


@dataclass(frozen=True)
class Predictions:
    """The most probable classes of every image of a split, in the manifest's order, and where its own stands, by protocol."""

    keys: list[str]
    labels: Int64[np.ndarray, " n"]
    topk: dict[Views, TopK]
    ranks: dict[Views, Ranks]

    def write(self, path: Path, synsets: Sequence[Synset]) -> None:
        """Writes Parquet, a row an image.

        key, label, name, and by every protocol: the most probable labels, their names and probabilities; the probability of
        the image's own class; and how much it counts as right by top 1 and top 5, which is 0 or 1 but for ties.
        """
        names = pa.array([synset.name for synset in synsets])
        columns = {"key": pa.array(self.keys), "label": pa.array(self.labels, pa.int32()), "name": names.take(self.labels)}
        for views, top in self.topk.items():
            ranks, flat = self.ranks[views], top.labels.ravel()
            lists = {
                "labels": pa.array(flat, pa.int32()),
                "names": names.take(flat),
                "probabilities": top.probabilities.ravel(),
            }
            for name, values in lists.items():
                columns[f"{views}_{name}"] = pa.FixedSizeListArray.from_arrays(pa.array(values), top.labels.shape[1])
            columns[f"{views}_probability"] = pa.array(ranks.probability)
            for k in (1, TOP):
                columns[f"{views}_top{k}"] = pa.array(ranks.credit(k).astype(np.float32))
        pq.write_table(pa.table(columns), path, compression="zstd")


def predict(model: Pretrained | Ensemble, samples: ShardDataset, protocols: Sequence[Views], crops: int) -> Predictions:
    """The predictions for every image of a split, which is decoded once: all protocols average some of the same ten crops.

    crops: of a forward pass; all of an image's are in one.
    """
    keys, labels = [], []
    found: dict[Views, list[tuple[Tensor, ...]]] = {views: [] for views in protocols}
    for batch in inference.load_batches(samples, max(1, crops // 10), "evaluate", model.device):
        by_crop = model.by_crop(batch.images, "ten")
        for views, parts in found.items():
            parts.append(summarize(by_crop[CROPS_OF[views]].mean(0), batch.labels))
        keys += inference.sample_keys(samples, batch)
        labels.append(batch.labels)
    both = {views: from_tensors(parts) for views, parts in found.items()}  # the first time that the host waits for a GPU
    tops, ranks = {views: top for views, (top, _) in both.items()}, {views: ranks for views, (_, ranks) in both.items()}
    return Predictions(keys, torch.cat(labels).cpu().numpy(), tops, ranks)
