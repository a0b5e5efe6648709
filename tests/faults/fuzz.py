"""Bytes that no program would write, for every reader: damaged seeds, hostile values, structure out of nothing.

    python -m tests.faults.fuzz --examples 2000 [--seed 0] [READER ...]

Writes results/fuzz.json. A reader may take them, or raise a DataError or ParamsError, within MEMORY bytes and SECONDS of CPU
time.
"""

import argparse
import json
import os
import resource
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from alexnet.errors import DataError, ParamsError
from tests.faults.cases import FUZZ, read_fuzzed
from tests.faults.readers import READERS, Reader

MEMORY = 1 << 30
SECONDS = 10.0
DEEP = 20_000
_HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 10**6, 10**12, 10**30, -(10**30), 0.5, 1e308),
    *("", "x", "../../x", "/etc/passwd", "con", "a\x1b[2J", "\N{RIGHT-TO-LEFT OVERRIDE}", "0" * 64, "f" * 16, "9" * 5000),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": []}}),
)
_ALIASES = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)), "model: *a9"])
_HOSTILE_TEXTS = (
    *(b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf{}", b"null", b"NaN", b"1" * 5000, b'{"a": 1, "a": 2}', b'{"a": "\\ud800"}'),
    *(b"[" * DEEP, b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    *(_ALIASES.encode(), b"a: &a\n  b: *a\n", b"!!python/object/apply:os.mkdir [ran]"),
)


@st.composite
def damaged(draw: Callable[..., Any], seeds: tuple[bytes, ...]) -> bytes:
    """A seed in which bytes are flipped, removed, repeated, put in or cut off."""
    body = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(body) - 1)))
        size = draw(st.integers(1, 64))
        kind = draw(st.sampled_from(("flip", "set", "remove", "repeat", "put", "cut", "number")))
        if kind == "flip" and body:
            body[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            body[at : at + size] = draw(st.sampled_from((b"\0", b"\xff"))) * len(body[at : at + size])
        elif kind == "remove":
            del body[at : at + size]
        elif kind == "repeat":
            body[at:at] = body[at : at + size] * draw(st.integers(1, 20))
        elif kind == "put":
            body[at:at] = draw(st.binary(max_size=64))
        elif kind == "cut":
            del body[at:]
        else:
            body[at : at + 8] = draw(st.sampled_from((2**63 - 1, 2**31, 2**32 - 1, 1 << 40))).to_bytes(8, "little")
    return bytes(body)


@st.composite
def rewritten(draw: Callable[..., Any], trees: tuple[Any, ...]) -> bytes:
    """JSON like a seed's in which values are hostile, or keys gone, there twice, or unknown."""
    tree = json.loads(json.dumps(draw(st.sampled_from(trees))))
    for _ in range(draw(st.integers(1, 3))):
        node, found = tree, []
        while isinstance(node, (dict, list)) and node:
            key = draw(st.sampled_from(sorted(node))) if isinstance(node, dict) else draw(st.integers(0, len(node) - 1))
            found.append((node, key))
            node = node[key]
        if not found:
            break
        node, key = draw(st.sampled_from(found))
        kind = draw(st.sampled_from(("hostile", "hostile", "other", "gone", "unknown")))
        if kind == "gone":
            del node[key]
        elif kind == "unknown" and isinstance(node, dict):
            node[draw(st.text(max_size=8))] = deepcopy(draw(st.sampled_from(_HOSTILE)))
        else:
            node[key] = deepcopy(draw(st.sampled_from(_HOSTILE))) if kind == "hostile" else draw(_values)
    text = json.dumps(tree, ensure_ascii=draw(st.booleans()))
    return text.encode(errors="surrogatepass")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def bodies(reader: Reader) -> "st.SearchStrategy[bytes]":
    """Bytes for a reader."""
    found: list[Any] = [damaged(reader.seeds), st.binary(max_size=300)]
    trees = tuple(tree for tree in map(_tree, reader.seeds) if isinstance(tree, (dict, list)))
    if trees:
        found += [rewritten(trees), rewritten(trees), _values.map(lambda value: json.dumps(value).encode())]
    return st.one_of(found)


def _tree(seed: bytes) -> Any:
    """A seed that is JSON or YAML as a tree; None for others."""
    from ruamel.yaml import YAML

    try:
        return YAML(typ="safe", pure=True).load(seed.decode())
    except Exception:  # noqa: BLE001 - any other seed
        return None


@contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    """This process may have so many bytes more than it has."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (has + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def bounded_time(seconds: float) -> Iterator[None]:
    """This process may compute for so long."""

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not over after {seconds} s")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fuzz(reader: Reader, examples: int, seed: int | None = None) -> Counter[str]:
    """How many bodies were taken, and how many refused. Raises what a reader must not raise, with the smallest body found."""
    found: Counter[str] = Counter()

    def one(body: bytes) -> None:
        with warnings.catch_warnings(), bounded_memory(MEMORY), bounded_time(SECONDS):
            warnings.simplefilter("ignore")
            try:
                reader.read(body)
                found["taken"] += 1
            except (DataError, ParamsError) as error:
                found["refused"] += 1
                text = str(error)
                assert text.strip()
                assert len(text) < 4000, f"an error of {len(text):,} characters"

    for body in _HOSTILE_TEXTS if reader.text else ():
        one(body)
    check = given(bodies(reader))(one)
    if seed is not None:
        check = seeded(seed)(check)
    settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=seed is None,
        suppress_health_check=list(HealthCheck),
    )(check)()
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.fuzz", description="Feed damaged and hostile bytes to every reader."
    )
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of: {', '.join(READERS)}")
    parser.add_argument("--examples", type=int, default=2000, help="inputs for each reader; default: 2000")
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs; default: 0")
    args = parser.parse_args()
    here = Path.cwd()
    for name in args.readers or READERS:
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            found = fuzz(READERS[name](), args.examples, args.seed)
            os.chdir(here)
        results = read_fuzzed()
        FUZZ.parent.mkdir(exist_ok=True)
        seconds = round(time.process_time() - began, 1)
        results[name] = dict(found) | {"seed": args.seed, "seconds": seconds, "date": datetime.now(UTC).date().isoformat()}
        FUZZ.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{name}: {found['taken']:,} taken, {found['refused']:,} refused by name, {seconds} s", flush=True)


if __name__ == "__main__":
    main()
