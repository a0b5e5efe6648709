"""`alexnet ensemble`: released networks averaged, measured on the shards' images as the evaluate stage does."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from alexnet.files.atomic import atomic_folder
from alexnet.inference.metrics import VIEWS_NAMES
from alexnet.loading.config import Views
from alexnet.shards.manifest import Manifest, Split
from pipelines.config import params
from pipelines.evaluation import inference, tables
from pipelines.evaluation.ensemble import open_ensemble
from pipelines.evaluation.measure import measure_protocols
from pipelines.evaluation.predictions import predict
from pipelines.evaluation.results import SPLIT_NAMES, ProtocolResult
from pipelines.storage.dataset import open_dataset


def evaluate(
    folders: Sequence[Path], weights: Sequence[float], manifest_path: Path, to: Path | None
) -> tuple[Split, tuple[ProtocolResult, ...]]:
    """The split that is reported on, and the results by every protocol.

    With `to`, also the predictions and tables of the evaluate stage, in that new folder.

    Raises:
        DataError: a folder holds no network of the manifest's classes.
        ParamsError: the weights do not fit.
    """
    config, manifest = params.load().evaluate, Manifest.read(manifest_path)
    split = inference.report_split(manifest)
    ensemble = open_ensemble(folders, weights, manifest)
    predictions = predict(ensemble, open_dataset(manifest, split), get_args(Views), config.batch_size, config.precision)
    if to:
        with atomic_folder(to) as folder:
            predictions.write(folder / "predictions.parquet", manifest.synsets)
            tables.write_all(folder, predictions, manifest.synsets)
    return split, measure_protocols(predictions)


def text(split: Split, results: Sequence[ProtocolResult]) -> str:
    """A line a protocol."""
    lines = [
        f"{SPLIT_NAMES[split] + ' images':20}{'top-1 error':>28}{'top-5 error':>13}{'log loss':>10}{'calibration error':>19}"
    ]
    for row in results:
        top1 = f"{row.top1_error.value:.2%} ({100 * row.top1_error.low:.2f} to {row.top1_error.high:.2%})"
        rest = f"{row.top5_error.value:13.2%}{row.log_loss.value:10.4f}{row.calibration_error:19.2%}"
        lines.append(f"{VIEWS_NAMES[row.views]:20}{top1:>28}{rest}")
    return "\n".join(lines)
