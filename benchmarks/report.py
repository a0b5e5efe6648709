"""What the benchmarks have found, as Markdown and a picture, from benchmarks/results alone.

    python -m benchmarks.report                # writes what README and docs/ say of the results, and docs/benchmarks.svg

A row is a ratio of paired runs: how many times as fast as a peer, or which share of a limit. Rates belong to their machine.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.files.atomic import atomic_write_bytes
from benchmarks import imagenet
from benchmarks.timing import RESULTS
from pipelines.pictures import style
from tools.blocks import replace_block

ROOT = Path(__file__).parents[1]
README, PAGE, OPERATIONS = ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "operations.md"
PICTURE = ROOT / "docs" / "benchmarks.svg"


@dataclass(frozen=True)
class Row:
    """A ratio in a result: where it stands in the JSON, or what is to be divided by what."""

    result: str
    what: str
    peer: str
    path: str
    over: str | None = None
    in_readme: bool = True

    def ratio(self, result: Any) -> float:
        """Ours over the peer's, as rates."""
        return float(_at(result, self.path)) / (float(_at(result, self.over)) if self.over else 1)


def _peers(result: str, what: str, path: str, peers: dict[str, str], *, in_readme: bool = True) -> list[Row]:
    """Rows that differ in the peer alone, whose key in the JSON goes into the path."""
    return [Row(result, what, name, path.format(key), in_readme=in_readme) for key, name in peers.items()]


_H200 = "-nvidia-h200"  # of a result measured on one
_BATCHES = "shards to 224-pixel batches, two workers, wall clock"
_STEP = "a training step, full width, batch 128"
_TEN = "ten-crop evaluation, full width"
ROWS = [
    Row(
        "prep",
        "decode, resize to 256, pixel statistics, encode; per core",
        "the usual Pillow script",
        "speed.times_the_usual_script.ours",
    ),
    Row("prep", "", "libjpeg-turbo alone, a limit", "speed.share_of_the_limit"),
    *_peers(
        "validate", "decode fully, find every fault, digest; per core", "faster_than.{}", {"pillow": "Pillow's verify and load"}
    ),
    *_peers("validate", "", "faster_than.{}", {"decoding": "libjpeg-turbo's decoding alone, a limit"}),
    *_peers("input", _BATCHES, "two_workers.loaders.{}.ours_is_faster_by", {"imagefolder": "ImageFolder"}),
]
ROWS += _peers(
    "input",
    "",
    "two_workers.loaders.{}.ours_is_faster_by",
    {
        "webdataset": "WebDataset, as its manual has it",
        "ffcv": "FFCV",
        "dali": "DALI",
        "litdata": "LitData",
        "grain": "Grain",
        "torchdata": "torchdata",
        "limit": "libjpeg-turbo's decoding alone, a limit",
    },
)
ROWS += [
    Row("train_step", f"{_STEP}, float32", "the same network in plain torch", "rows.0.faster_than_obvious"),
    Row("train_step", "", "torchvision's AlexNet, which has no norms", "rows.0.faster_than_torchvision", in_readme=False),
    Row("train_step", "", "our own network without norms, a limit", "rows.0.share_of_the_same_net_without_norms"),
    Row("train_step", f"{_STEP}, bf16", "the same network in plain torch, bf16", "rows.1.faster_than_obvious"),
    Row(
        "train_step",
        "",
        "torchvision's AlexNet, which has no norms, bf16",
        "rows.1.faster_than_torchvision",
        in_readme=False,
    ),
    Row(
        f"train_step{_H200}",
        "a training step on an H200, full width, batch 256, bf16",
        "the same network in plain torch, bf16",
        "rows.0.faster_than_obvious",
    ),
    Row(
        f"train_step{_H200}",
        "",
        "torchvision's AlexNet, which has no norms",
        "rows.0.faster_than_torchvision",
        in_readme=False,
    ),
    Row(
        "train_epoch",
        "a training epoch from JPEGs on disk, batch 128, bf16",
        "ImageFolder, DataLoader and the network in plain torch",
        "faster_than_peer",
    ),
    Row(
        f"train_epoch{_H200}",
        "a training epoch from JPEGs on disk, on an H200 with 16 cores, batch 256, bf16",
        "ImageFolder, DataLoader and the network in plain torch",
        "faster_than_peer",
    ),
    Row(
        "two_gpu",
        "two towers in two processes, batch 32, one thread each",
        "one device with one thread",
        "results.0.forms.a process a tower.times_one_device",
    ),
    Row(
        "two_gpu",
        "",
        "one device with two threads",
        "results.0.forms.a process a tower.images_per_second",
        "results.0.forms.one device, two threads.images_per_second",
    ),
]
for kind in ("bf16", "float32"):
    peers = {"obvious": "a float32 pass per crop", "torchvision": "torchvision's evaluate loop", "timm": "timm's validation"}
    for place, text in (("", _TEN), (_H200, f"{_TEN}, on an H200")):
        path, in_readme = f"faster_than.{{}}.ours, {kind}", kind == "bf16" and not place
        ROWS += _peers(f"evaluate{place}", f"{text}, {kind}", path, peers, in_readme=in_readme)
