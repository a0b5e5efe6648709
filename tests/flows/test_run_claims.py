"""The flow of claims runs a stage of claims/dvc.yaml for every scale."""

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from pipelines.claims import mapping

ROOT = Path(__file__).parents[2]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "claims/dvc.yaml").read_text(encoding="utf-8"))["stages"]


def test_every_scale_is_a_stage_and_a_choice_of_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.run_claims import run_claims

    scales = list(mapping.read(ROOT / mapping.FILE).scales)
    assert set(STAGES) == set(scales)
    assert set(get_args(get_type_hints(run_claims.fn)["scale"])) == set(scales)
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"python -m pipelines.cli.main claims --scale {name}"
        assert stage["outs"] == [{f"claims/results/{name}": {"cache": False, "persist": True}}]


def test_its_run_repeats_the_stage_and_shows_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import run_claims

    monkeypatch.chdir(tmp_path)
    Path("claims").mkdir()
    Path("claims/pocket.md").write_text("| a table |", encoding="utf-8")
    done: list[Any] = []
    monkeypatch.setattr(run_claims, "repro", lambda stage, variables: done.append((stage, variables)))
    monkeypatch.setattr(run_claims, "repair", lambda warn: done.append("repair"))
    monkeypatch.setattr(run_claims, "get_run_logger", lambda: __import__("logging").getLogger())
    monkeypatch.setattr("flows.page.text", lambda *given: done.append(given))
    state = run_claims.run_claims.fn("pocket")
    assert done == [
        "repair",
        ("claims/dvc.yaml:pocket", {}),
        ("claims-pocket", "| a table |", "Claims at the scale pocket"),
    ]
    assert state.message == "claims/pocket.md has the table"
