"""Every page does what it says: its snippets run, its links lead somewhere.

Marks a page's author can use, after the three back-ticks:

``python``              runs, in order, in one namespace per page, in an empty folder
``python raises NAME``  runs, and must raise an exception of that class name
``console run``         each line after ``$`` runs, exits with 0, and prints the lines
                        below it; ``…`` stands for anything
``console``, ``text``   is shown only

A first line like ``# app/tasks.py`` (or ``# goose.toml``) makes a snippet a file of that
name, which later snippets can import.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from goose.brokers.postgres import options as postgres
from goose.brokers.redis.keys import Domain, Line
from goose.brokers.redis.options import _READERS
from goose.settings import Settings
from tests.servers.postgres import PostgresServer

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
SHOWN = {"console", "sh", "text", "toml", "json", "yaml", "ini", "sql", "mermaid", "diff"}

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<info>[^`]*)$")
_TITLE = re.compile(r"# (?P<file>[\w./-]+\.(?:py|toml|ini|txt|json))\s*$")
_WORD = re.compile(r"`(\w+)`")
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def snippets(text: str) -> list[dict[str, Any]]:
    """Return the fenced blocks of a page: their words after the fence, text and first line."""
    found: list[dict[str, Any]] = []
    opened: re.Match[str] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            opened, lines = fence, []
        elif opened and line.strip() == opened["ticks"]:
            start = number - len(lines) - 1
            found.append({"info": opened["info"].split(), "lines": lines, "line": start})
            opened = None
        elif opened:
            lines.append(line.removeprefix(opened["indent"]))
    if opened:
        raise ValueError(f"a block opened with {opened[0]!r} is never closed")
    return found


def steps(text: str) -> list[dict[str, Any]]:
    """Return what the driver has to do for a page."""
    found: list[dict[str, Any]] = []
    for snippet in snippets(text):
        language, *marks = snippet["info"] or [""]
        title = _TITLE.match(snippet["lines"][0]) if snippet["lines"] else None
        if language not in SHOWN | {"python"}:
            raise ValueError(f"line {snippet['line']}: unknown kind of block {language!r}")
        runs = language == "python" or title or (language in {"console", "sh"} and marks == ["run"])
        if runs:
            found.append(
                {
                    "kind": "python" if language == "python" else "console",
                    "file": title["file"] if title else None,
                    "line": snippet["line"],
                    "text": "\n".join(snippet["lines"]) + "\n",
                    "raises": marks[1] if marks[:1] == ["raises"] else None,
                }
            )
    return found


def run(page: Path, folder: Path, *changes: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a page's snippets in *folder*, with some text changed."""
    plan = folder.parent / f"{folder.name}-steps.json"
    module = re.sub(r"\W", "_", page.stem).lower()
    text = page.read_text()
    for old, new in changes:
        text = text.replace(old, new)
    content = {"path": str(page), "module": f"page_{module}", "steps": steps(text)}
    plan.write_text(json.dumps(content))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "tests/docs_driver.py"), str(plan)],
        cwd=folder,
        env={**os.environ, "PATH": path, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


ALONE = [page for page in PAGES if steps(page.read_text()) and page.name != "postgres.md"]


@pytest.mark.parametrize("page", ALONE, ids=lambda p: p.stem)
def test_the_snippets_of_a_page_run(page: Path, own_folder: Path) -> None:
    """What a reader copies from the page works, from top to bottom."""
    done = run(page, own_folder)

    assert 0 == done.returncode, done.stdout + done.stderr


def test_the_snippets_on_postgres_run(own_folder: Path) -> None:
    """Those of the page on PostgreSQL do on a server: what they committed is stored, and listed as said."""
    with PostgresServer(own_folder / "server") as server:
        where = ("postgresql://app@localhost:5432/app", server.url)
        done = run(ROOT / "docs/postgres.md", own_folder, where)
        assert 0 == done.returncode, done.stdout + done.stderr
        counts = "SELECT (SELECT count(*) FROM goose.jobs), (SELECT count(*) FROM orders)"
        assert [(2, 2)] == server.execute(counts)
        [call] = re.findall(r"SELECT goose\.enqueue.*;", (ROOT / "docs/postgres.md").read_text())
        server.execute(call)
        assert [(1,)] == server.execute("SELECT count(*) FROM goose.jobs WHERE state = 0")
        tables = (
            "SELECT relname FROM pg_class WHERE relnamespace = 'goose'::regnamespace "
            "AND relkind IN ('r', 'p') AND NOT relispartition"
        )
        named = {name for (name,) in server.execute(tables)}
    page = (ROOT / "docs/postgres.md").read_text()
    listed = page.partition("| in the schema `goose` |")[2].partition("Instants")[0]
    assert {*named, "enqueue"} == set(re.findall(r"^\| `(\w+)` \|", listed, flags=re.MULTILINE))


def test_the_table_of_options_of_postgres_is_complete() -> None:
    """The page on PostgreSQL lists every option of the broker."""
    page = (ROOT / "docs/postgres.md").read_text()
    options = page.partition("## Options")[2].partition("##")[0]

    assert sorted(postgres._READERS) == sorted(
        re.findall(r"^\| `(\w+)` \|", options, flags=re.MULTILINE)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    """Every link to a file of the project names one that exists."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = [match["target"].partition("#")[0] for match in _LINK.finditer(prose)]
    local = [target for target in targets if target and "://" not in target]

    assert [] == [target for target in local if not (page.parent / target).exists()]


@pytest.mark.parametrize("list_", ["docs/index.md", "docs/adr/README.md"])
def test_every_page_can_be_found(list_: str) -> None:
    """The index names every page beside it, and the list of decisions every decision."""
    index = ROOT / list_
    linked = {match["target"] for match in _LINK.finditer(index.read_text())}
    pages = {page.name for page in index.parent.glob("*.md")} - {index.name}

    assert set() == pages - linked


def test_the_readme_prints_the_protocol_as_it_is() -> None:
    """The nine verbs a broker author reads about are those of `goose.brokers.base.Broker`."""
    source = (ROOT / "goose/brokers/base.py").read_text()
    actual = _verbs(source.partition("class Broker(Protocol):")[2].partition("\n\n\n")[0])
    [shown] = [
        "\n".join(snippet["lines"]).partition("class Broker(Protocol):")[2].partition("\n\n\n")[0]
        for snippet in snippets((ROOT / "README.md").read_text())
        if "class Broker(Protocol):" in snippet["lines"]
    ]

    assert actual == _verbs(shown)
    assert 10 == len(actual)


def test_the_table_of_settings_is_complete() -> None:
    """The page on configuration lists the fields of `Settings`, in their order."""
    page = (ROOT / "docs/configuration.md").read_text()
    table = page.partition("## Settings")[2].partition("## Brokers")[0]
    names = [field.name for field in dataclasses.fields(Settings) if field.repr]

    assert names == re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)


def test_the_tables_of_redis_are_complete() -> None:
    """The page on Redis lists every option of the broker, and every key it writes."""
    page = (ROOT / "docs/redis.md").read_text()
    options = page.partition("## Options")[2].partition("##")[0]
    keys = page.partition("## Keys")[2].partition("##")[0]
    first_cells = re.findall(r"^\| (`.*?`) \|", options, flags=re.MULTILINE)

    assert sorted(_READERS) == sorted(name for cell in first_cells for name in _WORD.findall(cell))

    domain = Domain("goose:{ns}")
    line = Line("QUEUE", domain, "goose:{ns:QUEUE}")
    used = {*_keys_of(domain), *_keys_of(line), domain.held("SESSION"), domain.uses("SESSION")}
    used.add(line.own_wake("SLEEPER"))
    used |= {f"{line.ready}:{word}" for word in ("turns", "groups", "grouped")}
    assert used == set(re.findall(r"`(goose:\S+:\w+)`", keys))


def _keys_of(keys: Domain | Line) -> set[str]:
    """Return the keys that *keys* names."""
    named = [getattr(keys, field.name) for field in dataclasses.fields(keys) if not field.init]
    return {key for key in named if isinstance(key, str)}


def _verbs(source: str) -> list[str]:
    signatures = re.findall(r"def (\w+\(.*?\) -> .*?):\s", source, flags=re.DOTALL)
    return [re.sub(r",?\s+\)", ")", re.sub(r"\(\s+", "(", " ".join(s.split()))) for s in signatures]


# The harness itself.

PAGE = """
# Title

```python
# app/tasks.py
def double(number: int) -> int:
    return 2 * number
```

```toml
# settings.toml
answer = 42
```

```python
from pathlib import Path
from app.tasks import double
assert 4 == double(2)
assert "42" in Path("settings.toml").read_text()
```

```python raises ZeroDivisionError
1 / 0
```

```console run
$ python -c "import app.tasks as t; print('four is', t.double(2))"
four … 4
```

```text
not run at all
```
"""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("", ""), ""),
        (("2 * number", "3 * number"), "page.md"),
        (("1 / 0", "1 / 1"), "did not raise ZeroDivisionError"),
        (("four … 4", "four … 5"), "expected"),
        (("four is", "five is"), "expected"),
        (("import app.tasks as t", "import app.task as t"), "exit code 1"),
        (("answer = 42", "answer = 41"), "line 19"),
    ],
)
def test_a_page_that_is_wrong_fails(
    own_folder: Path, change: tuple[str, str], complaint: str
) -> None:
    """The harness runs a good page, and says where a bad one is wrong."""
    folder = own_folder / "project"
    folder.mkdir()
    page = own_folder / "page.md"
    page.write_text(PAGE.replace(*change) if change[0] else PAGE)

    done = run(page, folder)

    assert complaint in done.stderr
    assert bool(complaint) is bool(done.returncode)


def test_a_file_nothing_runs_is_imported(own_folder: Path) -> None:
    """A titled snippet that raises fails its page even when nothing imports it."""
    folder = own_folder / "project"
    folder.mkdir()
    page = own_folder / "page.md"
    page.write_text("```python\n# alone.py\nraise LookupError\n```\n")

    assert "LookupError" in run(page, folder).stderr


def test_a_block_of_an_unknown_kind_is_refused() -> None:
    """A mistyped language does not silently turn a test off."""
    with pytest.raises(ValueError, match="pyhton"):
        steps("```pyhton\n1 / 0\n```\n")
