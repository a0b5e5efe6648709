"""The lines that `make run` ends with, from the files that the stages have left."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alexnet.config import to_json
from pipelines.cli import summary
from pipelines.cli.main import main as cli_main
from pipelines.config import params
from pipelines.evaluation.intervals import share
from pipelines.evaluation.results import THROUGHPUT, Estimate, ProtocolResult, Results, Throughput
from pipelines.runtime.timings import Timing

ROOT = Path(__file__).parents[3]
RESULTS = Results(
    split="val",
    images=1250,
    classes=10,
    protocols=(
        ProtocolResult("center", share(0.0152, 1250), share(0.0, 1250), Estimate(0.1, 0.1, 0.1), 0.01),
        ProtocolResult("five", share(0.0424, 1250), share(0.0008, 1250), Estimate(0.1, 0.1, 0.1), 0.01),
    ),
    ensemble=(),
    majority=share(0.9, 1250),
    ridge=share(0.1392, 1250),
    variants={},
)
RECEIPT: dict[str, Any] = {
    "name": "alexnet",
    "alias": "latest",
    "version": "0123",
    "files": {"a": "b"},
    "held_back": None,
    "champion": None,
}


def last_line() -> str:
    """The last before what to type next."""
    text: str = summary.summary().partition("\ntry next")[0]
    return text.splitlines()[-1]


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory after a run: metrics, a figure, a receipt and status files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALEXNET_BUCKET", "data")
    monkeypatch.setenv("ALEXNET_REGISTRY", "registry")
    Path("artifacts/evaluation").mkdir(parents=True)
    Path("artifacts/evaluation/kernels.png").touch()
    summary.RESULTS.write_bytes(to_json(RESULTS))
    summary.RECEIPT.write_text(json.dumps(RECEIPT))
    Path(".local/status").mkdir(parents=True)
    for second, stage in enumerate(("fetch", "shard", "validate", "train"), 100):
        Path(f".local/status/{stage}.json").touch()
        os.utime(f".local/status/{stage}.json", (second, second))
    return tmp_path


def test_error_rates_have_their_intervals_and_stand_beside_the_baselines(finished: Path) -> None:
    lines = summary.summary().splitlines()
    assert lines[1].startswith("validation error, 1,250 images, 10 classes")
    assert [line.split() for line in lines[2:6]] == [
        ["center", "crop", "1.52%", "0.98", "to", "2.36%", "0.00%"],
        ["five", "crops", "4.24%", "3.26", "to", "5.50%", "0.08%"],
        ["baseline:", "majority", "90.00%", "88.21", "to", "91.54%"],
        ["baseline:", "ridge", "13.92%", "12.11", "to", "15.95%"],
    ]
    assert lines[6] == "figures     artifacts/evaluation/ (1)"
    assert lines[7].startswith("published   alexnet@0123, 1 files, at s3://registry/alexnet/versions/0123")
    assert lines[8] == "alias       alexnet@latest is this version; `alexnet pull alexnet@latest`"


def test_variants_trained_alike_and_the_throughput_are_named_where_there_are_any(finished: Path) -> None:
    summary.RESULTS.write_bytes(to_json(replace(RESULTS, variants={"torchvision": share(0.0208, 1250)})))
    THROUGHPUT.write_bytes(to_json(Throughput("a machine", "float32", 321.4, {"center": 3000.2, "five": 600.1})))
    lines = summary.summary().splitlines()
    assert lines[6].split() == ["trained", "alike:", "torchvision", "2.08%", "1.42", "to", "3.03%"]
    assert lines[7] == "throughput  321 images/s by all crops, reading and decoding included"


def test_the_split_that_is_reported_on_is_named(finished: Path) -> None:
    summary.RESULTS.write_bytes(to_json(replace(RESULTS, split="test")))
    assert summary.summary().splitlines()[1].startswith("test error, 1,250 images, 10 classes")


def test_an_alias_that_did_not_move_is_reported_with_the_reason(finished: Path) -> None:
    summary.RECEIPT.write_text(json.dumps(RECEIPT | {"held_back": "top-1 error 0.5 is above 0.4"}))
    assert last_line() == ("alias       alexnet@latest stays where it was: top-1 error 0.5 is above 0.4")


def test_what_came_of_the_champion_is_said(finished: Path) -> None:
    outcome = {"is_champion": True, "reason": "not worse", "compared_with": "4567", "comparison": None}
    for is_champion, says in ((True, "is this version: not worse"), (False, "stays where it was: not worse")):
        summary.RECEIPT.write_text(json.dumps(RECEIPT | {"champion": outcome | {"is_champion": is_champion}}))
        assert last_line() == (f"champion    alexnet@champion {says}")


def test_a_run_that_published_nothing_says_so(finished: Path) -> None:
    summary.RECEIPT.write_text(json.dumps(RECEIPT | {"version": None, "files": {}, "held_back": "an experiment"}))
    assert last_line() == ("published   nothing: an experiment")


def test_what_a_network_was_not_trained_for_is_not_shown_first(finished: Path) -> None:
    flipped = replace(RESULTS.protocols[1], views="flipped")
    summary.RESULTS.write_bytes(to_json(replace(RESULTS, protocols=(*RESULTS.protocols, flipped))))
    assert "flipped" not in summary.summary()
    ten = replace(RESULTS.protocols[1], views="ten")
    summary.RESULTS.write_bytes(to_json(replace(RESULTS, protocols=(RESULTS.protocols[0], ten))))
    assert "ten crops   " in summary.summary()


def test_every_command_to_try_next_exists(finished: Path) -> None:
    typed = re.findall(r"\.venv/bin/alexnet (\S+)", summary.summary())
    assert typed == ["predict", "explain", "claims", "use", "use"]
    for command in typed:
        with pytest.raises(SystemExit, match="^0$"):
            cli_main([command, "--help"])
    for preset in re.findall(r"alexnet use (\S+)", summary.summary()):
        assert params.preset_file(preset, ROOT / params.PRESETS).is_file()


def test_stages_that_ran_are_in_the_order_of_their_ends_without_fetch(finished: Path) -> None:
    assert summary.stages_run_since(0) == ["shard", "validate", "train"]
    assert summary.stages_run_since(102) == ["validate", "train"]


def test_stages_say_how_long_they_took(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("started").touch()
    os.utime("started", (101, 101))
    Path(".local/timings").mkdir()
    for stage, seconds in (("validate", 9.6), ("train", 301.0)):
        Path(f".local/timings/{stage}.json").write_bytes(to_json(Timing(seconds, 0.0, 0, None, None, None, 0, 0, None, None)))
    assert summary.main(["--since", "started"]) == 0
    assert capsys.readouterr().out.endswith("ran         shard, validate 10 s, train 5 min\n")


@pytest.mark.parametrize("damage", [b"", b"null", b"[" * 20_000, b"\xff\xfe{\0"], ids=["empty", "null", "deep", "utf-16"])
def test_a_stage_whose_time_is_damaged_is_named_without_it(
    damage: bytes, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("started").touch()
    os.utime("started", (101, 101))
    Path(".local/timings").mkdir()
    Path(".local/timings/train.json").write_bytes(damage)
    os.mkfifo(".local/timings/validate.json")
    Path(".local/status/probe.json").symlink_to("probe.json")
    assert summary.main(["--since", "started"]) == 0
    assert capsys.readouterr().out.endswith("ran         shard, validate, train, probe\n")
    Path("started").unlink()
    assert summary.main(["--since", "started"]) == 1
    assert "No such file or directory: 'started'" in capsys.readouterr().err


def test_a_run_of_which_nothing_was_left_to_do_is_reported(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("started").touch()
    assert summary.main(["--since", "started"]) == 0
    assert capsys.readouterr().out.endswith("nothing to do: nothing has changed since the last run\n")


@pytest.mark.parametrize("missing", [summary.RESULTS, summary.RECEIPT], ids=str)
def test_without_a_finished_run_the_command_fails(finished: Path, missing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing.unlink()
    assert summary.main([]) == 1
    assert capsys.readouterr().err.startswith(f"error: {missing}: No such file or directory; `make run` makes it")
