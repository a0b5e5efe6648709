"""One thin program a stage, the strict params reader, the bucket and the `alexnet` command."""

import sys
from importlib.util import find_spec

if find_spec("tqdm") is None:
    sys.exit(
        f"error: {sys.executable} lacks this project's packages; `make doctor` makes .venv, then PATH=$PWD/.venv/bin:$PATH"
    )
