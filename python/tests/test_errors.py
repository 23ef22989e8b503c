"""The exceptions: PostgreSQL's list of codes, the core's list of kinds, the DB-API's tree."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest
import sqlstates

from segue import _exceptions, _sqlstates, errors
from segue.errors import Diagnostic, Outcome

ROOT = Path(__file__).resolve().parents[2]
CORE = (ROOT / "src" / "error.rs").read_text()


def all_classes() -> list[type[errors.Error]]:
    found: list[type[errors.Error]] = []
    todo: list[type[errors.Error]] = [errors.Error]
    while todo:
        cls = todo.pop()
        # Only the package's own: tests derive some too.
        if cls.__module__ == "segue.errors" and cls not in found:
            found.append(cls)
            todo += cls.__subclasses__()
    return found


def core_kinds() -> list[str]:
    body = re.search(r"pub enum ErrorKind \{(.*?)\n\}", CORE, re.S)
    assert body is not None
    return re.findall(r"^    (\w+),$", body[1], re.M)


def core_arms(function: str) -> str:
    body = re.search(rf"pub fn {function}\(.*?\n    \}}", CORE, re.S)
    assert body is not None
    return body[0]


def test_the_generated_file_is_what_the_generator_makes_of_this_machines_servers() -> None:
    current = sqlstates.TARGET.read_text()
    lists = [path.read_text() for path in sqlstates.installed()]
    assert lists, "there is no errcodes.txt on this machine to compare with"
    assert all("23505" in sqlstates.parse(text) for text in lists)
    assert sqlstates.merged(current, lists) == current


def test_drift_would_be_seen() -> None:
    current = sqlstates.TARGET.read_text()
    new = "23ZZZ    E    ERRCODE_NEW    new_violation"
    assert "class NewViolation(_e.IntegrityError)" in sqlstates.merged(current, [new])
    renamed = "23505    E    ERRCODE_UNIQUE    another_name"
    with pytest.raises(ValueError, match="23505"):
        sqlstates.merged(current, [renamed])
    assert sqlstates.merged(current.replace("_transient = True", "pass"), []) == current


@pytest.mark.parametrize(
    ("sqlstate", "name", "base"),
    [
        ("23505", "UniqueViolation", "IntegrityError"),
        ("22012", "DivisionByZero", "DataError"),
        ("42601", "SyntaxError", "ProgrammingError"),
        ("42501", "InsufficientPrivilege", "ProgrammingError"),
        ("40001", "SerializationFailure", "OperationalError"),
        ("40P01", "DeadlockDetected", "OperationalError"),
        ("57014", "QueryCanceled", "OperationalError"),
        ("57P01", "AdminShutdown", "OperationalError"),
        ("53300", "TooManyConnections", "OperationalError"),
        ("55P03", "LockNotAvailable", "OperationalError"),
        ("58030", "IoError", "OperationalError"),
        ("08006", "ConnectionFailure", "OperationalError"),
        ("0A000", "FeatureNotSupported", "NotSupportedError"),
        ("25P02", "InFailedSqlTransaction", "InternalError"),
        ("P0001", "RaiseException", "ProgrammingError"),
        ("XX000", "InternalError_", "InternalError"),
    ],
)
def test_a_sqlstate_has_a_class_of_the_right_dbapi_class(
    sqlstate: str, name: str, base: str
) -> None:
    cls = errors.lookup(sqlstate)
    assert cls is getattr(errors, name)
    assert cls.__mro__[1] is getattr(errors, base)
    assert cls().sqlstate == sqlstate
    assert cls.__module__ == "segue.errors"


def test_names_and_dbapi_classes_are_psycopgs() -> None:
    theirs = pytest.importorskip("psycopg.errors")
    ours = _sqlstates.BY_SQLSTATE
    for name in dir(theirs):
        cls = getattr(theirs, name)
        sqlstate = getattr(cls, "sqlstate", None)
        if not (isinstance(cls, type) and isinstance(sqlstate, str)):
            continue
        assert ours[sqlstate].__name__ == name
        assert ours[sqlstate].__mro__[1].__name__ == cls.__mro__[1].__name__


def test_codes_that_postgresql_does_not_list() -> None:
    with pytest.raises(KeyError):
        errors.lookup("23XYZ")
    assert errors.class_for("23XYZ") is errors.IntegrityError
    assert errors.class_for("UQ001") is errors.DatabaseError
    assert errors.lookup("40p01") is errors.DeadlockDetected


def test_the_tree_is_the_dbapis() -> None:
    assert not issubclass(errors.Warning, errors.Error)
    assert errors.InterfaceError.__mro__[1] is errors.Error
    assert errors.DatabaseError.__mro__[1] is errors.Error
    for name in ("Data", "Operational", "Integrity", "Internal", "Programming", "NotSupported"):
        assert getattr(errors, f"{name}Error").__mro__[1] is errors.DatabaseError


def test_every_kind_of_the_core_is_an_exception() -> None:
    kinds = core_kinds()
    assert len(kinds) >= 18
    assert list(errors._BY_KIND) == kinds
    own = [errors._BY_KIND[kind] for kind in kinds]
    assert len(set(own)) == len(own)
    for kind, cls in errors._BY_KIND.items():
        error = errors._from_core(kind, "Unknown", "08007", "what happened")
        assert type(error) is (errors.TransactionResolutionUnknown if kind == "Server" else cls)
        assert (error.outcome, error.sqlstate) == (Outcome.UNKNOWN, "08007")
        assert str(error) == "what happened"
        assert cls.__name__ in errors.__all__


def test_every_outcome_of_the_core_is_known() -> None:
    body = re.search(r"pub enum Outcome \{(.*?)\n\}", CORE, re.S)
    assert body is not None
    assert list(errors._OUTCOMES) == re.findall(r"^    (\w+),$", body[1], re.M)
    assert set(errors._OUTCOMES.values()) == set(Outcome)


def test_sqlstates_of_segues_own_errors_are_the_cores() -> None:
    arms = re.findall(r"((?:\|?\s*ErrorKind::\w+\s*)+)=> \"(\w{5})\"", core_arms("sqlstate"))
    stated = {kind: sqlstate for names, sqlstate in arms for kind in re.findall(r"::(\w+)", names)}
    assert set(stated) == set(core_kinds())
    for kind, sqlstate in stated.items():
        if kind != "Server":
            assert errors._BY_KIND[kind]().sqlstate == sqlstate, kind


def test_advice_to_retry_is_the_cores() -> None:
    body = core_arms("is_retryable")
    of_server = set(re.findall(r'"(\w{5})"', body))
    kinds = set(re.findall(r"ErrorKind::(\w+)", body)) - {"Server"}
    assert of_server
    assert kinds
    for kind in set(core_kinds()) - {"Server"}:
        assert errors._BY_KIND[kind]().is_retryable is (kind in kinds), kind
    for sqlstate, cls in _sqlstates.BY_SQLSTATE.items():
        assert cls().is_retryable is (sqlstate in of_server), sqlstate


@pytest.mark.parametrize("cls", all_classes(), ids=lambda cls: cls.__name__)
def test_exceptions_pickle_and_copy(cls: type[errors.Error]) -> None:
    diag = Diagnostic(severity="ERROR", sqlstate="23505", constraint_name="pk", source_line=3)
    error = cls("a message", sqlstate="XX999", outcome=Outcome.COMMITTED, diag=diag)
    copies = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, 6)]
    for other in [*copies, copy.copy(error), copy.deepcopy(error)]:
        assert type(other) is cls
        assert other.args == ("a message",)
        assert other.__dict__ == error.__dict__
        assert (other.sqlstate, other.outcome, other.diag) == ("XX999", Outcome.COMMITTED, diag)


class WithArguments(errors.DatabaseError):
    """An application's own exception, whose arguments are not those of its base."""

    def __init__(self, table: str, row: int) -> None:
        super().__init__(f"{table} {row}")
        self.row = row


