"""Batches moved to the device: copied, or decoded there, on a stream of their own while the previous batch is used.

On a CPU they are passed through. Global sample indices stay on the host, where random numbers are drawn from them.
"""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from alexnet.errors import DataError, ParamsError
from alexnet.loading.loader import Batch, EncodedBatch

_AHEAD = 4  # batches that the host may be ahead of a GPU: each takes memory there until its step is over

HostBatch = Batch | EncodedBatch
T = TypeVar("T")


def to_device(batches: Iterable[HostBatch], device: torch.device) -> Iterator[Batch]:
    """Yields the batches on the device, copying one ahead. With a loader's `pin_memory` the copy overlaps the computation.

    JPEGs are decoded there by torchvision: nvJPEG on a GPU, libjpeg on a CPU. nvJPEG does not smooth the chroma that it
    enlarges, as the loader's decoder does (on photographs 1.3 levels on average): results are those of another decoder, but
    equal from run to run.

    Raises:
        DataError: a sample cannot be decoded, or is not of the size the manifest says; names shard, key and offset.
    """
    if device.type != "cuda":
        for batch in batches:
            yield _move(batch, device)
        return
    stream = torch.cuda.Stream(device)
    copying: deque[tuple[HostBatch, Batch, torch.cuda.Event]] = deque()
    used: deque[tuple[HostBatch, torch.cuda.Event]] = deque()  # a host batch must live until its copy is over
    ends: deque[torch.cuda.Event] = deque()
    for batch in batches:
        copying.append(_start_copy(batch, device, stream))
        if len(copying) > 1:
            yield _await_copy(copying, used, device)
            _limit_queue(ends, device)
    while copying:
        yield _await_copy(copying, used, device)


def to_host(results: Iterable[tuple[T, dict[str, Tensor]]]) -> Iterator[tuple[T, dict[str, Tensor]]]:
    """Yields the results with their tensors on the host. A GPU's are copied while it computes the next result."""
    copying: deque[tuple[T, dict[str, Tensor], torch.cuda.Event | None]] = deque()
    for item, tensors in results:
        device = next(tensor.device for tensor in tensors.values())
        copies = {name: tensor.to("cpu", non_blocking=True) for name, tensor in tensors.items()}  # to pinned memory
        copying.append((item, copies, torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None))
        if len(copying) > 1:
            yield _await_result(*copying.popleft())
    while copying:
        yield _await_result(*copying.popleft())


def _await_result(item: T, copies: dict[str, Tensor], copied: torch.cuda.Event | None) -> tuple[T, dict[str, Tensor]]:
    if copied is not None:
        copied.synchronize()
    return item, copies


def _start_copy(batch: HostBatch, device: torch.device, stream: torch.cuda.Stream) -> tuple[HostBatch, Batch, torch.cuda.Event]:
    """Starts the copy of a batch on a stream. Returns the batch, its copy, and the event that marks the end of copying."""
    with torch.cuda.stream(stream):
        copy = _move(batch, device)
        event = torch.cuda.Event()
        event.record(stream)
    return batch, copy, event


def _move(batch: HostBatch, device: torch.device) -> Batch:
    if isinstance(batch, EncodedBatch):
        return _decode(batch, device)
    images, labels = (part.to(device, non_blocking=True) for part in (batch.images, batch.labels))
    return Batch(images, labels, batch.samples)


def _await_copy(
    copying: deque[tuple[HostBatch, Batch, torch.cuda.Event]],
    used: deque[tuple[HostBatch, torch.cuda.Event]],
    device: torch.device,
) -> Batch:
    """The copy that was started first. The current stream waits for it; the host does not."""
    host, copy, event = copying.popleft()
    current = torch.cuda.current_stream(device)
    current.wait_event(event)
    for part in (copy.images, copy.labels):
        part.record_stream(current)  # its memory belongs to the copy's stream: not to be given out before this one is done
    used.append((host, event))
    while used and used[0][1].query():
        used.popleft()
    return copy


def _limit_queue(ends: deque[torch.cuda.Event], device: torch.device) -> None:
    """Records that a batch was used, and waits until the GPU is at most _AHEAD batches behind the host."""
    ends.append(torch.cuda.current_stream(device).record_event(torch.cuda.Event(blocking=True)))
    if len(ends) > _AHEAD:
        ends.popleft().synchronize()


def _decode(batch: EncodedBatch, device: torch.device) -> Batch:
    shape = (3, batch.side_px, batch.side_px)
    cause = None
    try:
        images = _decode_jpegs(batch.jpegs, device)
    except RuntimeError as error:
        images, cause = [], error
    if len(images) != len(batch.jpegs) or any(image.shape != shape for image in images):
        return _decode_on_host(batch, device, cause)
    stacked = torch.stack(images) if images else torch.empty((0, *shape), dtype=torch.uint8, device=device)
    return Batch(stacked.permute(0, 2, 3, 1).contiguous(), batch.labels.to(device, non_blocking=True), batch.samples)


def _decode_jpegs(jpegs: list[Tensor], device: torch.device) -> list[Tensor]:
    """Images as [3, h, w]. torchvision 0.29 deprecates this decoder in favor of a package of its own."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg  # an optional dependency
    except ImportError:
        raise ParamsError(
            "train.decode: is device, which needs torchvision (pip install 'alexnet-pipeline[torchvision]'), "
            "or decode on the host (train.decode: host)"
        ) from None
    if device.type == "cuda":  # nvJPEG writes by a stream of its own, also to memory that this stream has freed but still reads
        torch.cuda.current_stream(device).synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return list(decode_jpeg(jpegs, mode=ImageReadMode.RGB, device=device)) if jpegs else []


def _decode_on_host(batch: EncodedBatch, device: torch.device, cause: RuntimeError | None) -> Batch:
    """The batch decoded by the loader's own decoder, which skips a corrupt sample or raises what is wrong with it."""
    host = batch.on_host()
    if torch.equal(host.samples, batch.samples):
        raise DataError(
            f"samples {batch.samples.tolist()}: {device} cannot decode one of them, the host can: {cause}; "
            "decode on the host (train.decode: host)"
        ) from cause
    return _move(host, device)
