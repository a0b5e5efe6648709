"""The suite: what the index must be like, as Great Expectations. It judges; a critical rule that does not hold stops the stage.

Data Docs are its report in HTML.
"""

import logging
import os
import shutil
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from alexnet.images.inspect import FAULT_MEANINGS, FAULTS, ValidateConfig
from pipelines.validation import datadocs

KEYS = 1000  # culprits that the report names for a rule, or for a kind of fault that does not stop, at most
_SEVERITIES = {"stop": "critical", "drop": "warning", "repair": "info"}
_ACTIONS = ("use", "repair", "drop", "stop")
_IMAGE_COLUMNS = ["key", "split", "wnid", "label", "bytes", "sha256", "width", "height", "format", "faults", "action"]


@dataclass(frozen=True)
class Rule:
    """One expectation's verdict. unexpected: rows against it; keys: of the first of them, images' keys or classes' wnids.

    about: `faults` (a kind of them), `images` (what every row must be like) or `classes`. note: where the other keys are.
    """

    about: str
    rule: str
    severity: str
    success: bool
    unexpected: int
    keys: tuple[str, ...]
    observed: object
    note: str = ""


def judge(table: pa.Table, config: ValidateConfig, wnids: list[str], docs: Path, digest: str) -> list[Rule]:
    """Verdicts on the index, in the order of the rules; writes the Data Docs below `docs`.

    wnids: of all classes, also of those without images. digest: of the index, which names the run in the Data Docs; there
    are no times in them.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)  # it logs tracebacks of what it also raises
    shutil.rmtree(docs, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own use of pandas and others
        gx: Any = import_module("great_expectations")  # takes seconds
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        for site in context.get_site_names():
            context.delete_data_docs_site(site)
        context.add_data_docs_site("index", datadocs.site(docs))
        run = import_module("great_expectations.core.run_identifier").RunIdentifier(
            run_name=digest[:16], run_time=datetime(2012, 1, 1, tzinfo=UTC)
        )
        tables = context.data_sources.add_pandas("index")
        rules = _check(gx, context, tables, run, "images", "key", _images(table), image_rules(config, len(wnids)))
        if expectations := class_rules(config):
            rules += _check(gx, context, tables, run, "classes", "wnid", _classes(table, wnids), expectations)
        context.build_data_docs()
    datadocs.make_self_contained(docs)
    return rules


def _check(
    gx: Any, context: Any, tables: Any, run: Any, name: str, index: str, frame: pd.DataFrame, expectations: list[Any]
) -> list[Rule]:
    """Runs one suite on one table, whose rows are named by the column `index`."""
    batch = tables.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name, expectations=expectations))
    validation = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    form = {"result_format": "COMPLETE", "unexpected_index_column_names": [index], "partial_unexpected_count": 20}
    checkpoint = context.checkpoints.add(gx.Checkpoint(name=name, validation_definitions=[validation], result_format=form))
    outcome = checkpoint.run(batch_parameters={"dataframe": frame}, run_id=run)
    return [_rule(name, index, each) for result in outcome.run_results.values() for each in result.results]


def image_rules(config: ValidateConfig, classes: int) -> list[Any]:
    """Expectations on the images' rows: what every row must be like, and a rule for every kind of fault."""
    gxe: Any = import_module("great_expectations.expectations")
    shape = [
        gxe.ExpectColumnValuesToBeUnique(column="key", description="No key stands twice"),
        gxe.ExpectColumnValuesToMatchRegex(
            column="key", regex=r"^[^./\\\s]{1,96}$", description="Keys have no dots, slashes or spaces"
        ),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=["train", "val"], description="Splits are train and val"),
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


def class_rules(config: ValidateConfig) -> list[Any]:
    """Expectations on the counts of used images by class and split."""
    gxe: Any = import_module("great_expectations.expectations")
    counts = config.counts
    rules: list[Any] = []
    for split, each, total in (
        ("train", counts.train_per_class, counts.train_images),
        ("val", counts.val_per_class, counts.val_images),
    ):
        if each.min is not None or each.max is not None:
            rules.append(
                gxe.ExpectColumnValuesToBeBetween(
                    column=split,
                    min_value=each.min,
                    max_value=each.max,
                    description=f"Every class has {_words(each.min, each.max)} images in {split}",
                )
            )
        if total is not None:
            rules.append(
                gxe.ExpectColumnSumToBeBetween(
                    column=split,
                    min_value=total,
                    max_value=total,
                    description=f"There are {total:,} images in {split}",
                )
            )
    if counts.classes is not None:
        rules.append(gxe.ExpectTableRowCountToEqual(value=counts.classes, description=f"There are {counts.classes:,} classes"))
    return rules


def _words(least: int | None, most: int | None) -> str:
    if most is None:
        return f"at least {least:,}"
    return f"{least:,} to {most:,}" if least is not None else f"at most {most:,}"


def _images(table: pa.Table) -> pd.DataFrame:
    return table.select(_IMAGE_COLUMNS).to_pandas()


def _classes(table: pa.Table, wnids: list[str]) -> pd.DataFrame:
    """Used images of every class and split; a class of which none is used has zeros."""
    rows = table.select(["wnid", "split", "action"]).to_pandas()
    rows["used"] = rows["action"].isin(["use", "repair"])
    counts = rows.pivot_table(index="wnid", columns="split", values="used", aggfunc="sum", fill_value=0)
    counts = counts.reindex(index=wnids, columns=["train", "val"], fill_value=0).astype(int)
    return counts.rename_axis("wnid").reset_index()


def _rule(about: str, index: str, result: Any) -> Rule:
    expectation, details = result.expectation_config, result.result or {}
    if (info := result.exception_info) and "'raised_exception': True" in str(info):
        raise AssertionError(f"{expectation.description}: {info}")
    culprits = sorted(str(row[index]) for row in details.get("unexpected_index_list") or [])
    about = "faults" if expectation.kwargs.get("column") == "faults" else about
    whole = "faults" if about == "faults" and expectation.severity.value == "critical" else "index.parquet"
    return Rule(
        about=about,
        rule=str(expectation.description),
        severity=expectation.severity.value,
        success=bool(result.success),
        unexpected=int(details.get("unexpected_count") or 0),
        keys=tuple(culprits[:KEYS]),
        observed=_plain(details.get("observed_value")),
        note=cut_note(min(len(culprits), KEYS), len(culprits), whole),
    )


def cut_note(named: int, all_: int, whole: str) -> str:
    """What to say of a list of keys that was cut."""
    return f"the first {named:,} of {all_:,}; all are in {whole}" if named < all_ else ""


def _plain(value: Any) -> object:
    """A number of numpy's as one of Python's."""
    return value.item() if hasattr(value, "item") else value
