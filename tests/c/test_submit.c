/* Transactions handed over whole, on a server that stays up: every function, and how each of them fails. */
#define _DEFAULT_SOURCE

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/db.h"
#include "support/folder.h"

/* What an output holds that must not be touched. */
static char mark;
#define MARK ((void *)&mark)
#define NO_ID "00000000-0000-4000-8000-000000000000"

static cluster *servers;
/* Of the tests, and beside the submissions: it looks, locks and cleans up. */
static segue_client *client;
static segue_session *session;

static segue_submission *make(const char *sql)
{
    segue_submission *it = NULL;
    OK(segue_submission_new(&it, ERR));
    REQUIRE(it != NULL);
    OK(segue_submission_add_statement(it, sql, NULL, 0, ERR));
    return it;
}

static segue_submission *insert(int id)
{
    char sql[64];
    snprintf(sql, sizeof sql, "INSERT INTO s (id) VALUES (%d)", id);
    return make(sql);
}

/* Hands it over and frees it. */
static segue_ticket *hand_over(const segue_client *to, segue_submission *it)
{
    segue_ticket *ticket = NULL;
    OK(segue_submit(to, it, &ticket, ERR));
    REQUIRE(ticket != NULL);
    segue_submission_free(it);
    return ticket;
}

static void committed(const segue_ticket *ticket)
{
    bool done = false;
    OK(segue_ticket_wait(ticket, check_scaled(60000), &done, ERR));
    CHECK(done);
}

static void dead(const segue_ticket *ticket, int32_t status, const char *sqlstate)
{
    bool done = true;
    FAILS(status, segue_ticket_wait(ticket, check_scaled(60000), &done, ERR));
    CHECK(done); /* Not written. */
    CHECK_STR(segue_error_sqlstate(LAST), sqlstate);
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
}

static int64_t count(const char *where)
{
    char sql[256];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM s WHERE %s", where);
    return db_int(session, sql);
}

/* Until unlock() nothing of a submission can be executed. */
static void lock(void)
{
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "LOCK TABLE s");
}

static void unlock(void)
{
    OK(segue_session_commit(session, ERR));
}

static int64_t number(const segue_client *of, const char *name)
{
    segue_submission_status *status = NULL;
    OK(segue_client_submissions(of, &status, ERR));
    int64_t value = segue_submission_status_number(status, name);
    segue_submission_status_free(status);
    return value;
}

