/* Frees in every order, two threads at once, fork(). */
#define _DEFAULT_SOURCE

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/db.h"
#include "support/folder.h"

static cluster *servers;

enum { CLIENT, SESSION, STATEMENT, CANCEL, SUBSCRIPTION, CHILD, HANDLES };

enum child { NONE, STREAM, COPY_IN, COPY_OUT, PIPELINE, CHILD_KINDS };

struct family {
    segue_client *client;
    segue_session *session;
    segue_statement *statement;
    segue_cancel *cancel;
    segue_subscription *subscription;
    segue_stream *stream;
    segue_copy_in *copy_in;
    segue_copy_out *copy_out;
    segue_pipeline *pipeline;
};

static void hear(const segue_event *event, void *user_data)
{
    (void)event;
    (void)user_data;
}

static struct family make_family(enum child child)
{
    struct family it;
    memset(&it, 0, sizeof it);
    it.client = db_client(cluster_conninfo(servers), "");
    it.session = db_session(it.client);
    OK(segue_client_on_event(it.client, hear, NULL, NULL, &it.subscription, ERR));
    OK(segue_session_prepare(it.session, "SELECT 1", NULL, 0, &it.statement, ERR));
    OK(segue_session_cancel_handle(it.session, &it.cancel, ERR));
    switch (child) {
    case STREAM:
        OK(segue_session_stream(it.session, "SELECT generate_series(1, 1000)", NULL, 0, 0, &it.stream, ERR));
        break;
    case COPY_IN:
        OK(segue_session_copy_in(it.session, "COPY l FROM STDIN", &it.copy_in, ERR));
        OK(segue_copy_in_write(it.copy_in, "1\n", 2, ERR));
        break;
    case COPY_OUT:
        OK(segue_session_copy_out(it.session, "COPY l TO STDOUT", &it.copy_out, ERR));
        break;
    case PIPELINE:
        OK(segue_session_pipeline(it.session, SEGUE_FORMAT_TEXT, &it.pipeline, ERR));
        OK(segue_pipeline_add(it.pipeline, "SELECT 1", NULL, 0, ERR));
        break;
    default:
        break;
    }
    return it;
}

/* What is left of it after some frees must still work. */
static void use_child(struct family *it, enum child child)
{
    segue_result *result = NULL;
    const void *data = NULL;
    size_t length = 0;
    switch (child) {
    case STREAM:
        OK(segue_stream_next(it->stream, 10, &result, ERR));
        CHECK_INT(segue_result_row_count(result), 10);
        break;
    case COPY_IN:
        OK(segue_copy_in_write(it->copy_in, "2\n", 2, ERR));
        break;
    case COPY_OUT:
        OK(segue_copy_out_read(it->copy_out, &data, &length, ERR));
        break;
    case PIPELINE:
        OK(segue_pipeline_next(it->pipeline, &result, ERR));
        break;
    default:
        OK(segue_statement_query(it->statement, NULL, 0, 0, &result, ERR));
        break;
    }
    segue_result_free(result);
}

static void free_one(struct family *it, int which)
{
    switch (which) {
    case CLIENT: segue_client_free(it->client); break;
    case SESSION: segue_session_free(it->session); break;
    case STATEMENT: segue_statement_free(it->statement); break;
    case CANCEL: segue_cancel_free(it->cancel); break;
    case SUBSCRIPTION: segue_subscription_free(it->subscription); break;
    default:
        segue_stream_free(it->stream);
        segue_copy_in_free(it->copy_in);
        segue_copy_out_free(it->copy_out);
        segue_pipeline_free(it->pipeline);
        break;
    }
}

/* The order number `n` of the permutations of `count` handles. */
static void permutation(int n, int count, int *order)
{
    int left[HANDLES];
    for (int i = 0; i < count; i++)
        left[i] = i;
    for (int i = 0; i < count; i++) {
        int pick = n % (count - i);
        n /= count - i;
        order[i] = left[pick];
        for (int j = pick; j < count - i - 1; j++)
            left[j] = left[j + 1];
    }
}

/* A spread of the 720 orders for each kind of child. */
static void freeing_in_every_order(void)
{
    int step = check_is_slow() ? 239 : 67;
    for (int child = NONE; child < CHILD_KINDS; child++) {
        for (int n = child; n < 720; n += step) {
            struct family it = make_family((enum child)child);
            int order[HANDLES];
            permutation(n, HANDLES, order);
            bool has_child = true;
            bool has_statement = true;
            for (int i = 0; i < HANDLES; i++) {
                free_one(&it, order[i]);
                has_child = has_child && order[i] != CHILD;
                has_statement = has_statement && order[i] != STATEMENT;
                /* Once, between two frees somewhere. */
                if (i == n % 4 && (child == NONE ? has_statement : has_child))
                    use_child(&it, (enum child)child);
            }
        }
    }
    CHECK_INT(cluster_number(servers, "sql 0 SELECT count(*) FROM l"), 0);
    cluster_do(servers, "wait_until 0 SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'app'");
}

