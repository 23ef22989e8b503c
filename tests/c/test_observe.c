/* Status, session states, statistics, events, and the ledger's set-up. */
#include <pthread.h>
#include <stdatomic.h>

#include "support/db.h"

static cluster *servers;
static segue_client *client;

struct ear {
    atomic_int heard;
    atomic_int destroyed;
    atomic_int notices;
    atomic_int moved;
    atomic_int wrong;
    char hint[64];
    segue_subscription *own;
};

static void hear(const segue_event *event, void *user_data)
{
    struct ear *ear = user_data;
    atomic_fetch_add(&ear->heard, 1);
    /* What holds for all events. */
    int wrong = segue_event_name(event)[0] == '\0' || segue_event_message(event)[0] == '\0';
    wrong += segue_event_number(event, "no such number") != -1 || segue_event_number(event, NULL) != -1;
    wrong += segue_event_kind(event) < 0 || segue_event_kind(event) > SEGUE_EVENT_SUBMISSION_REAPPLIED;
    int32_t kind = segue_event_kind(event);
    if (kind == SEGUE_EVENT_NOTICE) {
        const char *hint = segue_event_field(event, 'H');
        wrong += segue_event_session(event) == 0 || strcmp(segue_event_name(event), "notice") != 0;
        snprintf(ear->hint, sizeof ear->hint, "%s", hint ? hint : "");
        atomic_fetch_add(&ear->notices, 1);
    } else {
        wrong += segue_event_field(event, 'M') != NULL;
    }
    if (kind == SEGUE_EVENT_SESSION_MOVED) {
        wrong += segue_event_session(event) == 0 || segue_event_server(event) < 0;
        wrong += segue_event_number(event, "pause_us") < 0;
        atomic_fetch_add(&ear->moved, 1);
    }
    if (kind == SEGUE_EVENT_PRIMARY_CHOSEN)
        wrong += segue_event_address(event) == NULL || segue_event_number(event, "timeline") != 1;
    atomic_fetch_add(&ear->wrong, wrong);
}

static void destroy(void *user_data)
{
    atomic_fetch_add(&((struct ear *)user_data)->destroyed, 1);
}

static void snapshots_of_the_servers(void)
{
    segue_session *session = db_session(client);
    /* The standby is known a moment after the first session. */
    segue_status *status = NULL;
    int64_t end = check_now_ms() + check_scaled(10000);
    for (;;) {
        OK(segue_client_status(client, &status, ERR));
        if (segue_status_standby(status) == 1 || check_now_ms() > end)
            break;
        segue_status_free(status);
        check_sleep_ms(10);
    }
    CHECK_INT(segue_status_server_count(status), 2);
    CHECK_INT(segue_status_chosen(status), 0);
    CHECK_INT(segue_status_standby(status), 1);
    CHECK_INT(segue_status_server_role(status, 0), SEGUE_ROLE_PRIMARY);
    CHECK_INT(segue_status_server_role(status, 1), SEGUE_ROLE_STANDBY);
    CHECK_INT(segue_status_server_role(status, 2), SEGUE_ROLE_UNKNOWN);
    CHECK_INT(segue_status_server_health(status, 0), SEGUE_HEALTH_HEALTHY);
    CHECK_INT(segue_status_server_health(status, 1), SEGUE_HEALTH_HEALTHY);
    CHECK_INT(segue_status_server_health(status, 2), SEGUE_HEALTH_UNKNOWN);
    CHECK_HAS(segue_status_server_address(status, 0), cluster_do(servers, "port 0"));
    CHECK_STR(segue_status_server_address(status, 2), NULL);
    CHECK_HAS(segue_status_server_summary(status, 1), segue_status_server_address(status, 1));
    CHECK_STR(segue_status_server_summary(status, 2), NULL);
    CHECK_STR(segue_status_server_error(status, 0), NULL);
    CHECK_STR(segue_status_server_error(status, 2), NULL);
    CHECK_INT(segue_status_server_number(status, 0, "timeline"), 1);
    CHECK(segue_status_server_number(status, 0, "lsn") > 0);
    CHECK(segue_status_server_number(status, 1, "lag_bytes") >= 0);
    CHECK(segue_status_server_number(status, 0, "links_dialled") > 0);
    CHECK(segue_status_server_number(status, 1, "warm_links") >= 0);
    CHECK_INT(segue_status_server_number(status, 0, "warm_links_used"), 0);
    CHECK_INT(segue_status_server_number(status, 0, "nonsense"), -1);
    CHECK_INT(segue_status_server_number(status, 0, NULL), -1);
    CHECK_INT(segue_status_server_number(status, 2, "timeline"), -1);
    CHECK_INT(segue_status_number(status, "sessions"), 1);
    CHECK_INT(segue_status_number(status, "waiting"), 0);
    CHECK_INT(segue_status_number(status, "timeline_floor"), 1);
    CHECK_INT(segue_status_number(status, "system_identifier"),
              cluster_number(servers, "sql 0 SELECT system_identifier FROM pg_control_system()"));
    CHECK_INT(segue_status_number(status, "nonsense"), -1);
    CHECK_INT(segue_status_number(status, NULL), -1);
    CHECK_STR(segue_status_ledger_problem(status), NULL);
    segue_status_free(status);
    segue_session_free(session);
}

