"""What people read of the claims, made from committed results: README's section, docs/, and tables."""

from collections.abc import Iterator
from pathlib import Path

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write_bytes
from pipelines.claims import cells, compare, table, training
from pipelines.claims.cells import Recipes
from pipelines.claims.compare import Table
from pipelines.claims.cost import cost
from pipelines.claims.mapping import FILE, Mapping

README, TRAINING = Path("README.md"), Path("docs/training.md")
BEGIN, END = "<!-- what `alexnet claims --write` writes -->\n", "<!-- its end -->\n"
_SHOWN = ("pocket", "figure1")  # the scales that README shows
_COSTLY = "full"  # which nobody starts without its cost


def texts(mapping: Mapping) -> dict[Path, str]:
    """Every document by its path, as it should be now."""
    found = tables(mapping)
    before, after = _around(README.read_text(encoding="utf-8"))
    made = {README: f"{before}{BEGIN}{_section(found)}{_priced(mapping)}{END}{after}", TRAINING: training.markdown()}
    return made | {FILE.with_name(f"{each.scale}.md"): table.markdown(each) for each in found}


def write(mapping: Mapping) -> list[Path]:
    """Brings documents, tables and pictures up to the committed results; returns what it wrote."""
    made = texts(mapping)
    for path, text in made.items():
        atomic_write_bytes(path, text.encode())
    for each in tables(mapping):
        table.write(each)
    return list(made)


def tables(mapping: Mapping) -> list[Table]:
    """Of the scales that README shows, as far as they have results."""
    return list(_tables(mapping))


def _tables(mapping: Mapping) -> Iterator[Table]:
    for name in _SHOWN:
        if any((cells.RESULTS / name).glob("*.json")):
            yield compare.compare(name, mapping, Recipes(mapping.scale(name)))


def _around(text: str) -> tuple[str, str]:
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise DataError(f"{README}: must hold the lines {BEGIN.strip()!r} and {END.strip()!r} once; put them back")
    before, rest = text.split(BEGIN)
    return before, rest.split(END)[1]


def _section(found: list[Table]) -> str:
    if not found:
        return "No results are committed yet.\n"
    return "\n".join(_part(each) for each in found)


def _priced(mapping: Mapping) -> str:
    about = " ".join(mapping.scale(_COSTLY).about.split())
    return f"\n`{_COSTLY}`: {about} {cost(_COSTLY, mapping)}\n"


def _part(of: Table) -> str:
    """A table with a picture, short enough for README."""
    drawn = any(row.outcome for row in of.rows)
    picture = f"![{of.scale}: the effects here, drawn]({FILE.with_name(f'{of.scale}.svg')})"
    rows = [
        f"| {row.name} ({row.claim.section}) | {table.paper(row.claim) or '-'} | {table.log(row.claim) or '-'} "
        f"| {table.ours(row)} | {row.outcome.verdict if row.outcome else ''} | {table.finished(row, of)} |"
        for row in of.rows
    ]
    return "\n".join(
        [
            f"`{of.scale}`: {of.scaled} It took {of.hours:g} hours of {', '.join(of.machines)}. {table.design(of)}".rstrip(),
            "",
            "| claim (section) | paper | log of 2012 | here, 95% interval | verdict | seeds |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            *([picture, ""] if drawn else []),
        ]
    )
