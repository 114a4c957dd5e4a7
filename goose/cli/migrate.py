"""``goose migrate``: makes the tables of a broker that has some, or prints how."""

from __future__ import annotations

import click

from goose.brokers.base import Migrating
from goose.cli.choosing import configured, place
from goose.clients import Client
from goose.errors import Unsupported


@click.command("migrate")
@click.option("--broker", metavar="URL", help="Where the jobs are.  [as configured]")
@click.option("--sql", is_flag=True, help="Print the statements instead; nothing is connected.")
def command(*, broker: str | None, sql: bool) -> None:
    """Make the tables that keep jobs, or bring them up to date.

    Harmless where they are as they should be, and safe while programs use them. With --sql the
    statements are printed, for whoever owns the database to look at and to run.
    """
    chosen = configured(broker)
    with Client(settings=chosen) as client:
        found = client.broker
        if not isinstance(found, Migrating):
            raise Unsupported(f"{place(chosen)} has no tables, so there is nothing to migrate")
        if sql:
            click.echo(found.migration(), nl=False)
            return
        found.migrate()
    click.echo(f"{place(chosen)}: the tables are up to date", err=True)
