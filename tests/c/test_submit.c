/* Transactions handed over whole: how they are built, what is refused, rows, keys, dead letters, limits. */
#include <time.h>

#include "support/db.h"
#include "support/submit.h"

/* What an output holds that must not be touched. */
static char mark;
#define MARK ((void *)&mark)
#define NO_ID "00000000-0000-4000-8000-000000000000"

static cluster *servers;
/* Of the tests, and beside the submissions: it looks, locks and cleans up. */
static segue_client *client;
static segue_session *session;

static void dead(const segue_ticket *ticket, int32_t status, const char *sqlstate)
{
    bool done = true;
    FAILS(status, segue_ticket_wait(ticket, check_scaled(60000), &done, ERR));
    CHECK(done); /* Not written. */
    CHECK_STR(segue_error_sqlstate(LAST), sqlstate);
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
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
    ticket = submit_ticket(client, submit_make("SELECT 1"));
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
    segue_ticket *ticket = submit_ticket(client, it);
    CHECK_INT(strlen(segue_ticket_id(ticket)), 36);
    CHECK_STR(segue_ticket_key(ticket), NULL);
    submit_committed(ticket);
    bool done = false;
    OK(segue_ticket_poll(ticket, &done, ERR));
    CHECK(done && !segue_ticket_found_done(ticket));
    CHECK_INT(segue_ticket_statement_count(ticket), 3);
    CHECK_INT(segue_ticket_rows_affected(ticket, 0), 2);
    CHECK_INT(segue_ticket_rows_affected(ticket, 1), 1);
    CHECK_INT(segue_ticket_rows_affected(ticket, 2), 5);
    CHECK_INT(segue_ticket_rows_affected(ticket, 3), 0);
    CHECK_INT(submit_count(session, "note IN ('first', 'second')"), 2);
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
    segue_submission *it = submit_make("INSERT INTO s SELECT 1 + count(*) FROM s");
    segue_ticket *tickets[5] = {NULL};
    OK(segue_submission_set_lane(it, "keys", ERR));
    OK(segue_submit(client, it, &tickets[0], ERR));
    OK(segue_try_submit(client, it, &tickets[1], ERR));
    OK(segue_submission_set_key(it, "order 4711", ERR));
    OK(segue_submit(client, it, &tickets[2], ERR));
    OK(segue_try_submit(client, it, &tickets[3], ERR));
    OK(segue_client_ticket_for_key(client, "order 4711", &tickets[4], ERR));
    for (size_t i = 0; i < COUNT(tickets); i++)
        submit_committed(tickets[i]);
    CHECK_INT(submit_count(session, "true"), 3);
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
    submit_committed(found);
    CHECK(segue_ticket_found_done(found));
    CHECK_INT(segue_ticket_statement_count(found), 0);
    CHECK_INT(segue_ticket_rows_affected(found, 0), 0);
    CHECK_INT(submit_count(session, "true"), 3);
    CHECK_INT(submit_number(other, "found_done"), 1);
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
    segue_submission *it = submit_insert(6);
    OK(segue_submission_add_statement(it, "INSERT INTO s VALUES (7)", NULL, 0, ERR));
    OK(segue_submission_set_lane(it, "till", ERR));
    OK(segue_submission_set_key(it, "sale 7", ERR));
    OK(segue_submission_set_stop_on_failure(it, true, ERR));
    segue_ticket *poison = submit_ticket(own, it);
    it = submit_insert(8);
    OK(segue_submission_set_lane(it, "till", ERR));
    segue_ticket *behind = submit_ticket(own, it);
    dead(poison, SEGUE_SERVER, "23505");
    CHECK_HAS(segue_error_field(LAST, 'D'), "(7)");
    CHECK_INT(segue_ticket_statement_count(poison), 0);
    it = submit_make("UPDATE s SET note = 'none' WHERE id = 99");
    OK(segue_submission_expect_rows(it, 1, 1, ERR));
    segue_ticket *unmet = submit_ticket(own, it);
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
    const segue_error *told = segue_dead_letters_error(letters, 0);
    CHECK_INT(segue_error_status(told), SEGUE_SERVER);
    CHECK_INT(segue_error_outcome(told), SEGUE_TXN_NOT_COMMITTED);
    CHECK_STR(segue_error_sqlstate(told), "23505");
    CHECK_STR(segue_error_field(told, 'n'), "s_pkey");
    CHECK_STR(segue_error_field(told, 't'), "s");
    CHECK_INT(segue_error_status(segue_dead_letters_error(letters, 1)), SEGUE_TRANSACTION_FAILED);
    CHECK(segue_dead_letters_error(letters, 2) == NULL);
    CHECK(segue_dead_letters_error(NULL, 0) == NULL);
    CHECK_STR(segue_dead_letters_sqlstate(letters, 1), "25P02");
    CHECK_STR(segue_dead_letters_key(letters, 1), NULL);
    CHECK_STR(segue_dead_letters_lane(letters, 1), NULL);
    CHECK(!segue_dead_letters_stops_lane(letters, 1));
    CHECK_STR(segue_dead_letters_id(letters, 2), NULL);
    CHECK_STR(segue_dead_letters_sql(letters, 2, 0), NULL);
    CHECK_INT(segue_dead_letters_died_at_ms(letters, 2), -1);
    CHECK_INT(submit_number(own, "dead_letters"), 2);
    CHECK_INT(submit_number(own, "lanes_stopped"), 1);
    CHECK_INT(submit_number(own, "died"), 2);
    /* What was sent behind the poison comes home without having been executed, and waits. */
    int64_t end = check_now_ms() + check_scaled(60000);
    while (submit_number(own, "waiting") != 1 && check_now_ms() < end)
        check_sleep_ms(5);
    CHECK_INT(submit_number(own, "waiting"), 1);

    bool done = true;
    OK(segue_ticket_poll(behind, &done, ERR));
    CHECK(!done);
    /* In vain, and then not; what waits in the lane comes after. */
    OK(segue_client_retry_dead_letter(own, segue_dead_letters_id(letters, 0), NULL, ERR));
    dead(poison, SEGUE_SERVER, "23505");
    db_execute(session, "DELETE FROM s WHERE id = 7");
    segue_ticket *retried = NULL;
    OK(segue_client_retry_dead_letter(own, segue_dead_letters_id(letters, 0), &retried, ERR));
    submit_committed(retried);
    submit_committed(poison);
    submit_committed(behind);
    CHECK_INT(segue_ticket_rows_affected(poison, 1), 1);
    CHECK_INT(submit_count(session, "id IN (6, 7, 8)"), 3);
    FAILS(SEGUE_USAGE, segue_client_retry_dead_letter(own, segue_dead_letters_id(letters, 0), NULL, ERR));
    CHECK_HAS(segue_error_message(LAST), segue_dead_letters_id(letters, 0));
    OK(segue_client_purge_dead_letter(own, segue_dead_letters_id(letters, 1), ERR));
    FAILS(SEGUE_USAGE, segue_client_purge_dead_letter(own, segue_dead_letters_id(letters, 1), ERR));
    CHECK_INT(submit_number(own, "dead_letters"), 0);
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

static void limits(void)
{
    db_execute(session, "DELETE FROM s");
    segue_client *own = db_client(cluster_conninfo(servers),
                                  "submit_queue_max=2 journal_bytes_max=4096 failover_timeout_ms=1000");
    submit_lock(session);
    segue_ticket *first = submit_ticket(own, submit_insert(1));
    segue_ticket *second = submit_ticket(own, submit_insert(2));
    segue_ticket *ticket = MARK;
    segue_submission *it = submit_insert(3);
    FAILS(SEGUE_LIMIT, segue_try_submit(own, it, &ticket, ERR));
    CHECK_HAS(segue_error_message(LAST), "submit_queue_max");
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
    FAILS(SEGUE_LIMIT, segue_submit(own, it, &ticket, ERR));
    segue_submission *large = submit_make("INSERT INTO s VALUES (4)");
    char text[5000];
    memset(text, 'x', sizeof text);
    segue_param param = segue_param_text_sized(text, sizeof text);
    OK(segue_submission_add_statement(large, "SELECT $1::text", &param, 1, ERR));
    FAILS(SEGUE_LIMIT, segue_submit(own, large, &ticket, ERR));
    CHECK_HAS(segue_error_message(LAST), "journal_bytes_max");
    CHECK(ticket == MARK);
    CHECK_INT(submit_number(own, "submitted"), 2);
    CHECK_INT(submit_number(own, "waiting") + submit_number(own, "in_flight"), 2);
    CHECK(submit_number(own, "bytes") > 0);
    CHECK_INT(submit_number(own, "journal_bytes"), -1);
    CHECK_INT(submit_number(own, "no such number"), -1);
    CHECK_INT(submit_number(own, NULL), -1);
    submit_unlock(session);
    submit_committed(first);
    submit_committed(second);
    /* There is room again. */
    OK(segue_submit(own, it, &ticket, ERR));
    submit_committed(ticket);
    CHECK_INT(submit_count(session, "true"), 3);
    CHECK_INT(submit_number(own, "committed"), 3);
    segue_submission_free(it);
    segue_submission_free(large);
    segue_ticket_free(first);
    segue_ticket_free(second);
    segue_ticket_free(ticket);
    segue_client_free(own);
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
    RUN(limits);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
    return check_finish();
}
