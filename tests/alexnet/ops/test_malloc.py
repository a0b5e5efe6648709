"""malloc's settings, seen from outside: a process's page faults."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource
import sys
import torch
from alexnet.ops.malloc import disable_malloc_trim

torch.set_num_threads(1)
if sys.argv[1] == "no trim" and not disable_malloc_trim():
    raise SystemExit(3)
for _ in range(3):
    torch.ones(16, 1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(16, 1 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=False)
    if run.returncode == 3:
        pytest.skip("this C library has no mallopt")
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


@pytest.mark.slow
def test_large_tensors_are_not_mapped_anew() -> None:
    # How many faults a tensor costs is up to the kernel (huge pages): the twin tells. Fragments cost some, once.
    assert _faults("no trim") * 4 < _faults("default")


def test_what_is_kept_is_given_back_when_asked() -> None:
    program = (
        "import re; from pathlib import Path; import numpy as np; from alexnet.ops import malloc\n"
        "def used(): return int(re.search(r'RssAnon:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "set_up = malloc.disable_malloc_trim(); before = used(); large = np.ones(8 << 20); del large\n"
        "kept = used() - before; malloc.trim_malloc(); print(set_up, kept, used() - before)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    set_up, kept, left = run.stdout.split()
    if set_up == "False":
        pytest.skip("this C library has no mallopt")
    assert int(kept) > 60_000 > 10_000 > int(left)  # KiB