static void snapshots_of_a_session(void)
{
    segue_session *session = db_session(client);
    db_execute(session, "SELECT 1");
    segue_session_state *state = NULL;
    OK(segue_session_status(session, &state, ERR));
    CHECK(segue_session_state_id(state) > 0);
    CHECK_INT(segue_session_state_server(state), 0);
    CHECK_HAS(segue_session_state_address(state), cluster_do(servers, "port 0"));
    CHECK_INT(segue_session_state_number(state, "timeline"), 1);
    CHECK_INT(segue_session_state_number(state, "backend_pid"), db_int(session, "SELECT pg_backend_pid()"));
    CHECK_INT(segue_session_state_number(state, "nonsense"), -1);
    CHECK_INT(segue_session_state_number(state, NULL), -1);
    CHECK(!segue_session_state_in_transaction(state));
    CHECK(!segue_session_state_transaction_failed(state));
    CHECK(segue_session_state_ledger(state));
    CHECK_STR(segue_session_state_tls_version(state), NULL);
    CHECK_STR(segue_session_state_protection_lost(state), NULL);
    segue_session_state_free(state);
    /* What cannot be restored elsewhere is named. */
    db_execute(session, "CREATE TEMP TABLE mine (id int)");
    OK(segue_session_status(session, &state, ERR));
    CHECK_HAS(segue_session_state_protection_lost(state), "temporary");
    segue_session_state_free(state);
    segue_session_free(session);
    /* A session that only reads may be anywhere. */
    OK(segue_session_open(client, SEGUE_SESSION_READ_ONLY, &session, ERR));
    OK(segue_session_status(session, &state, ERR));
    CHECK(segue_session_state_server(state) == 0 || segue_session_state_server(state) == 1);
    segue_session_state_free(state);
    CHECK_INT(db_int(session, "SELECT 1"), 1);
    segue_session_free(session);
    OK(segue_session_open(client, SEGUE_SESSION_READ_WRITE, &session, ERR));
    CHECK_INT(db_int(session, "SELECT pg_is_in_recovery()::int"), 0);
    segue_session_free(session);
}

