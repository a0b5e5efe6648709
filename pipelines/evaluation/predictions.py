"""What networks predict for every image of a split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64
from torch import Tensor

from alexnet.inference.ensemble import Ensemble
from alexnet.inference.metrics import TOP, VIEWS_NAMES, LabelRanks, TopK
from alexnet.inference.pretrained import Pretrained
from alexnet.inference.ranking import CLOSE, from_tensors, gaps, summarize
from alexnet.loading.augment import CROPS_OF
from alexnet.loading.config import Precision, Views
from alexnet.loading.dataset import ShardDataset
from alexnet.shards.manifest import Synset
from pipelines.evaluation import inference
from pipelines.runtime import console


@dataclass(frozen=True)
class Predictions:
    """The most probable classes of every image of a split, in the manifest's order, and where its own stands, by protocol."""

    keys: list[str]
    labels: Int64[np.ndarray, " n"]
    topk: dict[Views, TopK]
    ranks: dict[Views, LabelRanks]

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


def predict(
    model: Pretrained | Ensemble,
    samples: ShardDataset,
    protocols: Sequence[Views],
    crops: int,
    precision: Precision = "float32",
) -> Predictions:
    """The predictions for every image of a split, which is decoded once: all protocols average some of the same ten crops.

    model: in float32. crops: of a forward pass; all of an image's are in one. precision: by bf16, images whose first and second
    or fifth and sixth classes are closer than `CLOSE` are read and computed again in float32, once all others are done.
    """
    if precision == "bf16" and model.device.type == "cpu" and not _has_bf16(torch.cpu.get_capabilities()):
        console.say("evaluate: this CPU has no bf16 and is slow with it; evaluate.precision: float32 is 3 to 5 times as fast")
    keys, labels, fast = [], [], model.at(precision)
    parts: dict[Views, list[tuple[Tensor, ...]]] = {views: [] for views in protocols}
    for batch in inference.load_batches(samples, max(1, crops // 10), "evaluate", model.device):
        by_crop = fast.by_crop(batch.images, "ten")
        for views, each in parts.items():
            mean = by_crop[CROPS_OF[views]].mean(0)
            each.append((*summarize(mean, batch.labels), gaps(mean)))
        keys += inference.sample_keys(samples, batch)
        labels.append(batch.labels)
    both = {}
    for views, each in parts.items():  # the first time that the host waits for a GPU
        *found, gap = map(torch.cat, zip(*each, strict=True))
        if precision != "float32":
            _decide(model, samples, views, found, gap, crops)
        both[views] = from_tensors([tuple(found)])
    tops, ranks = {views: top for views, (top, _) in both.items()}, {views: ranks for views, (_, ranks) in both.items()}
    return Predictions(keys, torch.cat(labels).cpu().numpy(), tops, ranks)


def _has_bf16(capabilities: Mapping[str, object]) -> bool:
    """Whether instructions for bf16 are among a CPU's, such as amx_bf16 and avx512_bf16."""
    return any("bf16" in name and bool(has) for name, has in capabilities.items())


def _decide(
    model: Pretrained | Ensemble, samples: ShardDataset, views: Views, found: list[Tensor], gap: Tensor, crops: int
) -> None:
    """Computes what was found of the images that bf16 leaves open again in float32, and says how often bf16 erred."""
    (chosen,) = (gap < CLOSE).nonzero(as_tuple=True)
    if not len(chosen):
        return
    count = max(1, crops // len(range(10)[CROPS_OF[views]]))
    batches = inference.load_chosen(samples, chosen.cpu().numpy(), count, f"evaluate: {views}, float32", model.device)
    again = [summarize(model.by_crop(batch.images, views).mean(0), batch.labels) for batch in batches]
    best = found[0][chosen]
    for column, parts in zip(found, zip(*again, strict=True), strict=True):
        column[chosen] = torch.cat(parts)
    now = found[0][chosen]
    wrong = (best.sort(1).values != now.sort(1).values).any(1) | (best[:, 0] != now[:, 0])
    widest = f", of classes up to {gap[chosen][wrong].max():.3f} nats apart" if wrong.any() else ""
    console.say(
        f"evaluate: {VIEWS_NAMES[views]}: {len(chosen):,} of {len(gap):,} images again in float32, their classes closer than "
        f"{CLOSE} nats; bf16 had other best ones in {int(wrong.sum()):,}{widest}"
    )
