/* See db.h. */
#include "db.h"

segue_client *db_client(const char *conninfo, const char *options)
{
    char *text = cluster_with(conninfo, options);
    segue_client *client = NULL;
    OK(segue_client_open(text, &client, ERR));
    free(text);
    REQUIRE(client != NULL);
    return client;
}

segue_session *db_session(const segue_client *client)
{
    segue_session *session = NULL;
    OK(segue_session_open(client, SEGUE_SESSION_DEFAULT, &session, ERR));
    REQUIRE(session != NULL);
    return session;
}

uint64_t db_execute(segue_session *session, const char *sql)
{
    uint64_t rows = 0;
    if (!OK(segue_session_execute(session, sql, NULL, 0, &rows, ERR)))
        fprintf(stderr, "  the statement: %s\n", sql);
    return rows;
}

int64_t db_int(segue_session *session, const char *sql)
{
    segue_result *result = NULL;
    int64_t value = INT64_MIN;
    if (!OK(segue_session_query(session, sql, NULL, 0, SEGUE_FORMAT_TEXT, &result, ERR)))
        fprintf(stderr, "  the statement: %s\n", sql);
    else
        OK(segue_result_int64(result, 0, 0, &value, ERR));
    segue_result_free(result);
    return value;
}
