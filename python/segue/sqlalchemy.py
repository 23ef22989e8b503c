"""SQLAlchemy's dialect `postgresql+segue://`.

It is SQLAlchemy's own dialect for psycopg 3, whose types and habits Segue shares, with what is
different replaced: placeholders are PostgreSQL's own ($1), server-side cursors are streams, and a
server that is gone is no reason to give a connection up. Nothing here may import psycopg, and no
error of Segue's may be told to be a disconnect while the connection can still be used: the pool
would throw away connections, and with them transactions, that outlive the server.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from sqlalchemy import exc, text, util
from sqlalchemy.dialects.postgresql import HSTORE
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.postgresql.psycopg import (
    PGDialect_psycopg,
    PGExecutionContext_psycopg,
)
from sqlalchemy.engine import URL

import segue
from segue import _segue, errors, types
from segue.cursor import Cursor

INET, CIDR = 869, 650


# The native class names the methods that it shares with this one.
if TYPE_CHECKING:
    _Native = _segue.Cursor
else:
    _Native = object


class Streaming(_Native):
    """A cursor's rows, taken from a stream as they are asked for.

    Where other statements run on the connection meanwhile, what is left of the stream is read into
    memory first.
    """

    _ticket: int | None = None
    _waiting: deque[Any]

    def execute(self, query: Any, params: Any = None, **_: Any) -> Any:
        """Start the statement, and wait until its columns are known."""
        self._stop()
        self._waiting = deque()
        self._ticket = self._stream_start(query, params)
        self._more()
        return self

    def _more(self) -> bool:
        """Take the rows that arrive next; False at the end."""
        if self._ticket is None:
            return False
        try:
            rows = self._stream_next(self._ticket)
        except BaseException:
            self._ticket = None
            raise
        if rows is None:
            self._ticket = None
            return False
        self._waiting.extend(rows)
        return True

    def _stop(self) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is not None and not self.connection.closed:
            self._abandon(ticket)

    def fetchone(self) -> Any:
        """Give the next row; None at the end."""
        while not self._waiting and self._more():
            pass
        return self._waiting.popleft() if self._waiting else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Give so many rows, or what is left."""
        wanted = self.arraysize if size is None else size
        while len(self._waiting) < wanted and self._more():
            pass
        return [self._waiting.popleft() for _ in range(min(wanted, len(self._waiting)))]

    def fetchall(self) -> list[Any]:
        """Give all rows that are left."""
        while self._more():
            pass
        rows = list(self._waiting)
        self._waiting.clear()
        return rows

    def __next__(self) -> Any:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def close(self) -> None:
        """Read what is left, and throw it away."""
        try:
            self._stop()
        finally:
            super().close()


class StreamCursor(Streaming, Cursor):
    """A cursor that streams."""


class _HStore(HSTORE):
    """Segue reads hstore as a dict by itself where it has met the type; else SQLAlchemy does."""

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        parse = super().result_processor(dialect, coltype)

        def process(value: Any) -> Any:
            return value if parse is None or isinstance(value, dict) else parse(value)

        return process


class SegueExecutionContext(PGExecutionContext_psycopg):
    """Makes streams where SQLAlchemy asks for server-side cursors."""

    def create_server_side_cursor(self) -> Any:
        """Make a cursor that streams."""
        connection: Any = self._dbapi_connection.dbapi_connection
        return StreamCursor(connection)


