"""Every shell line of README, CONTRIBUTING and docs/ is run: at once, on a finished run, or by the test that is named.

What no test can run says why. A line without a place fails the first test.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from infra.stack import Stack
from pipelines.cli.main import main
from pipelines.runtime.environment import Store
from tests.support.checkout import Checkout, make_checkout
from tests.support.shell_lines import ROOT, commands, shell_lines

# Capitals, and files that the reader has, by what stands for them.
STAND_INS = {
    "alexnet@VERSION": "alexnet@latest",
    "NAME@VERSION": "alexnet@latest",
    "--variant NAME": "--variant no-lrn",
    "DIR alexnet@": "artifacts/model alexnet@",
    "alexnet@latest DIR": "alexnet@latest exported",
    "PHOTO": "photo.png",
}
_SETTINGS = 'settings={"preset": "folder", "source_place": "/photos", "overrides": ["model.classes=3"]}'
_RENDEZVOUS = "--rdzv-backend c10d --rdzv-endpoint HOST:29500"
_FETCHED = "--source artifacts/source.json --listing artifacts/listing.json --purpose artifacts/purpose.json"
AT_ONCE = (
    "alexnet use imagenet",
    ".venv/bin/alexnet use imagenet",
    "alexnet use solar-cells",
    ".venv/bin/alexnet use solar-cells",
    ".venv/bin/alexnet use imagenet-demo",
    "alexnet use webdataset",
    "alexnet use four-layer",
    ".venv/bin/alexnet use folder",
    "alexnet use digits",
    "alexnet describe --preset imagenet",
    "alexnet describe --preset imagenet --draw network.svg",
    "alexnet describe --variant NAME",
    "alexnet show --preset imagenet",
    "alexnet show --variant NAME",
)
ON_A_FINISHED_RUN = (  # in this order
    "make help",
    "make doctor",
    "make run",
    "alexnet doctor",
    "alexnet pull alexnet@latest",
    "alexnet predict photo.png",
    "alexnet predict PHOTO",
    ".venv/bin/alexnet predict photo.png",
    "alexnet features photo.png",
    "alexnet releases",
    "alexnet trace alexnet@latest",
    "alexnet export alexnet@latest DIR",
    "alexnet history",
    "alexnet explain photo.png",
    ".venv/bin/alexnet explain photo.png",
    "alexnet story PHOTO",
    "alexnet ensemble DIR NAME@VERSION",
    "alexnet drift",
    "alexnet shards --urls train",
    "alexnet shards --verify --repair",
    "alexnet releases --verify --repair",
    "make experiments",
    ".venv/bin/dvc metrics show .local/timings",
    ".venv/bin/dvc plots show",
    ".venv/bin/dvc status",
    "dvc status",
    ".venv/bin/dvc checkout",
    ".venv/bin/dvc commit -f dvc.yaml",
    "dvc commit -f train",
    "dvc repro",
    ".venv/bin/dvc repro --force --single-item shard",
    ".venv/bin/dvc repro --force --single-item publish",
    'git tag -a alexnet@v1.0.0 -m "..."',
    "make up",
    'eval "$(.venv/bin/python -m infra.stack env)"',
    "make down",
    "rm -r .local/prefect",
)
BY_A_TEST = {
    "tests/pipelines/cli/models/test_aliases.py::test_a_release_is_promoted_and_rolled_back_and_both_are_recorded": (
        "alexnet promote",
        "alexnet promote alexnet@VERSION --reason '...'",
        "alexnet promote alexnet@VERSION --reason 'new classes'",
        "alexnet rollback alexnet@champion --reason '...'",
    ),
    "tests/pipelines/cli/models/test_releases.py::test_what_is_pulled_can_be_verified_and_used": ("alexnet pull",),
    "tests/pipelines/cli/test_main.py::test_torchvisions_network_is_imported_and_predicts": (
        "alexnet import-torchvision",
        "alexnet import-torchvision alexnet.safetensors DIR",
        "alexnet predict photo.jpg --model DIR",
    ),
    "tests/pipelines/cli/test_make_ilsvrc.py::test_the_command_lists_the_archives_and_the_planted_faults": (
        ".venv/bin/alexnet make-ilsvrc .local/ilsvrc",
    ),
    "tests/pipelines/claims/test_run.py::test_a_scale_that_is_killed_goes_on_to_the_same_results": (
        "alexnet claims --scale pocket",
        "alexnet claims --scale smoke",
    ),
    "tests/pipelines/claims/test_documents.py::test_readme_and_docs_are_what_the_committed_results_say": (
        "alexnet claims --write",
    ),
    "tests/benchmarks/test_report.py::test_the_documents_say_what_the_results_hold": ("python -m benchmarks.report",),
    "tests/test_stages_picture.py::test_the_committed_picture_is_that_of_dvc_yaml": ("python -m tools.stages_picture",),
    "tests/benchmarks/test_runs.py::test_a_finished_run_is_recorded": ("python -m benchmarks.runs NAME",),
    "tests/test_dvc.py::test_a_second_machine_goes_on_from_the_first": (
        "python -m infra.remote",
        ".venv/bin/dvc push --run-cache",
        ".venv/bin/dvc pull --run-cache",
        "dvc pull --run-cache",
        "dvc artifacts get URL alexnet",
    ),
    "tests/pipelines/test_fetch.py::test_rehash_sees_what_times_and_inodes_do_not": (
        f"python -m pipelines.fetch {_FETCHED} --rehash",
    ),
    "tests/test_dvc.py::test_an_experiment_publishes_nothing_until_it_is_applied": (
        ".venv/bin/dvc exp run -S train.epochs=3",
        "dvc exp apply NAME",
    ),
    "tests/test_dvc.py::test_plots_name_their_axes_and_count_epochs_from_one": (".venv/bin/dvc plots diff HEAD~1",),
    "tests/infra/test_restore.py::test_the_workers_machine": (".venv/bin/dvc repro --pull",),
    "tests/infra/test_stack.py::test_the_buckets_of_the_users_store_are_made_once": ("python -m infra.stack buckets",),
    "tests/infra/test_scheduler.py::test_the_readmes_command_runs_the_deployment": (
        "make deploy",
        "make status",
        "python -m infra.scheduler prepare",
        "DO_NOT_TRACK=1 .venv/bin/prefect deployment run train-alexnet",
        ".venv/bin/prefect deployment run train-alexnet/train-alexnet --watch",
    ),
    "tests/flows/test_train_alexnet.py::test_the_deployments_are_what_the_readme_says": (
        f".venv/bin/prefect deployment run train-alexnet -p '{_SETTINGS}'",
    ),
    "tests/flows/test_train_alexnet.py::test_the_flow_runs_with_an_ephemeral_server": ("make flow",),
    "tests/test_pipeline.py::test_a_run_ends_with_a_published_model": ("ALEXNET_SOURCE=photos make run",),
    "tests/pipelines/sources/archives/test_webdataset.py::test_tars_become_shards_with_the_same_labels": (
        "ALEXNET_SOURCE=tars make run",
    ),
    "tests/pipelines/test_train.py::test_two_devices_train_the_same_model_in_two_processes": (
        "ALEXNET_DEVICES=cpu,cpu make run",
        "torchrun --standalone --nproc-per-node 2 -m pipelines.train $STAGE",
    ),
    "tests/test_install.py::test_the_wheel_alone_pulls_verifies_and_predicts": ("pip install .",),
    "tests/test_house.py::test_every_module_a_stage_imports_is_in_its_deps_or_cannot_change_a_result": (
        "python -m pytest tests/test_house.py",
    ),
}
NOT_HERE = {
    "the tests themselves, and what CI runs": (
        ".ci/run",
        ".venv/bin/python -m pytest tests/alexnet/model",
        "make test",
        "make test-slow",
        "make test-faults",
        "make soak",
        "make fuzz",
        "make lint",
        "make format",
    ),
    "needs GPUs": (
        "make test-gpu",
        "ALEXNET_DEVICES=cuda:0,cuda:1 make run",
        "ALEXNET_DEVICES=cuda:0,cuda:1,cuda:2,cuda:3 make run",
    ),
    "needs ImageNet": ("ALEXNET_SOURCE=/data/ilsvrc make run",),
    "takes half an hour of a quiet machine": ("make bench", "python -m benchmarks.NAME"),
    "needs PyTorch's own index of packages; tests/infra/test_environment.py says what it spares": (
        "python3 -m venv .venv",
        ".venv/bin/pip install --no-deps torch==2.15.0+cpu torchvision==0.29.2+cpu --index-url URL",
    ),
    "needs a package registry": ("make solar-cells", "make lock", "pip install '.[worker]'"),
    "programs that are not of this project": (
        "aws s3 ls s3://alexnet-registry/alexnet/",
        "pre-commit install",
        "git log --follow",
        "tofu validate",
        "git pull",
        "model_signing sign sigstore DIR",
    ),
    "a cluster, containers or a service of the operator's": (
        "ALEXNET_DASK=tcp://HOST:8786 make run",
        "docker compose up -d",
        "kubectl rollout restart",
        "systemctl restart alexnet-worker",
        f"torchrun --nnodes 2 --nproc-per-node 2 --max-restarts 3 {_RENDEZVOUS} -m pipelines.train $STAGE",
    ),
    "the rest of a command that is typed in full elsewhere": ("python -m pipelines.train ... --variant no-lrn",),
    "minutes of training on made archives; its parts are run": ("ALEXNET_SOURCE=.local/ilsvrc make run",),
    "connects to real prices and the user's store": ("alexnet doctor --deep --price 4",),
}


def test_every_shell_line_of_the_documents_has_a_place() -> None:
    lines = shell_lines()
    placed = [
        *AT_ONCE,
        *ON_A_FINISHED_RUN,
        *(line for some in BY_A_TEST.values() for line in some),
        *(line for some in NOT_HERE.values() for line in some),
    ]
    homeless = {line: names for line, names in lines.items() if line not in placed}
    assert not homeless, f"say in {Path(__file__).name} how they are run"
    assert sorted(placed) == sorted(lines), "each once, and none that the documents do not have"


@pytest.mark.parametrize("name", BY_A_TEST)
def test_the_tests_that_run_them_exist(name: str) -> None:
    file, _, function = name.partition("::")
    assert re.search(rf"^def {function}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_commands_are_found_in_code() -> None:
    assert commands("alexnet use digits && make run   # comment") == ["alexnet use digits", "make run"]
    assert commands("$ make run\n...\nmake nothing of it\n") == ["make run"]
    assert commands("dvc.yaml") == commands("alexnet/model/network.py") == commands("`make`") == []


def _typed(line: str) -> str:
    for name, stands_in in STAND_INS.items():
        line = line.replace(name, stands_in)
    return line


def _run(line: str, root: Path, env: dict[str, str]) -> str:
    """What a line prints, typed into a shell in this folder."""
    done = subprocess.run(
        _typed(line),
        shell=True,
        cwd=root,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}"
    return done.stdout


def _environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def _with_programs(root: Path) -> None:
    """The environment that runs this test as the folder's own, so that `make` finds nothing to set up."""
    (root / "infra").mkdir(exist_ok=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "infra/environment.py"):
        shutil.copy(ROOT / name, root / name)
        os.utime(root / name, (0, 0))
    (root / ".venv").symlink_to(sys.prefix)
    if not (root / ".venv" / "installed").exists() or not shutil.which("make"):
        pytest.skip("this environment was not made by `make`, or there is no make here")


