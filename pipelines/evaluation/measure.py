"""Results from predictions: every number with its interval."""

from collections.abc import Mapping

from alexnet.inference.metrics import TOP, LabelRanks, Scores, TopK, calibration, calibration_error, error
from alexnet.loading.config import Views
from alexnet.shards.manifest import Manifest, Split
from pipelines.evaluation import intervals
from pipelines.evaluation.predictions import Predictions
from pipelines.evaluation.results import ProtocolResult, Results


def measure(
    predictions: Predictions,
    manifest: Manifest,
    split: Split,
    baselines: Mapping[str, float],
    ensemble: Predictions | None = None,
) -> Results:
    """The numbers of predictions, of an ensemble's and of the baselines (majority, ridge, variants) on the same images."""
    images, protocols = len(predictions.keys), measure_protocols(predictions)
    variants = {name: intervals.share(error, images) for name, error in baselines.items()}
    majority, ridge = variants.pop("majority"), variants.pop("ridge")
    averaged = measure_protocols(ensemble) if ensemble else ()
    return Results(split, images, len(manifest.synsets), protocols, averaged, majority, ridge, variants)


def measure_protocols(predictions: Predictions) -> tuple[ProtocolResult, ...]:
    """The numbers of every protocol, in the predictions' order."""
    return tuple(_measure(views, top, predictions.ranks[views]) for views, top in predictions.topk.items())


def scores(result: ProtocolResult) -> Scores:
    """The same without intervals."""
    return Scores(result.top1_error.value, result.top5_error.value, result.log_loss.value, result.calibration_error)


def _measure(views: Views, top: TopK, ranks: LabelRanks) -> ProtocolResult:
    """Expected calibration error has no interval in common use."""
    top1, top5 = (intervals.share(error(ranks, k), len(ranks.equal)) for k in (1, TOP))
    return ProtocolResult(views, top1, top5, intervals.mean(ranks.losses), calibration_error(calibration(top, ranks)))
