/* What many tests of submissions do; the table is `s (id int, ...)`. */
#ifndef SEGUE_TEST_SUBMIT_H
#define SEGUE_TEST_SUBMIT_H

#include "check.h"

/* A submission of one statement. */
segue_submission *submit_make(const char *sql);
/* One that inserts a row. */
segue_submission *submit_insert(int id);
/* Hands it over and frees it. */
segue_ticket *submit_ticket(const segue_client *client, segue_submission *it);
/* Waits until it is committed; nothing else must become of it. */
void submit_committed(const segue_ticket *ticket);
/* A number of the client's submissions. */
int64_t submit_number(const segue_client *client, const char *name);

/* The rows of `s` that are so. */
int64_t submit_count(segue_session *session, const char *where);
/* Until submit_unlock() nothing of a submission can be executed. */
void submit_lock(segue_session *session);
void submit_unlock(segue_session *session);

#endif
