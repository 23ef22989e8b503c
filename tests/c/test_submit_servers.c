/*
 * Transactions handed over whole while servers, and clients, come and go: no server at all, a failover in
 * the middle, a disk that takes nothing, clients killed with SIGKILL. What was accepted is there once, and
 * nothing is there twice.
 */
#define _DEFAULT_SOURCE

#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/db.h"
#include "support/folder.h"
#include "support/submit.h"

static const char *own_name;

/* Hands over the row `id`, without a key in the table: what is applied twice must show. */
static segue_ticket *hand_over(const segue_client *client, int id, const char *lane, const char *key)
{
    segue_submission *it = NULL;
    segue_ticket *ticket = NULL;
    segue_param params[1] = {segue_param_int4(id)};
    OK(segue_submission_new(&it, ERR));
    OK(segue_submission_add_statement(it, "INSERT INTO s (id) VALUES ($1)", params, 1, ERR));
    OK(segue_submission_set_lane(it, lane, ERR));
    OK(segue_submission_set_key(it, key, ERR));
    if (id % 50 == 0)
        OK(segue_submission_expect_rows(it, 1, 1, ERR));
    OK(segue_submit(client, it, &ticket, ERR));
    REQUIRE(ticket != NULL);
    segue_submission_free(it);
    return ticket;
}

static bool has_problem(const segue_client *client)
{
    segue_submission_status *status = NULL;
    OK(segue_client_submissions(client, &status, ERR));
    bool has = segue_submission_status_problem(status) != NULL;
    segue_submission_status_free(status);
    return has;
}

static void wait_until_problem(const segue_client *client, bool there)
{
    int64_t end = check_now_ms() + check_scaled(60000);
    while (has_problem(client) != there && check_now_ms() < end)
        check_sleep_ms(5);
    CHECK(has_problem(client) == there);
}

static void wait_until_idle(const segue_client *client)
{
    int64_t end = check_now_ms() + check_scaled(120000);
    while (submit_number(client, "waiting") + submit_number(client, "in_flight") > 0 && check_now_ms() < end)
        check_sleep_ms(5);
    CHECK_INT(submit_number(client, "waiting") + submit_number(client, "in_flight"), 0);
}

static int64_t rows(cluster *servers, int server, const char *what)
{
    return cluster_number(servers, "sql %d SELECT %s FROM s", server, what);
}

/* Rows of one lane (a hundred thousand ids each) that stand behind one that was handed over later. */
static int64_t out_of_order(cluster *servers, int server)
{
    return cluster_number(servers,
                          "sql %d SELECT count(*) FROM (SELECT id, lag(id) OVER (PARTITION BY id / 100000 "
                          "ORDER BY seq) AS before FROM s WHERE id >= 100000) x WHERE before > id",
                          server);
}

static void make_table(cluster *servers)
{
    cluster_do(servers, "sql 0 CREATE TABLE s (id int, seq bigserial)");
    cluster_do(servers, "sql 0 GRANT ALL ON s, s_seq_seq TO PUBLIC");
}

/* The journal is in `folder`. */
static segue_client *open_journal(cluster *servers, const char *folder)
{
    char options[4200];
    snprintf(options, sizeof options, "journal=file journal_dir=%s poll_interval_ms=100", folder);
    return db_client(cluster_conninfo(servers), options);
}

static void no_server_at_all(void)
{
    cluster *servers = cluster_start("--standbys 0 --replication async");
    char *folder = folder_make();
    make_table(servers);
    cluster_do(servers, "stop 0");
    segue_client *client = open_journal(servers, folder);
    char id[37] = "";
    for (int i = 0; i < 100; i++) {
        char key[32];
        snprintf(key, sizeof key, "sale %d", i);
        segue_ticket *ticket = hand_over(client, 100000 + i, "till", key);
        bool done = true;
        OK(segue_ticket_poll(ticket, &done, ERR));
        CHECK(!done);
        if (i == 0)
            snprintf(id, sizeof id, "%s", segue_ticket_id(ticket));
        segue_ticket_free(ticket);
    }
    wait_until_problem(client, true);
    segue_client_free(client);

    client = open_journal(servers, folder);
    CHECK_INT(submit_number(client, "recovered"), 100);
    /* Handed over again, for want of an answer. */
    for (int i = 50; i < 100; i++) {
        char key[32];
        snprintf(key, sizeof key, "sale %d", i);
        segue_ticket_free(hand_over(client, 100000 + i, "till", key));
    }
    segue_ticket *first = NULL;
    segue_ticket *last = NULL;
    OK(segue_client_ticket(client, id, &first, ERR));
    OK(segue_client_ticket_for_key(client, "sale 99", &last, ERR));
    CHECK_STR(segue_ticket_key(first), "sale 0");
    bool done = true;
    OK(segue_ticket_wait(last, 10, &done, ERR));
    CHECK(!done);
    cluster_do(servers, "start 0");
    submit_committed(first);
    submit_committed(last);
    CHECK_INT(rows(servers, 0, "count(*)"), 100);
    CHECK_INT(rows(servers, 0, "count(DISTINCT id)"), 100);
    CHECK_INT(out_of_order(servers, 0), 0);
    wait_until_problem(client, false);
    segue_ticket_free(first);
    segue_ticket_free(last);
    segue_client_free(client);
    folder_remove(folder);
    free(folder);
    cluster_stop(servers);
}