ROWS += [
    Row("extract", "fc7 of every image into Parquet, full width, float32", "torch's forward hook", "faster_than_hook.ours"),
    Row("extract", "the same, bf16", "torch's forward hook", "faster_than_hook.ours, bf16", in_readme=False),
    Row(f"extract{_H200}", "the same on an H200, float32", "torch's forward hook", "faster_than_hook.ours", in_readme=False),
    Row(f"extract{_H200}", "the same on an H200, bf16", "torch's forward hook", "faster_than_hook.ours, bf16", in_readme=False),
    Row(
        "store",
        "a shard read, verified and written to disk",
        "boto3's download_file, verifying nothing",
        "clients.ours, verified and on the disk.of_boto3_on_the_disk",
    ),
    *(
        Row("store", what, "boto3's get_object, verifying nothing", f"clients.{ours}.of_unverified_boto3", in_readme=False)
        for what, ours in (
            ("a shard read and verified, in memory", "ours, its digest compared, in memory"),
            ("a shard read, in memory", "ours, streamed only"),
        )
    ),
    Row("registry", "a release of 266 MB published", "boto3's upload_file, verifying nothing", "faster_than_boto3.publish"),
    Row(
        "registry", "the same pulled, every byte verified", "boto3's download_file, verifying nothing", "faster_than_boto3.pull"
    ),
    *_peers(
        "commands",
        "`alexnet predict PHOTO`, imports included",
        "faster_than.{}",
        {"torchvision, predict": "torchvision's script"},
    ),
    *_peers(
        "commands",
        "what `make run` does by DVC when nothing has changed, fetch included",
        "faster_than.{}",
        {"dvc repro, no-op": "`dvc repro`", "dvc status, no-op": "`dvc status`, which runs nothing"},
    ),
]


def _at(tree: Any, path: str) -> Any:
    """What stands at a path of keys and numbers, joined by points; a key may hold commas and blanks."""
    for key in path.split("."):
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    return tree


def read_results() -> dict[str, Any]:
    """Every committed result by its name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def shown(ratio: float) -> str:
    """As people read it."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x"


def table(results: dict[str, Any], rows: list[Row]) -> str:
    """Markdown: what is done, compared with what, the ratio, and the program that measures it."""
    lines = ["| what | compared with | times as fast | `python -m benchmarks.` |", "|---|---|---|---|"]
    lines += [
        f"| {row.what} | {row.peer} | {shown(row.ratio(results[row.result]))} | `{row.result.partition('-')[0]}` |"
        for row in rows
    ]
    return "\n".join(lines)


def machines(results: dict[str, Any]) -> str:
    """Which machine each result was measured on."""
    lines = ["| result | machine | cores | torch |", "|---|---|---|---|"]
    for name, result in results.items():
        found = result["machine"]
        lines.append(f"| `{name}` | {found.get('gpu') or found['cpu']} | {found['cores']} | {found['torch']} |")
    return "\n".join(lines)


