"""`alexnet export`: a model as ONNX and as a program of torch.export."""

import argparse
import hashlib

from pipelines.cli.models.folder import model_folder
from pipelines.cli.output import print_result


def export(args: argparse.Namespace) -> int:
    """Writes the files that were asked for, both unless one is named."""
    folder = model_folder(args.model, args.offline)
    from pipelines.publishing import export as exports  # torch, after what may fail at once

    kinds = [kind for kind in exports.KINDS if getattr(args, kind)] or exports.KINDS
    written = exports.export(folder, args.folder, kinds)
    tree = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in written}
    print_result(args.json, {"files": tree, "opset": exports.OPSET}, "\n".join(tree))
    return 0