enum { THROUGH_A_FAILOVER = 600 };

static void a_failover_while_submitting(void)
{
    cluster *servers = cluster_start("--standbys 1 --replication sync");
    make_table(servers);
    segue_client *client = db_client(cluster_conninfo(servers), "poll_interval_ms=50");
    segue_ticket *tickets[THROUGH_A_FAILOVER];
    for (int i = 0; i < THROUGH_A_FAILOVER; i++) {
        char lane[8];
        snprintf(lane, sizeof lane, "%d", i % 4);
        tickets[i] = hand_over(client, i % 4 * 100000 + i, i % 4 ? lane : NULL, NULL);
        if (i == THROUGH_A_FAILOVER / 3) {
            submit_committed(tickets[0]);
            cluster_do(servers, "kill 0");
        }
        if (i == THROUGH_A_FAILOVER * 2 / 3)
            cluster_do(servers, "promote 1");
    }
    for (int i = 0; i < THROUGH_A_FAILOVER; i++) {
        submit_committed(tickets[i]);
        segue_ticket_free(tickets[i]);
    }
    CHECK_INT(rows(servers, 1, "count(*)"), THROUGH_A_FAILOVER);
    CHECK_INT(rows(servers, 1, "count(DISTINCT id)"), THROUGH_A_FAILOVER);
    CHECK_INT(out_of_order(servers, 1), 0);
    segue_client_free(client);
    cluster_stop(servers);
}

enum { BEFORE_THE_CUT = 30, ALL_TOLD = 50 };

/* How often each was named as lost, by its key and by its id. */
struct losses {
    atomic_int by_key[ALL_TOLD];
    atomic_int by_id[ALL_TOLD];
    char ids[ALL_TOLD][37];
    atomic_int named;
    atomic_int wrong;
};

static void hear_of_losses(const segue_event *event, void *user_data)
{
    struct losses *losses = user_data;
    size_t count = segue_event_submission_count(event);
    int wrong = segue_event_submission_id(event, count) != NULL || segue_event_submission_key(event, count) != NULL;
    if (segue_event_kind(event) == SEGUE_EVENT_SUBMISSIONS_LOST) {
        wrong += strcmp(segue_event_name(event), "submissions_lost") != 0 || count == 0;
        wrong += segue_event_number(event, "others") != 0;
        for (size_t i = 0; i < count; i++) {
            int id = -1;
            const char *key = segue_event_submission_key(event, i);
            if (key == NULL || sscanf(key, "sale %d", &id) != 1 || id < 0 || id >= ALL_TOLD) {
                wrong++;
                continue;
            }
            atomic_fetch_add(&losses->by_key[id], 1);
            if (strcmp(segue_event_submission_id(event, i), losses->ids[id]) == 0)
                atomic_fetch_add(&losses->by_id[id], 1);
            atomic_fetch_add(&losses->named, 1);
        }
    } else {
        wrong += count != 0;
    }
    atomic_fetch_add(&losses->wrong, wrong);
}

