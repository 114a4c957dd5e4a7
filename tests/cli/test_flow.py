"""`goose flow show`, `goose jobs result` and `goose jobs progress`, on a database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import goose
import goose.testing
from goose.brokers.base import State
from goose.cli import main
from goose.features.flows import drawing
from goose.settings import Settings

APP = """
import goose

def one(word: str) -> str:
    goose.current().progress(1, 2, "half way")
    return word

def join(words: list[str]) -> str:
    return "".join(words)

def broken() -> str:
    raise ValueError("no <b>good</b>")
"""


@pytest.fixture
def app(importable: Path) -> Any:
    """The functions of the jobs."""
    (importable / "cli_flow_app.py").write_text(APP)
    import cli_flow_app  # type: ignore[import-not-found]

    return cli_flow_app


@pytest.fixture
def client(importable: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the database that the commands are told of."""
    url = f"sqlite:///{importable}/flow.db"
    monkeypatch.setenv("GOOSE_BROKER", url)
    with goose.Client(settings=Settings(broker=url)) as client:
        yield client


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command here; returns exit code, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["goose", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


@pytest.fixture
def flow(client: Any, app: Any) -> Any:
    """Five jobs: two that are joined, one that dies, one that it takes with it, one that waits."""
    with client.using(retry=goose.Retry(max_retries=0)).flow() as flow:
        one, other = flow.add(app.one, "a"), flow.add(app.one, "b")
        whole = flow.add(app.join, [one.output, other.output])
        dead = flow.add(app.broken)
        flow.using(depends_on=[whole]).add(app.join, [dead.output])
    goose.testing.drain(client, allow=["cli_flow_app"])
    return flow


def test_a_flow_is_shown_as_text(flow: Any, run: Any) -> None:
    """Every job has a line, wherever in the flow one asks: status, function, what it waits for."""
    code, out, _ = run("flow", "show", flow.jobs[3].id)
    lines = out.splitlines()

    assert (0, "5 jobs: 1 cancelled, 1 dead, 3 done") == (code, lines[0])
    assert 6 == len(lines)
    [joined] = [line for line in lines if flow.jobs[2].id in line]
    assert joined.split()[1:3] == ["done", "cli_flow_app:join"]
    assert joined.endswith("after 1, 2")


def test_a_flow_is_data(flow: Any, run: Any) -> None:
    """`--json` has what the text has, and the policy of each edge."""
    _, out, _ = run("flow", "show", flow.jobs[0].id, "--json")
    shown = {job["id"]: job for job in json.loads(out)}

    assert {job.id for job in flow.jobs} == set(shown)
    last = shown[flow.jobs[4].id]
    assert ("cancelled", "cli_flow_app:join") == (last["status"], last["fn"])
    assert {flow.jobs[2].id: "cancel", flow.jobs[3].id: "cancel"} == last["after"]


def test_a_flow_is_drawn(flow: Any, run: Any, own_folder: Path) -> None:
    """The drawing is well-formed SVG with a box for each job and an arrow for each edge."""
    code, _, err = run("flow", "show", flow.jobs[0].id, "--svg", "flow.svg")
    drawing = ET.parse(own_folder / "flow.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"

    assert (0, "wrote flow.svg\n") == (code, err)
    assert (5, 4) == (len(drawing.findall(f"{name}g")), len(drawing.findall(f"{name}path")))


def test_a_flow_is_cancelled(client: Any, app: Any, run: Any) -> None:
    """What is queued or waits is removed, also what was to run in any case; nothing is set free."""
    with client.flow() as flow:
        one, other = flow.add(app.one, "a"), flow.add(app.one, "b")
        whole = flow.add(app.join, [one.output, other.output])
        flow.using(depends_on=goose.after(whole, on_failure="run")).add(app.one, "c")
        flow.using(depends_on=goose.after(one, on_failure="run")).add(app.one, "d")
    code, out, _ = run("flow", "cancel", whole.id, "--yes", "--json")

    assert (0, dict.fromkeys([job.id for job in flow.jobs], "removed")) == (
        code,
        {each["id"]: each["result"] for each in json.loads(out)},
    )
    assert {"cancelled"} == {client.status(job.id) for job in flow.jobs}


def test_a_long_flow_is_cancelled_as_a_whole(
    client: Any, app: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is shown has a limit, what is cancelled has none."""
    monkeypatch.setattr(drawing, "LIMIT", 3)
    with client.flow() as flow:
        heads = [flow.add(app.one, str(number)) for number in range(4)]
        last = flow.using(depends_on=heads).add(app.one, "last")
    assert 3 == len(json.loads(run("flow", "show", last.id, "--json")[1]))
    code, out, _ = run("flow", "cancel", last.id, "--yes", "--json")

    answers = {each["id"]: each["result"] for each in json.loads(out)}
    assert (0, dict.fromkeys([job.id for job in flow.jobs], "removed")) == (code, answers)
    assert 0 == client.inspector.count(State.READY)


def test_what_a_broker_hides_is_cancelled(
    client: Any, app: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of the flow that may run or be scheduled, for all that the broker shows, is asked."""
    with client.flow() as flow:
        one = flow.add(app.one, "a")
        flow.add(app.one, one.output)
    monkeypatch.setattr("goose.cli.flow.sees_all", lambda _: False)
    monkeypatch.setattr("goose.inspecting.sees_all", lambda _: False)
    monkeypatch.setattr("goose.brokers.sqlite.inspector.Inspecting.find", lambda *_: None)
    code, out, _ = run("flow", "cancel", one.id, "--yes")

    assert (0, {"asked", "removed"}) == (code, {*out.split()[1::2]})
    assert [one.id] == list(client.controls.marks())


def test_a_job_that_waits_is_cancelled_alone(client: Any, app: Any, run: Any) -> None:
    """`goose jobs cancel` removes it by its id, and `goose flow cancel` one that waits for a dead job."""
    with client.using(retry=goose.Retry(max_retries=0)).flow() as flow:
        one, dead = flow.add(app.one, "a"), flow.add(app.broken)
        after = flow.using(depends_on=one).add(app.one, "b")
        patient = flow.using(depends_on=goose.after(dead, on_failure="wait")).add(app.one, "c")
    assert (0, f"{after.id}  removed\n") == run("jobs", "cancel", after.id, "--yes")[:2]
    goose.testing.drain(client, allow=["cli_flow_app"])
    assert (0, f"{patient.id}  removed\n") == run("flow", "cancel", dead.id, "--yes")[:2]

    statuses = [client.status(job.id) for job in flow.jobs]
    assert ["done", "dead", "cancelled", "cancelled"] == statuses


def test_a_flow_that_is_cancelled_has_ended(client: Any, app: Any, run: Any) -> None:
    """Also for whoever asks afterwards; a flow that nobody knows is not cancelled."""
    with client.flow() as flow:
        one = flow.add(app.one, "a")
        flow.add(app.join, [one.output])
    assert 0 == run("flow", "cancel", one.id, "--yes")[0]
    assert {"cancelled"} == {client.status(job.id) for job in flow.jobs}
    assert 1 == run("flow", "cancel", "0190", "--yes")[0]


def test_nobody_knows_the_flow(client: Any, app: Any, run: Any) -> None:
    """An unknown id is said to be one; so is a database that is not there."""
    assert (1, "") == run("flow", "show", "0190")[:2]
    client.enqueue(app.one, "a")
    code, out, err = run("flow", "show", "0190")
    assert (1, "", "goose: nothing is known here of job 0190\n") == (code, out, err)


def test_a_result_is_printed(flow: Any, run: Any) -> None:
    """As JSON alone, or with id and status."""
    job = flow.jobs[2]

    assert (0, '"ab"\n') == run("jobs", "result", job.id)[:2]
    _, out, _ = run("jobs", "result", job.id, "--json")
    assert [{"id": job.id, "status": "done", "result": "ab"}] == json.loads(out)


def test_a_failure_is_printed(flow: Any, run: Any) -> None:
    """With the worker's traceback, and exit code 1; a job that has not ended says so."""
    dead = flow.jobs[3]
    code, out, err = run("jobs", "result", dead.id)
    assert (1, "") == (code, out)
    assert "is dead: ValueError: no <b>good</b>" in err
    assert "Traceback" in err
    code, out, _ = run("jobs", "result", dead.id, "--json")
    [told] = json.loads(out)
    assert (1, "dead", "builtins:ValueError", "retries") == (
        code,
        told["status"],
        told["type"],
        told["reason"],
    )


def test_what_has_not_ended_is_waited_for(client: Any, app: Any, run: Any) -> None:
    """Up to the time that is given."""
    job = client.using(result=True).enqueue(app.one, "a")
    code, out, err = run("jobs", "result", job.id, "--wait", "0.1s")

    assert (1, "") == (code, out)
    assert "has not ended within 0.1 s; it is ready" in err
    code, _, err = run("jobs", "result", "nonsense")
    assert (1, True) == (code, "no job nonsense is known here; one that is done" in err)


def test_progress_is_shown(flow: Any, run: Any) -> None:
    """What a job said last, as a table and as data; exit code 1 for one that said nothing."""
    job, silent = flow.jobs[0], flow.jobs[2]
    code, out, _ = run("jobs", "progress", job.id)
    assert 0 == code
    assert all(word in out for word in (job.id, "done", "1 of 2", "50%", "half way"))
    code, out, _ = run("jobs", "progress", job.id, silent.id, "--json")
    said, nothing = json.loads(out)
    assert (1, 1, 2, "half way", None) == (
        code,
        said["done"],
        said["total"],
        said["note"],
        nothing["done"],
    )
