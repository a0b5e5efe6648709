"""Seconds that a user waits for a command: a prediction with a network that is at hand, and a run in which nothing has changed.

    python -m benchmarks.commands              # in a checkout in which `make run` has finished

`predict` is `alexnet predict PHOTO --model FOLDER`; its peer is the script of torchvision's manual: import, build AlexNet, load
its weights, its transform, softmax. `no-op` is `dvc repro` where nothing has changed; its peer is `dvc status`, which
only looks. Processes start anew each time and take turns; caches of files are warm.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from alexnet.inference.pretrained import save_pretrained
from alexnet.model.network import initial_weights
from benchmarks import corpus, timing
from benchmarks.evaluate import full_width

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


def _run(*command: str | Path) -> Callable[[], object]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return lambda: subprocess.run(command, env=env, check=True, capture_output=True)


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


def measure(rounds: int) -> dict[str, Any]:
    """Median seconds and paired ratios."""
    dvc = [sys.executable, "-m", "dvc"]
    with tempfile.TemporaryDirectory() as name:
        candidates = predictions(Path(name)) | {"ours, no-op": _run(*dvc, "repro"), "dvc status, no-op": _run(*dvc, "status")}
        seconds = timing.interleave(candidates, rounds)
    return {
        "seconds": {each: round(statistics.median(times), 2) for each, times in seconds.items()},
        "faster_than": {
            "torchvision, predict": round(timing.ratio(seconds["torchvision, predict"], seconds["ours, predict"]), 2),
            "dvc status, no-op": round(timing.ratio(seconds["dvc status, no-op"], seconds["ours, no-op"]), 2),
        },
    }


def main() -> None:
    """Measures and writes results/commands.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    timing.write("commands", measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
