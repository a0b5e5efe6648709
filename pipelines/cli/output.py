"""What commands print: one JSON value for programs or lines for people, in which no name can steer the terminal."""

import json

from pipelines.runtime.console import escaped


def print_result(as_json: bool, tree: object, text: str) -> None:
    """Prints the tree as JSON, or the text if there is any."""
    if as_json:
        print(json.dumps(tree, indent=1, sort_keys=True))
    elif text:
        print("\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n")))
