"""The validate stage: every image is decoded once and its faults are recorded; then the index of all images is checked.

Sections `source` and `validate` of params.yaml determine what a fault is and what is done about it. A broken rule of critical
severity stops the stage: the report and the Data Docs (.local/data-docs, and the data bucket) name the images.
It can be killed at any time: started again, it continues; scanned rows are in .local/validate until the index is written.
ALEXNET_WORKERS: threads. ALEXNET_DASK: a Dask scheduler whose workers decode. ALEXNET_BUCKET, AWS_...: the data bucket.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from mimetypes import guess_type
from pathlib import Path

import pandas as pd
import pyarrow as pa

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write
from alexnet.files.strict import read_bytes
from alexnet.images.inspect import FAULT_MEANINGS, FAULTS, Fault, ValidateConfig
from alexnet.shards.manifest import Split
from pipelines.config import params
from pipelines.runtime import console, environment
from pipelines.sources.base import SourceConfig
from pipelines.sources.open import Source, open_source
from pipelines.storage.bucket import Bucket, data_bucket
from pipelines.validation import index
from pipelines.validation.datadocs import write_front_page
from pipelines.validation.distributions import distributions
from pipelines.validation.expectations import KEYS, check_index, cut_note
from pipelines.validation.report import FaultCounts, PerClass, Rule, SplitCounts, ValidationReport
from pipelines.validation.scan_cache import ScanCache, open_scan_cache
from pipelines.validation.thumbnails import make_pictures

DOCS = environment.LOCAL / "data-docs"
_NAMED = 5  # images, and keys of a rule, that the error names


def main(index_path: Path, report_path: Path, listing_path: Path | None = None) -> None:
    """Validates the source that params.yaml names. The index is written only if nothing stops the stage.

    Raises:
        DataError: an image has a fault of the policy `stop`, or an expectation of critical severity is broken.
    """
    # Pillow warns of what the index records, and of what it tolerates: EXIF, color profiles, odd TIFF tags.
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    given = params.load()
    bucket = data_bucket()
    bucket.check()
    source = open_source(given.source)
    listing = read_bytes(listing_path) if listing_path and listing_path.exists() else b""
    cache = open_scan_cache(given.source.name, source, given.validate, listing)
    table = build_index(source, given.source, given.validate, cache)
    index_path.unlink(missing_ok=True)  # an older one must not be taken for this source's
    with atomic_write(index_path) as part:
        digest = index.write(table, part)
        rules = check_index(table, given.validate, sorted(source.class_names()), DOCS, digest)
        report = make_report(given.source.name, table, given.validate, rules, digest, source.left_out().suffixes)
        names, pictures = source.class_names(), make_pictures(table, source, report.faults)
        write_front_page(DOCS, report, pictures, distributions(table, names, pictures.brightness), names)
        _upload_docs(bucket, report.data_docs.removesuffix("index.html"))
        report.write(report_path)
        _raise_if_broken(report, table, report_path)
    cache.clear()
    dropped = table["action"].to_pylist().count("drop")
    console.say(f"validate: {report.used:,} images to use, {dropped:,} dropped; Data Docs: {DOCS / 'index.html'}")


def build_index(source: Source, config: SourceConfig, rules: ValidateConfig, cache: ScanCache | None = None) -> pa.Table:
    """The index of a source; shows progress."""
    scanned = index.scan(source, rules, cache)
    batches = list(console.track(scanned, source.num_images(), "validate", size=lambda batch: batch.num_rows))
    return index.complete(batches, rules, config.val_fraction)


def make_report(
    name: str,
    table: pa.Table,
    config: ValidateConfig,
    rules: list[Rule],
    digest: str,
    left_out: Mapping[str, int] | None = None,
) -> ValidationReport:
    """The report on the index of the source `name`, which has this SHA-256.

    left_out: files of the source that are no images by their names, by suffix.
    """
    rows = table.select(["key", "split", "wnid", "faults", "action"]).to_pandas()
    used = rows[rows["action"].isin(["use", "repair"])]
    splits: dict[Split, SplitCounts] = {}
    for split in index.splits_of(table):
        counts = Counter(used[used["split"] == split]["wnid"])
        per_class = PerClass(min(counts.values(), default=0), max(counts.values(), default=0))
        splits[split] = SplitCounts(counts.total(), len(counts), per_class)
    report = ValidationReport(
        source=name,
        success=all(rule.success for rule in rules if rule.severity == "critical"),
        images=len(rows),
        used=len(used),
        splits=splits,
        faults=_faults(rows, config),
        rules=tuple(rules),
        index_sha256=digest,
        left_out=dict(sorted((left_out or {}).items())),
    )
    # Data Docs are uploaded under the digest of the whole report: another policy makes another report on the same index.
    return replace(report, data_docs=f"data-docs/{report.digest()}/index.html")


def _faults(rows: pd.DataFrame, config: ValidateConfig) -> dict[Fault, FaultCounts]:
    """Every kind of fault that was found and is not ignored; an image that has two kinds counts under both."""
    each = rows[["key", "faults"]].dropna()
    each = each.assign(kind=each["faults"].str.split(",")).explode("kind")
    found = {kind: keys.tolist() for kind, keys in each.groupby("kind")["key"]}
    faults: dict[Fault, FaultCounts] = {}
    for kind in FAULTS:
        policy, keys = config.policy[kind], found.get(kind, [])
        if keys and policy != "ignore":
            named = keys if policy == "stop" else keys[:KEYS]
            note = cut_note(len(named), len(keys), "index.parquet")
            faults[kind] = FaultCounts(policy, FAULT_MEANINGS[kind], len(keys), tuple(named), note)
    return faults


def _upload_docs(bucket: Bucket, prefix: str) -> None:
    for path in sorted(path for path in DOCS.rglob("*") if path.is_file()):
        bucket.upload(path, prefix + path.relative_to(DOCS).as_posix(), content_type=guess_type(path.name)[0])


def _raise_if_broken(report: ValidationReport, table: pa.Table, path: Path) -> None:
    """Raises DataError, which names the first images that stop the stage and every critical rule that is broken."""
    if report.success:
        return
    rows = table.select(["path", "offset", "key", "fault", "action"]).to_pandas()
    stopping = rows[rows["action"] == "stop"]
    lines = [
        f"{row.path}{f' ({row.key})' if row.offset else ''} is {row.fault} ({FAULT_MEANINGS[row.fault]})"
        for row in stopping.head(_NAMED).itertuples()
    ]
    if len(stopping) > _NAMED:
        lines.append(f"{len(stopping) - _NAMED:,} images more")
    for rule in report.broken_rules():
        if rule.about != "faults":  # those are the images above
            culprits = ", ".join(rule.keys[:_NAMED]) or f"observed {rule.observed}"
            lines.append(f"not so: {rule.rule} ({culprits})")
    rules = {rule.about for rule in report.broken_rules()}
    keys = [key for key, about in (("validate.policy", "faults"), ("validate.counts", "classes")) if about in rules]
    change = f", or change {' and '.join(keys)} in params.yaml" if keys else ""
    raise DataError(f"{'; '.join(lines)}; mend the source{change}; all are in {path} and in {DOCS / 'index.html'}")


if __name__ == "__main__":
    console.run_on_paths(
        "validate",
        lambda listing, index_path, report_path: main(index_path, report_path, listing),
        listing="JSON of the fetch stage, which changes with the source's files",
        index="Parquet to write: a row for every image",
        report="JSON to write: counts, faults, rules",
    )
