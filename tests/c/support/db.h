/* What many tests do: open a client and a session, run a statement, ask for one value. */
#ifndef SEGUE_TEST_DB_H
#define SEGUE_TEST_DB_H

#include "check.h"
#include "cluster.h"

segue_client *db_client(const char *conninfo, const char *options);
segue_session *db_session(const segue_client *client);
/* Executes without parameters; it must succeed. The number of rows. */
uint64_t db_execute(segue_session *session, const char *sql);
/* The first value of what is returned, as an integer; it must succeed. */
int64_t db_int(segue_session *session, const char *sql);

#endif
