/* Tickets of transactions handed over whole: callbacks, threads, frees in every order, fork(). */
#define _DEFAULT_SOURCE

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/db.h"
#include "support/folder.h"
#include "support/submit.h"

/* What an output holds that must not be touched. */
static char mark;
#define MARK ((void *)&mark)
#define NO_ID "00000000-0000-4000-8000-000000000000"

static cluster *servers;
/* Of the tests, and beside the submissions: it looks, locks and cleans up. */
static segue_client *client;
static segue_session *session;

struct ear {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int called;
    int destroyed;
    pthread_t thread;
    char id[37];
    int32_t status;
    int32_t outcome;
    uint64_t rows;
    /* What the callback does: free a ticket, or submit the next of a chain. */
    segue_ticket *to_free;
    const segue_client *to_submit;
    int next;
};

static void hear(const segue_ticket *ticket, const segue_error *error, void *user_data)
{
    struct ear *ear = user_data;
    segue_ticket_free(ear->to_free);
    ear->to_free = NULL;
    pthread_mutex_lock(&ear->mutex);
    ear->called++;
    ear->thread = pthread_self();
    snprintf(ear->id, sizeof ear->id, "%s", segue_ticket_id(ticket));
    ear->status = segue_error_status(error);
    ear->outcome = error ? segue_error_outcome(error) : SEGUE_TXN_COMMITTED;
    ear->rows = segue_ticket_rows_affected(ticket, 0);
    pthread_cond_signal(&ear->changed);
    pthread_mutex_unlock(&ear->mutex);
}

static void destroy(void *user_data)
{
    struct ear *ear = user_data;
    pthread_mutex_lock(&ear->mutex);
    ear->destroyed++;
    pthread_cond_signal(&ear->changed);
    pthread_mutex_unlock(&ear->mutex);
}

static void wait_for_destroyed(struct ear *ear, int times)
{
    pthread_mutex_lock(&ear->mutex);
    while (ear->destroyed < times)
        pthread_cond_wait(&ear->changed, &ear->mutex);
    pthread_mutex_unlock(&ear->mutex);
}

#define EAR {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER}

