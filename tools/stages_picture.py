"""The stages of dvc.yaml as a picture: docs/stages.svg, a box a stage, below what it needs, with what it leaves.

python -m tools.stages_picture
"""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "stages.svg"
WIDTH, ROW, BOX, GAP = 480, 84, 54, 6  # user units, in a phone's 350 pixels 0.7 pixels each
_STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; text-anchor: middle; fill: #20242c }
.name { font-weight: 600; font-size: 15px } .out { fill: #5b6472; font-size: 12px }
rect { fill: #dce8f5; stroke: #2b66ab } path { stroke: #2b66ab; fill: none; stroke-width: 1.5 } marker path { fill: #2b66ab }
@media (prefers-color-scheme: dark) {
text { fill: #e6e8ec } .out { fill: #a3acba }
rect { fill: #1f2f42; stroke: #7fb0e6 } path { stroke: #7fb0e6 } marker path { fill: #7fb0e6 } }
"""

_ARROW_HEAD = """<defs><marker id="end" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M1 1 L7 4 L1 7 z"/></marker></defs>"""


def draw(stages: dict[str, Any]) -> str:
    """The SVG. An arrow that a longer way makes needless is left out."""
    made = {_path(out): name for name, stage in stages.items() for out in stage["outs"]}
    needs = {name: {made[dep] for dep in map(_path, stage.get("deps", [])) if dep in made} for name, stage in stages.items()}
    level: dict[str, int] = {}
    for name in stages:  # dvc.yaml has them in an order in which they can run
        level[name] = 1 + max((level[other] for other in needs[name]), default=-1)
    rows = [[name for name in stages if level[name] == at] for at in range(max(level.values()) + 1)]
    places = {name: place for row in rows for name, place in zip(row, _places(len(row), level[row[0]]), strict=True)}
    arrows = [
        f'<path d="M{places[a][0]} {places[a][1] + BOX} L{places[b][0]} {places[b][1] - 5}" marker-end="url(#end)"/>'
        for b in stages
        for a in needs[b]
        if level[b] == level[a] + 1
    ]
    boxes = [_box(name, stages[name], places[name], len(rows[level[name]])) for name in stages]
    height = ROW * len(rows) - (ROW - BOX) + 2
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>The stages: {", ".join(stages)}</title>'
    return "\n".join([head, f"<style>{_STYLE}</style>", _ARROW_HEAD, *sorted(arrows), *boxes, "</svg>\n"])


def _path(entry: Any) -> str:
    return entry if isinstance(entry, str) else str(next(iter(entry)))


def _places(count: int, row: int) -> list[tuple[float, float]]:
    """The middle of each box's upper edge."""
    return [((2 * at + 1) * WIDTH / count / 2, row * ROW + 1) for at in range(count)]


def _box(name: str, stage: dict[str, Any], place: tuple[float, float], beside: int) -> str:
    width, (x, y) = min(300, WIDTH / beside - GAP), place
    outs = [_path(out).removeprefix("artifacts/") for out in stage["outs"]]
    rect = f'<rect x="{x - width / 2}" y="{y}" width="{width}" height="{BOX}" rx="6"/>'
    title = f'<text class="name" x="{x}" y="{y + 22}">{name}</text>'
    return f'{rect}{title}<text class="out" x="{x}" y="{y + 42}">{", ".join(outs)}</text>'


def main() -> None:
    """Writes the picture."""
    PICTURE.write_text(draw(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]), encoding="utf-8")


if __name__ == "__main__":
    main()
