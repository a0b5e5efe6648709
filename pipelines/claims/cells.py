"""Cells: one recipe with one seed, trained and judged; and the small file that is kept of each.

A result file holds which validation images the network was wrong on, a bit an image, so that two cells can be compared image by
image wherever they were made. An ensemble is a cell of several seeds.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from alexnet.config import read_json, to_json
from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write_bytes
from alexnet.inference.metrics import TOP
from alexnet.loading.config import Views
from alexnet.shards.manifest import Manifest
from pipelines.claims.mapping import Claim, Mapping, Scale, Side
from pipelines.config import params, tree

RESULTS = Path("claims/results")
_DECIDE = ("source", "validate", "shard", "model", "train")  # the sections that decide a cell's result
# Parameters that came after results were committed, with the values by which everything is as before.
_LATER: dict[str, tree.Tree] = {
    "source": {"splits": {"train": None, "val": None, "test": None}, "ignore": [], "members": {"image": None, "label": None}},
    "validate": {"orientation": "record", "policy": {"frames": "repair", "profile": "repair"}},
}

_NOTHING = object()  # that no value equals
Wrong = Bool[np.ndarray, " images"]
Probabilities = Float32[np.ndarray, "images classes"]


@dataclass(frozen=True, order=True)
class Cell:
    """What is trained: a recipe by the name of its variant, `base` for none; and its seeds, more than one of an ensemble.

    rate: of learning, for weights, from the start to the end; None: the recipe's own.
    """

    seeds: tuple[int, ...]
    variant: str
    rate: float | None = None

    @property
    def name(self) -> str:
        """Of its files."""
        members = f"-x{len(self.seeds)}" if len(self.seeds) > 1 else ""
        rate = f"-lr{self.rate:g}" if self.rate is not None else ""
        return f"{self.variant}{rate}{members}-{self.seeds[0]}"

    @property
    def members(self) -> tuple["Cell", ...]:
        """The cells of its single networks."""
        return tuple(Cell((seed,), self.variant, self.rate) for seed in self.seeds)


@dataclass(frozen=True)
class Judged:
    """By one protocol: error rates, as fractions, and the images that are wrong, a bit each, in base64."""

    top1_error: float
    top5_error: float
    top1_wrong: str
    top5_wrong: str

    def wrong(self, images: int) -> tuple[Wrong, Wrong]:
        """The images that are wrong, by top 1 and top 5."""
        packed = (np.frombuffer(base64.b64decode(each), np.uint8) for each in (self.top1_wrong, self.top5_wrong))
        top1, top5 = (np.unpackbits(bits, count=images).astype(bool) for bits in packed)
        return top1, top5


@dataclass(frozen=True)
class Result:
    """What is kept of a cell.

    recipe: digest of the parameters that decide it. data: digest of the validation shards, so of the images and their order.
    train_errors: top-1 error in training, an epoch each, with its augmentation and dropout; none of an ensemble. seconds: of
    training and judging, of all members.
    """

    variant: str
    seeds: tuple[int, ...]
    recipe: str
    data: str
    images: int
    train_errors: tuple[float, ...]
    judged: dict[Views, Judged]
    seconds: float
    machine: str

    def write(self, path: Path) -> None:
        """Writes JSON, whole or not at all."""
        atomic_write_bytes(path, to_json(self))


def read(path: Path) -> Result:
    """The result in a file. Raises DataError when it is missing or damaged."""
    return read_json(Result, path, "`alexnet claims` makes it")


def path_of(scale: str, cell: Cell) -> Path:
    """Where its result is kept."""
    return RESULTS / scale / f"{cell.name}.json"


class Recipes:
    """The parameters of the cells of a scale. Variants that change nothing at this scale are the base."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._trees: dict[str, tree.Tree] = {"base": self._load(None)}

    def cell(self, side: Side, seed: int, rate: float | None = None) -> Cell:
        """The cell of a side of a claim."""
        name = side.variant or "base"
        if name not in self._trees:
            self._trees[name] = self._load(side.variant)
        variant = next(each for each, found in self._trees.items() if found == self._trees[name])
        return Cell(side.seeds(seed), variant, rate)

    def views(self, side: Side) -> Views:
        """The protocol of a side."""
        return "center" if side.views == "center" else self.scale.many

    def params(self, cell: Cell) -> tree.Tree:
        """The parameters of a cell of one seed, as params.yaml has them."""
        whole = self._trees[cell.variant] | {"seed": cell.seeds[0]}
        if cell.rate is None:
            return whole
        rates = {name: [{"epoch": 0, "lr": lr}] for name, lr in (("weights", cell.rate), ("biases", 2 * cell.rate))}
        return tree.overlay(whole, {"train": {"schedule": rates}}, "rates")

    def digest(self, cell: Cell) -> str:
        """Of the parameters that decide a cell's result, and of its seeds."""
        whole = self.params(cell)
        decide = {name: _without(whole[name], _LATER.get(name, {})) for name in _DECIDE} | {"seeds": cell.seeds}
        return hashlib.sha256(json.dumps(decide, sort_keys=True).encode()).hexdigest()[:16]

    def _load(self, variant: str | None) -> tree.Tree:
        return params.load_tree(preset=self.scale.preset, variant=variant, changes=self.scale.params)


