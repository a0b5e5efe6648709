"""The validate stage: every image decoded once, what it is and what is wrong with it; then the suite judges the whole."""

import argparse
import hashlib
import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import repeat
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write_bytes
from alexnet.images.inspect import FAULT_MEANINGS, FAULTS, ValidateConfig
from pipelines.config import params
from pipelines.runtime import console, environment
from pipelines.sources.base import Source, SourceConfig
from pipelines.sources.open import open_source
from pipelines.storage.bucket import Bucket, data_bucket
from pipelines.validation import index
from pipelines.validation.datadocs import write_front_page
from pipelines.validation.expectations import KEYS, Rule, cut_note, judge
from pipelines.validation.scan_cache import ScanCache, open_scan_cache

DOCS = environment.LOCAL / "data-docs"
_NAMED = 5  # culprits that the error names


def main(index_path: Path, report_path: Path) -> None:
    """Judges the source that params.yaml names. The index appears only when nothing stops the stage."""
    # Pillow warns of what the index records, and of what it tolerates: EXIF, color profiles, odd TIFF tags.
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    given = params.load()
    bucket = data_bucket()
    bucket.check()
    source = open_source(given.source)
    cache = open_scan_cache(given.source.name, source, given.validate)
    table = build_index(source, given.source, given.validate, cache)
    index_path.unlink(missing_ok=True)  # an older one must not be taken for this source's
    part = index_path.with_name(f".{index_path.name}.part")
    try:
        digest = index.write(table, part)
        rules = judge(table, given.validate, sorted(source.class_names()), DOCS, digest)
        report = make_report(given.source.name, table, given.validate, rules, digest)
        write_front_page(DOCS, report)
        _upload_docs(bucket, report["data_docs"].removesuffix("index.html"))
        atomic_write_bytes(report_path, (json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
        _stop_if_bad(table, rules, report_path)
        part.replace(index_path)
        cache.forget()
    finally:
        part.unlink(missing_ok=True)
    dropped = table["action"].to_pylist().count("drop")
    console.say(f"validate: {report['used']:,} images to use, {dropped:,} dropped; Data Docs: {DOCS / 'index.html'}")


def build_index(source: Source, config: SourceConfig, rules: ValidateConfig, cache: ScanCache | None = None) -> pa.Table:
    """The index of a source."""
    batches = _counted(index.scan(source, rules, cache), source.num_images())
    return index.complete(batches, rules, config.val_fraction)


def _counted(batches: Iterator[pa.RecordBatch], total: int) -> list[pa.RecordBatch]:
    """All batches, with progress shown by images."""
    counted: list[pa.RecordBatch] = []

    def images() -> Iterator[None]:
        for batch in batches:
            counted.append(batch)
            yield from repeat(None, batch.num_rows)

    for _ in console.track(images(), total, "validate"):
        pass
    return counted


def make_report(name: str, table: pa.Table, config: ValidateConfig, rules: list[Rule], digest: str) -> dict[str, Any]:
    """What validation.json holds: counts, faults with their images' keys, and every rule's verdict. No times, no places."""
    rows = table.select(["key", "split", "wnid", "faults", "action"]).to_pandas()
    used = rows[rows["action"].isin(["use", "repair"])]
    splits = {}
    for split in ("train", "val"):
        counts = Counter(used[used["split"] == split]["wnid"])
        per_class = {"min": min(counts.values(), default=0), "max": max(counts.values(), default=0)}
        splits[split] = {"images": counts.total(), "classes": len(counts), "per_class": per_class}
    report = {
        "source": name,
        "success": not _against(rules),
        "images": len(rows),
        "used": len(used),
        "splits": splits,
        "faults": _faults(rows, config),
        "rules": [asdict(rule) for rule in rules],
        "index_sha256": digest,
    }
    return report | {"data_docs": f"{_docs_prefix(report)}index.html"}


def _faults(rows: pd.DataFrame, config: ValidateConfig) -> dict[str, Any]:
    """Every kind that was found and is not ignored, with its images; an image of two kinds counts under both."""
    each = rows[["key", "faults"]].dropna()
    each = each.assign(kind=each["faults"].str.split(",")).explode("kind")
    found = {str(kind): keys.tolist() for kind, keys in each.groupby("kind")["key"]}
    faults: dict[str, Any] = {}
    for kind in FAULTS:
        policy, keys = config.policy[kind], found.get(kind, [])
        if keys and policy != "ignore":
            named = keys if policy == "stop" else keys[:KEYS]
            faults[kind] = {
                "policy": policy,
                "meaning": FAULT_MEANINGS[kind],
                "images": len(keys),
                "keys": named,
                "note": cut_note(len(named), len(keys), "index.parquet"),
            }
    return faults


def _docs_prefix(report: dict[str, Any]) -> str:
    """Where in the data bucket the Data Docs are: of this report, for other rules judge the same index otherwise."""
    return f"data-docs/{hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()}/"


def _upload_docs(bucket: Bucket, prefix: str) -> None:
    for path in sorted(DOCS.rglob("*")):
        if path.is_file():
            kind = guess_type(path.name)[0]
            bucket.put(prefix + path.relative_to(DOCS).as_posix(), path.read_bytes(), content_type=kind)


def _against(rules: list[Rule]) -> list[Rule]:
    return [rule for rule in rules if rule.severity == "critical" and not rule.success]


def _stop_if_bad(table: pa.Table, rules: list[Rule], report: Path) -> None:
    """Raises DataError that names the first culprits and every rule that does not hold."""
    if not (against := _against(rules)):
        return
    rows = table.select(["path", "offset", "fault", "action"]).to_pandas()
    stopping = rows[rows["action"] == "stop"]
    lines = [f"{row.path} is {row.fault} ({FAULT_MEANINGS[row.fault]})" for row in stopping.head(_NAMED).itertuples()]
    if len(stopping) > _NAMED:
        lines.append(f"{len(stopping) - _NAMED:,} images more")
    for rule in against:
        if rule.about != "faults":  # those are the images above
            culprits = ", ".join(rule.keys[:_NAMED]) or f"observed {rule.observed}"
            lines.append(f"not so: {rule.rule} ({culprits})")
    raise DataError(
        f"{'; '.join(lines)}; mend the source, or change validate.policy in params.yaml; "
        f"all are in {report} and in {DOCS / 'index.html'}"
    )


_HELP = """\
Sections `source` and `validate` of params.yaml say what a fault is and what is done about it. A rule of critical severity that
does not hold stops the stage: the report and the Data Docs (.local/data-docs, and the data bucket) name the culprits.
Kill it at any time: run again, it goes on; what it has seen is in .local/validate until the index is written.
ALEXNET_WORKERS: threads. ALEXNET_DASK: a scheduler whose workers decode instead. ALEXNET_BUCKET, AWS_...: the data bucket.
"""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.validate",
        description=__doc__,
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", type=Path, required=True, help="JSON of the fetch stage; read by DVC only, to see a change")
    parser.add_argument("--index", type=Path, required=True, help="Parquet to write: a row an image")
    parser.add_argument("--report", type=Path, required=True, help="JSON to write: counts, faults, verdicts")
    arguments = parser.parse_args()
    console.run("validate", lambda: main(arguments.index, arguments.report))
