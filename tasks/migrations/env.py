"""What Alembic runs: the steps, on the connection and in the transaction of the caller."""

from __future__ import annotations

from alembic import context

from tasks.migrations import VERSION_TABLE
from tasks.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("these migrations are run by `imagegate db upgrade`")
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite as well: our transactions cover its DDL (see tasks/database.py).
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