def h200(results: dict[str, Any]) -> str:
    """Markdown: what the results of the H200 do not say, as far as they hold what was measured by hand."""
    steps, host = results[f"train_step{_H200}"], results[f"train_epoch{_H200}"].get("host_ms_per_step")
    rates = [
        f"{row['images_per_second']['ours']:,.0f} at batch {row['batch']}"
        for row in steps["rows"]
        if row["precision"] == "bf16" and row["batch"] in (128, 256)
    ]
    apart = steps.get("towers_apart_images_per_second")
    lines = [f"- The goal on an H200, 35,000 images/s at batch 128, is not reached: measured were {', '.join(rates)}."]
    if apart:
        lines.append(
            "- Of these, only batch 256 was measured in one run with its peers. At batch 256, a convolution per tower instead "
            f"of a grouped one makes {apart:,} images/s, because cuDNN slices and reorders the data of grouped convolutions. "
            "Tried and slower: pooling compiled by torch, and response norms that keep no intermediate results in memory."
        )
    if host:
        lines.append(
            "- The epoch on the H200 is of earlier code, which drew a step's random numbers on the host in some hundred small "
            "operations while the loader's 16 threads ran. They are now drawn on the GPU, and the host needs "
            f"{host['now']} ms instead of {host['then']} ms per step. The epoch was not measured again."
        )
    return "\n".join(map(imagenet.filled, lines))


def measured(results: dict[str, Any]) -> list[Row]:
    """The rows whose program has left a result that has both sides: a peer that is not installed is left out of it."""

    def has(row: Row) -> bool:
        try:
            return row.ratio(results[row.result]) > 0
        except (KeyError, IndexError):
            return False

    return [row for row in ROWS if has(row)]


def documents(results: dict[str, Any]) -> dict[Path, dict[str, str]]:
    """Of every document the blocks that say what was measured."""
    rows = measured(results)
    return {
        README: {"benchmarks": table(results, [row for row in rows if row.in_readme])},
        PAGE: {"benchmarks": table(results, rows), "machines": machines(results), "h200": h200(results)},
        OPERATIONS: {"imagenet": imagenet.text(results)},
    }


def draw(results: dict[str, Any], rows: list[Row]) -> None:
    """Every ratio as a bar from 1 on a logarithmic scale, in the order of the table; limits in grey."""

    def bars(figure: Any) -> None:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            color = style.GREY if row.peer.endswith("a limit") else style.BLUE
            axes.barh(place, row.ratio(results[row.result]) - 1, left=1, color=color, height=0.62)
        axes.set_yticks(range(len(rows)), [_bar_name(row) for row in rows], fontsize=style.SMALL, color=style.INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xscale("log")
        axes.set_xticks([0.2, 0.5, 1, 2, 5, 10], ["0.2x", "0.5x", "1x", "2x", "5x", "10x"])
        axes.tick_params(axis="x", labeltop=True)
        axes.minorticks_off()
        axes.axvline(1, color=style.FAINT, linewidth=1.2)
        axes.grid(visible=False, axis="y")

    size = (style.WIDTH + 4, 0.8 + 0.24 * len(rows))
    atomic_write_bytes(PICTURE, style.render(size, bars, "How many times as fast as each peer")["svg"])


def _bar_name(row: Row) -> str:
    """Program, peer and precision."""
    precision = row.what.rpartition(", ")[2]
    told = f", {precision}" if precision in ("bf16", "float32") and not row.peer.endswith(precision) else ""
    return f"{row.result.replace('-nvidia-', ', ')}: {row.peer.removesuffix(', a limit').replace('`', '')}{told}"


def main() -> None:
    """Writes what README and docs/ say of the results."""
    results = read_results()
    for path, blocks in documents(results).items():
        for name, text in blocks.items():
            replace_block(path, name, text)
    draw(results, measured(results))


if __name__ == "__main__":
    main()
