"""Shows a flow: every job that can be reached from one of its jobs, as text or as SVG.

Jobs stand in the order in which they can run, and in columns by the longest way from a job that waits
for nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from goose._edges import OnFailure
from goose.features.flows.book import Flows

LIMIT = 1_000
"""Jobs of one flow that are shown at most."""
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _EDGE = 190, 46, 60, 18, 16
_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
    'markerHeight="8" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#666"/></marker></defs>'
)
_COLOURS = {
    "done": "#d5f0d8",
    "skipped": "#e8f3e9",
    "running": "#cfe3ff",
    "ready": "#e3edfb",
    "scheduled": "#e3edfb",
    "waiting": "#f3f3f3",
    "dead": "#f9d0cf",
    "cancelled": "#f6e0c9",
    "deleted": "#f6e0c9",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """One job of a flow."""

    id: str
    fn: str
    """Empty where nobody remembers it."""
    status: str
    parents: Mapping[str, OnFailure]
    depth: int
    """Jobs on the longest way to it."""


def gathered(
    flows: Flows,
    job_id: str,
    status: Callable[[str], str],
    function: Callable[[str], str],
    *,
    limit: int | None,
) -> list[Shown]:
    """Return the jobs of the flow of *job_id*, parents first.

    Args:
        flows: Where they are.
        job_id: Any of them.
        status: Returns where a job is in its life.
        function: Returns the function of a job that has no node, as far as that is known.
        limit: Jobs at most; None is all.

    Raises:
        BrokerError: The store failed.
    """
    edges: dict[str, Mapping[str, OnFailure]] = {}
    names: dict[str, str] = {}
    line = deque([job_id])
    while line and (limit is None or len(edges) < limit):
        current = line.popleft()
        if current in edges:
            continue
        node = flows.node(current)
        parents: dict[str, OnFailure] = {}
        if node is not None:
            parents = {id_: edge[0] for id_, edge in node.parents.items()}
        edges[current] = parents
        names[current] = function(current) if node is None else node.fn
        line.extend((*parents, *flows.family(current)))
    depths = _depths(edges)
    return [
        Shown(id_, names[id_], status(id_), edges[id_], depths[id_])
        for id_ in sorted(edges, key=lambda id_: (depths[id_], id_))
    ]


def _depths(edges: Mapping[str, Mapping[str, OnFailure]]) -> dict[str, int]:
    depths: dict[str, int] = {}
    left = {id_: {each for each in parents if each in edges} for id_, parents in edges.items()}
    depth = 0
    while left:
        # Where it is not a flow of ours but rubbish in the store, a circle is shown, too.
        free = [id_ for id_, parents in left.items() if not parents] or list(left)
        for id_ in free:
            depths[id_] = depth
            del left[id_]
        for parents in left.values():
            parents.difference_update(free)
        depth += 1
    return depths


def text(jobs: Sequence[Shown]) -> str:
    """Return *jobs* as lines: number, status, function, id, and the numbers of what each waits for."""
    numbers = {job.id: number for number, job in enumerate(jobs, 1)}
    width = max(len(job.status) for job in jobs)
    names = [2 * job.depth * " " + (job.fn or "?") for job in jobs]
    longest = max(map(len, names))
    counts = Counter(job.status for job in jobs)
    summary = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
    lines = [f"{len(jobs):,} job{'s' if len(jobs) > 1 else ''}: {summary}"]
    for job, name in zip(jobs, names, strict=True):
        after = ", ".join(
            f"{numbers.get(parent, parent)}{'' if policy == 'cancel' else f' ({policy})'}"
            for parent, policy in job.parents.items()
        )
        line = f"{numbers[job.id]:>4}  {job.status:<{width}}  {name:<{longest}}  {job.id}"
        lines.append(f"{line}  after {after}" if after else line)
    return "\n".join(lines)


def svg(jobs: Sequence[Shown]) -> str:
    """Return *jobs* as an SVG document: columns from left to right, an arrow for each dependency."""
    rows: Counter[int] = Counter()
    places: dict[str, tuple[int, int]] = {}
    for job in jobs:
        x = _EDGE + job.depth * (_WIDTH + _GAP_X)
        places[job.id] = (x, _EDGE + rows[job.depth] * (_HEIGHT + _GAP_Y))
        rows[job.depth] += 1
    width = 2 * _EDGE + len(rows) * (_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _EDGE + max(rows.values()) * (_HEIGHT + _GAP_Y) - _GAP_Y
    arrows = [
        _arrow(places[parent], places[job.id], policy)
        for job in jobs
        for parent, policy in job.parents.items()
        if parent in places
    ]
    boxes = [_box(job, *places[job.id]) for job in jobs]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, _ARROW, *arrows, *boxes, "</svg>", ""])


def _arrow(start: tuple[int, int], end: tuple[int, int], policy: OnFailure) -> str:
    x1, y1 = start[0] + _WIDTH, start[1] + _HEIGHT // 2
    x2, y2 = end[0], end[1] + _HEIGHT // 2
    dash = "" if policy == "cancel" else ' stroke-dasharray="5 3"'
    return (
        f'<path d="M{x1} {y1} C{x1 + 30} {y1} {x2 - 30} {y2} {x2} {y2}" fill="none" '
        f'stroke="#666"{dash} marker-end="url(#arrow)"/>'
    )


def _box(job: Shown, x: int, y: int) -> str:
    name = job.fn.rpartition(":")[2] or "?"
    name = name if len(name) <= 26 else f"{name[:25]}…"
    return (
        f'<g><title>{escape(job.id)} {escape(job.fn)}</title><rect x="{x}" y="{y}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" rx="6" fill="{_COLOURS.get(job.status, "#fff")}" stroke="#888"/>'
        f'<text x="{x + 10}" y="{y + 19}">{escape(name)}</text>'
        f'<text x="{x + 10}" y="{y + 36}" fill="#555">{escape(job.status)}</text></g>'
    )