/* Asynchronous replication: what was told and the standby never got is named once, by an idle client. */
static void what_a_promotion_loses_is_named(void)
{
    cluster *servers = cluster_start("--standbys 1 --replication async");
    make_table(servers);
    segue_client *client = db_client(cluster_conninfo(servers), "poll_interval_ms=50");
    static struct losses losses;
    segue_subscription *subscription = NULL;
    OK(segue_client_on_event(client, hear_of_losses, &losses, NULL, &subscription, ERR));
    segue_ticket *tickets[ALL_TOLD];
    for (int i = 0; i < ALL_TOLD; i++) {
        char key[32];
        if (i == BEFORE_THE_CUT) {
            cluster_do(servers, "wait_until 1 SELECT count(*) = 30 FROM s");
            cluster_do(servers, "sql 1 ALTER SYSTEM SET primary_conninfo = ''");
            cluster_do(servers, "sql 1 SELECT pg_reload_conf()");
            cluster_do(servers, "wait_until 0 SELECT count(*) = 0 FROM pg_stat_replication");
        }
        snprintf(key, sizeof key, "sale %d", i);
        tickets[i] = hand_over(client, i, NULL, key);
        snprintf(losses.ids[i], sizeof losses.ids[i], "%s", segue_ticket_id(tickets[i]));
        submit_committed(tickets[i]);
    }
    CHECK_INT(atomic_load(&losses.named), 0);
    cluster_do(servers, "kill 0");
    cluster_do(servers, "promote 1");
    int64_t end = check_now_ms() + check_scaled(60000);
    while (atomic_load(&losses.named) < ALL_TOLD - BEFORE_THE_CUT && check_now_ms() < end)
        check_sleep_ms(5);
    for (int i = 0; i < ALL_TOLD; i++) {
        int lost = i >= BEFORE_THE_CUT;
        bool done = false;
        CHECK_INT(atomic_load(&losses.by_key[i]), lost);
        CHECK_INT(atomic_load(&losses.by_id[i]), lost);
        if (lost) {
            FAILS(SEGUE_PROTECTION_LOST, segue_ticket_poll(tickets[i], &done, ERR));
            CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
        } else {
            submit_committed(tickets[i]);
        }
        segue_ticket_free(tickets[i]);
    }
    CHECK_INT(atomic_load(&losses.wrong), 0);
    CHECK_INT(submit_number(client, "lost"), ALL_TOLD - BEFORE_THE_CUT);
    CHECK_INT(submit_number(client, "reapplied"), 0);
    /* Its key may be handed over again. */
    segue_ticket *again = hand_over(client, ALL_TOLD - 1, NULL, "sale 49");
    submit_committed(again);
    segue_ticket_free(again);
    CHECK_INT(rows(servers, 1, "count(*)"), BEFORE_THE_CUT + 1);
    segue_subscription_free(subscription);
    segue_client_free(client);
    cluster_stop(servers);
}

/* A disk that takes nothing: what cannot be kept is not accepted. */
static void a_journal_that_cannot_be_written(void)
{
    cluster *servers = cluster_start("--standbys 0 --replication async");
    char *folder = folder_make();
    make_table(servers);
    segue_client *client = open_journal(servers, folder);
    segue_ticket *ticket = hand_over(client, 1, NULL, NULL);
    submit_committed(ticket);
    segue_ticket_free(ticket);

    struct rlimit before;
    struct rlimit none;
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    none = before;
    none.rlim_cur = 1;
    signal(SIGXFSZ, SIG_IGN);
    segue_submission *it = NULL;
    ticket = NULL;
    OK(segue_submission_new(&it, ERR));
    OK(segue_submission_add_statement(it, "INSERT INTO s (id) VALUES (2)", NULL, 0, ERR));
    REQUIRE(setrlimit(RLIMIT_FSIZE, &none) == 0);
    int32_t status = segue_submit(client, it, &ticket, ERR);
    REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
    FAILS(SEGUE_PROTECTION_LOST, status);
    CHECK_HAS(segue_error_message(LAST), "not accepted");
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
    CHECK(ticket == NULL);
    segue_submission_free(it);
    segue_client_free(client);
    CHECK_INT(rows(servers, 0, "count(*)"), 1);
    folder_remove(folder);
    free(folder);
    cluster_stop(servers);
}

enum { CHILDREN = 6, OF_CHILD = 100000, ACCEPTED_MAX = 100000 };

