/* Transactions, isolation, savepoints, and what an error of the server's carries. */
#include "support/db.h"

static segue_client *client;
static segue_session *session;

static bool in_transaction(void)
{
    segue_session_state *state = NULL;
    OK(segue_session_status(session, &state, ERR));
    bool is = segue_session_state_in_transaction(state);
    segue_session_state_free(state);
    return is;
}

static void committing_and_rolling_back(void)
{
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    CHECK(in_transaction());
    CHECK_INT(db_execute(session, "INSERT INTO t VALUES (1, 'a')"), 1);
    OK(segue_session_commit(session, ERR));
    CHECK(!in_transaction());
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "INSERT INTO t VALUES (2, 'b')");
    OK(segue_session_rollback(session, ERR));
    CHECK(!in_transaction());
    CHECK_INT(db_int(session, "SELECT sum(id) FROM t"), 1);
    /* By text, too. */
    db_execute(session, "BEGIN");
    CHECK(in_transaction());
    db_execute(session, "INSERT INTO t VALUES (3, 'c')");
    OK(segue_session_commit(session, ERR));
    CHECK_INT(db_int(session, "SELECT sum(id) FROM t"), 4);
    /* An empty one. */
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    OK(segue_session_commit(session, ERR));
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    OK(segue_session_rollback(session, ERR));
}

