"""The command line: ``goose COMMAND``.

Each command is a module of this package with a click command named ``command``. The module
is imported only when its command is called or its help is asked for, so that ``goose
--version`` and the help stay quick.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module

import click

COMMANDS = {
    "worker": "Run jobs.",
    "demo": "See real jobs run while workers are killed under them.",
    "jobs": "List, show, change and cancel stored jobs; ask for their results and progress.",
    "dead": "List, show, pop, replay and purge dead jobs.",
    "done": "List jobs that are done, where the broker keeps them.",
    "doctor": "Look whether settings, broker, code and stored jobs fit together.",
    "health": "Say whether a worker is well, from its heartbeat file.",
    "batch": "List, show, watch, cancel and delete batches.",
    "cron": "List, show, pause, resume, run and delete cron entries.",
    "flow": "Show jobs that depend on each other, as text or drawn.",
    "outbox": "Make, look at and empty an outbox of jobs in your own database.",
    "queues": "Show the queues: counts and the age of the oldest job; pause and resume them.",
    "workers": "List workers, and change how they work while they do.",
    "limits": "Change limits that jobs have, while they wait and run.",
    "move": "Move jobs to another broker or queue.",
    "migrate": "Make the tables of a database that keeps jobs, or print how.",
}
"""Name of each command's module, and its one line of help."""


class Commands(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order to show them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, imported."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"goose.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from goose.plugins import nearest

            ctx.fail(f"there is no command {args[0]!r}{nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _show_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from goose import __version__

        click.echo(f"goose {__version__}")
        ctx.exit()


LOUD = ("worker", "demo")
"""Commands during which a broker's warnings are logged: that its server may lose jobs, and others."""


def _hush(ctx: click.Context) -> None:
    """Have brokers log only errors until the command ends."""
    import logging

    logger = logging.getLogger("goose.brokers")
    ctx.call_on_close(partial(logger.setLevel, logger.level))
    logger.setLevel(logging.ERROR)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version,
    help="Show the version and exit.",
)  # fmt: skip
@click.pass_context
def group(ctx: click.Context) -> None:
    """Background jobs for Python: any broker, nothing lost."""
    if ctx.invoked_subcommand not in LOUD:
        _hush(ctx)


def main() -> None:
    """Run the command line; ends the process with the command's exit code.

    A `GooseError` becomes one line on standard error: exit code 2 for what is wrong with
    settings or names, 4 for a broker that cannot be had, else 1.
    """
    from goose.errors import BrokerError, ConfigError, GooseError, Unsupported

    try:
        code = group.main(prog_name="goose", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (ConfigError, Unsupported) as error:
        click.echo(f"goose: {error}", err=True)
        sys.exit(2)
    except BrokerError as error:
        click.echo(f"goose: broker: {error}", err=True)
        sys.exit(4)
    except GooseError as error:
        click.echo(f"goose: {error}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
