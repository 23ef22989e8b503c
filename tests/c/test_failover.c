/* Failover in the middle of a transaction, of a stream, and of a commit: each exactly once. */
#include <pthread.h>
#include <stdatomic.h>

#include "support/db.h"

enum { SESSIONS = 8 };

static int64_t rows_on(cluster *servers, int server, int64_t id)
{
    return cluster_number(servers, "sql %d SELECT count(*) FROM t WHERE id = %lld", server, (long long)id);
}

static void begin_all_over(cluster **servers, segue_client **client, const char *arguments, bool proxy)
{
    *servers = cluster_start(arguments);
    *client = db_client(proxy ? cluster_conninfo_proxy(*servers) : cluster_conninfo(*servers),
                        "poll_interval_ms=50 failover_timeout_ms=60000");
    segue_session *session = db_session(*client);
    /* No key: what is applied twice must show. */
    db_execute(session, "CREATE TABLE t (id int, note text)");
    segue_session_free(session);
}

static void in_mid_transaction(void)
{
    cluster *servers = NULL;
    segue_client *client = NULL;
    begin_all_over(&servers, &client, "--standbys 1 --replication sync", false);
    segue_session *session = db_session(client);
    segue_statement *insert = NULL;
    OK(segue_session_prepare(session, "INSERT INTO t VALUES ($1, $2)", NULL, 0, &insert, ERR));
    db_execute(session, "INSERT INTO t VALUES (1, 'before')");
    db_execute(session, "SET application_name = 'carried over'");
    db_execute(session, "LISTEN news");
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    segue_param params[2] = {segue_param_int4(2), segue_param_text("during")};
    OK(segue_statement_execute(insert, params, 2, NULL, ERR));
    CHECK_INT(db_int(session, "SELECT count(*) FROM t"), 2);
    cluster_do(servers, "kill 0");
    cluster_do(servers, "promote 1");
    params[0] = segue_param_int4(3);
    OK(segue_statement_execute(insert, params, 2, NULL, ERR));
    CHECK_INT(db_int(session, "SELECT count(*) FROM t"), 3);
    OK(segue_session_commit(session, ERR));
    for (int64_t id = 1; id <= 3; id++)
        CHECK_INT(rows_on(servers, 1, id), 1);
    segue_session_state *state = NULL;
    OK(segue_session_status(session, &state, ERR));
    CHECK_INT(segue_session_state_server(state), 1);
    CHECK_INT(segue_session_state_number(state, "timeline"), 2);
    segue_session_state_free(state);
    /* Its settings and its ears have come along. */
    CHECK_INT(db_int(session, "SELECT (current_setting('application_name') = 'carried over')::int"), 1);
    cluster_do(servers, "sql 1 SELECT 1");
    db_execute(session, "NOTIFY news, 'here'");
    segue_notification *notification = NULL;
    OK(segue_session_notification(session, check_scaled(5000), &notification, ERR));
    CHECK_STR(segue_notification_payload(notification), "here");
    segue_notification_free(notification);
    segue_statement_free(insert);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
}

static void in_mid_stream(void)
{
    cluster *servers = NULL;
    segue_client *client = NULL;
    begin_all_over(&servers, &client, "--standbys 1 --replication remote_apply", false);
    segue_session *session = db_session(client);
    int rows = check_is_slow() ? 20000 : 200000;
    char sql[128];
    snprintf(sql, sizeof sql, "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, %d) g", rows);
    db_execute(session, sql);
    segue_stream *stream = NULL;
    OK(segue_session_stream(session, "SELECT id, note FROM t ORDER BY id", NULL, 0, SEGUE_FORMAT_BINARY, &stream,
                            ERR));
    int64_t expected = 1;
    int wrong = 0;
    for (;;) {
        segue_result *result = NULL;
        if (!OK(segue_stream_next(stream, 100, &result, ERR)) || !result)
            break;
        for (size_t row = 0; row < segue_result_row_count(result); row++) {
            int64_t id = 0;
            wrong += segue_result_int64(result, row, 0, &id, NULL) != SEGUE_OK || id != expected++;
        }
        segue_result_free(result);
        if (expected == 501) {
            cluster_do(servers, "kill 0");
            cluster_do(servers, "promote 1");
        }
    }
    CHECK_INT(wrong, 0);
    CHECK_INT(expected, rows + 1);
    segue_stream_free(stream);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
}

/* COMMIT is sent, and then the link breaks, before or after the server has done it. */
static void with_a_commit_in_flight(void)
{
    static const char *const FAULTS[] = {"reset", "forward_then_reset"};
    cluster *servers = NULL;
    segue_client *client = NULL;
    begin_all_over(&servers, &client, "--standbys 1 --replication sync --proxy", true);
    segue_session *session = db_session(client);
    int id = 0;
    for (int round = 0; round < 10; round++) {
        for (size_t fault = 0; fault < COUNT(FAULTS); fault++) {
            bool done = fault == 1;
            segue_param params[2] = {segue_param_int4(++id), segue_param_text("in a transaction")};
            OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
            OK(segue_session_execute(session, "INSERT INTO t VALUES ($1, $2)", params, 2, NULL, ERR));
            cluster_do(servers, "arm 0 commit %s", FAULTS[fault]);
            OK(segue_session_commit(session, ERR));
            cluster_do(servers, "arm_wait");
            CHECK_INT(rows_on(servers, 0, id), 1);

            params[0] = segue_param_int4(++id);
            cluster_do(servers, "arm 0 commit %s", FAULTS[fault]);
            int32_t status =
                segue_session_execute(session, "INSERT INTO t VALUES ($1, $2)", params, 2, NULL, ERR);
            /* Done, and its reply lost with the link: it says so, and is not run again. */
            CHECK(status == SEGUE_OK || (done && status == SEGUE_REPLY_LOST));
            if (status == SEGUE_REPLY_LOST)
                CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_COMMITTED);
            cluster_do(servers, "arm_wait");
            CHECK_INT(rows_on(servers, 0, id), 1);
        }
    }
    CHECK_INT(db_int(session, "SELECT count(*) FROM t"), id);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
}