def test_lines_that_take_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    for line in AT_ONCE:
        program, *arguments = shlex.split(_typed(line).removeprefix(".venv/bin/"))
        assert (program, main(arguments)) == ("alexnet", 0), line
        assert capsys.readouterr().out, line
    assert (tmp_path / "network.svg").is_file()
    assert (tmp_path / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()  # `use digits` was the last


@pytest.fixture
def clone(tmp_path: Path, stack: Stack, store: Store) -> Checkout:
    """All of the code with small parameters, committed, a photograph, and a store for `make run`."""
    clone = make_checkout(tmp_path, stack, store, "documents")
    for folder in ("claims", "docs", "flows", "infra", "presets"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    _with_programs(tmp_path)
    with Image.open(next(clone.source.rglob("*.jpg"))) as image:
        image.save(tmp_path / "photo.png")
    with (tmp_path / ".git" / "info" / "exclude").open("a") as file:
        file.write(".venv\n")
    for command in (["add", "-A"], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "the rest"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return clone


@pytest.mark.slow
def test_lines_on_a_finished_run(clone: Checkout) -> None:
    env = _environment() | clone.env | {"GIT_COMMITTER_NAME": "n", "GIT_COMMITTER_EMAIL": "e"}
    (clone.root / ".local" / "prefect").mkdir(parents=True)
    said = {line: _run(line, clone.root, env) for line in ON_A_FINISHED_RUN[: ON_A_FINISHED_RUN.index("make up")]}
    assert said["make run"].count("Running stage") == 8
    assert "git add" not in said["make run"]
    assert "try next" in said["make run"]
    assert "s3://" in said["alexnet shards --urls train"] or "http" in said["alexnet shards --urls train"]
    own = {name: value for name, value in env.items() if not name.startswith(("ALEXNET_", "AWS_"))}
    for line in ON_A_FINISHED_RUN[ON_A_FINISHED_RUN.index("make up") :]:
        _run(line, clone.root, own)
    assert "nothing to do" in _run("make run", clone.root, env)
