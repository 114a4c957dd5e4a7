"""The roles of docs/postgres.md, made as that page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg

from tests.servers.postgres import PostgresServer

PAGE = Path(__file__).parents[3] / "docs" / "postgres.md"


def make_roles(server: PostgresServer) -> None:
    """Make the roles, unless they are there."""
    for role in ("goose_client", "goose_worker", "goose_console"):
        if not server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]):
            server.execute(f"CREATE ROLE {role} LOGIN")


def grant(connection: psycopg.Connection[Any], schema: str) -> None:
    """Run the page's GRANT statements for the tables in *schema*."""
    [block] = re.findall(r"```sql grants\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for statement in block.split(";"):
        if statement.strip():
            connection.execute(re.sub(r"\bgoose\b", schema, statement).encode())
