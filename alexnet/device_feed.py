"""Batches brought to the device: copied on a stream of their own while the previous one is used, or decoded there.

On a CPU a batch already is where it is used. Global sample indices stay with the host, which draws from them.
"""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from alexnet.errors import DataError
from alexnet.loader import Batch, EncodedBatch, Samples

_AHEAD = 4  # batches for which the host may be ahead of a GPU: each takes memory there until its step is over


def to_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches, on the device, one copied ahead. From a loader with `pin_memory` the copy runs beside the computation."""
    if device.type != "cuda":
        for batch in batches:
            yield Batch(batch.images.to(device), batch.labels.to(device), batch.samples)
        return
    stream = torch.cuda.Stream(device)
    copying: deque[tuple[Batch, Batch, torch.cuda.Event]] = deque()
    used: deque[tuple[Batch, torch.cuda.Event]] = deque()  # a host batch must live until its copy is over
    ends: deque[torch.cuda.Event] = deque()
    for batch in batches:
        copying.append(_copy(batch, device, stream))
        if len(copying) > 1:
            yield _arrived(copying, used, device)
            _hold_back(ends, device)
    while copying:
        yield _arrived(copying, used, device)


def _copy(batch: Batch, device: torch.device, stream: torch.cuda.Stream) -> tuple[Batch, Batch, torch.cuda.Event]:
    """The batch, its copy, and the event that the copy is over."""
    with torch.cuda.stream(stream):
        images, labels = (part.to(device, non_blocking=True) for part in (batch.images, batch.labels))
        event = torch.cuda.Event()
        event.record(stream)
    return batch, Batch(images, labels, batch.samples), event


def _arrived(
    copying: deque[tuple[Batch, Batch, torch.cuda.Event]], used: deque[tuple[Batch, torch.cuda.Event]], device: torch.device
) -> Batch:
    """The copy that was started first, ready for the current stream."""
    host, copy, event = copying.popleft()
    current = torch.cuda.current_stream(device)
    current.wait_event(event)
    for part in (copy.images, copy.labels):
        part.record_stream(current)  # its memory belongs to the copy's stream: not to be given out before this one is done
    used.append((host, event))
    while used and used[0][1].query():
        used.popleft()
    return copy


def _hold_back(ends: deque[torch.cuda.Event], device: torch.device) -> None:
    """Notes that a batch was used, and waits until the GPU is only some behind."""
    ends.append(torch.cuda.current_stream(device).record_event(torch.cuda.Event(blocking=True)))
    if len(ends) > _AHEAD:
        ends.popleft().synchronize()


def decode_on_device(batches: Iterable[EncodedBatch], device: torch.device, samples: Samples) -> Iterator[Batch]:
    """The batches, decoded on the device by torchvision: nvJPEG on a GPU, libjpeg on a CPU.

    nvJPEG rounds differently from libjpeg, by a level or two: results are those of another decoder, but equal from run to run.

    Raises:
        DataError: a sample cannot be decoded, or is not of the size the manifest says; names shard, key and offset.
    """
    for batch in batches:
        yield Batch(_decoded(batch, device, samples), batch.labels.to(device), batch.samples)


def _decoded(batch: EncodedBatch, device: torch.device, samples: Samples) -> Tensor:
    side = samples.side_px
    if not batch.jpegs:
        return torch.empty((0, side, side, 3), dtype=torch.uint8, device=device)
    try:
        images = _decode_jpegs(batch.jpegs, device)
        if all(image.shape == (3, side, side) for image in images):
            return (
                torch.stack(images).permute(0, 2, 3, 1).contiguous()
                if images
                else torch.empty((0, side, side, 3), dtype=torch.uint8)
            )
        cause = None
    except RuntimeError as error:
        cause = error
    _blame(batch, samples)
    raise DataError(f"samples {batch.samples.tolist()}: {device} cannot decode one of them, the CPU can: {cause}") from cause


def _decode_jpegs(jpegs: list[Tensor], device: torch.device) -> list[Tensor]:
    """Images as [3, h, w]. torchvision 0.29 still has this decoder and says that a package of its own will follow it."""
    from torchvision.io import ImageReadMode, decode_jpeg  # only who asks for this decoder needs the package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return list(decode_jpeg(jpegs, mode=ImageReadMode.RGB, device=device))


def _blame(batch: EncodedBatch, samples: Samples) -> None:
    """Raises for the first sample that does not decode on the CPU either."""
    row_of = torch.empty((samples.side_px, samples.side_px, 3), dtype=torch.uint8).numpy()
    for number, row in zip(*samples.locate(batch.samples.numpy()), strict=True):
        samples.decode(number, row, row_of)
