"""claims/claims.yaml as frozen dataclasses: the claims, and the scales that they can be run at."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from alexnet.config import build
from alexnet.errors import ParamsError
from alexnet.loading.config import Views
from pipelines.config import tree

FILE = Path("claims/claims.yaml")


@dataclass(frozen=True)
class Side:
    """What is trained and how it is judged. variant: None is the scale's own recipe. members: networks that are averaged."""

    variant: str | None
    views: Literal["center", "many"]
    members: int

    def seeds(self, seed: int) -> tuple[int, ...]:
        """The seeds of the members; the first is the side's own."""
        return (seed, *(100 * seed + number for number in range(1, self.members)))


@dataclass(frozen=True)
class Paper:
    """The effect that the paper gives: points of top-1 and top-5 error, or how many times sooner; None where it gives none."""

    top1: float | None
    top5: float | None
    times: float | None
    note: str


@dataclass(frozen=True)
class Log:
    """The effect in the logs of the source released in 2012, in points, and the runs compared."""

    top1: float | None
    top5: float | None
    runs: str


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper as a comparison of two sides.

    until_train_error: where given, the epochs until this training error are compared, not the errors on the validation images.
    """

    says: str
    section: str
    base: Side
    other: Side
    until_train_error: float | None
    paper: Paper
    log: Log


@dataclass(frozen=True)
class Assumed:
    """What was taken for granted when a scale was designed, to compute what it can resolve before anything is run.

    error: of a network, top-1. seeds_std: of that error from seed to seed. shared: of one network's wrong images, the part that
    another network of the same error is wrong on too. images: that networks are judged on.
    """

    error: float
    seeds_std: float
    shared: float
    images: int


@dataclass(frozen=True)
class Scale:
    """What a claim is run at: a preset with changes, and how many seeds of every side.

    many: the protocol that `many` views are. judged_shards: of the validation split, that many of the first; None: all.
    claims: that it is for; none: all. rates: by variant, of weights from the start to the end, biases twice as much; a side
    gets the one by which it is soonest at the claim's training error. Without an entry it has the recipe's own schedule.
    """

    about: str
    preset: str
    seeds: int
    many: Views
    judged_shards: int | None
    claims: tuple[str, ...]
    rates: dict[str, tuple[float, ...]]
    assumed: Assumed | None
    params: tree.Tree


@dataclass(frozen=True)
class Mapping:
    """All claims and scales by name."""

    claims: dict[str, Claim]
    scales: dict[str, Scale]

    def scale(self, name: str) -> Scale:
        """Raises ParamsError that lists all scales when there is none of that name."""
        if name not in self.scales:
            raise ParamsError(f"{FILE}: has no scale {name!r}; it has {', '.join(self.scales)}")
        return self.scales[name]

    def claims_of(self, scale: Scale) -> dict[str, Claim]:
        """Those that a scale is for."""
        return {name: claim for name, claim in self.claims.items() if name in (scale.claims or self.claims)}


def read(path: Path = FILE) -> Mapping:
    """The claims in a file. Raises ParamsError that names the path of what is wrong, also of two sides that are the same."""
    whole = tree.read(path)
    claims = {name: build(Claim, _with_defaults(claim), f"claims.{name}") for name, claim in whole["claims"].items()}
    for name, claim in claims.items():
        if claim.base == claim.other:
            raise ParamsError(f"claims.{name}: both sides are {claim.base}; one must differ")
    scales = {}
    for name, scale in whole["scales"].items():
        changes = scale.pop("params", {})  # a partial tree of any form: `params.load_tree` checks it
        given = {"claims": [], "rates": {}, "assumed": None} | scale | {"params": {}}
        scales[name] = replace(build(Scale, given, f"scales.{name}"), params=changes)
        if scales[name].seeds < 2:
            raise ParamsError(f"scales.{name}.seeds: must be at least 2, got {scales[name].seeds}")
        if unknown := set(scales[name].claims) - claims.keys():
            raise ParamsError(f"scales.{name}.claims: there is no {', '.join(unknown)}; there are {', '.join(claims)}")
    return Mapping(claims, scales)


def _with_defaults(claim: dict[str, Any]) -> dict[str, Any]:
    """The claim with every key: what the file leaves out is None, the center crop, one network."""
    side = {"variant": None, "views": claim.get("views", "center"), "members": 1}
    given = {name: leaf for name, leaf in claim.items() if name != "views"}
    return {
        "until_train_error": None,
        **given,
        "base": side | claim.get("base", {}),
        "other": side | claim.get("other", {}),
        "paper": {"top1": None, "top5": None, "times": None, "note": ""} | claim.get("paper", {}),
        "log": {"top1": None, "top5": None, "runs": ""} | claim.get("log", {}),
    }
