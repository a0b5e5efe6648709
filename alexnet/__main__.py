"""`python -m alexnet`: the version, the names that the package offers, and three commands to try."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version

import alexnet


def hello() -> str:
    """The text that is printed."""
    try:
        release = version("alexnet-pipeline")
    except PackageNotFoundError:
        release = "(a checkout, not installed)"
    offers = [f"  alexnet.{name:<16} {(getattr(alexnet, name).__doc__ or '').splitlines()[0]}" for name in alexnet.__all__]
    return "\n".join(
        [
            f"AlexNet as trained in 2012, version {release}. The package offers",
            *offers,
            "Try",
            "  alexnet doctor    what this machine has and lacks",
            "  alexnet show      the recipe of a run, its command and what to expect of it",
            "  make run          that run: from images to a published model",
        ]
    )


if __name__ == "__main__":
    try:
        print(hello(), flush=True)
    except BrokenPipeError:  # the reader, say `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