static void events(void)
{
    static struct ear ear;
    segue_client *own = db_client(cluster_conninfo(servers), "application_name=events");
    segue_subscription *subscription = NULL;
    OK(segue_client_on_event(own, hear, &ear, destroy, &subscription, ERR));
    segue_session *session = db_session(own);
    db_execute(session, "DO $$BEGIN RAISE NOTICE 'hear, hear' USING HINT = 'a hint'; END$$");
    CHECK_INT(atomic_load(&ear.notices), 1);
    CHECK_STR(ear.hint, "a hint");
    CHECK(atomic_load(&ear.heard) > 1);
    /* The backend is ended; the session moves to another one, and says so. */
    char sql[64];
    snprintf(sql, sizeof sql, "%lld", (long long)db_int(session, "SELECT pg_backend_pid()"));
    cluster_do(servers, "sql 0 SELECT pg_terminate_backend(%s, 5000)", sql);
    CHECK_INT(db_int(session, "SELECT 1"), 1);
    CHECK_INT(atomic_load(&ear.moved), 1);
    CHECK_INT(atomic_load(&ear.destroyed), 0);
    segue_subscription_free(subscription);
    CHECK_INT(atomic_load(&ear.destroyed), 1);
    int heard = atomic_load(&ear.heard);
    db_execute(session, "DO $$BEGIN RAISE NOTICE 'unheard'; END$$");
    CHECK_INT(atomic_load(&ear.heard), heard);
    CHECK_INT(atomic_load(&ear.wrong), 0);
    segue_session_free(session);
    segue_client_free(own);
}

static uint64_t counter(const segue_client *of, const char *name)
{
    segue_statistics *statistics = NULL;
    uint64_t value = UINT64_MAX;
    OK(segue_client_statistics(of, &statistics, ERR));
    OK(segue_statistics_find(statistics, name, &value, ERR));
    segue_statistics_free(statistics);
    return value;
}

static void counters(void)
{
    /* A client of its own, since those with the same configuration are one. */
    segue_client *own = db_client(cluster_conninfo(servers), "application_name=counters");
    segue_statistics *statistics = NULL;
    OK(segue_client_statistics(own, &statistics, ERR));
    size_t count = segue_statistics_count(statistics);
    CHECK(count >= 16);
    for (size_t i = 0; i < count; i++) {
        uint64_t value = UINT64_MAX;
        CHECK_INT(segue_statistics_value(statistics, i), 0);
        OK(segue_statistics_find(statistics, segue_statistics_name(statistics, i), &value, ERR));
        CHECK_INT(value, 0);
    }
    CHECK_STR(segue_statistics_name(statistics, count), NULL);
    CHECK_INT(segue_statistics_value(statistics, count), 0);
    uint64_t untouched = 4711;
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statistics_find(statistics, "nonsense", &untouched, ERR));
    CHECK_INT(untouched, 4711);
    segue_statistics_free(statistics);

    segue_session *session = db_session(own);
    db_execute(session, "CREATE TABLE counted (id int)");
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "INSERT INTO counted VALUES (1)");
    OK(segue_session_commit(session, ERR));
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "INSERT INTO counted VALUES (2)");
    OK(segue_session_rollback(session, ERR));
    CHECK_INT(counter(own, "sessions_opened"), 1);
    CHECK_INT(counter(own, "statements"), 3);
    CHECK_INT(counter(own, "transactions_committed"), 1);
    CHECK_INT(counter(own, "transactions_rolled_back"), 1);
    CHECK_INT(counter(own, "links_lost"), 0);
    /* A transaction that is replayed. */
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "INSERT INTO counted VALUES (3)");
    CHECK_INT(db_int(session, "SELECT count(*) FROM counted"), 2);
    cluster_do(servers, "sql 0 SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                        "WHERE application_name = 'counters' AND state = 'idle in transaction'");
    OK(segue_session_commit(session, ERR));
    CHECK_INT(counter(own, "links_lost"), 1);
    CHECK_INT(counter(own, "replays_started"), 1);
    CHECK_INT(counter(own, "replays_finished"), 1);
    CHECK_INT(counter(own, "transactions_committed"), 2);
    CHECK(counter(own, "pause_longest_us") > 0);
    CHECK_INT(db_int(session, "SELECT count(*) FROM counted"), 2);
    segue_session_free(session);
    /* They stay when the sessions are gone. */
    CHECK_INT(counter(own, "sessions_opened"), 1);
    segue_client_free(own);
}

