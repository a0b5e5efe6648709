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
