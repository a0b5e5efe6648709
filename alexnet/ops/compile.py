"""Functions of tensors that torch.compile makes into one kernel each.

On a GPU every operation by itself is a launch and a round trip to memory.
"""

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_MAX_SHAPES = 64  # a function is compiled for: layers, and batches of an epoch's middle, its end, and validation's end


def compile_on_gpu(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """The function, compiled when the device is a GPU."""
    return compile_function(function) if device.type == "cuda" else function


@functools.cache
def compile_function(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function compiled anew for every shape and number, or unchanged without a C compiler, which Triton needs."""
    named = os.environ.get("CC")
    if not any(shutil.which(name) for name in ([named] if named else ["gcc", "clang"])):
        return function
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _MAX_SHAPES)  # beyond it torch silently stops compiling the function
    return torch.compile(function, dynamic=False)