/* The client that is killed: this program, run once more. It tells of what was accepted. */
static int child(const char *conninfo, int first)
{
    segue_client *client = NULL;
    segue_error *error = NULL;
    if (segue_client_open(conninfo, &client, &error) != SEGUE_OK) {
        fprintf(stderr, "the child: %s\n", segue_error_message(error));
        return 1;
    }
    for (int id = first; id < first + OF_CHILD; id++) {
        char lane[32];
        char line[32];
        snprintf(lane, sizeof lane, "of %d", first);
        segue_ticket_free(hand_over(client, id, lane, NULL));
        /* In one write, so that no half of a number is ever read. */
        int length = snprintf(line, sizeof line, "%d\n", id);
        if (write(STDOUT_FILENO, line, (size_t)length) != length)
            return 1;
    }
    return 0;
}

/* Runs a child until it has had so many accepted, kills it, and adds to `accepted` all that it told. */
static int run_child(const char *conninfo, int first, int enough, int *accepted, int count)
{
    int ends[2];
    char number_text[16];
    snprintf(number_text, sizeof number_text, "%d", first);
    REQUIRE(pipe(ends) == 0);
    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(own_name, own_name, "--child", conninfo, number_text, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *told = fdopen(ends[0], "r");
    REQUIRE(told != NULL);
    int id = 0;
    for (int heard = 0; fscanf(told, "%d", &id) == 1;) {
        REQUIRE(count < ACCEPTED_MAX);
        accepted[count++] = id;
        if (++heard == enough)
            kill(pid, SIGKILL);
    }
    fclose(told);
    int status = 0;
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return count;
}

static void clients_are_killed(void)
{
    cluster *servers = cluster_start("--standbys 0 --replication async");
    char *folder = folder_make();
    int *accepted = calloc(ACCEPTED_MAX, sizeof *accepted);
    REQUIRE(accepted != NULL);
    int count = 0;
    make_table(servers);
    char options[4200];
    snprintf(options, sizeof options, "journal=file journal_dir=%s poll_interval_ms=100", folder);
    char *conninfo = cluster_with(cluster_conninfo(servers), options);
    for (int i = 0; i < CHILDREN; i++) {
        /* The server is there, is killed, stays away, is back, and is killed again. */
        if (i == 2 || i == 5)
            cluster_do(servers, "stop_immediate 0");
        count = run_child(conninfo, (i + 1) * OF_CHILD, 40 + i * 60, accepted, count);
        if (i == 3)
            cluster_do(servers, "start 0");
    }
    CHECK(count >= CHILDREN * 40);
    segue_client *client = open_journal(servers, folder);
    CHECK(submit_number(client, "recovered") >= 40 + (CHILDREN - 1) * 60);
    cluster_do(servers, "start 0");
    wait_until_idle(client);
    CHECK_INT(submit_number(client, "dead_letters"), 0);
    CHECK_INT(rows(servers, 0, "count(*) - count(DISTINCT id)"), 0);
    CHECK_INT(out_of_order(servers, 0), 0);
    /* All that was accepted; what was handed over in the moment of the kill may be there besides. */
    size_t size = (size_t)count * 8 + 8;
    char *list = malloc(size);
    REQUIRE(list != NULL);
    size_t length = 0;
    for (int i = 0; i < count; i++)
        length += (size_t)snprintf(list + length, size - length, "%s%d", i ? "," : "{", accepted[i]);
    snprintf(list + length, size - length, "}");
    segue_session *session = db_session(client);
    segue_result *result = NULL;
    int64_t found = 0;
    segue_param param = segue_param_text(list);
    OK(segue_session_query(session, "SELECT count(*) FROM s WHERE id = ANY ($1::int[])", &param, 1,
                           SEGUE_FORMAT_TEXT, &result, ERR));
    OK(segue_result_int64(result, 0, 0, &found, ERR));
    CHECK_INT(found, count);
    CHECK(rows(servers, 0, "count(*)") <= count + CHILDREN);
    segue_result_free(result);
    segue_session_free(session);
    segue_client_free(client);
    free(list);
    free(conninfo);
    free(accepted);
    folder_remove(folder);
    free(folder);
    cluster_stop(servers);
}

int main(int argc, char **argv)
{
    own_name = argv[0];
    if (argc == 4 && strcmp(argv[1], "--child") == 0)
        return child(argv[2], atoi(argv[3]));
    check_start(argc, argv);
    RUN(no_server_at_all);
    RUN(a_failover_while_submitting);
    RUN(what_a_promotion_loses_is_named);
    RUN(a_journal_that_cannot_be_written);
    RUN(clients_are_killed);
    return check_finish();
}
