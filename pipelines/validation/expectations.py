"""The expectations that the index must meet, checked by Great Expectations, which writes its Data Docs about them.

A broken expectation of critical severity stops the stage.
"""

import logging
import os
import re
import shutil
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from alexnet.images.inspect import FAULT_MEANINGS, FAULTS, Policy, Range, ValidateConfig
from alexnet.shards.manifest import Split
from pipelines.validation.index import splits_of
from pipelines.validation.report import Rule

KEYS = 1000  # that the report names at most, of a rule and of a kind of fault that does not stop the stage
_SEVERITIES: dict[Policy, str] = {"stop": "critical", "drop": "warning", "repair": "info"}
_NO_TIME = datetime(2012, 1, 1, tzinfo=UTC)  # Great Expectations names its pages by a time; another would rename them
_SIGNS = {"fa-check-circle": "&#10003;", "fa-times": "&#10007;", "fa-exclamation-triangle": "!"}  # of its font, and letters
_ACTIONS = ("use", "repair", "drop", "stop")
_IMAGE_COLUMNS = ["key", "split", "wnid", "label", "bytes", "sha256", "width", "height", "format", "faults", "action"]


def check_index(table: pa.Table, config: ValidateConfig, wnids: list[str], docs: Path, digest: str) -> list[Rule]:
    """The result of every expectation, in their order. The folder `docs` is replaced by Great Expectations' site.

    Args:
        wnids: All classes, also those without images.
        docs: The folder of the site.
        digest: SHA-256 of the index, which names the site's pages.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)  # it logs tracebacks of what it also raises
    shutil.rmtree(docs, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own use of pandas and others
        gx: Any = import_module("great_expectations")  # takes seconds
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute()).replace("$", r"\$")}
        context.add_data_docs_site("docs", {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": store})
        run_identifier: Any = import_module("great_expectations.core.run_identifier")
        run = run_identifier.RunIdentifier(run_name=digest[:16], run_time=_NO_TIME)
        tables = context.data_sources.add_pandas("index")

        def check(name: Literal["images", "classes"], index: str, frame: pd.DataFrame, expectations: list[Any]) -> list[Rule]:
            """Checks the rows of a table, which are named by its column `index`."""
            batch = tables.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
            suite = context.suites.add(gx.ExpectationSuite(name, expectations=expectations))
            validation = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
            details = {"result_format": "COMPLETE", "unexpected_index_column_names": [index], "partial_unexpected_count": 20}
            found = validation.run(batch_parameters={"dataframe": frame}, result_format=details, run_id=run)
            return [_rule(name, index, result) for result in found.results]

        splits = splits_of(table)
        rules = check("images", "key", table.select(_IMAGE_COLUMNS).to_pandas(), image_rules(config, len(wnids), splits))
        if expectations := class_rules(config, splits):
            rules += check("classes", "wnid", _classes(table, wnids, splits), expectations)
        context.build_data_docs(["docs"])
    _finish_pages(docs)
    return rules


def _finish_pages(docs: Path) -> None:
    """Takes the time of the run, which is none, out of the pages and of their names, and the newsletter out of their foot.

    A rule's state is a letter, for the font of signs that the pages ask for is on another host.
    """
    for page in docs.rglob("*.html"):
        html = page.read_text(encoding="utf-8").replace("<html>", '<html lang="en">', 1)
        html = re.sub(r"<tr(?:(?!</tr>).)*>Run Time<.*?</tr>|<footer>.*?</footer>", "", html, flags=re.DOTALL)
        for sign, letter in _SIGNS.items():
            html = re.sub(
                rf'<i class="fas {sign} (text-\w+)"[^>]*>', rf'<i class="\1" style="font-style: normal">{letter}', html
            )
        page.write_text(html.replace(f" / {_NO_TIME:%Y-%m-%dT%H:%M:%SZ}", ""), encoding="utf-8")
    for folder in [*docs.glob("validations/*/*/*/")]:
        folder.rename(folder.with_name("result"))


def image_rules(config: ValidateConfig, classes: int, splits: Sequence[Split]) -> list[Any]:
    """Expectations on the index: on its columns, and that no image has a fault, for every fault that is not ignored."""
    gxe: Any = import_module("great_expectations.expectations")
    shape = [
        gxe.ExpectColumnValuesToBeUnique(column="key", description="No key stands twice"),
        gxe.ExpectColumnValuesToMatchRegex(
            column="key", regex=r"^[^./\\\s]{1,96}$", description="Keys have no dots, slashes or spaces"
        ),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=[*splits], description=f"Splits are {' and '.join(splits)}"),
        gxe.ExpectColumnValuesToBeBetween(
            column="label", min_value=-1, max_value=classes - 1, description="Labels count the classes from 0"
        ),
        gxe.ExpectColumnValuesToMatchRegex(column="sha256", regex="^[0-9a-f]{64}$", description="Every image has its digest"),
        gxe.ExpectColumnValuesToBeInSet(column="action", value_set=list(_ACTIONS), description="Every image has its verdict"),
    ]
    faults = [
        gxe.ExpectColumnValuesToNotMatchRegex(
            column="faults",
            regex=rf"\b{kind}\b",
            severity=_SEVERITIES[config.policy[kind]],
            description=f"No image is {kind}: {FAULT_MEANINGS[kind]} (policy: {config.policy[kind]})",
        )
        for kind in FAULTS
        if config.policy[kind] != "ignore"
    ]
    return shape + faults


def class_rules(config: ValidateConfig, splits: Sequence[Split]) -> list[Any]:
    """Expectations on the counts of used images by class and split; a test split has as many of a class as validation."""
    gxe: Any = import_module("great_expectations.expectations")
    counts = config.counts
    rules: list[Any] = []
    wanted: dict[Split, tuple[Range, int | None]] = {
        "train": (counts.train_per_class, counts.train_images),
        "val": (counts.val_per_class, counts.val_images),
        "test": (counts.val_per_class, None),
    }
    for split in splits:
        each, total = wanted[split]
        if each.min is not None or each.max is not None:
            text = f"Every class has {_range(each)} images in {split}"
            rules.append(
                gxe.ExpectColumnValuesToBeBetween(column=split, min_value=each.min, max_value=each.max, description=text)
            )
        if total is not None:
            text = f"There are {total:,} images in {split}"
            rules.append(gxe.ExpectColumnSumToBeBetween(column=split, min_value=total, max_value=total, description=text))
    if counts.classes is not None:
        rules.append(gxe.ExpectTableRowCountToEqual(value=counts.classes, description=f"There are {counts.classes:,} classes"))
    return rules


def _range(counts: Range) -> str:
    if counts.max is None:
        return f"at least {counts.min:,}"
    return f"{counts.min:,} to {counts.max:,}" if counts.min is not None else f"at most {counts.max:,}"


def _classes(table: pa.Table, wnids: list[str], splits: Sequence[Split]) -> pd.DataFrame:
    """The number of used images of every class, in a column for each split."""
    rows = table.select(["wnid", "split", "action"]).to_pandas()
    used = rows[rows["action"].isin(["use", "repair"])]
    counts = pd.crosstab(used["wnid"], used["split"]).reindex(index=wnids, columns=list(splits), fill_value=0)
    return counts.rename_axis("wnid").reset_index()


def _rule(about: Literal["images", "classes"], index: str, result: Any) -> Rule:
    expectation, details = result.expectation_config, result.result or {}
    if (info := result.exception_info) and "'raised_exception': True" in str(info):
        raise AssertionError(f"{expectation.description}: {info}")
    is_fault = expectation.kwargs.get("column") == "faults"
    severity, observed = expectation.severity.value, details.get("observed_value")
    keys = sorted(str(row[index]) for row in details.get("unexpected_index_list") or [])
    return Rule(
        about="faults" if is_fault else about,
        rule=str(expectation.description),
        severity=severity,
        success=bool(result.success),
        unexpected=int(details.get("unexpected_count") or 0),
        keys=tuple(keys[:KEYS]),
        observed=None if observed is None else int(observed),
        note=cut_note(KEYS, len(keys), "faults" if is_fault and severity == "critical" else "index.parquet"),
    )


def cut_note(named: int, keys: int, where: str) -> str:
    """The note beside the first `named` of so many keys: where all of them are. Empty if there are no more."""
    return f"the first {named:,} of {keys:,}; all are in {where}" if named < keys else ""
