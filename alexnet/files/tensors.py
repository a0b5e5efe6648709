"""Tensors written to a safetensors file, with the error a full disk deserves."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes the file; the caller gives it a name under which it is not yet taken for whole.

    Raises:
        OSError: what the disk said, by its number: the library reports it as an error of its own.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        raise
