"""Seconds that a user waits for a command: a prediction with a network that is at hand, and a run in which nothing has changed.

    python -m benchmarks.commands

`predict` is `alexnet predict PHOTO --model FOLDER`; its peer is the script of torchvision's manual: import, build AlexNet, load
its weights, its transform, softmax. `no-op` is what `make run` does by DVC, fetch included, where nothing has changed; its
peers are `dvc repro`, and `dvc status`, which only looks. Processes start anew each time and take turns; caches are warm.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from alexnet.inference.pretrained import save_pretrained
from alexnet.model.network import initial_weights
from benchmarks import corpus, timing
from benchmarks.evaluate import full_width

ROOT = Path(__file__).parents[1]
_USUAL = """
import sys, torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.models import AlexNet_Weights, alexnet
network = alexnet().eval()
network.load_state_dict(load_file(sys.argv[1]))
image = AlexNet_Weights.IMAGENET1K_V1.transforms()(Image.open(sys.argv[2]).convert("RGB"))
with torch.inference_mode():
    print(network(image[None]).softmax(1)[0].topk(5))
"""


def _run(*command: str | Path, cwd: Path | None = None) -> Callable[[], object]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return lambda: subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True)


def predictions(folder: Path) -> dict[str, Callable[[], object]]:
    """A photograph by ours and by torchvision's network, both at full width with weights at hand."""
    from safetensors.torch import save_file
    from torchvision.models import alexnet

    ours, theirs = folder / "model", folder / "torchvision.safetensors"
    model = full_width(torch.device("cpu"))
    save_pretrained(ours, model.config, initial_weights(model.config.model, 1), model.mean_image)
    save_file(alexnet().state_dict(), theirs)
    photo = corpus.sklearn_photographs()[0]
    return {
        "ours, predict": _run(Path(sys.executable).with_name("alexnet"), "predict", photo, "--model", ours),
        "torchvision, predict": _run(sys.executable, "-c", _USUAL, theirs, photo),
    }


def no_ops(folder: Path) -> dict[str, Callable[[], object]]:
    """A run of which nothing is left to do: the graph and the code of the pipeline, and of its stages fetch alone as it is."""
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, stage in graph.items():
        if name != "fetch":
            outs = [out if isinstance(out, str) else next(iter(out)) for out in stage["outs"]]
            stage["cmd"] = f"touch {' '.join(outs)}"
    for package in ("alexnet", "pipelines"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for parent in (".dvc", "docs"):
        (folder / parent).mkdir()
    for file in (".dvc/config", ".dvcignore", "docs/story.html", "params.yaml"):
        shutil.copy(ROOT / file, folder / file)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": graph}, sort_keys=False), encoding="utf-8")
    _run("git", "init", "-q", cwd=folder)()
    python = sys.executable
    made = {
        "ours, no-op": _run(python, "-m", "infra.repro", cwd=folder),
        "dvc repro, no-op": _run(python, "-m", "dvc", "repro", cwd=folder),
        "dvc status, no-op": _run(python, "-m", "dvc", "status", cwd=folder),
    }
    made["ours, no-op"]()
    return made


def measure(rounds: int) -> dict[str, Any]:
    """Median seconds and paired ratios."""
    with tempfile.TemporaryDirectory() as models, tempfile.TemporaryDirectory() as checkout:
        seconds = timing.interleave(predictions(Path(models)) | no_ops(Path(checkout)), rounds)
    peers = {"torchvision, predict": "ours, predict", "dvc repro, no-op": "ours, no-op", "dvc status, no-op": "ours, no-op"}
    return {
        "seconds": {each: round(statistics.median(times), 2) for each, times in seconds.items()},
        "faster_than": {peer: round(timing.ratio(seconds[peer], seconds[ours]), 2) for peer, ours in peers.items()},
    }


def main() -> None:
    """Measures and writes results/commands.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    timing.write("commands", measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
