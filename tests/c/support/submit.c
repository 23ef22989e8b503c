/* See submit.h. */
#include "submit.h"

#include "db.h"

segue_submission *submit_make(const char *sql)
{
    segue_submission *it = NULL;
    OK(segue_submission_new(&it, ERR));
    REQUIRE(it != NULL);
    OK(segue_submission_add_statement(it, sql, NULL, 0, ERR));
    return it;
}

segue_submission *submit_insert(int id)
{
    char sql[64];
    snprintf(sql, sizeof sql, "INSERT INTO s (id) VALUES (%d)", id);
    return submit_make(sql);
}

segue_ticket *submit_ticket(const segue_client *client, segue_submission *it)
{
    segue_ticket *ticket = NULL;
    OK(segue_submit(client, it, &ticket, ERR));
    REQUIRE(ticket != NULL);
    segue_submission_free(it);
    return ticket;
}

void submit_committed(const segue_ticket *ticket)
{
    bool done = false;
    OK(segue_ticket_wait(ticket, check_scaled(60000), &done, ERR));
    CHECK(done);
}

int64_t submit_number(const segue_client *client, const char *name)
{
    segue_submission_status *status = NULL;
    OK(segue_client_submissions(client, &status, ERR));
    int64_t value = segue_submission_status_number(status, name);
    segue_submission_status_free(status);
    return value;
}

int64_t submit_count(segue_session *session, const char *where)
{
    char sql[256];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM s WHERE %s", where);
    return db_int(session, sql);
}

void submit_lock(segue_session *session)
{
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "LOCK TABLE s");
}

void submit_unlock(segue_session *session)
{
    OK(segue_session_commit(session, ERR));
}
