"""A function of tensors recorded as a CUDA graph: one launch instead of some hundreds.

The launches of a training step by themselves take the host longer than the work takes the GPU.
"""

from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_CALLS_BEFORE = 3  # what allocates, compiles or chooses an algorithm at first has done so by then

Inputs = Mapping[str, Tensor]
Outputs = tuple[Tensor, ...]


class StepGraph:
    """The function as it is for some calls, recorded then, and replayed for all later inputs of the same shapes.

    Args:
        function: of tensors on the GPU; it does not wait for the GPU, and reads nothing else that changes, see `reset`.
    """

    def __init__(self, function: Callable[[Inputs], Outputs], device: torch.device) -> None:
        self._function, self._device = function, device
        self._calls: Counter[tuple[torch.Size, ...]] = Counter()
        self.reset()

    def reset(self) -> None:
        """Forgets the recording: the function now reads another number, such as a learning rate."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: dict[str, Tensor] = {}
        self._outputs: Outputs = ()

    def __call__(self, inputs: Inputs) -> Outputs:
        """The function's outputs. Inputs are on the GPU or in pinned memory."""
        shapes = tuple(tensor.shape for tensor in inputs.values())
        self._calls[shapes] += 1
        if self._graph is None and self._calls[shapes] > _CALLS_BEFORE:
            self._record(inputs)
        if self._graph is None or shapes != tuple(tensor.shape for tensor in self._inputs.values()):
            return self._function({name: tensor.to(self._device, non_blocking=True) for name, tensor in inputs.items()})
        for name, tensor in self._inputs.items():
            tensor.copy_(inputs[name], non_blocking=True)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)

    def _record(self, inputs: Inputs) -> None:
        self._inputs = {name: torch.empty_like(tensor, device=self._device) for name, tensor in inputs.items()}
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads pin memory meanwhile
            self._outputs = self._function(self._inputs)
        self._graph = graph