def test_a_subclass_with_arguments_of_its_own_pickles_too() -> None:
    error = WithArguments("account", 7)
    other = pickle.loads(pickle.dumps(error))
    assert (str(other), other.row, other.outcome) == ("account 7", 7, Outcome.NOT_COMMITTED)


def test_a_servers_error_keeps_its_identity() -> None:
    fields: dict[str, str | int | None] = {
        "severity": "ERROR",
        "sqlstate": "23505",
        "message_primary": "duplicate key value violates unique constraint",
        "message_detail": "Key (secret)=(hunter2) already exists.",
        "message_hint": "Try another.",
        "constraint_name": "account_pkey",
        "statement_position": None,
    }
    error = errors._from_core("Server", "NotCommitted", "23505", "ERROR: ...", fields)
    assert type(error) is errors.UniqueViolation
    assert error.diag.constraint_name == "account_pkey"
    assert error.diag.message_detail == "Key (secret)=(hunter2) already exists."
    assert str(error) == "duplicate key value violates unique constraint\nHINT:  Try another."
    assert "hunter2" not in repr(error)


def test_outcome_and_advice() -> None:
    lost = errors.OutcomeUnknown("?", outcome=Outcome.UNKNOWN)
    assert lost.maybe_committed
    assert not lost.is_retryable
    conflict = errors.SerializationFailure("!")
    assert conflict.is_retryable
    assert not conflict.maybe_committed
    assert not errors.SerializationFailure("!", outcome=Outcome.UNKNOWN).is_retryable
    assert issubclass(errors.ReplayDiverged, errors.SerializationFailure)
    assert errors.ReplayDiverged().sqlstate == "40001"


def test_a_kind_of_a_newer_core_is_an_error_all_the_same() -> None:
    error = errors._from_core("Novelty", "Perhaps", "XX000", "new")
    assert type(error) is errors.DatabaseError
    assert error.outcome is Outcome.UNKNOWN


def test_everything_is_exported() -> None:
    # pytest adds names with an @ to the modules of its plugins' packages.
    public = {name for name in vars(errors) if name[0] not in "_@"} - {"annotations"}
    assert public == set(errors.__all__)
    assert _exceptions.Error is errors.Error