static void calls_that_do_not_fit(void)
{
    FAILS(SEGUE_USAGE, segue_session_commit(session, ERR));
    FAILS(SEGUE_USAGE, segue_session_rollback(session, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_begin(session, 4, 0, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_begin(session, -1, 0, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_begin(session, 0, 4, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_begin(session, 0, UINT32_MAX, ERR));
    CHECK(!in_transaction());
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    FAILS(SEGUE_USAGE, segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    CHECK(in_transaction());
    OK(segue_session_rollback(session, ERR));
    FAILS(SEGUE_SERVER, segue_session_savepoint(session, "outside", ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "25P01");
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_open(client, 3, &session, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_open(client, -1, &session, ERR));
}

static void isolation_levels(void)
{
    static const char *const NAMES[] = {"read committed", "read committed", "repeatable read",
                                        "serializable"};
    for (int32_t level = 0; level < 4; level++) {
        for (uint32_t flags = 0; flags < 4; flags++) {
            OK(segue_session_begin(session, level, flags, ERR));
            segue_result *result = NULL;
            OK(segue_session_query(session,
                                   "SELECT current_setting('transaction_isolation'), "
                                   "current_setting('transaction_read_only'), "
                                   "current_setting('transaction_deferrable')",
                                   NULL, 0, SEGUE_FORMAT_TEXT, &result, ERR));
            CHECK_STR(segue_result_value(result, 0, 0, NULL), NAMES[level]);
            CHECK_STR(segue_result_value(result, 0, 1, NULL), flags & SEGUE_BEGIN_READ_ONLY ? "on" : "off");
            CHECK_STR(segue_result_value(result, 0, 2, NULL), flags & SEGUE_BEGIN_DEFERRABLE ? "on" : "off");
            segue_result_free(result);
            OK(segue_session_commit(session, ERR));
        }
    }
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, SEGUE_BEGIN_READ_ONLY, ERR));
    FAILS(SEGUE_SERVER,
          segue_session_execute(session, "INSERT INTO t VALUES (9, 'ro')", NULL, 0, NULL, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "25006");
    OK(segue_session_rollback(session, ERR));
}

static void a_snapshot_stays(void)
{
    segue_session *other = db_session(client);
    OK(segue_session_begin(session, SEGUE_ISOLATION_REPEATABLE_READ, 0, ERR));
    int64_t before = db_int(session, "SELECT count(*) FROM t");
    db_execute(other, "INSERT INTO t VALUES (100, 'other')");
    CHECK_INT(db_int(session, "SELECT count(*) FROM t"), before);
    FAILS(SEGUE_SERVER, segue_session_execute(session, "LOCK TABLE nowhere", NULL, 0, NULL, ERR));
    OK(segue_session_rollback(session, ERR));
    CHECK_INT(db_int(session, "SELECT count(*) FROM t"), before + 1);
    /* The loser of a race for a row may run the whole transaction again. */
    OK(segue_session_begin(session, SEGUE_ISOLATION_REPEATABLE_READ, 0, ERR));
    db_int(session, "SELECT count(*) FROM t");
    db_execute(other, "UPDATE t SET note = 'won' WHERE id = 100");
    FAILS(SEGUE_SERVER, segue_session_execute(session, "UPDATE t SET note = 'lost' WHERE id = 100", NULL, 0,
                                              NULL, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "40001");
    CHECK(segue_error_is_retryable(LAST));
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
    OK(segue_session_rollback(session, ERR));
    segue_session_free(other);
}

static void savepoints(void)
{
    static const char *const NAMES[] = {"a", "A", "with \"quotes\"", "semi;colon", "gr\xc3\xbc\xc3\x9f"};
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "DELETE FROM t");
    for (size_t i = 0; i < COUNT(NAMES); i++) {
        OK(segue_session_savepoint(session, NAMES[i], ERR));
        char sql[64];
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES (%zu, 's')", i + 1);
        db_execute(session, sql);
    }
    CHECK_INT(db_int(session, "SELECT count(*) FROM t"), 5);
    OK(segue_session_rollback_to(session, NAMES[3], ERR));
    CHECK_INT(db_int(session, "SELECT count(*) FROM t"), 3);
    OK(segue_session_release(session, NAMES[2], ERR));
    CHECK_INT(db_int(session, "SELECT count(*) FROM t"), 3);
    /* A failure is undone as well. */
    FAILS(SEGUE_SERVER, segue_session_execute(session, "SELECT 1/0", NULL, 0, NULL, ERR));
    segue_session_state *state = NULL;
    OK(segue_session_status(session, &state, ERR));
    CHECK(segue_session_state_in_transaction(state));
    CHECK(segue_session_state_transaction_failed(state));
    segue_session_state_free(state);
    FAILS(SEGUE_SERVER, segue_session_execute(session, "SELECT 1", NULL, 0, NULL, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "25P02");
    OK(segue_session_rollback_to(session, NAMES[1], ERR));
    CHECK_INT(db_int(session, "SELECT count(*) FROM t"), 1);
    OK(segue_session_rollback_to(session, NAMES[0], ERR));
    OK(segue_session_savepoint(session, "last", ERR));
    FAILS(SEGUE_SERVER, segue_session_rollback_to(session, "no such savepoint", ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "3B001");
    OK(segue_session_rollback_to(session, "last", ERR));
    FAILS(SEGUE_SERVER, segue_session_release(session, "no such savepoint", ERR));
    OK(segue_session_rollback_to(session, "last", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_savepoint(session, "", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_rollback_to(session, "\xff", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_release(session, "", ERR));
    db_execute(session, "INSERT INTO t VALUES (7, 'kept')");
    OK(segue_session_commit(session, ERR));
    CHECK_INT(db_int(session, "SELECT sum(id) FROM t"), 7);
}

static void a_failed_transaction_is_not_committed(void)
{
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "INSERT INTO t VALUES (50, 'gone')");
    FAILS(SEGUE_SERVER, segue_session_execute(session, "SELECT 1/0", NULL, 0, NULL, ERR));
    FAILS(SEGUE_TRANSACTION_FAILED, segue_session_commit(session, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "25P02");
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
    CHECK(!segue_error_maybe_committed(LAST));
    CHECK(!in_transaction());
    CHECK_INT(db_int(session, "SELECT count(*) FROM t WHERE id = 50"), 0);
}

static void a_freed_session_rolls_back(void)
{
    segue_session *other = db_session(client);
    OK(segue_session_begin(other, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(other, "INSERT INTO t VALUES (60, 'gone')");
    segue_session_free(other);
    /* The lock that it held is free once the server has noticed. */
    db_execute(session, "BEGIN; LOCK TABLE t; COMMIT");
    CHECK_INT(db_int(session, "SELECT count(*) FROM t WHERE id = 60"), 0);
}

static void every_field_of_an_error(void)
{
    db_execute(session, "CREATE TABLE f (id int CONSTRAINT f_id_positive CHECK (id > 0), u int NOT NULL, "
                        "CONSTRAINT f_u_key UNIQUE (u))");
    FAILS(SEGUE_SERVER, segue_session_execute(session, "INSERT INTO f VALUES (-1, 1)", NULL, 0, NULL, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "23514");
    CHECK_STR(segue_error_field(LAST, 'C'), "23514");
    CHECK_STR(segue_error_field(LAST, 'S'), "ERROR");
    CHECK_STR(segue_error_field(LAST, 's'), "public");
    CHECK_STR(segue_error_field(LAST, 't'), "f");
    CHECK_STR(segue_error_field(LAST, 'n'), "f_id_positive");
    CHECK_HAS(segue_error_field(LAST, 'M'), "violates check constraint");
    CHECK_HAS(segue_error_field(LAST, 'D'), "(-1, 1)");
    CHECK(segue_error_field(LAST, 'F') && segue_error_field(LAST, 'L') && segue_error_field(LAST, 'R'));
    CHECK_STR(segue_error_field(LAST, 'H'), NULL);
    CHECK_STR(segue_error_field(LAST, 'P'), NULL);
    CHECK_STR(segue_error_field(LAST, '?'), NULL);
    CHECK_STR(segue_error_field(LAST, '\0'), NULL);
    /* The message is the server's own, with its severity. */
    CHECK(strncmp(segue_error_message(LAST), "ERROR: ", 7) == 0);
    CHECK_HAS(segue_error_message(LAST), segue_error_field(LAST, 'M'));
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
    CHECK_STR(segue_error_cause(LAST), NULL);

    FAILS(SEGUE_SERVER, segue_session_execute(session, "INSERT INTO f VALUES (1, NULL)", NULL, 0, NULL, ERR));
    CHECK_STR(segue_error_field(LAST, 'c'), "u");
    db_execute(session, "INSERT INTO f VALUES (1, 1)");
    FAILS(SEGUE_SERVER, segue_session_execute(session, "INSERT INTO f VALUES (2, 1)", NULL, 0, NULL, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "23505");
    CHECK_STR(segue_error_field(LAST, 'n'), "f_u_key");

    FAILS(SEGUE_SERVER, segue_session_execute(session, "SELECT nonesuch FROM f", NULL, 0, NULL, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "42703");
    CHECK_STR(segue_error_field(LAST, 'P'), "8");
    FAILS(SEGUE_SERVER, segue_session_execute(session, "SELECT idd FROM f", NULL, 0, NULL, ERR));
    CHECK_HAS(segue_error_field(LAST, 'H'), "f.id");
    FAILS(SEGUE_SERVER,
          segue_session_execute(session,
                                "DO $$BEGIN EXECUTE 'SELECT nonesuch'; END$$", NULL, 0, NULL, ERR));
    CHECK_STR(segue_error_field(LAST, 'q'), "SELECT nonesuch");
    CHECK_STR(segue_error_field(LAST, 'p'), "8");
    CHECK_HAS(segue_error_field(LAST, 'W'), "PL/pgSQL");
    db_execute(session, "CREATE DOMAIN positive AS int CHECK (VALUE > 0)");
    FAILS(SEGUE_SERVER, segue_session_execute(session, "SELECT (-1)::positive", NULL, 0, NULL, ERR));
    CHECK_STR(segue_error_field(LAST, 'd'), "positive");
    FAILS(SEGUE_SERVER,
          segue_session_execute(session,
                                "DO $$BEGIN RAISE EXCEPTION 'of my own' USING ERRCODE = 'ZZ123', "
                                "DETAIL = 'd', HINT = 'h', TABLE = 'tt', COLUMN = 'cc', CONSTRAINT = 'nn', "
                                "DATATYPE = 'dd', SCHEMA = 'ss'; END$$",
                                NULL, 0, NULL, ERR));
    static const char *const FIELDS[][2] = {{"C", "ZZ123"}, {"M", "of my own"}, {"D", "d"}, {"H", "h"},
                                            {"t", "tt"},    {"c", "cc"},        {"n", "nn"}, {"d", "dd"},
                                            {"s", "ss"},    {"S", "ERROR"}};
    for (size_t i = 0; i < COUNT(FIELDS); i++)
        CHECK_STR(segue_error_field(LAST, FIELDS[i][0][0]), FIELDS[i][1]);
    CHECK_STR(segue_error_sqlstate(LAST), "ZZ123");
    db_execute(session, "DROP TABLE f; DROP DOMAIN positive");
}

/* An error keeps neither session nor client alive, and outlives both. */
static void an_error_outlives_its_session(void)
{
    segue_session *other = db_session(client);
    segue_error *error = NULL;
    CHECK_INT(segue_session_execute(other, "SELECT 1/0", NULL, 0, NULL, &error), SEGUE_SERVER);
    segue_session_free(other);
    CHECK_STR(segue_error_sqlstate(error), "22012");
    CHECK_HAS(segue_error_message(error), "division by zero");
    segue_error_free(error);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    cluster *servers = cluster_start("--standbys 0 --replication async");
    client = db_client(cluster_conninfo(servers), "");
    session = db_session(client);
    db_execute(session, "CREATE TABLE t (id int, note text)");
    RUN(committing_and_rolling_back);
    RUN(calls_that_do_not_fit);
    RUN(isolation_levels);
    RUN(a_snapshot_stays);
    RUN(savepoints);
    RUN(a_failed_transaction_is_not_committed);
    RUN(a_freed_session_rolls_back);
    RUN(every_field_of_an_error);
    RUN(an_error_outlives_its_session);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
    return check_finish();
}
