"""Functions of tensors that torch's compiler makes into one kernel each.

On a GPU every operation by itself is a launch and a way to memory and back.
"""

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_MOST_SHAPES = 64  # a function is compiled for: layers, and batches of an epoch's middle, its end, and validation's end


def fused(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """The function for this device: compiled for a GPU, as it is elsewhere."""
    return compiled(function) if device.type == "cuda" else function


@functools.cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, compiled anew for every shape and number; without a C compiler, which Triton needs, as it is."""
    named = os.environ.get("CC")
    if not any(shutil.which(name) for name in ([named] if named else ["gcc", "clang"])):
        return function
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _MOST_SHAPES)  # beyond it functions run as they are, unsaid
    return torch.compile(function, dynamic=False)
