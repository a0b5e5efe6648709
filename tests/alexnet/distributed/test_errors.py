"""Which errors of an exchange mean that another rank is lost."""

import pytest
import torch

from alexnet.distributed.errors import Lost, raises_lost


def test_lack_of_memory_in_this_process_does_not_mean_a_lost_rank() -> None:
    with pytest.raises(torch.OutOfMemoryError), raises_lost("swap"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(Lost, match="swap: connection closed by peer"), raises_lost("swap"):
        raise RuntimeError("connection closed by peer")