class SegueDialect(PGDialect_psycopg):
    """`postgresql+segue://`."""

    driver = "segue"
    default_paramstyle = "numeric_dollar"
    supports_statement_cache = True
    supports_server_side_cursors = True
    # Not psycopg's, which is asked for by version 2.1.
    minimum_dbapi_version: Any = None
    execution_ctx_cls = SegueExecutionContext
    # Nothing has to be registered for it, wherever the type is and whenever it was created.
    _has_native_hstore = False
    colspecs = util.update_copy(PGDialect_psycopg.colspecs, {HSTORE: _HStore})

    def __init__(self, **options: Any) -> None:
        # The module's own style, pyformat, is what people write by hand. It can be had here, too.
        if options.get("paramstyle") is None:
            options["paramstyle"] = self.default_paramstyle
        options["use_native_hstore"] = False
        # Not psycopg's, which would import it.
        super(PGDialect_psycopg, self).__init__(**options)

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """Give the DB-API module."""
        return segue

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[SegueDialect]:
        """Give the dialect for asyncio, which `create_async_engine` asks for."""
        from segue.aio.sqlalchemy import AsyncSegueDialect

        return AsyncSegueDialect

    @classmethod
    def load_provisioning(cls) -> None:
        """Load what SQLAlchemy's own tests prepare a PostgreSQL database with."""
        from importlib import import_module

        import_module("sqlalchemy.dialects.postgresql.provision")

    def initialize(self, connection: Any) -> None:
        """Ask the server what it is."""
        PGDialect.initialize(self, connection)

    # Connecting.

    def create_connect_args(self, url: URL) -> tuple[Sequence[Any], dict[str, Any]]:
        """Make `segue.connect`'s arguments of a URL; its query may have any option of Segue's."""
        args, options = super(PGDialect_psycopg, self).create_connect_args(url)
        for name in ("autocommit", "writes"):
            if name in options:
                options[name] = util.asbool(options[name])
        return args, options

    def on_connect(self) -> Callable[[segue.Connection], None]:
        """Give what is done with every new connection."""

        def prepare(connection: segue.Connection) -> None:
            if self._json_serializer is not None or self._json_deserializer is not None:
                connection.set_json(loads=self._json_deserializer, dumps=self._json_serializer)
            if self._native_inet_types is False:
                types.register_loader(connection, INET, str)
                types.register_loader(connection, CIDR, str)
            if self.isolation_level is not None:
                self.set_isolation_level(connection, self.isolation_level)

        return prepare

    def is_disconnect(self, e: Exception, connection: Any, cursor: Any) -> bool:
        """Whether the connection is of no use any more: never because a server is gone."""
        if isinstance(e, errors.ConnectionClosed | errors.ConnectionForked):
            return True
        return isinstance(e, segue.Error) and connection is not None and bool(connection.closed)

    @property
    def _dialect_specific_select_one(self) -> str:
        return "SELECT 1"

    def get_isolation_level_values(self, dbapi_connection: Any) -> Any:
        """Give the levels that PostgreSQL has; READ UNCOMMITTED is a name for READ COMMITTED."""
        return ("AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")

    # Statements.

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Execute; without parameters a percent sign in the text is what it is."""
        cursor.execute(statement, parameters or None)

    # Two-phase commit, by statements: the DB-API's methods for it are optional.

    def do_begin_twophase(self, connection: Any, xid: Any) -> None:
        """Do nothing: the first statement begins the transaction."""

    def do_prepare_twophase(self, connection: Any, xid: Any) -> None:
        """Prepare the transaction."""
        self._execute(connection, f"PREPARE TRANSACTION {_literal(xid)}")

    def do_commit_twophase(
        self, connection: Any, xid: Any, is_prepared: bool = True, recover: bool = False
    ) -> None:
        """Commit the transaction, prepared or not."""
        if is_prepared:
            self._end_prepared(connection, f"COMMIT PREPARED {_literal(xid)}")
        else:
            self.do_commit(connection.connection)

    def do_rollback_twophase(
        self, connection: Any, xid: Any, is_prepared: bool = True, recover: bool = False
    ) -> None:
        """Roll the transaction back, prepared or not."""
        if is_prepared:
            self._end_prepared(connection, f"ROLLBACK PREPARED {_literal(xid)}")
        else:
            self.do_rollback(connection.connection)

    def _execute(self, connection: Any, statement: str) -> None:
        cursor = connection.connection.cursor()
        try:
            cursor.execute(statement)
        finally:
            cursor.close()

    def _end_prepared(self, connection: Any, statement: str) -> None:
        # PostgreSQL does so outside transactions only.
        dbapi_connection = connection.connection.dbapi_connection
        dbapi_connection.rollback()
        autocommit = dbapi_connection.autocommit
        dbapi_connection.autocommit = True
        try:
            self._execute(connection, statement)
        finally:
            dbapi_connection.autocommit = autocommit

    def do_recover_twophase(self, connection: Any) -> list[Any]:
        """Give the names of all transactions that are prepared."""
        return list(connection.scalars(text("SELECT gid FROM pg_prepared_xacts")))

    # What the base calls psycopg's.

    @property
    def _psycopg_Json(self) -> type[types.Json]:
        return types.Json

    @property
    def _psycopg_Jsonb(self) -> type[types.Jsonb]:
        return types.Jsonb

    @property
    def _psycopg_Range(self) -> type[types.Range[Any]]:
        return types.Range

    @property
    def _psycopg_Multirange(self) -> type[types.Multirange[Any]]:
        return types.Multirange

    @property
    def _psycopg_TransactionStatus(self) -> type[segue.TransactionStatus]:
        return segue.TransactionStatus


def _literal(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def engine_url(uri: str) -> URL:
    """Make the URL for `create_engine` of a URI as `segue.connect` takes it, with all its hosts.

    SQLAlchemy's own syntax has no place for several: they go into its query.
    """
    found = _URI.fullmatch(uri)
    if found is None:
        raise exc.ArgumentError("a URI starts with postgresql:// or postgres://")
    *parts, query = found.groups()
    user, password, hosts, database = map(_unquoted, parts)
    words: dict[str, str] = dict(parse_qsl(query or "", keep_blank_values=True))
    if hosts:
        # An address of IPv6 has brackets where a port may follow.
        pairs = [_HOST.fullmatch(host) for host in hosts.split(",")]
        words["host"] = ",".join(pair[1] or pair[2] for pair in pairs if pair)
        ports = [pair[3] or "" for pair in pairs if pair]
        if any(ports):
            words["port"] = ",".join(ports)
    return URL.create("postgresql+segue", user, password, database=database, query=words)


_URI = re.compile(
    r"postgres(?:ql)?(?:\+segue)?://"
    r"(?:([^:@/?]*)(?::([^@/?]*))?@)?([^/?]*)(?:/([^?]*))?(?:\?(.*))?",
    re.DOTALL,
)

_HOST = re.compile(r"(?:\[([^]]*)\]|([^:]*))(?::(.*))?", re.DOTALL)


def _unquoted(part: str | None) -> str | None:
    return unquote(part) if part else None


dialect = SegueDialect