static void callbacks(void)
{
    db_execute(session, "DELETE FROM s");
    struct ear ear = EAR;
    char id[37];
    submit_lock(session);
    segue_ticket *ticket = submit_ticket(client, submit_insert(1));
    snprintf(id, sizeof id, "%s", segue_ticket_id(ticket));
    OK(segue_ticket_on_done(ticket, hear, &ear, destroy, ERR));
    OK(segue_ticket_on_done(ticket, hear, &ear, NULL, ERR));
    /* They are called although the ticket is gone. */
    segue_ticket_free(ticket);
    CHECK_INT(ear.called, 0);
    submit_unlock(session);
    wait_for_destroyed(&ear, 1);
    OK(segue_client_ticket(client, id, &ticket, ERR));
    submit_committed(ticket);
    pthread_mutex_lock(&ear.mutex);
    while (ear.called < 2)
        pthread_cond_wait(&ear.changed, &ear.mutex);
    pthread_mutex_unlock(&ear.mutex);
    CHECK(!pthread_equal(ear.thread, pthread_self()));
    CHECK_STR(ear.id, id);
    CHECK_INT(ear.status, SEGUE_OK);
    CHECK_INT(ear.rows, 1);
    /* What is known is told here and now. */
    OK(segue_ticket_on_done(ticket, hear, &ear, destroy, ERR));
    CHECK_INT(ear.called, 3);
    CHECK_INT(ear.destroyed, 2);
    CHECK(pthread_equal(ear.thread, pthread_self()));
    /* A call that fails destroys what it was given. */
    FAILS(SEGUE_INVALID_ARGUMENT, segue_ticket_on_done(ticket, NULL, &ear, destroy, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_ticket_on_done(NULL, hear, &ear, destroy, ERR));
    CHECK_INT(ear.called, 3);
    CHECK_INT(ear.destroyed, 4);
    segue_ticket_free(ticket);
    /* A dead letter. */
    ticket = submit_ticket(client, submit_insert(1));
    OK(segue_ticket_on_done(ticket, hear, &ear, destroy, ERR));
    wait_for_destroyed(&ear, 5);
    CHECK_INT(ear.status, SEGUE_SERVER);
    CHECK_INT(ear.outcome, SEGUE_TXN_NOT_COMMITTED);
    OK(segue_client_purge_dead_letter(client, segue_ticket_id(ticket), ERR));
    segue_ticket_free(ticket);
}

enum { CHAIN = 20 };

/* Submits the next, from inside the callback of the one before. */
static void go_on(const segue_ticket *before, const segue_error *error, void *user_data)
{
    struct ear *ear = user_data;
    (void)before;
    CHECK(error == NULL);
    segue_ticket *ticket = NULL;
    if (ear->next < CHAIN) {
        segue_submission *it = submit_insert(ear->next++);
        OK(segue_try_submit(ear->to_submit, it, &ticket, ERR));
        segue_submission_free(it);
        OK(segue_ticket_on_done(ticket, go_on, ear, ear->next < CHAIN ? NULL : destroy, ERR));
        segue_ticket_free(ticket);
    }
    check_forget();
}

static void a_callback_submits(void)
{
    db_execute(session, "DELETE FROM s");
    struct ear ear = EAR;
    ear.to_submit = client;
    segue_ticket *ticket = submit_ticket(client, submit_make("SELECT 1"));
    OK(segue_ticket_on_done(ticket, go_on, &ear, NULL, ERR));
    wait_for_destroyed(&ear, 1);
    segue_ticket_free(ticket);
    CHECK_INT(submit_count(session, "true"), CHAIN);
}

/* A client that is closed tells those who wait that it knows nothing. */
static void closing_calls_back(void)
{
    db_execute(session, "DELETE FROM s");
    struct ear ear = EAR;
    segue_client *own = db_client(cluster_conninfo(servers), "application_name=closing");
    submit_lock(session);
    segue_ticket *ticket = submit_ticket(own, submit_insert(1));
    OK(segue_ticket_on_done(ticket, hear, &ear, destroy, ERR));
    segue_client_free(own);
    /* A ticket keeps its client alive. */
    CHECK_INT(ear.called, 0);
    segue_ticket_free(ticket);
    wait_for_destroyed(&ear, 1);
    CHECK_INT(ear.called, 1);
    CHECK_INT(ear.status, SEGUE_CLOSED);
    CHECK_INT(ear.outcome, SEGUE_TXN_UNKNOWN);
    submit_unlock(session);
    cluster_do(servers, "wait_until 0 SELECT count(*) = 0 FROM pg_stat_activity "
                        "WHERE application_name = 'closing'");
}

/* The last handle of a client, freed on the client's own thread. */
static void a_callback_closes(void)
{
    db_execute(session, "DELETE FROM s");
    struct ear ear = EAR;
    segue_client *own = db_client(cluster_conninfo(servers), "application_name=closer");
    submit_lock(session);
    ear.to_free = submit_ticket(own, submit_insert(1));
    segue_ticket *asked = NULL;
    OK(segue_client_ticket(own, segue_ticket_id(ear.to_free), &asked, ERR));
    OK(segue_ticket_on_done(asked, hear, &ear, destroy, ERR));
    segue_ticket_free(asked);
    segue_client_free(own);
    submit_unlock(session);
    wait_for_destroyed(&ear, 1);
    CHECK_INT(ear.called, 1);
    CHECK_INT(ear.status, SEGUE_OK);
    CHECK_INT(submit_count(session, "true"), 1);
    cluster_do(servers, "wait_until 0 SELECT count(*) = 0 FROM pg_stat_activity "
                        "WHERE application_name = 'closer'");
}

enum { THREADS = 6, EACH = 40 };

static void *submit_many(void *first)
{
    segue_ticket *tickets[EACH];
    for (int i = 0; i < EACH; i++)
        tickets[i] = submit_ticket(client, submit_insert(*(int *)first + i));
    for (int i = 0; i < EACH; i++) {
        submit_committed(tickets[i]);
        segue_ticket_free(tickets[i]);
    }
    check_forget();
    return NULL;
}

static void many_threads(void)
{
    db_execute(session, "DELETE FROM s");
    pthread_t threads[THREADS];
    int first[THREADS];
    for (int i = 0; i < THREADS; i++) {
        first[i] = i * EACH;
        pthread_create(&threads[i], NULL, submit_many, &first[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(submit_count(session, "true"), THREADS * EACH);
}

static void frees_in_every_order(void)
{
    db_execute(session, "DELETE FROM s");
    static const char *const orders[] = {"cstl", "tslc", "lcts", "stcl", "tcls", "ltsc"};
    for (size_t i = 0; i < COUNT(orders); i++) {
        segue_client *own = db_client(cluster_conninfo(servers), "application_name=frees");
        segue_submission *it = submit_insert((int)i);
        segue_ticket *ticket = NULL;
        segue_dead_letters *letters = NULL;
        OK(segue_submit(own, it, &ticket, ERR));
        OK(segue_client_dead_letters(own, &letters, ERR));
        for (const char *which = orders[i]; *which; which++) {
            switch (*which) {
            case 'c': segue_client_free(own); break;
            case 's': segue_submission_free(it); break;
            case 't':
                submit_committed(ticket);
                segue_ticket_free(ticket);
                break;
            default: segue_dead_letters_free(letters); break;
            }
        }
    }
    CHECK_INT(submit_count(session, "true"), COUNT(orders));
}

/* In the child of a fork(): a number of failed checks. */
static int use_after_fork(segue_client *own, segue_ticket *ticket)
{
    int failed = 0;
    bool done = false;
    struct ear ear = EAR;
    segue_ticket *out = MARK;
    segue_dead_letters *letters = MARK;
    segue_submission_status *status = MARK;
    segue_submission *it = submit_insert(2);
    failed += !FAILS(SEGUE_FORKED, segue_ticket_poll(ticket, &done, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_ticket_wait(ticket, -1, &done, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_ticket_on_done(ticket, hear, &ear, destroy, ERR));
    failed += !CHECK_INT(ear.called, 0) + !CHECK_INT(ear.destroyed, 1);
    failed += !FAILS(SEGUE_FORKED, segue_submit(own, it, &out, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_try_submit(own, it, &out, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_client_ticket(own, NO_ID, &out, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_client_ticket_for_key(own, "a", &out, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_client_dead_letters(own, &letters, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_client_retry_dead_letter(own, NO_ID, &out, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_client_purge_dead_letter(own, NO_ID, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_client_submissions(own, &status, ERR));
    failed += !CHECK(out == MARK && letters == MARK && status == MARK);
    failed += !CHECK(!segue_ticket_found_done(ticket) && segue_ticket_statement_count(ticket) == 0);
    failed += !CHECK_INT(strlen(segue_ticket_id(ticket)), 36);
    segue_submission_free(it);
    segue_ticket_free(ticket);
    segue_client_free(own);
    check_forget();
    return failed;
}

static void forking(void)
{
    db_execute(session, "DELETE FROM s");
    char *folder = folder_make();
    char options[4200];
    snprintf(options, sizeof options, "journal=file journal_dir=%s", folder);
    segue_client *own = db_client(cluster_conninfo(servers), options);
    struct ear ear = EAR;
    submit_lock(session);
    segue_ticket *ticket = submit_ticket(own, submit_insert(1));
    OK(segue_ticket_on_done(ticket, hear, &ear, destroy, ERR));
    check_forget();
    fflush(NULL);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        alarm((unsigned)check_scaled(60));
        int failed = use_after_fork(own, ticket);
        /* No leak check here: it would count what belongs to threads that fork() has not copied. */
        kill(getpid(), failed ? SIGTERM : SIGKILL);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    CHECK_INT(WTERMSIG(status), SIGKILL);
    /* The parent is unharmed. */
    submit_unlock(session);
    submit_committed(ticket);
    wait_for_destroyed(&ear, 1);
    CHECK_INT(ear.called, 1);
    CHECK_INT(submit_count(session, "true"), 1);
    /* The journal has one owner; a client with another configuration is another one. */
    segue_client *other = MARK;
    char *conninfo = cluster_with(cluster_conninfo(servers), options);
    char *text = cluster_with(conninfo, "application_name=second");
    FAILS(SEGUE_CONFIG, segue_client_open(text, &other, ERR));
    CHECK_HAS(segue_error_message(LAST), "journal_locked");
    CHECK(other == MARK);
    CHECK(submit_number(own, "journal_bytes") > 0);
    segue_client_free(own);
    segue_ticket_free(ticket);
    OK(segue_client_open(text, &other, ERR));
    segue_client_free(other);
    free(text);
    free(conninfo);
    folder_remove(folder);
    free(folder);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    servers = cluster_start("--standbys 0 --replication async");
    client = db_client(cluster_conninfo(servers), "");
    session = db_session(client);
    db_execute(session, "CREATE TABLE s (id int PRIMARY KEY, note text)");
    RUN(callbacks);
    RUN(a_callback_submits);
    RUN(closing_calls_back);
    RUN(a_callback_closes);
    RUN(many_threads);
    RUN(frees_in_every_order);
    RUN(forking);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
    return check_finish();
}
