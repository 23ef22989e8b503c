"""SQLAlchemy's own compliance suite for dialects."""

from sqlalchemy.testing.suite import *  # noqa: F403
from sqlalchemy.testing.suite import ServerSideCursorsTest as _ServerSideCursorsTest

from segue.sqlalchemy import Streaming


class ServerSideCursorsTest(_ServerSideCursorsTest):
    """The suite asks each driver that it knows in that driver's own way; this is Segue's."""

    def _is_server_side(self, cursor):
        return isinstance(cursor, Streaming)