static void hear_once(const segue_event *event, void *user_data)
{
    struct ear *ear = user_data;
    if (segue_event_kind(event) != SEGUE_EVENT_NOTICE)
        return;
    atomic_fetch_add(&ear->heard, 1);
    segue_subscription_free(ear->own);
    ear->own = NULL;
}

static void a_subscription_freed_in_its_callback(void)
{
    static struct ear ear;
    OK(segue_client_on_event(client, hear_once, &ear, destroy, &ear.own, ERR));
    segue_session *session = db_session(client);
    db_execute(session, "DO $$BEGIN RAISE NOTICE 'one'; RAISE NOTICE 'two'; END$$");
    CHECK_INT(atomic_load(&ear.heard), 1);
    CHECK_INT(atomic_load(&ear.destroyed), 1);
    CHECK(ear.own == NULL);
    segue_session_free(session);
}

static void subscriptions_that_fail(void)
{
    static struct ear ear;
    segue_subscription *subscription = NULL;
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_on_event(client, NULL, &ear, destroy, &subscription, ERR));
    CHECK_INT(atomic_load(&ear.destroyed), 1);
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_on_event(NULL, hear, &ear, destroy, &subscription, ERR));
    CHECK_INT(atomic_load(&ear.destroyed), 2);
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_on_event(client, hear, &ear, destroy, NULL, ERR));
    CHECK_INT(atomic_load(&ear.destroyed), 3);
    CHECK(subscription == NULL);
    CHECK_INT(atomic_load(&ear.heard), 0);
    OK(segue_client_on_event(client, hear, &ear, NULL, &subscription, ERR));
    segue_subscription_free(subscription);
    CHECK_INT(atomic_load(&ear.destroyed), 3);
    segue_subscription_free(NULL);
}

static void no_event_at_all(void)
{
    CHECK_INT(segue_event_kind(NULL), SEGUE_EVENT_OTHER);
    CHECK_STR(segue_event_name(NULL), "other");
    CHECK_STR(segue_event_message(NULL), "");
    CHECK_INT(segue_event_session(NULL), 0);
    CHECK_INT(segue_event_server(NULL), -1);
    CHECK_STR(segue_event_address(NULL), NULL);
    CHECK_INT(segue_event_number(NULL, "timeline"), -1);
    CHECK_STR(segue_event_field(NULL, 'M'), NULL);
}

static void setting_up_the_ledger(void)
{
    OK(segue_client_remove_ledger(client, ERR));
    CHECK_STR(cluster_do(servers, "sql 0 SELECT count(*) FROM pg_namespace WHERE nspname = 'segue'"), "0");
    OK(segue_client_setup(client, NULL, false, ERR));
    OK(segue_client_setup(client, NULL, false, ERR));
    OK(segue_client_setup(client, "clerk", true, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_setup(client, "\xff", false, ERR));
    /* A role that there is not. */
    int32_t status = segue_client_setup(client, "nobody there", false, ERR);
    CHECK(status != SEGUE_OK);
    segue_session *session = db_session(client);
    segue_session_state *state = NULL;
    db_execute(session, "CREATE TABLE after_setup (id int)");
    OK(segue_session_status(session, &state, ERR));
    CHECK(segue_session_state_ledger(state));
    segue_session_state_free(state);
    segue_session_free(session);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    servers = cluster_start("--standbys 1 --replication async");
    cluster_do(servers, "sql 0 CREATE ROLE clerk");
    client = db_client(cluster_conninfo(servers), "");
    RUN(snapshots_of_the_servers);
    RUN(snapshots_of_a_session);
    RUN(events);
    RUN(counters);
    RUN(a_subscription_freed_in_its_callback);
    RUN(subscriptions_that_fail);
    RUN(no_event_at_all);
    RUN(setting_up_the_ledger);
    segue_client_free(client);
    cluster_stop(servers);
    return check_finish();
}
