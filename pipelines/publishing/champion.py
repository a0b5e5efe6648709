"""The champion run beside a network, on the same images: those of the present validation split."""

from pathlib import Path

import numpy as np
import torch

from alexnet.errors import DataError
from alexnet.inference.pretrained import PretrainedConfig, load_pretrained
from alexnet.shards.manifest import Manifest
from pipelines.evaluation import inference, intervals
from pipelines.publishing.comparison import Comparison
from pipelines.storage.dataset import open_dataset


def compare(model: Path, champion: Path, manifest: Manifest, batch_size: int) -> Comparison:
    """Runs both networks on every validation image, in float32 on one device. The test split is left to reports.

    Raises:
        DataError: the champion's classes are others, or images of another size.
    """
    first, second = inference.open_model(model, manifest), load_pretrained(champion)
    if why := _not_comparable(second.config, manifest):
        raise DataError(f"the champion cannot be compared: {why}")
    networks = (first, second.to(first.device))
    wrong: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for batch in inference.load_batches(open_dataset(manifest, "val"), batch_size, "publish: champion", first.device):
        for network, parts in zip(networks, wrong, strict=True):
            parts.append(network.probabilities(batch.images, "center").argmax(1) != batch.labels.cpu())
    of_both = [np.asarray(torch.cat(parts)) for parts in wrong]
    error, champion_error = (intervals.share(float(each.mean()), len(each)) for each in of_both)
    return Comparison(error, champion_error, intervals.compare(*of_both))


def _not_comparable(config: PretrainedConfig, manifest: Manifest) -> str | None:
    """Why a network cannot be run on these shards; None if it can. Display names do not count."""
    wnids, present = ([synset.wnid for synset in synsets] for synsets in (config.synsets, manifest.synsets))
    if wnids != present:
        gone, new = sorted({*wnids} - {*present}), sorted({*present} - {*wnids})
        lists = [
            f"{what} {', '.join(each[:5])}{' ...' * (len(each) > 5)}"
            for what, each in (("without", gone), ("with", new))
            if each
        ]
        return f"the classes are others now: {'; '.join(lists) or 'in another order'}"
    if config.preprocessing.side_px != manifest.side_px:
        return f"it knows images of {config.preprocessing.side_px} px, the shards have {manifest.side_px} px"
    return None