/* What was returned outlives all that it came from. */
static void results_outlive_everything(void)
{
    segue_client *client = db_client(cluster_conninfo(servers), "");
    segue_session *session = db_session(client);
    segue_result *result = NULL;
    segue_status *status = NULL;
    segue_session_state *state = NULL;
    OK(segue_session_query(session, "SELECT 'alive'", NULL, 0, SEGUE_FORMAT_TEXT, &result, ERR));
    OK(segue_client_status(client, &status, ERR));
    OK(segue_session_status(session, &state, ERR));
    segue_client_free(client);
    segue_session_free(session);
    CHECK_STR(segue_result_value(result, 0, 0, NULL), "alive");
    CHECK_INT(segue_status_server_count(status), 1);
    CHECK_INT(segue_session_state_server(state), 0);
    segue_result_free(result);
    segue_status_free(status);
    segue_session_state_free(state);
}

static segue_session *shared;

static void *sleep_in_session(void *unused)
{
    (void)unused;
    OK(segue_session_execute(shared, "SELECT pg_sleep(1)", NULL, 0, NULL, ERR));
    check_forget();
    return NULL;
}

static void two_threads_at_once(void)
{
    segue_client *client = db_client(cluster_conninfo(servers), "");
    shared = db_session(client);
    OK(segue_session_begin(shared, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(shared, "INSERT INTO l VALUES (1)");
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_in_session, NULL);
    cluster_do(servers, "wait_until 0 SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    segue_result *result = (segue_result *)&servers;
    FAILS(SEGUE_BUSY, segue_session_query(shared, "SELECT 1", NULL, 0, 0, &result, ERR));
    CHECK(result == (segue_result *)&servers);
    CHECK_HAS(segue_error_message(LAST), "thread");
    FAILS(SEGUE_BUSY, segue_session_rollback(shared, ERR));
    segue_stream *stream = NULL;
    FAILS(SEGUE_BUSY, segue_session_stream(shared, "SELECT 1", NULL, 0, 0, &stream, ERR));
    pthread_join(thread, NULL);
    /* The refused calls did nothing. */
    OK(segue_session_commit(shared, ERR));
    CHECK_INT(db_int(shared, "SELECT count(*) FROM l"), 1);
    db_execute(shared, "DELETE FROM l");
    segue_session_free(shared);
    segue_client_free(client);
}

/* Many threads fall over one session: each call works or says that it is busy. */
static atomic_int worked;

static void *hammer(void *unused)
{
    (void)unused;
    for (int i = 0; i < 50; i++) {
        int32_t status = segue_session_execute(shared, "SELECT 1", NULL, 0, NULL, ERR);
        CHECK(status == SEGUE_OK || status == SEGUE_BUSY);
        atomic_fetch_add(&worked, status == SEGUE_OK);
    }
    check_forget();
    return NULL;
}

static void many_threads_at_once(void)
{
    segue_client *client = db_client(cluster_conninfo(servers), "");
    shared = db_session(client);
    pthread_t threads[8];
    for (size_t i = 0; i < COUNT(threads); i++)
        pthread_create(&threads[i], NULL, hammer, NULL);
    for (size_t i = 0; i < COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    CHECK(atomic_load(&worked) > 0);
    CHECK_INT(db_int(shared, "SELECT 1"), 1);
    segue_session_free(shared);
    segue_client_free(client);
}

/* In the child of a fork(): a number of failed checks. */
static int use_after_fork(struct family *it, const char *conninfo)
{
    int failed = 0;
    segue_result *result = NULL;
    segue_session *session = NULL;
    failed += !FAILS(SEGUE_FORKED, segue_session_execute(it->session, "SELECT 1", NULL, 0, NULL, ERR));
    failed += !CHECK_STR(segue_error_sqlstate(LAST), "08003");
    failed += !FAILS(SEGUE_FORKED, segue_session_query(it->session, "SELECT 1", NULL, 0, 0, &result, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_session_begin(it->session, 0, 0, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_session_commit(it->session, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_statement_execute(it->statement, NULL, 0, NULL, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_session_open(it->client, 0, &session, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_cancel_request(it->cancel, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_client_setup(it->client, NULL, false, ERR));
    segue_notification *notification = NULL;
    failed += !FAILS(SEGUE_FORKED, segue_session_notification(it->session, 0, &notification, ERR));
    free_one(it, CHILD);
    for (int i = 0; i < CHILD; i++)
        free_one(it, i);
    check_forget();
    /* A client of the child's own, with the same configuration, works. */
    segue_client *client = db_client(conninfo, "");
    session = db_session(client);
    failed += !CHECK_INT(db_int(session, "SELECT 1"), 1);
    segue_session_free(session);
    segue_client_free(client);
    return failed;
}

static void forking(void)
{
    struct family it = make_family(NONE);
    OK(segue_session_begin(it.session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(it.session, "INSERT INTO l VALUES (7)");
    check_forget();
    int result[2];
    REQUIRE(pipe(result) == 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        char failed = (char)use_after_fork(&it, cluster_conninfo(servers));
        ssize_t written = write(result[1], &failed, 1);
        (void)written;
        /* No leak check here: it would count what belongs to threads that fork() has not copied. */
        kill(getpid(), SIGKILL);
    }
    close(result[1]);
    char failed = -1;
    CHECK_INT(read(result[0], &failed, 1), 1);
    CHECK_INT(failed, 0);
    waitpid(child, NULL, 0);
    close(result[0]);
    /* The parent is unharmed: its transaction goes on. */
    CHECK_INT(db_int(it.session, "SELECT count(*) FROM l"), 1);
    OK(segue_session_commit(it.session, ERR));
    CHECK_INT(db_int(it.session, "SELECT count(*) FROM l"), 1);
    db_execute(it.session, "DELETE FROM l");
    for (int i = 0; i < HANDLES; i++)
        free_one(&it, i);
}

static void freeing_null(void)
{
    segue_client_free(NULL);
    segue_session_free(NULL);
    segue_statement_free(NULL);
    segue_result_free(NULL);
    segue_stream_free(NULL);
    segue_copy_in_free(NULL);
    segue_copy_out_free(NULL);
    segue_pipeline_free(NULL);
    segue_notification_free(NULL);
    segue_cancel_free(NULL);
    segue_subscription_free(NULL);
    segue_options_free(NULL);
    segue_status_free(NULL);
    segue_session_state_free(NULL);
    segue_error_free(NULL);
}

/* Opens a client, whose key is not there yet. */
static void *open_slowly(void *conninfo)
{
    segue_client *own = NULL;
    OK(segue_client_open(conninfo, &own, ERR));
    segue_client_free(own);
    check_forget();
    return NULL;
}

/*
 * A fork() while another thread opens a client: in the child that thread is not there, and what it holds
 * stays held. The child's own client of the same configuration once waited for it for ever.
 */
static void fork_while_a_client_is_opened(void)
{
    char *folder = folder_make();
    char key[4200];
    char options[9000];
    snprintf(key, sizeof key, "%s/key", folder);
    REQUIRE(mkfifo(key, 0600) == 0);
    snprintf(options, sizeof options, "journal=file journal_dir=%s/journal journal_key_file=%s", folder, key);
    char *conninfo = cluster_with(cluster_conninfo(servers), options);
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, open_slowly, conninfo) == 0);
    /* The key is read when the directory is there, with the client's place taken. */
    char lock[4200];
    snprintf(lock, sizeof lock, "%s/journal/lock", folder);
    while (access(lock, F_OK) != 0)
        check_sleep_ms(1);
    check_sleep_ms(50);
    check_forget();
    fflush(NULL);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        alarm((unsigned)check_scaled(60));
        segue_client *own = NULL;
        /* Of its own it would have one, were it not for the journal, which is the parent's. */
        bool told = FAILS(SEGUE_CONFIG, segue_client_open(conninfo, &own, ERR));
        told = CHECK_HAS(segue_error_message(LAST), "journal_locked") && told;
        char *other = cluster_with(cluster_conninfo(servers), "application_name=child");
        segue_session *it = NULL;
        told = OK(segue_client_open(other, &own, ERR)) && told;
        told = OK(segue_session_open(own, 0, &it, ERR)) && told;
        told = CHECK_INT(db_int(it, "SELECT 7"), 7) && told;
        segue_session_free(it);
        segue_client_free(own);
        free(other);
        check_forget();
        kill(getpid(), told ? SIGKILL : SIGTERM);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    CHECK_INT(WTERMSIG(status), SIGKILL);
    FILE *out = fopen(key, "w");
    REQUIRE(out != NULL);
    fputs("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n", out);
    fclose(out);
    pthread_join(thread, NULL);
    free(conninfo);
    folder_remove(folder);
    free(folder);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    servers = cluster_start("--standbys 0 --replication async");
    cluster_do(servers, "sql 0 CREATE DATABASE unused");
    segue_client *client = db_client(cluster_conninfo(servers), "");
    segue_session *session = db_session(client);
    db_execute(session, "CREATE TABLE l (id int)");
    segue_session_free(session);
    segue_client_free(client);
    RUN(freeing_null);
    RUN(freeing_in_every_order);
    RUN(results_outlive_everything);
    RUN(two_threads_at_once);
    RUN(many_threads_at_once);
    RUN(forking);
    RUN(fork_while_a_client_is_opened);
    cluster_stop(servers);
    return check_finish();
}
