"""The logger `segue`. It is imported where something is logged: logging takes its time.

An application that configures no logging is not written to: without a handler of our own, Python
would print warnings to its stderr.
"""

from __future__ import annotations

import logging

logger = logging.getLogger("segue")
logger.addHandler(logging.NullHandler())
