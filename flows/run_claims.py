"""The flow `run-claims`: the cells of a scale of claims/claims.yaml, from where they were, and the table that they make."""

from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.states import Completed

from flows import log, page
from flows.stage import repair
from flows.train_alexnet import repro


@flow(name="run-claims", persist_result=False)
def run_claims(scale: Literal["smoke", "figure1", "pocket", "full"] = "smoke") -> Any:
    """Trains what the paper's claims compare, with and without, and puts the table on the run's page.

    Args:
        scale: smoke and figure1 take minutes, pocket hours of two cores, full days of GPUs; a run goes on where one was.
    """
    log.configure()
    repair(get_run_logger().warning)
    repro(f"claims/dvc.yaml:{scale}", {})
    table = Path("claims", f"{scale}.md").read_text(encoding="utf-8")
    page.text(f"claims-{scale}", table, f"Claims at the scale {scale}")
    return Completed(message=f"claims/{scale}.md has the table")
