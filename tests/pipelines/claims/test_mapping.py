"""claims/claims.yaml: every claim can be run at every scale, and its numbers are those of the paper and of the logs."""

from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from alexnet.config import build
from alexnet.errors import ParamsError
from alexnet.model.architecture import layer_counts
from pipelines.claims import mapping
from pipelines.claims.mapping import Side
from pipelines.config import params
from pipelines.config.params import Params

ROOT = Path(__file__).parents[3]
MAPPING = mapping.read(ROOT / mapping.FILE)
# Errors that the logs of the source released in 2012 end with, top-1 and top-5, in percent.
RUN_145, RUN_145_2010 = (40.6640, 18.2100), (37.4727, 16.9987)
LOGGED = {
    "two-towers": (RUN_145_2010, (39.1680, 18.2287)),
    "cross-connections": (RUN_145, (41.83, 19.33)),
    "response-norm": (RUN_145, (42.0340, 19.3620)),
    "overlapping-pooling": (RUN_145, (41.0580, 18.5100)),
    "ten-crops": (RUN_145_2010, (39.0247, 18.2953)),
}


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@cache
def recipe(scale: str, variant: str | None) -> Params:
    at = MAPPING.scales[scale]
    return build(Params, params.load_tree(preset=at.preset, variant=variant, changes=at.params), "params.yaml")


@pytest.mark.parametrize("scale", MAPPING.scales)
def test_every_claim_compares_two_recipes_that_differ(scale: str) -> None:
    for claim in MAPPING.claims_of(MAPPING.scales[scale]).values():
        sides = [(recipe(scale, side.variant), side.views, side.members) for side in (claim.base, claim.other)]
        assert sides[0] != sides[1], claim
        assert all(layer_counts(params.model) for params, _, _ in sides)


@pytest.mark.parametrize("claim", MAPPING.claims)
def test_the_logs_effect_is_the_difference_of_logged_errors(claim: str) -> None:
    log = MAPPING.claims[claim].log
    if claim not in LOGGED:
        assert (log.top1, log.top5) == (None, None)
        return
    base, other = LOGGED[claim]
    assert log.top1 == pytest.approx(other[0] - base[0], abs=0.0051)
    assert log.top5 == pytest.approx(other[1] - base[1], abs=0.0051)


def test_where_both_have_a_number_the_paper_rounds_the_log() -> None:
    both = [each for each in MAPPING.claims.values() if each.paper.top1 is not None and each.log.top1 is not None]
    assert len(both) == 4
    for each in both:
        assert each.log.top1 == pytest.approx(each.paper.top1, abs=0.051)
        assert each.log.top5 == pytest.approx(each.paper.top5, abs=0.051)


def test_members_of_different_seeds_are_different_networks() -> None:
    seeds = [seed for own in range(1, 9) for seed in Side(None, "center", 5).seeds(own)]
    assert len(set(seeds)) == 40
    assert Side("no-lrn", "many", 1).seeds(3) == (3,)


def read(
    tmp_path: Path, claim: str, scale: str = "{about: a, preset: digits, seeds: 2, many: five, judged_shards: null, params: {}}"
) -> mapping.Mapping:
    path = tmp_path / "claims.yaml"
    path.write_text(f"claims: {{one: {claim}}}\nscales: {{tiny: {scale}}}\n")
    assert YAML(typ="safe", pure=True).load(path)
    return mapping.read(path)


def test_what_is_left_out_is_the_center_crop_of_one_network(tmp_path: Path) -> None:
    claim = read(tmp_path, "{says: so, section: '1', other: {variant: tanh}}").claims["one"]
    assert (claim.base, claim.other) == (Side(None, "center", 1), Side("tanh", "center", 1))
    assert (claim.paper.top1, claim.log.top5, claim.until_train_error) == (None, None, None)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("{says: so, section: '1', other: {variant: tanh}, why: x}", r"claims.one: unknown why; allowed: says"),
        ("{says: so, section: '1', other: {views: eleven}}", r"claims.one.other.views: must be one of center, "),
        ("{says: so, section: '1', other: {members: 1}}", r"claims.one: both sides are Side\(.*; one must differ"),
        ("{section: '1', other: {variant: tanh}}", r"claims.one: missing says"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, claim: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        read(tmp_path, claim)


def test_a_scale_needs_two_seeds(tmp_path: Path) -> None:
    good = "{says: so, section: '1', other: {variant: tanh}}"
    with pytest.raises(ParamsError, match="scales.tiny.seeds: must be at least 2, got 1"):
        read(tmp_path, good, "{about: a, preset: digits, seeds: 1, many: five, judged_shards: null, params: {}}")
    with pytest.raises(ParamsError, match="has no scale 'big'; it has tiny"):
        read(tmp_path, good).scale("big")
    with pytest.raises(ParamsError, match="scales.tiny.claims: there is no two; there are one"):
        read(tmp_path, good, "{about: a, preset: digits, seeds: 2, many: five, judged_shards: null, claims: [two], params: {}}")