static void nulls(void)
{
    segue_submission *it = MARK;
    segue_ticket *ticket = MARK;
    segue_dead_letters *letters = MARK;
    segue_submission_status *status = MARK;
    bool done = true;
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submission_new(NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submission_add_statement(NULL, "SELECT 1", NULL, 0, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submission_expect_rows(NULL, 1, 1, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submission_set_lane(NULL, "a", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submission_set_key(NULL, "a", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submission_set_stop_on_failure(NULL, true, ERR));
    OK(segue_submission_new(&it, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submission_add_statement(it, NULL, NULL, 0, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submission_add_statement(it, "SELECT 1", NULL, 1, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submit(NULL, it, &ticket, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submit(client, NULL, &ticket, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submit(client, it, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_try_submit(NULL, it, &ticket, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_try_submit(client, NULL, &ticket, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_try_submit(client, it, NULL, ERR));
    segue_submission_free(it);
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_ticket(NULL, NO_ID, &ticket, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_ticket(client, NULL, &ticket, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_ticket(client, NO_ID, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_ticket_for_key(NULL, "a", &ticket, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_ticket_for_key(client, NULL, &ticket, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_ticket_for_key(client, "a", NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_dead_letters(NULL, &letters, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_dead_letters(client, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_retry_dead_letter(NULL, NO_ID, &ticket, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_retry_dead_letter(client, NULL, &ticket, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_purge_dead_letter(NULL, NO_ID, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_purge_dead_letter(client, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_submissions(NULL, &status, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_submissions(client, NULL, ERR));
    CHECK(ticket == MARK && letters == MARK && status == MARK);
    FAILS(SEGUE_INVALID_ARGUMENT, segue_ticket_poll(NULL, &done, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_ticket_wait(NULL, 0, &done, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_ticket_on_done(NULL, NULL, NULL, NULL, ERR));
    CHECK_STR(segue_ticket_id(NULL), NULL);
    CHECK_STR(segue_ticket_key(NULL), NULL);
    CHECK(!segue_ticket_found_done(NULL));
    CHECK_INT(segue_ticket_statement_count(NULL), 0);
    CHECK_INT(segue_ticket_rows_affected(NULL, 0), 0);
    ticket = hand_over(client, make("SELECT 1"));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_ticket_poll(ticket, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_ticket_wait(ticket, 0, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_ticket_on_done(ticket, NULL, NULL, NULL, ERR));
    CHECK(done);
    segue_ticket_free(ticket);
    CHECK_INT(segue_dead_letters_count(NULL), 0);
    CHECK_STR(segue_dead_letters_id(NULL, 0), NULL);
    CHECK_STR(segue_dead_letters_key(NULL, 0), NULL);
    CHECK_STR(segue_dead_letters_lane(NULL, 0), NULL);
    CHECK(!segue_dead_letters_stops_lane(NULL, 0));
    CHECK_INT(segue_dead_letters_died_at_ms(NULL, 0), -1);
    CHECK_INT(segue_dead_letters_statement(NULL, 0), 0);
    CHECK_INT(segue_dead_letters_statement_count(NULL, 0), 0);
    CHECK_STR(segue_dead_letters_sql(NULL, 0, 0), NULL);
    CHECK_STR(segue_dead_letters_sqlstate(NULL, 0), NULL);
    CHECK_STR(segue_dead_letters_message(NULL, 0), NULL);
    CHECK_STR(segue_dead_letters_detail(NULL, 0), NULL);
    CHECK_INT(segue_submission_status_number(NULL, "waiting"), -1);
    CHECK_STR(segue_submission_status_problem(NULL), NULL);
    segue_submission_free(NULL);
    segue_ticket_free(NULL);
    segue_dead_letters_free(NULL);
    segue_submission_status_free(NULL);
}

static void what_is_refused_while_it_is_built(void)
{
    segue_submission *it = NULL;
    segue_ticket *ticket = MARK;
    OK(segue_submission_new(&it, ERR));
    FAILS(SEGUE_USAGE, segue_submit(client, it, &ticket, ERR));
    CHECK_HAS(segue_error_message(LAST), "needs a statement");
    FAILS(SEGUE_USAGE, segue_submission_expect_rows(it, 1, 1, ERR));
    static const char *const refused[] = {
        "",          "BEGIN",        "COMMIT",        "SELECT 1; SELECT 2",
        "LISTEN a",  "SAVEPOINT a",  "SET a.b = 'c'", "COPY s FROM STDIN",
    };
    for (size_t i = 0; i < COUNT(refused); i++)
        FAILS(SEGUE_USAGE, segue_submission_add_statement(it, refused[i], NULL, 0, ERR));
    segue_param wide = {.kind = SEGUE_PARAM_INT, .type_oid = 21, .integer = INT64_C(1) << 40};
    FAILS(SEGUE_CONVERSION, segue_submission_add_statement(it, "SELECT $1", &wide, 1, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submission_add_statement(it, "\xff", NULL, 0, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submission_set_lane(it, "\xff", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submission_set_key(it, "\xff", ERR));
    /* None of that is in it. */
    FAILS(SEGUE_USAGE, segue_submit(client, it, &ticket, ERR));
    OK(segue_submission_add_statement(it, "SELECT 1", NULL, 0, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_submission_expect_rows(it, 2, 1, ERR));
    OK(segue_submission_set_stop_on_failure(it, true, ERR));
    FAILS(SEGUE_USAGE, segue_try_submit(client, it, &ticket, ERR));
    CHECK_HAS(segue_error_message(LAST), "lane");
    CHECK(ticket == MARK);
    segue_submission_free(it);
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_ticket(client, "no id", &ticket, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_purge_dead_letter(client, "no id", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_retry_dead_letter(client, "no id", &ticket, ERR));
    FAILS(SEGUE_USAGE, segue_client_purge_dead_letter(client, NO_ID, ERR));
    FAILS(SEGUE_USAGE, segue_client_retry_dead_letter(client, NO_ID, &ticket, ERR));
    CHECK(ticket == MARK);
}

static void several_statements_and_their_rows(void)
{
    db_execute(session, "DELETE FROM s");
    segue_submission *it = NULL;
    OK(segue_submission_new(&it, ERR));
    /* The parameters are copied: what they point to may go. */
    char note[8] = "first";
    segue_param params[2] = {segue_param_int4(1), segue_param_text(note)};
    OK(segue_submission_add_statement(it, "INSERT INTO s VALUES ($1, $2), ($1 + 1, NULL)", params, 2, ERR));
    memset(note, 'x', sizeof note - 1);
    OK(segue_submission_add_statement(it, "UPDATE s SET note = 'second' WHERE note IS NULL", NULL, 0, ERR));
    OK(segue_submission_expect_rows(it, 1, UINT64_MAX, ERR));
    OK(segue_submission_add_statement(it, "SELECT generate_series(1, 5)", NULL, 0, ERR));
    OK(segue_submission_expect_rows(it, 5, 5, ERR));
    OK(segue_submission_set_lane(it, "a", ERR));
    OK(segue_submission_set_lane(it, NULL, ERR));
    OK(segue_submission_set_key(it, "a", ERR));
    OK(segue_submission_set_key(it, "", ERR));
    segue_ticket *ticket = hand_over(client, it);
    CHECK_INT(strlen(segue_ticket_id(ticket)), 36);
    CHECK_STR(segue_ticket_key(ticket), NULL);
    committed(ticket);
    bool done = false;
    OK(segue_ticket_poll(ticket, &done, ERR));
    CHECK(done && !segue_ticket_found_done(ticket));
    CHECK_INT(segue_ticket_statement_count(ticket), 3);
    CHECK_INT(segue_ticket_rows_affected(ticket, 0), 2);
    CHECK_INT(segue_ticket_rows_affected(ticket, 1), 1);
    CHECK_INT(segue_ticket_rows_affected(ticket, 2), 5);
    CHECK_INT(segue_ticket_rows_affected(ticket, 3), 0);
    CHECK_INT(count("note IN ('first', 'second')"), 2);
    /* It is found again for a while, and is in the ledger of submissions. */
    segue_ticket *again = NULL;
    OK(segue_client_ticket(client, segue_ticket_id(ticket), &again, ERR));
    CHECK_STR(segue_ticket_id(again), segue_ticket_id(ticket));
    CHECK_INT(segue_ticket_rows_affected(again, 2), 5);
    segue_ticket_free(again);
    CHECK_INT(cluster_number(servers, "sql 0 SELECT count(*) FROM segue.submission WHERE id = '%s'",
                             segue_ticket_id(ticket)),
              1);
    OK(segue_client_ticket(client, NO_ID, &again, ERR));
    CHECK(again == NULL);
    segue_ticket_free(ticket);
}

/* What stays the caller's can be handed over again: as another one, or under its key the same. */
static void a_key_is_executed_once(void)
{
    db_execute(session, "DELETE FROM s");
    segue_submission *it = make("INSERT INTO s SELECT 1 + count(*) FROM s");
    segue_ticket *tickets[5] = {NULL};
    OK(segue_submission_set_lane(it, "keys", ERR));
    OK(segue_submit(client, it, &tickets[0], ERR));
    OK(segue_try_submit(client, it, &tickets[1], ERR));
    OK(segue_submission_set_key(it, "order 4711", ERR));
    OK(segue_submit(client, it, &tickets[2], ERR));
    OK(segue_try_submit(client, it, &tickets[3], ERR));
    OK(segue_client_ticket_for_key(client, "order 4711", &tickets[4], ERR));
    for (size_t i = 0; i < COUNT(tickets); i++)
        committed(tickets[i]);
    CHECK_INT(count("true"), 3);
    CHECK(strcmp(segue_ticket_id(tickets[0]), segue_ticket_id(tickets[1])) != 0);
    CHECK_STR(segue_ticket_id(tickets[3]), segue_ticket_id(tickets[2]));
    CHECK_STR(segue_ticket_id(tickets[4]), segue_ticket_id(tickets[2]));
    CHECK_STR(segue_ticket_key(tickets[4]), "order 4711");
    /* Another client, as another process would be, finds it done. */
    segue_client *other = db_client(cluster_conninfo(servers), "application_name=other");
    segue_ticket *found = MARK;
    OK(segue_client_ticket_for_key(other, "order 4711", &found, ERR));
    CHECK(found == NULL);
    OK(segue_submit(other, it, &found, ERR));
    committed(found);
    CHECK(segue_ticket_found_done(found));
    CHECK_INT(segue_ticket_statement_count(found), 0);
    CHECK_INT(segue_ticket_rows_affected(found, 0), 0);
    CHECK_INT(count("true"), 3);
    CHECK_INT(number(other, "found_done"), 1);
    segue_ticket_free(found);
    segue_client_free(other);
    segue_submission_free(it);
    for (size_t i = 0; i < COUNT(tickets); i++)
        segue_ticket_free(tickets[i]);
}

static void dead_letters(void)
{
    db_execute(session, "DELETE FROM s");
    db_execute(session, "INSERT INTO s VALUES (7)");
    segue_client *own = db_client(cluster_conninfo(servers), "application_name=letters");
    segue_dead_letters *letters = NULL;
    OK(segue_client_dead_letters(own, &letters, ERR));
    CHECK_INT(segue_dead_letters_count(letters), 0);
    segue_dead_letters_free(letters);
    segue_submission *it = insert(6);
    OK(segue_submission_add_statement(it, "INSERT INTO s VALUES (7)", NULL, 0, ERR));
    OK(segue_submission_set_lane(it, "till", ERR));
    OK(segue_submission_set_key(it, "sale 7", ERR));
    OK(segue_submission_set_stop_on_failure(it, true, ERR));
    segue_ticket *poison = hand_over(own, it);
    it = insert(8);
    OK(segue_submission_set_lane(it, "till", ERR));
    segue_ticket *behind = hand_over(own, it);
    dead(poison, SEGUE_SERVER, "23505");
    CHECK_HAS(segue_error_field(LAST, 'D'), "(7)");
    CHECK_INT(segue_ticket_statement_count(poison), 0);
    it = make("UPDATE s SET note = 'none' WHERE id = 99");
    OK(segue_submission_expect_rows(it, 1, 1, ERR));
    segue_ticket *unmet = hand_over(own, it);
    dead(unmet, SEGUE_TRANSACTION_FAILED, "25P02");

    OK(segue_client_dead_letters(own, &letters, ERR));
    CHECK_INT(segue_dead_letters_count(letters), 2);
    CHECK_STR(segue_dead_letters_id(letters, 0), segue_ticket_id(poison));
    CHECK_STR(segue_dead_letters_key(letters, 0), "sale 7");
    CHECK_STR(segue_dead_letters_lane(letters, 0), "till");
    CHECK(segue_dead_letters_stops_lane(letters, 0));
    CHECK(segue_dead_letters_died_at_ms(letters, 0) / 1000 >= (int64_t)time(NULL) - 3600);
    CHECK_INT(segue_dead_letters_statement(letters, 0), 1);
    CHECK_INT(segue_dead_letters_statement_count(letters, 0), 2);
    CHECK_STR(segue_dead_letters_sql(letters, 0, 1), "INSERT INTO s VALUES (7)");
    CHECK_STR(segue_dead_letters_sql(letters, 0, 2), NULL);
    CHECK_STR(segue_dead_letters_sqlstate(letters, 0), "23505");
    CHECK_HAS(segue_dead_letters_message(letters, 0), "s_pkey");
    CHECK_HAS(segue_dead_letters_detail(letters, 0), "(7)");
    CHECK_STR(segue_dead_letters_sqlstate(letters, 1), "25P02");
    CHECK_STR(segue_dead_letters_key(letters, 1), NULL);
    CHECK_STR(segue_dead_letters_lane(letters, 1), NULL);
    CHECK(!segue_dead_letters_stops_lane(letters, 1));
    CHECK_STR(segue_dead_letters_id(letters, 2), NULL);
    CHECK_STR(segue_dead_letters_sql(letters, 2, 0), NULL);
    CHECK_INT(segue_dead_letters_died_at_ms(letters, 2), -1);
    CHECK_INT(number(own, "dead_letters"), 2);
    CHECK_INT(number(own, "lanes_stopped"), 1);
    CHECK_INT(number(own, "waiting"), 1);
    CHECK_INT(number(own, "died"), 2);

    bool done = true;
    OK(segue_ticket_poll(behind, &done, ERR));
    CHECK(!done);
    /* In vain, and then not; what waits in the lane comes after. */
    OK(segue_client_retry_dead_letter(own, segue_dead_letters_id(letters, 0), NULL, ERR));
    dead(poison, SEGUE_SERVER, "23505");
    db_execute(session, "DELETE FROM s WHERE id = 7");
    segue_ticket *retried = NULL;
    OK(segue_client_retry_dead_letter(own, segue_dead_letters_id(letters, 0), &retried, ERR));
    committed(retried);
    committed(poison);
    committed(behind);
    CHECK_INT(segue_ticket_rows_affected(poison, 1), 1);
    CHECK_INT(count("id IN (6, 7, 8)"), 3);
    FAILS(SEGUE_USAGE, segue_client_retry_dead_letter(own, segue_dead_letters_id(letters, 0), NULL, ERR));
    CHECK_HAS(segue_error_message(LAST), segue_dead_letters_id(letters, 0));
    OK(segue_client_purge_dead_letter(own, segue_dead_letters_id(letters, 1), ERR));
    FAILS(SEGUE_USAGE, segue_client_purge_dead_letter(own, segue_dead_letters_id(letters, 1), ERR));
    CHECK_INT(number(own, "dead_letters"), 0);
    segue_client_free(own);
    /* The list is as it was, and so is what its tickets tell. */
    CHECK_INT(segue_dead_letters_count(letters), 2);
    dead(unmet, SEGUE_TRANSACTION_FAILED, "25P02");
    segue_dead_letters_free(letters);
    segue_ticket_free(poison);
    segue_ticket_free(behind);
    segue_ticket_free(retried);
    segue_ticket_free(unmet);
}

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
    lock();
    segue_ticket *ticket = hand_over(client, insert(1));
    snprintf(id, sizeof id, "%s", segue_ticket_id(ticket));
    OK(segue_ticket_on_done(ticket, hear, &ear, destroy, ERR));
    OK(segue_ticket_on_done(ticket, hear, &ear, NULL, ERR));
    /* They are called although the ticket is gone. */
    segue_ticket_free(ticket);
    CHECK_INT(ear.called, 0);
    unlock();
    wait_for_destroyed(&ear, 1);
    OK(segue_client_ticket(client, id, &ticket, ERR));
    committed(ticket);
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
    ticket = hand_over(client, insert(1));
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
        segue_submission *it = insert(ear->next++);
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
    segue_ticket *ticket = hand_over(client, make("SELECT 1"));
    OK(segue_ticket_on_done(ticket, go_on, &ear, NULL, ERR));
    wait_for_destroyed(&ear, 1);
    segue_ticket_free(ticket);
    CHECK_INT(count("true"), CHAIN);
}

/* A client that is closed tells those who wait that it knows nothing. */
static void closing_calls_back(void)
{
    db_execute(session, "DELETE FROM s");
    struct ear ear = EAR;
    segue_client *own = db_client(cluster_conninfo(servers), "application_name=closing");
    lock();
    segue_ticket *ticket = hand_over(own, insert(1));
    OK(segue_ticket_on_done(ticket, hear, &ear, destroy, ERR));
    segue_client_free(own);
    /* A ticket keeps its client alive. */
    CHECK_INT(ear.called, 0);
    segue_ticket_free(ticket);
    wait_for_destroyed(&ear, 1);
    CHECK_INT(ear.called, 1);
    CHECK_INT(ear.status, SEGUE_CLOSED);
    CHECK_INT(ear.outcome, SEGUE_TXN_UNKNOWN);
    unlock();
    cluster_do(servers, "wait_until 0 SELECT count(*) = 0 FROM pg_stat_activity "
                        "WHERE application_name = 'closing'");
}

/* The last handle of a client, freed on the client's own thread. */
static void a_callback_closes(void)
{
    db_execute(session, "DELETE FROM s");
    struct ear ear = EAR;
    segue_client *own = db_client(cluster_conninfo(servers), "application_name=closer");
    lock();
    ear.to_free = hand_over(own, insert(1));
    segue_ticket *asked = NULL;
    OK(segue_client_ticket(own, segue_ticket_id(ear.to_free), &asked, ERR));
    OK(segue_ticket_on_done(asked, hear, &ear, destroy, ERR));
    segue_ticket_free(asked);
    segue_client_free(own);
    unlock();
    wait_for_destroyed(&ear, 1);
    CHECK_INT(ear.called, 1);
    CHECK_INT(ear.status, SEGUE_OK);
    CHECK_INT(count("true"), 1);
    cluster_do(servers, "wait_until 0 SELECT count(*) = 0 FROM pg_stat_activity "
                        "WHERE application_name = 'closer'");
}

static void limits(void)
{
    db_execute(session, "DELETE FROM s");
    segue_client *own = db_client(cluster_conninfo(servers),
                                  "submit_queue_max=2 journal_bytes_max=4096 failover_timeout_ms=1000");
    lock();
    segue_ticket *first = hand_over(own, insert(1));
    segue_ticket *second = hand_over(own, insert(2));
    segue_ticket *ticket = MARK;
    segue_submission *it = insert(3);
    FAILS(SEGUE_LIMIT, segue_try_submit(own, it, &ticket, ERR));
    CHECK_HAS(segue_error_message(LAST), "submit_queue_max");
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
    FAILS(SEGUE_LIMIT, segue_submit(own, it, &ticket, ERR));
    segue_submission *large = make("INSERT INTO s VALUES (4)");
    char text[5000];
    memset(text, 'x', sizeof text);
    segue_param param = segue_param_text_sized(text, sizeof text);
    OK(segue_submission_add_statement(large, "SELECT $1::text", &param, 1, ERR));
    FAILS(SEGUE_LIMIT, segue_submit(own, large, &ticket, ERR));
    CHECK_HAS(segue_error_message(LAST), "journal_bytes_max");
    CHECK(ticket == MARK);
    CHECK_INT(number(own, "submitted"), 2);
    CHECK_INT(number(own, "waiting") + number(own, "in_flight"), 2);
    CHECK(number(own, "bytes") > 0);
    CHECK_INT(number(own, "journal_bytes"), -1);
    CHECK_INT(number(own, "no such number"), -1);
    CHECK_INT(number(own, NULL), -1);
    unlock();
    committed(first);
    committed(second);
    /* There is room again. */
    OK(segue_submit(own, it, &ticket, ERR));
    committed(ticket);
    CHECK_INT(count("true"), 3);
    CHECK_INT(number(own, "committed"), 3);
    segue_submission_free(it);
    segue_submission_free(large);
    segue_ticket_free(first);
    segue_ticket_free(second);
    segue_ticket_free(ticket);
    segue_client_free(own);
}

enum { THREADS = 6, EACH = 40 };

static void *submit_many(void *first)
{
    segue_ticket *tickets[EACH];
    for (int i = 0; i < EACH; i++)
        tickets[i] = hand_over(client, insert(*(int *)first + i));
    for (int i = 0; i < EACH; i++) {
        committed(tickets[i]);
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
    CHECK_INT(count("true"), THREADS * EACH);
}

static void frees_in_every_order(void)
{
    db_execute(session, "DELETE FROM s");
    static const char *const orders[] = {"cstl", "tslc", "lcts", "stcl", "tcls", "ltsc"};
    for (size_t i = 0; i < COUNT(orders); i++) {
        segue_client *own = db_client(cluster_conninfo(servers), "application_name=frees");
        segue_submission *it = insert((int)i);
        segue_ticket *ticket = NULL;
        segue_dead_letters *letters = NULL;
        OK(segue_submit(own, it, &ticket, ERR));
        OK(segue_client_dead_letters(own, &letters, ERR));
        for (const char *which = orders[i]; *which; which++) {
            switch (*which) {
            case 'c': segue_client_free(own); break;
            case 's': segue_submission_free(it); break;
            case 't':
                committed(ticket);
                segue_ticket_free(ticket);
                break;
            default: segue_dead_letters_free(letters); break;
            }
        }
    }
    CHECK_INT(count("true"), COUNT(orders));
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
    segue_submission *it = insert(2);
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
    lock();
    segue_ticket *ticket = hand_over(own, insert(1));
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
    unlock();
    committed(ticket);
    wait_for_destroyed(&ear, 1);
    CHECK_INT(ear.called, 1);
    CHECK_INT(count("true"), 1);
    /* The journal has one owner; a client with another configuration is another one. */
    segue_client *other = MARK;
    char *conninfo = cluster_with(cluster_conninfo(servers), options);
    char *text = cluster_with(conninfo, "application_name=second");
    FAILS(SEGUE_CONFIG, segue_client_open(text, &other, ERR));
    CHECK_HAS(segue_error_message(LAST), "journal_locked");
    CHECK(other == MARK);
    CHECK(number(own, "journal_bytes") > 0);
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
    RUN(nulls);
    RUN(what_is_refused_while_it_is_built);
    RUN(several_statements_and_their_rows);
    RUN(a_key_is_executed_once);
    RUN(dead_letters);
    RUN(callbacks);
    RUN(a_callback_submits);
    RUN(closing_calls_back);
    RUN(a_callback_closes);
    RUN(limits);
    RUN(many_threads);
    RUN(frees_in_every_order);
    RUN(forking);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
    return check_finish();
}
