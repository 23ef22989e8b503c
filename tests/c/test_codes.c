/*
 * Every status code of the list is provoked; at the end the list is gone through.
 *
 * Not here, since no program can bring them about:
 *   SEGUE_INTERNAL  a panic of the library's, caught at the boundary: a bug by definition. The unit
 *                   tests of src/ffi cover the boundary.
 *   SEGUE_CLOSED    what is left of a session after SEGUE_INTERNAL. Otherwise nothing can be closed
 *                   under a handle, because children keep their parents alive; only a ticket's callback
 *                   may hear it, in test_tickets.
 *   SEGUE_PROTOCOL  a server that does not speak the protocol is passed over like one that is down,
 *                   since another one may be of use: that ends in SEGUE_FAILOVER_TIMEOUT, whose
 *                   message has the reason. See a_server_that_is_none().
 * Nor SEGUE_SERVER_CRASH, which takes the server down four times: tests/live_submit/crash.rs does.
 */
#define _DEFAULT_SOURCE

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/db.h"

static cluster *servers;

static segue_session *open_with(const char *options)
{
    segue_client *client = db_client(cluster_conninfo_proxy(servers), options);
    segue_session *session = db_session(client);
    segue_client_free(client);
    return session;
}

static int32_t try_open(const char *conninfo, const char *options)
{
    segue_client *client = db_client(conninfo, options);
    segue_session *session = NULL;
    int32_t status = segue_session_open(client, SEGUE_SESSION_DEFAULT, &session, ERR);
    CHECK((session != NULL) == (status == SEGUE_OK));
    segue_session_free(session);
    segue_client_free(client);
    return status;
}

static void the_simple_ones(void)
{
    segue_client *client = NULL;
    FAILS(SEGUE_CONFIG, segue_client_open("nonsense=1", &client, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_open(NULL, &client, ERR));
    segue_session *session = open_with("");
    FAILS(SEGUE_SERVER, segue_session_execute(session, "nonsense", NULL, 0, NULL, ERR));
    FAILS(SEGUE_USAGE, segue_session_commit(session, ERR));
    segue_result *result = NULL;
    OK(segue_session_query(session, "SELECT 'x'::text, NULL::int, 'abc'::bytea", NULL, 0, SEGUE_FORMAT_TEXT,
                           &result, ERR));
    int64_t value = 0;
    size_t length = 0;
    char buffer[2];
    FAILS(SEGUE_CONVERSION, segue_result_int64(result, 0, 0, &value, ERR));
    FAILS(SEGUE_NULL_VALUE, segue_result_int64(result, 0, 1, &value, ERR));
    FAILS(SEGUE_LIMIT, segue_result_bytea(result, 0, 2, buffer, sizeof buffer, &length, ERR));
    segue_result_free(result);
    segue_stream *stream = NULL;
    OK(segue_session_stream(session, "SELECT 1", NULL, 0, SEGUE_FORMAT_TEXT, &stream, ERR));
    FAILS(SEGUE_BUSY, segue_session_commit(session, ERR));
    segue_stream_free(stream);
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    FAILS(SEGUE_SERVER, segue_session_execute(session, "SELECT 1/0", NULL, 0, NULL, ERR));
    FAILS(SEGUE_TRANSACTION_FAILED, segue_session_commit(session, ERR));
    segue_session_free(session);
}

static void forked(void)
{
    segue_session *session = open_with("");
    check_forget();
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        int32_t status = segue_session_execute(session, "SELECT 1", NULL, 0, NULL, NULL);
        ssize_t written = write(ends[1], &status, sizeof status);
        (void)written;
        kill(getpid(), SIGKILL);
    }
    int32_t status = -1;
    CHECK_INT(read(ends[0], &status, sizeof status), sizeof status);
    FAILS(SEGUE_FORKED, status);
    waitpid(child, NULL, 0);
    close(ends[0]);
    close(ends[1]);
    segue_session_free(session);
}

static void no_server_at_all(void)
{
    /* Port 1 refuses. Nobody waits for a cluster that was never there. */
    FAILS(SEGUE_CONNECT,
          try_open("host=127.0.0.1 port=1 user=app dbname=app sslmode=disable", "failover_timeout_ms=600000"));
    CHECK_STR(segue_error_sqlstate(LAST), "08001");
    CHECK_HAS(segue_error_message(LAST), "127.0.0.1:1");
    FAILS(SEGUE_CONNECT, try_open("host=/nonexistent user=app dbname=app", "failover_timeout_ms=600000"));
    FAILS(SEGUE_CONNECT, try_open("host=nonesuch.invalid user=app dbname=app sslmode=disable",
                                  "failover_timeout_ms=600000"));
}

