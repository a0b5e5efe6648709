"""`dvc repro` for `make run`: after a repair of DVC's own files, without its advice, and quick where there is nothing to do.

    python -m infra.repro

DVC writes all of dvc.lock after every stage that ran, which takes longer than the rest of a run that has nothing to do, for
fetch always runs. Here dvc.lock is written when an entry of it changes. DVC also parses params.yaml anew for every stage; here
once, until its text changes.
"""

import functools
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from infra import repair

if TYPE_CHECKING:
    from dvc.stage import PipelineStage


def main() -> int:
    """The command line. Returns the exit status: DVC's own 255 for any failure, which the stage or DVC has explained."""
    began = time.time()
    if not repair.main():
        return 255
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, scm_context

    scm_context.logger.setLevel(logging.WARNING)  # which files git should be told of
    _parse_params_once()
    try:
        with Repo() as repo:
            repo.reproduce(repro_fn=_reproduce)
    except DvcException:
        logging.getLogger("dvc").exception("")
        repair.repair_packages(began)
        return 255
    except KeyboardInterrupt:
        return 130
    return 0


def _parse_params_once() -> None:
    """Sets DVC's loader of YAML files, by which it reads parameters and nothing else."""
    from dvc.utils.serialize import LOADERS, PARSERS

    parse = functools.lru_cache(maxsize=4)(PARSERS[".yaml"])

    def load(path: str, fs: Any) -> Any:
        with fs.open(path, encoding="utf-8") as file:
            return parse(file.read(), path)

    LOADERS[".yaml"] = load


def _reproduce(stage: "PipelineStage", **options: Any) -> "PipelineStage | None":
    """The stage, if it was run or taken from the cache."""
    from dvc.stage.serialize import to_lockfile

    made = stage.reproduce(**options)
    if made and to_lockfile(made)[made.name] != made.dvcfile.lockfile_contents.get("stages", {}).get(made.name):
        made.dump(update_pipeline=False)
    return made


if __name__ == "__main__":
    sys.exit(main())