/* The primary dies as COMMIT reaches it; a client that may do so promotes the standby. */
static void with_a_commit_in_flight_as_the_primary_dies(void)
{
    cluster *servers = cluster_start("--standbys 1 --replication sync --proxy");
    segue_client *client = db_client(cluster_conninfo_proxy(servers),
                                     "on_primary_loss=promote poll_interval_ms=50 failover_timeout_ms=60000");
    segue_session *session = db_session(client);
    db_execute(session, "CREATE TABLE t (id int, note text)");
    segue_status *status = NULL;
    int64_t end = check_now_ms() + check_scaled(10000);
    for (bool known = false; !known && check_now_ms() < end; check_sleep_ms(10)) {
        OK(segue_client_status(client, &status, ERR));
        known = segue_status_standby(status) == 1;
        segue_status_free(status);
    }
    db_execute(session, "INSERT INTO t VALUES (1, 'before')");
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "INSERT INTO t VALUES (2, 'in flight')");
    cluster_do(servers, "arm 0 commit kill");
    OK(segue_session_commit(session, ERR));
    CHECK_INT(rows_on(servers, 1, 1), 1);
    CHECK_INT(rows_on(servers, 1, 2), 1);
    CHECK_INT(db_int(session, "SELECT count(*) FROM t"), 2);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
}

struct worker {
    pthread_t thread;
    segue_client *client;
    int number;
    int rounds;
    bool *committed;
    int32_t unexpected;
};

static atomic_int commits;

static void *work(void *argument)
{
    struct worker *it = argument;
    segue_session *session = NULL;
    if (!OK(segue_session_open(it->client, SEGUE_SESSION_DEFAULT, &session, ERR)))
        return NULL;
    for (int round = 0; round < it->rounds; round++) {
        segue_param params[2] = {segue_param_int4(it->number * 100000 + round), segue_param_text("w")};
        int32_t status = segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR);
        if (status == SEGUE_OK)
            status = segue_session_execute(session, "INSERT INTO t VALUES ($1, $2)", params, 2, NULL, ERR);
        if (status == SEGUE_OK)
            status = segue_session_commit(session, ERR);
        it->committed[round] = status == SEGUE_OK;
        if (status != SEGUE_OK) {
            /* An application would run it again; nothing else may be told with a ledger. */
            if (segue_error_outcome(LAST) != SEGUE_TXN_NOT_COMMITTED) {
                fprintf(stderr, "%s\n", segue_error_message(LAST));
                it->unexpected = status;
            }
            segue_session_rollback(session, NULL);
        }
        atomic_fetch_add(&commits, status == SEGUE_OK);
        /* Slow enough that the failover falls between the first and the last. */
        check_sleep_ms(1);
    }
    segue_session_free(session);
    check_forget();
    return NULL;
}

static void with_eight_threads(void)
{
    cluster *servers = NULL;
    segue_client *client = NULL;
    begin_all_over(&servers, &client, "--standbys 1 --replication sync", false);
    struct worker workers[SESSIONS];
    int rounds = check_is_slow() ? 40 : 300;
    for (int i = 0; i < SESSIONS; i++) {
        workers[i] = (struct worker){.client = client, .number = i + 1, .rounds = rounds};
        workers[i].committed = calloc((size_t)rounds, sizeof(bool));
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    int64_t end = check_now_ms() + check_scaled(30000);
    while (atomic_load(&commits) < SESSIONS * rounds / 4 && check_now_ms() < end)
        check_sleep_ms(1);
    cluster_do(servers, "kill 0");
    CHECK(atomic_load(&commits) < SESSIONS * rounds);
    cluster_do(servers, "promote 1");
    int64_t told = 0;
    for (int i = 0; i < SESSIONS; i++) {
        pthread_join(workers[i].thread, NULL);
        CHECK_INT(workers[i].unexpected, 0);
    }
    /* Reported committed is there exactly once, reported not committed is absent. */
    segue_session *session = db_session(client);
    segue_result *result = NULL;
    OK(segue_session_query(session, "SELECT id, count(*) FROM t GROUP BY id", NULL, 0, SEGUE_FORMAT_BINARY,
                           &result, ERR));
    int *found = calloc((size_t)((SESSIONS + 1) * rounds), sizeof(int));
    for (size_t row = 0; row < segue_result_row_count(result); row++) {
        int64_t id = 0;
        int64_t count = 0;
        OK(segue_result_int64(result, row, 0, &id, ERR));
        OK(segue_result_int64(result, row, 1, &count, ERR));
        found[id / 100000 * rounds + id % 100000] = (int)count;
    }
    int wrong = 0;
    for (int i = 0; i < SESSIONS; i++) {
        for (int round = 0; round < rounds; round++) {
            int expected = workers[i].committed[round] ? 1 : 0;
            told += expected;
            wrong += found[(i + 1) * rounds + round] != expected;
        }
        free(workers[i].committed);
    }
    CHECK_INT(wrong, 0);
    CHECK_INT(told, SESSIONS * rounds);
    free(found);
    segue_result_free(result);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(in_mid_transaction);
    RUN(in_mid_stream);
    RUN(with_a_commit_in_flight);
    RUN(with_a_commit_in_flight_as_the_primary_dies);
    RUN(with_eight_threads);
    return check_finish();
}
