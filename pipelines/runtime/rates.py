"""How fast a network trains, by what was measured and committed in benchmarks/results."""

import json
from pathlib import Path

from alexnet.model.architecture import ModelConfig, layer_counts, total_counts
from pipelines.runtime import environment

MEASURED = Path("benchmarks/results")
_FULL_MACS = 724_406_816  # of the paper's network, whose rates the results are


def training_rate(model: ModelConfig, precision: str, batch: int, *, on_gpu: bool) -> tuple[float, str] | None:
    """Images a second of training, and what they were measured on: this GPU if it was measured, else one like it.

    They were measured at full width; another network is taken to need time by its multiply-adds. None: nothing was measured.
    """
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(MEASURED.glob("train_step*.json"))]
    here = environment.machine()
    rows = [
        (result["machine"].get("gpu") != here, row["precision"] != precision, abs(row["batch"] - batch), row, result["machine"])
        for result in results
        if ("gpu" in result["machine"]) == on_gpu
        for row in result["rows"]
        if "ours" in row["images_per_second"]
    ]
    if not rows:
        return None
    *_, row, machine = min(rows, key=lambda one: one[:3])
    share = _FULL_MACS / total_counts(layer_counts(model)).macs
    name = machine.get("gpu") or f"{machine['cores']} cores of {machine['cpu']}"
    scaled = "" if share == 1 else f", by multiply-adds {share:,.2g} times the full net's rate"
    return row["images_per_second"]["ours"] * share, f"measured on {name}, {row['precision']}, batch {row['batch']}{scaled}"