static void a_database_that_is_not_there(void)
{
    char conninfo[128];
    snprintf(conninfo, sizeof conninfo, "host=127.0.0.1 port=%lld user=app dbname=nonesuch sslmode=disable",
             (long long)cluster_number(servers, "port 0"));
    FAILS(SEGUE_CONNECT, try_open(conninfo, "failover_timeout_ms=20000"));
    CHECK_HAS(segue_error_message(LAST), "nonesuch");
    CHECK_STR(segue_error_field(LAST, 'C'), "3D000");
}

/* Accepts connections, and answers what is no PostgreSQL. */
static void *answer_like_http(void *listener)
{
    for (;;) {
        int peer = accept(*(int *)listener, NULL, NULL);
        if (peer < 0)
            return NULL;
        char request[64];
        ssize_t got = read(peer, request, sizeof request);
        static const char ANSWER[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
        if (got > 0)
            got = write(peer, ANSWER, sizeof ANSWER - 1);
        close(peer);
    }
}

static void a_server_that_is_none(void)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 8) == 0 &&
            getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    pthread_t thread;
    pthread_create(&thread, NULL, answer_like_http, &listener);
    char conninfo[128];
    snprintf(conninfo, sizeof conninfo, "host=127.0.0.1 port=%d user=app dbname=app", ntohs(address.sin_port));
    char plain[160];
    snprintf(plain, sizeof plain, "%s sslmode=disable", conninfo);
    FAILS(SEGUE_FAILOVER_TIMEOUT, try_open(plain, "failover_timeout_ms=500"));
    CHECK_HAS(segue_error_message(LAST), "does not speak PostgreSQL's protocol");
    shutdown(listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(listener);
}

static void no_tls(void)
{
    char conninfo[128];
    snprintf(conninfo, sizeof conninfo, "host=127.0.0.1 port=%lld user=app dbname=app sslmode=require",
             (long long)cluster_number(servers, "port 0"));
    FAILS(SEGUE_TLS, try_open(conninfo, "failover_timeout_ms=20000"));
    CHECK_STR(segue_error_sqlstate(LAST), "08001");
}

static void tls_and_passwords(void)
{
    cluster *guarded = cluster_start("--standbys 0 --replication async --auth scram --tls");
    const char *conninfo = cluster_conninfo(guarded);
    segue_client *client = db_client(conninfo, "");
    segue_session *session = db_session(client);
    segue_session_state *state = NULL;
    OK(segue_session_status(session, &state, ERR));
    CHECK_HAS(segue_session_state_tls_version(state), "TLS");
    segue_session_state_free(state);
    CHECK_INT(db_int(session, "SELECT ssl::int FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), 1);
    segue_session_free(session);
    segue_client_free(client);
    int64_t port = cluster_number(guarded, "port 0");
    static const struct {
        const char *options;
        int32_t status;
    } CASES[] = {
        {"password=wrong sslmode=require", SEGUE_AUTHENTICATION},
        {"sslmode=require passfile=/nonexistent", SEGUE_AUTHENTICATION},
        {"password=correct-horse sslmode=require", SEGUE_OK},
        {"password=correct-horse sslmode=require require_auth=none", SEGUE_AUTHENTICATION},
        /* The servers' authority is not among the system's. */
        {"password=correct-horse sslmode=verify-full sslrootcert=system", SEGUE_TLS},
        /* pg_hba.conf has no line for a plain connection. */
        {"password=correct-horse sslmode=disable", SEGUE_AUTHENTICATION},
    };
    for (size_t i = 0; i < COUNT(CASES); i++) {
        char text[256];
        snprintf(text, sizeof text, "host=127.0.0.1 port=%lld user=app dbname=app %s", (long long)port,
                 CASES[i].options);
        char patience[64];
        snprintf(patience, sizeof patience, "failover_timeout_ms=%d connect_timeout_ms=%d", check_scaled(20000),
                 check_scaled(10000));
        if (!FAILS(CASES[i].status, try_open(text, patience)))
            fprintf(stderr, "  the options: %s\n", CASES[i].options);
        CHECK(strstr(segue_error_message(LAST), "correct-horse") == NULL);
    }
    cluster_stop(guarded);
}

static void a_ledger_that_is_required(void)
{
    char conninfo[160];
    snprintf(conninfo, sizeof conninfo, "host=127.0.0.1 port=%lld user=humble dbname=app sslmode=disable",
             (long long)cluster_number(servers, "port 0"));
    cluster_do(servers, "sql 0 CREATE ROLE humble LOGIN");
    cluster_do(servers, "sql 0 DROP SCHEMA IF EXISTS segue CASCADE");
    FAILS(SEGUE_LEDGER, try_open(conninfo, "ledger=require failover_timeout_ms=20000"));
    OK(try_open(conninfo, "ledger=off failover_timeout_ms=20000"));
    segue_session_free(open_with(""));
}

/* The link breaks around a commit that no ledger knows of. */
static void unknown_outcomes(void)
{
    segue_session *session = open_with("ledger=off poll_interval_ms=30000");
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "INSERT INTO t VALUES (1)");
    cluster_do(servers, "arm 0 commit forward_then_reset");
    FAILS(SEGUE_OUTCOME_UNKNOWN, segue_session_commit(session, ERR));
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_UNKNOWN);
    CHECK(segue_error_maybe_committed(LAST) && !segue_error_is_retryable(LAST));
    CHECK_STR(segue_error_sqlstate(LAST), "08007");
    cluster_do(servers, "arm_wait");
    cluster_do(servers, "wait_until 0 SELECT count(*) = 1 FROM t WHERE id = 1");
    CHECK_INT(db_int(session, "SELECT count(*) FROM t"), 1);
    segue_session_free(session);
}

