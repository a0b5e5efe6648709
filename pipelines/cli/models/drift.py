"""`alexnet drift`: what changed in the data since a release."""

import argparse
import dataclasses

from pipelines.cli.output import print_result
from pipelines.registry.client import client_of
from pipelines.runtime.console import escaped
from pipelines.validation.drift import FILES, Data, drift, markdown


def compare(args: argparse.Namespace) -> int:
    """Prints a row for every quantity, the release's beside the present one."""
    client, reference = client_of(args.model, args.offline)
    rows = drift(Data(*client.pull_files(reference, FILES)), Data(args.index, args.pixels))
    tree = {"model": args.model, "rows": [dataclasses.asdict(row) | {"notable": row.notable} for row in rows]}
    table = "\n".join(map(escaped, markdown(rows).splitlines()))
    print_result(args.json, tree, table if rows else f"the data is that of {args.model}")
    return 0
