"""``goose jobs result`` and ``progress``: what became of jobs, and how far others are."""

from __future__ import annotations

import json

import click

from goose import values
from goose.cli.choosing import checked, common, opened
from goose.cli.showing import print_json, print_table, printable
from goose.errors import JobFailed, ResultTimeout, ResultUnavailable
from goose.features.results import Progress


@click.command("result")
@click.argument("job_id", metavar="ID")
@click.option(
    "--wait", callback=checked(values.duration), default="0", metavar="TIME",
    help="Wait for its end, so long at most: 30s, 5m.  [0]",
)  # fmt: skip
@common
def result(*, job_id: str, wait: float, broker: str | None, as_json: bool) -> None:
    """Print what a job returned, as JSON; exit code 1 if it returned nothing, or not yet."""
    with opened(broker) as client:
        try:
            value: object = client.result(job_id, wait)
        except JobFailed as error:
            fields = {"status": error.ending, "type": error.type, "message": error.message}
            more = {"traceback": error.traceback, "reason": error.reason}
            _refuse(job_id, fields | more, str(error), error.traceback, as_json=as_json)
        except (ResultTimeout, ResultUnavailable) as error:
            fields = {"status": client.status(job_id), "message": str(error)}
            _refuse(job_id, fields, str(error), "", as_json=as_json)
        else:
            if as_json:
                print_json([{"id": job_id, "status": client.status(job_id), "result": value}])
            else:
                click.echo(json.dumps(value, ensure_ascii=False))


def _refuse(
    job_id: str, fields: dict[str, str], text: str, traceback: str, *, as_json: bool
) -> None:
    if as_json:
        print_json([{"id": job_id, **fields}])
    click.echo(f"goose: {printable(text)}", err=True)
    if traceback and not as_json:
        for line in traceback.rstrip().splitlines():
            click.echo(printable(line), err=True)
    raise click.exceptions.Exit(1)


@click.command("progress")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@common
def progress(*, ids: tuple[str, ...], broker: str | None, as_json: bool) -> None:
    """Show how far jobs are, by what they said last; exit code 1 if one has said nothing."""
    with opened(broker) as client:
        found = {id_: (client.progress(id_), client.status(id_)) for id_ in ids}
    if as_json:
        print_json(
            [
                {
                    "id": id_,
                    "status": status,
                    "done": said and said.done,
                    "total": said and said.total,
                    "note": said and said.note,
                    "at": said and said.at,
                }
                for id_, (said, status) in found.items()
            ]
        )
    else:
        print_table([_row(id_, status, said) for id_, (said, status) in found.items()])
    if any(said is None for said, _ in found.values()):
        raise click.exceptions.Exit(1)


def _row(job_id: str, status: str, said: Progress | None) -> dict[str, object]:
    row: dict[str, object] = {"id": job_id, "status": status, "done": "", "part": "", "note": ""}
    if said is not None:
        row["done"] = f"{said.done:,g}"
        if said.fraction is not None:
            row["done"] = f"{said.done:,g} of {said.total:,g}"
            row["part"] = f"{said.fraction:.0%}"
        row["note"] = said.note
    return row