static void lost_replies(void)
{
    segue_session *session = open_with("poll_interval_ms=30000");
    int32_t status = SEGUE_OK;
    int32_t id = 100;
    /* It is committed before it is answered, or the other way round: some tries give the one. */
    for (int tries = 0; status == SEGUE_OK && tries < 200; tries++) {
        segue_param param = segue_param_int4(++id);
        cluster_do(servers, "arm 0 commit forward_then_reset");
        status = segue_session_execute(session, "INSERT INTO t VALUES ($1)", &param, 1, NULL, ERR);
        cluster_do(servers, "arm_wait");
        CHECK_INT(cluster_number(servers, "sql 0 SELECT count(*) FROM t WHERE id = %d", id), 1);
    }
    FAILS(SEGUE_REPLY_LOST, status);
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_COMMITTED);
    CHECK(segue_error_maybe_committed(LAST) && !segue_error_is_retryable(LAST));
    segue_session_free(session);
}

static void diverged_replays(void)
{
    segue_session *session = open_with("poll_interval_ms=30000");
    cluster_do(servers, "sql 0 INSERT INTO t VALUES (1000)");
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_int(session, "SELECT count(*) FROM t");
    db_execute(session, "INSERT INTO t VALUES (2000)");
    cluster_do(servers, "reset_all 0");
    cluster_do(servers, "sql 0 DELETE FROM t WHERE id = 1000");
    FAILS(SEGUE_REPLAY_DIVERGED, segue_session_commit(session, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "40001");
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
    CHECK(segue_error_is_retryable(LAST));
    CHECK_INT(db_int(session, "SELECT count(*) FROM t WHERE id = 2000"), 0);
    segue_session_free(session);
}

static void lost_protection(void)
{
    segue_session *session = open_with("poll_interval_ms=30000");
    db_execute(session, "CREATE TEMP TABLE mine (id int)");
    cluster_do(servers, "reset_all 0");
    FAILS(SEGUE_PROTECTION_LOST, segue_session_execute(session, "INSERT INTO t VALUES (3000)", NULL, 0, NULL, ERR));
    CHECK_HAS(segue_error_message(LAST), "temporary");
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
    db_execute(session, "INSERT INTO t VALUES (3000)");
    CHECK_INT(db_int(session, "SELECT count(*) FROM t WHERE id = 3000"), 1);
    segue_session_free(session);
}

static void cancelling_without_a_server(void)
{
    segue_session *session = open_with("poll_interval_ms=30000");
    segue_cancel *cancel = NULL;
    OK(segue_session_cancel_handle(session, &cancel, ERR));
    cluster_do(servers, "accept 0 refuse");
    FAILS(SEGUE_CONNECT, segue_cancel_request(cancel, ERR));
    cluster_do(servers, "accept 0 forward");
    segue_cancel_free(cancel);
    CHECK_INT(db_int(session, "SELECT 1"), 1);
    segue_session_free(session);
}

static void the_list_is_complete(void)
{
    for (int32_t status = 0; status < 1000; status++) {
        if (strcmp(segue_status_name(status), "unknown") == 0)
            continue;
        bool excepted = status == SEGUE_INTERNAL || status == SEGUE_CLOSED || status == SEGUE_PROTOCOL ||
                        status == SEGUE_SERVER_CRASH;
        if (!CHECK(excepted != check_seen(status)))
            fprintf(stderr, "  the status: %s\n", segue_status_name(status));
    }
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    servers = cluster_start("--standbys 0 --replication async --proxy");
    segue_session *session = open_with("");
    db_execute(session, "CREATE TABLE t (id int)");
    segue_session_free(session);
    RUN(the_simple_ones);
    RUN(forked);
    RUN(no_server_at_all);
    RUN(a_database_that_is_not_there);
    RUN(a_server_that_is_none);
    RUN(no_tls);
    RUN(tls_and_passwords);
    RUN(unknown_outcomes);
    RUN(lost_replies);
    RUN(diverged_replays);
    RUN(lost_protection);
    RUN(cancelling_without_a_server);
    RUN(a_ledger_that_is_required);
    if (argc == 1)
        RUN(the_list_is_complete);
    cluster_stop(servers);
    return check_finish();
}