def _without(section: tree.Tree, neutral: tree.Tree) -> tree.Tree:
    """The section less what is neutral, at any depth."""
    left = {name: value for name, value in section.items() if neutral.get(name, _NOTHING) != value}
    inner = {name: _without(left[name], each) for name, each in neutral.items() if name in left and isinstance(each, dict)}
    return left | inner


def plan(mapping: Mapping, scale: Scale, recipes: Recipes) -> dict[Cell, set[Views]]:
    """Every cell of a scale with the protocols that claims judge it by: all of the first seed, then all of the second.

    An ensemble comes after the cells of its members.
    """
    found: dict[Cell, set[Views]] = {}
    for seed in range(1, scale.seeds + 1):
        for claim in mapping.claims_of(scale).values():
            for side, rate in _sides(claim, scale):
                cell = recipes.cell(side, seed, rate)
                for each in (*cell.members, cell):
                    found.setdefault(each, set()).add(recipes.views(side))
    return {cell: found[cell] for cell in sorted(found, key=lambda cell: (_own(cell), len(cell.seeds)))}


def _sides(claim: Claim, scale: Scale) -> list[tuple[Side, float | None]]:
    """Both sides, with every rate that they choose from."""
    return [(side, rate) for side in (claim.base, claim.other) for rate in scale.rates.get(side.variant or "", (None,))]


def _own(cell: Cell) -> int:
    """The seed of the side that a cell is for; members of an ensemble have seeds of three digits, see `Side.seeds`."""
    return cell.seeds[0] if cell.seeds[0] < 100 else cell.seeds[0] // 100


def judge(probabilities: Probabilities, labels: Int64[np.ndarray, " images"]) -> Judged:
    """Which images are wrong. Of classes as probable as the image's own, the lower label comes first."""
    own = np.take_along_axis(probabilities, labels[:, None], 1)
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    rank = ((probabilities > own) | ((probabilities == own) & before)).sum(1)
    top1, top5 = (rank >= k for k in (1, TOP))
    packed = [base64.b64encode(np.packbits(wrong).tobytes()).decode() for wrong in (top1, top5)]
    return Judged(float(top1.mean()), float(top5.mean()), *packed)


def data_digest(manifest: Manifest) -> str:
    """Of the validation shards."""
    return hashlib.sha256("".join(shard.sha256 for shard in manifest.splits["val"]).encode()).hexdigest()[:16]


def wrong_by_seed(results: list[Result], views: Views) -> tuple[Bool[np.ndarray, "seeds images"], ...]:
    """The images that the networks of several seeds are wrong on, by top 1 and top 5.

    Raises:
        DataError: they were not judged on the same images, or not by this protocol.
    """
    first = results[0]
    for result in results:
        if (result.data, result.images) != (first.data, first.images) or views not in result.judged:
            raise DataError(
                f"{result.variant}, seed {result.seeds[0]}: judged on images {result.data} by {', '.join(result.judged)}, "
                f"needed: {first.data} by {views}; remove its file and run `alexnet claims` again"
            )
    both = [result.judged[views].wrong(result.images) for result in results]
    return np.stack([top1 for top1, _ in both]), np.stack([top5 for _, top5 in both])
