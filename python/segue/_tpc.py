"""Two-phase commit, PEP 249's `tpc_` methods: what the faces for threads and for event loops share.

Until it is prepared a transaction is protected as any other. With PREPARE TRANSACTION it is the
server's, under its name: if the reply to that, or to COMMIT PREPARED, is lost, the outcome is
unknown (the ledger knows nothing of it), and `tpc_recover()` tells whether it is there.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from typing import TYPE_CHECKING

from segue.errors import ProgrammingError, TransactionFailed
from segue.sql import quote

if TYPE_CHECKING:
    from typing_extensions import Self

_NAME = re.compile(r"(\d+)_([^_]*)_([^_]*)", re.ASCII)


class Xid:
    """The name of a two-phase transaction; `Connection.xid` makes one.

    It has the parts of the XA standard, of which PostgreSQL makes one text. The name of a
    transaction that was prepared by other means has a `gtrid` alone.
    """

    __slots__ = ("bqual", "database", "format_id", "gtrid", "owner", "prepared")

    def __init__(self, format_id: int | None, gtrid: str, bqual: str | None) -> None:
        self.format_id, self.gtrid, self.bqual = format_id, gtrid, bqual
        self.prepared: datetime | None = None
        """When it was prepared, of those of `tpc_recover()`; so the next two."""
        self.owner: str | None = None
        self.database: str | None = None

    @classmethod
    def from_parts(cls, format_id: int, gtrid: str, bqual: str) -> Self:
        """A name by its parts, which have limits."""
        if not isinstance(format_id, int) or not 0 <= format_id < 0x80000000:
            raise ValueError("format_id is an integer from 0 to 2**31 - 1")
        for part, name in ((gtrid, "gtrid"), (bqual, "bqual")):
            if not isinstance(part, str) or len(part) > 64 or not part.isascii():
                raise ValueError(f"{name} is a str of at most 64 ASCII characters")
            if not part.isprintable():
                raise ValueError(f"{name} has characters in it that cannot be printed")
        return cls(format_id, gtrid, bqual)

    @classmethod
    def from_string(cls, text: str) -> Self:
        """A name by the text that PostgreSQL has."""
        if found := _NAME.fullmatch(text):
            try:
                xid = cls.from_parts(int(found[1]), _decoded(found[2]), _decoded(found[3]))
            except (ValueError, binascii.Error):
                pass
            else:
                if str(xid) == text:
                    return xid
        return cls(None, text, None)

    def __str__(self) -> str:
        if self.format_id is None or self.bqual is None:
            return self.gtrid
        parts = (base64.b64encode(it.encode()).decode() for it in (self.gtrid, self.bqual))
        return "_".join([str(self.format_id), *parts])

    def __getitem__(self, index: int) -> int | str | None:
        return (self.format_id, self.gtrid, self.bqual)[index]

    def __len__(self) -> int:
        return 3

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Xid) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return f"Xid({self.format_id!r}, {self.gtrid!r}, {self.bqual!r})"


def _decoded(text: str) -> str:
    return base64.b64decode(text, validate=True).decode("ascii")


class Tpc:
    """Where a connection's two-phase transaction is. Nothing here waits."""

    __slots__ = ("prepared", "xid")

    def __init__(self, xid: Xid) -> None:
        self.xid = xid
        self.prepared = False


PREPARED = """
SELECT gid, prepared, owner::text, database::text FROM pg_catalog.pg_prepared_xacts
WHERE database = pg_catalog.current_database() ORDER BY prepared, gid
"""


def name(xid: Xid | str) -> Xid:
    """A transaction's name, however it was given."""
    return xid if isinstance(xid, Xid) else Xid.from_string(xid)


def statement(verb: str, xid: Xid) -> str:
    """The statement that does something with a transaction."""
    return f"{verb} {quote(str(xid))}"


def check_prepared(tag: str | None) -> None:
    """PREPARE TRANSACTION rolls back what has failed before, without a word."""
    if tag == "ROLLBACK":
        raise TransactionFailed(
            "the transaction had failed before, and was rolled back instead of being prepared"
        )


def recovered(rows: list[tuple[str, datetime, str, str]]) -> list[Xid]:
    """What `PREPARED` has found."""
    found = []
    for text, prepared, owner, database in rows:
        xid = Xid.from_string(text)
        xid.prepared, xid.owner, xid.database = prepared, owner, database
        found.append(xid)
    return found


def check_begin(tpc: Tpc | None, idle: bool, autocommit: bool) -> None:
    """Whether one may begin."""
    if tpc is not None or not idle:
        raise ProgrammingError("tpc_begin() is for when no transaction is open")
    if autocommit:
        raise ProgrammingError("tpc_begin() is not for use with autocommit")


def check_prepare(tpc: Tpc | None) -> Tpc:
    """Whether it may be prepared."""
    if tpc is None:
        raise ProgrammingError("tpc_prepare() comes behind tpc_begin()")
    if tpc.prepared:
        raise ProgrammingError("the transaction is prepared already")
    return tpc


def check_end(tpc: Tpc | None, idle: bool, xid: Xid | str | None, call: str) -> Tpc:
    """Which one is to end."""
    if xid is None:
        if tpc is None:
            raise ProgrammingError(f"{call}() without a name comes behind tpc_begin()")
        if tpc.prepared and not idle:
            raise ProgrammingError(f"{call}() is for when no other transaction is open")
        return tpc
    if tpc is not None or not idle:
        raise ProgrammingError(f"{call}(xid) is for when no transaction is open")
    other = Tpc(name(xid))
    other.prepared = True
    return other
