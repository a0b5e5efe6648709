"""How the network is trained, by the paper, by its source of 2012 and here: a row for each thing that decides it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.config import build
from alexnet.model.architecture import layer_counts, total_counts
from pipelines.config import params, tree
from pipelines.config.params import Params

FILE = Path("claims/training.yaml")
PRESET, TEXT = "imagenet", "paper-text"  # whose numbers `ours` is of, and the variant that follows the paper's text


@dataclass(frozen=True)
class Difference:
    """What is said and done. ours: filled by `fill`.

    source_is, paper_is: values of the parameters, by their paths, where the source's or the text's are some. test: the one that
    holds the row, as FILE::NAME.
    """

    what: str
    paper: str
    source: str
    ours: str
    source_is: dict[str, Any]
    paper_is: dict[str, Any]
    test: str


def read(path: Path = FILE) -> list[Difference]:
    """The rows, `ours` filled with the numbers of the preset. Raises ParamsError that names what is wrong."""
    given = params.load(preset=PRESET)
    rows = []
    for number, row in enumerate(tree.read(path)["rows"]):
        values = {"source_is": row.pop("source_is", {}), "paper_is": row.pop("paper_is", {})}
        checked = build(Difference, row | {"source_is": {}, "paper_is": {}}, f"{path}: rows[{number}]")
        rows.append(Difference(**vars(checked) | values | {"ours": fill(checked.ours, given)}))
    return rows


def fill(text: str, given: Params) -> str:
    """Text with parameters in braces by their paths, and `counts` and `drops` of the network and the weights' rate."""
    drops = ", ".join(str(rate.epoch) for rate in given.train.schedule.weights[1:])
    counts = total_counts(layer_counts(given.model))
    filled = text.format(**vars(_Readable(given)), counts=counts, drops=drops)
    return filled.replace("True", "yes").replace("False", "no")


class _Readable:
    """A dataclass whose lists read as people write them."""

    def __init__(self, of: object) -> None:
        for name, value in vars(of).items():
            setattr(self, name, _readable(value))


def _readable(value: Any) -> Any:
    if isinstance(value, tuple):
        return ", ".join(value) if all(isinstance(each, str) for each in value) else value
    return _Readable(value) if hasattr(value, "__dataclass_fields__") else value


def differing(row: Difference, whole: tree.Tree) -> list[str]:
    """The paths by which a run of the text would differ from the source, as far as the row names them."""
    return [path for path, value in row.paper_is.items() if at(whole, path) != value]


def at(whole: tree.Tree, path: str) -> Any:
    """The value at a path of names."""
    for name in path.split("."):
        whole = whole[name]
    return whole


def markdown() -> str:
    """docs/training.md."""
    whole = params.load_tree(preset=PRESET)
    lines = []
    for row in read():
        differ = "yes" if differing(row, whole) else ""
        lines.append(f"| {row.what} | {row.paper} | {row.source} | {row.ours} | {differ} |")
    return "\n".join(
        [
            "# Training: the paper, its source, and this project",
            "",
            "Everything that decides a training: by the paper of 2012 (with its sections), by the source code that produced",
            "its numbers (released in 2025), and in this project, whose column has the values of `presets/imagenet.yaml`. The",
            "last column marks what the variant `paper-text` of `params.yaml` changes to the paper's value. Every row has a",
            f"test, which `{FILE}` names; `alexnet claims --write` makes this page from that file.",
            "",
            "| | paper | source | this project | `paper-text` |",
            "|---|---|---|---|---|",
            *lines,
            "",
        ]
    )
