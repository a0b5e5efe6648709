"""When aliases move to a release: the gate that both pass, and what else the champion must be.

`latest` follows every release that passes the gate: no critical rule of validation is broken, the top-1 error is below both
baselines' (`publish.must_beat_baselines`), and at most `publish.max_top1_error`.

`champion` moves to a release that passes the gate and is not worse than the champion on the images of the present validation
split: its error is not above the champion's, or the upper end of the 95% interval of the paired difference is below
`publish.margin`. The first release that passes becomes champion. A champion that cannot be run on these images, for its classes
are others, is not replaced. `alexnet promote` moves any alias to any release.
"""

from dataclasses import dataclass
from pathlib import Path

from alexnet.errors import DataError
from alexnet.inference.metrics import Metrics
from alexnet.shards.manifest import Manifest
from pipelines.publishing.comparison import Comparison, decide, describe
from pipelines.registry.aliases import Alias, Why
from pipelines.registry.client import fetch
from pipelines.registry.release import CHAMPION, PublishConfig, Release
from pipelines.registry.store import Registry
from pipelines.runtime import console
from pipelines.runtime.errors import Exists, Unreachable
from pipelines.validation.report import ValidationReport


@dataclass(frozen=True)
class Promotion:
    """What came of a release as a champion. compared_with: the champion before it; None if there was none."""

    is_champion: bool
    reason: str
    compared_with: str | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Candidate:
    """A release with what it is judged by: the folder of its network, the present shards, the crops of a forward pass."""

    release: Release
    model: Path
    manifest: Manifest
    batch_size: int


def gate(config: PublishConfig, metrics: Metrics, validation: ValidationReport) -> str | None:
    """Why no alias may move to this model; None if one may."""
    if broken := [rule.rule for rule in validation.broken_rules()]:
        return f"the data broke a critical rule: {'; '.join(broken)}"
    error = metrics.center_crop.top1_error
    if config.max_top1_error is not None and error > config.max_top1_error:
        return f"top-1 error is {error:.4f}, publish.max_top1_error allows {config.max_top1_error}"
    for name in ("majority", "ridge"):
        if config.must_beat_baselines and error >= metrics.baselines[name].top1_error:
            return (
                f"top-1 error is {error:.4f}, not below that of the baseline {name}, {metrics.baselines[name].top1_error:.4f}; "
                "`alexnet promote` moves an alias all the same"
            )
    return None


def settle(registry: Registry, candidate: Candidate, margin: float) -> Promotion:
    """Points champion at a release if it is not worse, and records why. If another run moves it meanwhile, compares again."""
    release = candidate.release
    while True:
        champion = registry.alias(CHAMPION)
        if champion and champion.version == release.version and champion.action != "publish":
            return Promotion(True, f"it is the champion already, by {champion.action}")
        before = version_before(champion, release)
        outcome = judge(registry.name, before, candidate, margin)
        if not outcome.is_champion:
            return outcome
        try:
            registry.replace(CHAMPION, before, release, Why("publish", outcome.reason))
        except Exists as moved:
            console.say(f"publish: {moved}; compared again")
            continue
        return outcome


def judge(name: str, before: str | None, candidate: Candidate, margin: float) -> Promotion:
    """Whether a release may replace the champion `before`; None: there is none."""
    if before is None:
        return Promotion(True, "it is the first that passes the gate")
    from pipelines.publishing.champion import compare  # torch takes seconds to import

    try:
        comparison = compare(candidate.model, fetch(f"{name}@{before}"), candidate.manifest, candidate.batch_size)
    except Unreachable:
        raise
    except DataError as error:
        return Promotion(False, f"{error}; `alexnet promote {name}@{candidate.release.version}` makes it champion", before)
    is_champion, verdict = decide(comparison, margin)
    return Promotion(is_champion, f"{describe(comparison, before)}: {verdict}", before, comparison)


def version_before(alias: Alias | None, release: Release) -> str | None:
    """Where an alias pointed before this release, also when an earlier try to publish it has moved the alias already."""
    if alias is None:
        return None
    return alias.previous if alias.version == release.version else alias.version
