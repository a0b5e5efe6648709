"""The `alexnet` command: get a released model and use it, look at this machine and at the network, choose a run.

Slow libraries are imported by the command that needs them.
"""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from alexnet.errors import DataError, ParamsError
from pipelines.cli.models.arguments import PLACES, add_commands
from pipelines.cli.output import print_result
from pipelines.runtime.console import advice, escaped, spell_out, until_unread

_TRY_LATER = 75  # EX_TEMPFAIL of sysexits.h
_ABOUT = """\
The two-GPU AlexNet of 2012 as a pipeline. This command chooses what to run and uses the results; `make run`, `dvc repro` or
`prefect deployment run train-alexnet/train-alexnet` runs it.

  alexnet pull alexnet@latest            fetch the released model and check every byte
  alexnet predict photo.jpg              print what is in the picture
  alexnet use imagenet && dvc repro      choose another run: write a preset's values into params.yaml
  alexnet show --preset imagenet         print every parameter of that run, its command, and the expected result"""
_EXPLAIN = f"""\
  alexnet explain photo.jpg                      writes photo-explained.html (a page) and photo-explained.png (a slide)
  alexnet explain photo.jpg m --out talk         the same with the model in folder m, into the folder talk

--json: {{page, slide}}, their paths
{PLACES}"""
_SHARDS = """\
  alexnet shards                     print their number, size and place
  alexnet shards --urls train        print one address per line; in Python, with stock webdataset:
                                     wds.WebDataset(pipelines.storage.webdataset.urls("train"), shardshuffle=False)
  alexnet shards --verify            read every object and compare its digest; the exit status is 1 if one is damaged
  alexnet shards --verify --repair   also make damaged shards again from the source's images, with the same bytes

--json: {prefix, shards, bytes, damaged: [{key, fault, mended}]}, `damaged` null without --verify; with --urls, [ADDRESS]
It uses the credentials of the data bucket, ALEXNET_BUCKET. --repair needs the right to write, and params.yaml, ALEXNET_SOURCE
and the code as they were when the shards were made."""
_ENDS = """\
exit status: 0 success; 1 failure, with the reason on standard error; 2 wrong usage; 3 `trace` could not compare everything;
75 the store cannot be reached, try again later; 130 interrupted"""
_TRAIN_VARIANT = (
    "python -m pipelines.train --manifest artifacts/manifest.json --pixels artifacts/pixels.npz "
    "--model artifacts/{0} --history artifacts/{0}.csv --variant {0}"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status. A mistake of the user's is one line on standard error."""
    return until_unread(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    args = _parser().parse_args(arguments)
    spell_out()
    try:
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except (DataError, ParamsError) as mistake:
        print(f"alexnet {args.command}: error: {escaped(mistake)}", file=sys.stderr)
        from pipelines.runtime.errors import Unreachable

        return _TRY_LATER if isinstance(mistake, Unreachable) else 1
    except OSError as failure:
        if isinstance(failure, BrokenPipeError):
            raise
        what = f"{failure.filename or 'disk'}: {failure.strerror or failure}{advice(failure.errno)}"
        print(f"alexnet {args.command}: error: {escaped(what)}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as lack:
        if str(lack.name).split(".")[0] in ("alexnet", "pipelines"):
            raise
        extra = "export" if str(lack.name).startswith("onnx") else "pipeline"
        what = f"{lack.name} is not installed; `pip install 'alexnet-pipeline[{extra}]'` brings it"
        print(f"alexnet {args.command}: error: {what}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="alexnet", description=_ABOUT, epilog=_ENDS, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], about: str, more: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=f"{about}.", epilog=more, formatter_class=form)
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print JSON, for programs")
        return command

    add_commands(add)

    explain = add("explain", _explain, "Write a page and a slide of one picture's way through the network", _EXPLAIN)
    explain.add_argument("image", type=Path, metavar="PHOTO", help="an image file")
    explain.add_argument(
        "model", nargs="?", default="alexnet@latest", metavar="DIR|NAME@...", help="a folder, or a released model to pull"
    )
    explain.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="the folder to write into; default: the current one"
    )
    explain.add_argument("--offline", action="store_true", help="ask no registry; use a model that was pulled before")

    about = "Convert torchvision's AlexNet into a model folder, for predict, explain, evaluate and extract"
    imported = add("import-torchvision", _import_torchvision, about)
    imported.add_argument(
        "state", type=Path, metavar="SAFETENSORS", help="its state dict; a .pth file is a pickle and is not read"
    )
    imported.add_argument("folder", type=Path, metavar="DIR", help="the folder to make")
    imported.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="a file with one class per line; default: ImageNet's classes, from torchvision",
    )

    ensemble = add(
        "ensemble",
        _ensemble,
        "Average networks and measure them on the test images, or the validation images if there are none",
        PLACES,
    )
    ensemble.add_argument("models", nargs="+", metavar="DIR|NAME@...", help="folders, or released models to pull")
    ensemble.add_argument(
        "--weights", nargs="+", type=float, default=(), metavar="W", help="the weight of each; default: equal"
    )
    ensemble.add_argument(
        "--manifest",
        type=Path,
        default=Path("artifacts/manifest.json"),
        help="the manifest of the shards; default: %(default)s",
    )
    ensemble.add_argument("--to", type=Path, metavar="DIR", help="write predictions and tables into this new folder")
    ensemble.add_argument("--offline", action="store_true", help="ask no registry; use models that were pulled before")

    use = add("use", _use, "Choose a run: write a preset's values into params.yaml; comments stay", _presets_help())
    use.add_argument("preset", metavar="PRESET")

    describe = add("describe", _describe, "Print or draw the network of params.yaml, layer by layer", _presets_help())
    describe.add_argument("--preset", help="as `alexnet use PRESET` would make it")
    describe.add_argument("--variant", help="a name under `variants` in params.yaml")
    describe.add_argument("--draw", type=Path, metavar="FILE", help="draw it as in the paper's figure 2: FILE.svg or FILE.png")

    show = add("show", _show, "Print every number of a run, the command that runs it, and what to expect", _presets_help())
    show.add_argument("--preset", help="as `alexnet use PRESET` would make it")
    show.add_argument("--variant", help="a name under `variants` in params.yaml")

    ilsvrc = add("make-ilsvrc", _make_ilsvrc, "Make small archives in ImageNet's format, to try the preset imagenet-demo")
    ilsvrc.add_argument("folder", type=Path, metavar="DIR")
    ilsvrc.add_argument("--synsets", type=int, default=10, help="number of classes; default: 10")
    ilsvrc.add_argument("--images", type=int, default=60, help="training images per class; default: 60")
    ilsvrc.add_argument("--val-images", type=int, default=10, help="validation images per class; default: 10")
    ilsvrc.add_argument(
        "--year", choices=["2010", "2012"], default="2012", help="the year whose file names and packing to use; default: 2012"
    )
    ilsvrc.add_argument(
        "--plant", nargs="+", default=(), metavar="FAULT", help="faults to put in, named as in validate.policy, or `all`"
    )

    shards = add(
        "shards", _shards, "Print where the run's shards are; compare them with their digests; make damaged ones again", _SHARDS
    )
    shards.add_argument(
        "--urls", choices=["train", "val", "test"], metavar="SPLIT", help="print the addresses of a split's shards"
    )
    shards.add_argument("--verify", action="store_true", help="read every object and compare its digest")
    shards.add_argument("--repair", action="store_true", help="the same, and make damaged shards again from the source")
    shards.add_argument("--manifest", type=Path, default=Path("artifacts/manifest.json"), help="default: %(default)s")
    shards.add_argument("--index", type=Path, default=Path("artifacts/index.parquet"), help="default: %(default)s")

    claims = add(
        "claims",
        _claims,
        "Train the networks that the paper's claims compare, continuing where it stopped, and print the results",
    )
    claims.add_argument(
        "--scale", default="smoke", help="smoke (minutes), figure1 (an hour), pocket (hours) or full (GPUs); default: smoke"
    )
    what = claims.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="train nothing; list which trainings are finished")
    what.add_argument("--table", action="store_true", help="train nothing; compare what is finished")
    what.add_argument(
        "--write", action="store_true", help="train nothing; update README and docs/ from the results of all scales"
    )

    story = add(
        "story",
        _story,
        "Write a page on what made AlexNet win: the result of every claim, shown with a network and a photo",
        PLACES,
    )
    story.add_argument("image", type=Path, metavar="PHOTO", help="an image file")
    story.add_argument(
        "model",
        nargs="?",
        type=Path,
        default=Path("artifacts/model"),
        metavar="DIR",
        help="a run's model folder; default: %(default)s",
    )
    story.add_argument("--out", type=Path, default=Path("docs/story.html"), metavar="FILE", help="default: %(default)s")

    doctor = add("doctor", _doctor, "Check what this machine has and lacks")
    doctor.add_argument(
        "--deep",
        action="store_true",
        help="also test rights, clock and the speed of store, disk and GPUs, and estimate how long the run takes",
    )
    doctor.add_argument(
        "--price",
        type=float,
        metavar="P",
        help="with --deep: the price of this machine per hour, to estimate what the training costs",
    )
    return parser


def _explain(args: argparse.Namespace) -> int:
    from pipelines.cli.models.folder import model_folder

    folder = model_folder(args.model, args.offline)
    from pipelines.cli.explain import explain

    page, slide = explain(args.image, folder, args.model, args.out)
    print_result(args.json, {"page": str(page), "slide": str(slide)}, f"{escaped(page)}\n{escaped(slide)}")
    return 0


def _import_torchvision(args: argparse.Namespace) -> int:
    from alexnet.files.atomic import atomic_folder
    from alexnet.inference.from_torchvision import from_torchvision, imagenet_classes, read_labels, read_state_dict
    from alexnet.inference.pretrained import save_pretrained

    if args.folder.exists():
        raise DataError(f"{args.folder}: exists; name a folder to make")
    synsets = read_labels(args.labels) if args.labels else imagenet_classes()
    model = from_torchvision(read_state_dict(args.state), synsets)
    with atomic_folder(args.folder) as folder:
        weights = {name: tensor for name, _, tensor in model.network.parameter_slices()}
        save_pretrained(folder, model.config, weights, model.mean_image)
    use = f"alexnet predict PHOTO --model {args.folder}"
    tree = {"folder": str(args.folder), "classes": len(synsets)}
    print_result(args.json, tree, f"{args.folder}: {len(synsets):,} classes; `{use}`")
    return 0


def _ensemble(args: argparse.Namespace) -> int:
    from pipelines.cli.ensemble import evaluate, text
    from pipelines.cli.models.folder import model_folder

    if args.to and args.to.exists():  # it would be replaced, with all that is in it
        raise DataError(f"{args.to}: exists; name a folder to make")
    folders = [model_folder(reference, args.offline) for reference in args.models]
    with contextlib.redirect_stdout(sys.stderr):  # what it says on its way is no part of the result
        split, results = evaluate(folders, args.weights, args.manifest, args.to)
    print_result(args.json, [{"split": split} | dataclasses.asdict(row) for row in results], text(split, results))
    return 0


def _use(args: argparse.Namespace) -> int:
    from pipelines.config import presets

    changed = presets.use(args.preset)
    print_result(
        args.json, {"preset": args.preset, "changed": changed}, "\n".join(changed) or f"params.yaml: is {args.preset} already"
    )
    return 0


def _describe(args: argparse.Namespace) -> int:
    from pipelines.cli import describe
    from pipelines.config import params, presets

    model = params.load(preset=args.preset, variant=args.variant).model
    if args.draw:
        from alexnet.files.atomic import atomic_write_bytes
        from pipelines.pictures.architecture import render_architecture

        kind = args.draw.suffix.removeprefix(".").lower()
        if kind not in ("svg", "png"):
            raise ParamsError(f"--draw: {args.draw}: must end in .svg or .png")
        named = filter(None, (args.preset or presets.chosen(), args.variant))
        atomic_write_bytes(args.draw, render_architecture(model, f"AlexNet: {', '.join(named) or 'params.yaml'}")[kind])
        print_result(args.json, {"picture": str(args.draw)}, str(args.draw))
    else:
        print_result(args.json, describe.tree(model), describe.text(model))
    return 0


def _show(args: argparse.Namespace) -> int:
    import io

    from ruamel.yaml import YAML

    from pipelines.config import params, presets

    params.load(preset=args.preset, variant=args.variant)  # refuses what a run would refuse
    recipe = params.load_tree(preset=args.preset, variant=args.variant)
    preset = args.preset or presets.chosen()
    about = presets.about(preset) if preset else presets.About("params.yaml, changed by hand.", "make run", "unknown")
    run, expect = about.run, about.expect
    if args.variant:
        run += f"; then {_TRAIN_VARIANT.format(args.variant)}"
        expect = f"unknown for the variant; of the run itself: {expect}"
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = None, 120
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # the order of params.yaml
    text = io.StringIO()
    yaml.dump(recipe, text)
    whole = {"params": recipe, "preset": preset, "variant": args.variant, "run": run, "expect": expect}
    print_result(args.json, whole, f"{text.getvalue()}\n# {about.description}\n# run: {run}\n# expect: {expect}")
    return 0


def _make_ilsvrc(args: argparse.Namespace) -> int:
    from alexnet.images.inspect import FAULTS
    from pipelines.cli import make_ilsvrc
    from pipelines.sources.archives.devkit import ILSVRC2010, ILSVRC2012

    plant = FAULTS if args.plant == ["all"] else tuple(args.plant)
    year = ILSVRC2010 if args.year == "2010" else ILSVRC2012
    made = make_ilsvrc.make(args.folder, make_ilsvrc.Recipe(args.synsets, args.images, args.val_images, plant, year=year))
    sizes = {path.name: path.stat().st_size for path in sorted(args.folder.iterdir())}
    faults = {key: sorted(found) for key, found in sorted(made.faults.items())}
    lines = [f"{args.folder / name}: {size / 1e6:,.1f} MB" for name, size in sizes.items()]
    planted = [f"planted: {key} is {', '.join(found)}" for key, found in faults.items()]
    print_result(args.json, {"files": sizes, "faults": faults}, "\n".join([*lines, *planted]))
    return 0


def _claims(args: argparse.Namespace) -> int:
    from pipelines.claims import compare, documents, mapping, table
    from pipelines.claims.cells import Recipes, plan
    from pipelines.claims.run import Runner

    whole = mapping.read()
    if args.write:
        written = [str(path) for path in documents.write(whole)]
        print_result(args.json, written, "\n".join(written))
        return 0
    scale = whole.scale(args.scale)
    recipes = Recipes(scale)
    runner = Runner(args.scale, recipes, plan(whole, scale, recipes))
    if args.list:
        left = set(runner.unfinished())
        lines = [f"{'left' if cell in left else 'finished':10}{cell.name}" for cell in runner.wanted]
        print_result(args.json, {cell.name: cell not in left for cell in runner.wanted}, "\n".join(lines))
        return 0
    if not args.table:
        runner.run()
    found = compare.compare(args.scale, whole, recipes)
    table.write(found)
    print_result(args.json, dataclasses.asdict(found), table.markdown(found))
    return 0


def _story(args: argparse.Namespace) -> int:
    from pipelines.claims import mapping
    from pipelines.claims.story import write_story
    from pipelines.cli.explain import read_subject
    from pipelines.cli.models.folder import model_folder

    folder = model_folder(str(args.model), offline=False)
    write_story(args.out, read_subject(args.image, folder, str(args.model)), mapping.read(), folder.parent)
    print_result(args.json, {"page": str(args.out)}, str(args.out))
    return 0


def _shards(args: argparse.Namespace) -> int:
    from pipelines.cli import shards

    return shards.run(args)


def _doctor(args: argparse.Namespace) -> int:
    from pipelines.cli.doctor import basic

    checks = basic.doctor(deep=args.deep, price=args.price)
    print_result(args.json, [dataclasses.asdict(check) for check in checks], basic.text(checks))
    return int(any(check.state == "missing" for check in checks))


def _presets_help() -> str:
    found = sorted(path.stem for path in Path("presets").glob("*.yaml"))
    return f"presets: {', '.join(found)}" if found else "presets are in the folder presets/ of a checkout"


if __name__ == "__main__":
    sys.exit(main())
