"""The folder of a model, by its name."""

import subprocess
import sys


def test_a_folder_is_itself_and_no_store_is_asked() -> None:
    """boto3 takes half a second to import: neither a folder nor a release that was pulled before (`--offline`) waits for it."""
    program = (
        "import sys; from pathlib import Path; import pipelines.registry.client\n"
        "from pipelines.cli.models import folder, predict\n"
        "assert folder.model_folder('m', False) == Path('m')\n"
        "print(sorted({'boto3', 'botocore', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
