/* NULL for every pointer of every function: a status or a harmless value, outputs untouched. */
#include "support/db.h"

/* What an output holds that must not be touched. */
static char mark;
#define MARK ((void *)&mark)

static segue_client *client;
static segue_session *session;

static void client_functions(void)
{
    segue_options *options = NULL;
    segue_client *out = MARK;
    segue_session *session_out = MARK;
    segue_status *status_out = MARK;
    OK(segue_options_new(&options, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_options_new(NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_options_set(NULL, "host", "h", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_options_set(options, NULL, "h", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_options_set(options, "host", NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_options_set_conninfo(NULL, "", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_options_set_conninfo(options, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_open(NULL, &out, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_open("host=127.0.0.1", NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_open_options(NULL, &out, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_open_options(options, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_setup(NULL, NULL, false, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_remove_ledger(NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_status(NULL, &status_out, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_status(client, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_open(NULL, 0, &session_out, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_open(client, 0, NULL, ERR));
    CHECK(out == MARK && session_out == MARK && status_out == MARK);
    segue_options_free(options);
}

static void session_functions(void)
{
    uint64_t rows = 4711;
    size_t length = 4711;
    segue_result *result = MARK;
    segue_statement *statement = MARK;
    segue_stream *stream = MARK;
    segue_copy_in *copy_in = MARK;
    segue_copy_out *copy_out = MARK;
    segue_pipeline *pipeline = MARK;
    segue_notification *notification = MARK;
    segue_cancel *cancel = MARK;
    segue_session_state *state = MARK;
    const char *sql = "SELECT 1";
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_execute(NULL, sql, NULL, 0, &rows, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_execute(session, NULL, NULL, 0, &rows, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_execute(session, sql, NULL, 1, &rows, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_query(NULL, sql, NULL, 0, 0, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_query(session, NULL, NULL, 0, 0, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_query(session, sql, NULL, 2, 0, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_query(session, sql, NULL, 0, 0, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_batch(NULL, sql, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_batch(session, NULL, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_batch(session, sql, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_begin(NULL, 0, 0, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_commit(NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_rollback(NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_savepoint(NULL, "s", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_savepoint(session, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_rollback_to(NULL, "s", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_rollback_to(session, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_release(NULL, "s", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_release(session, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_prepare(NULL, sql, NULL, 0, &statement, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_prepare(session, NULL, NULL, 0, &statement, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_prepare(session, sql, NULL, 1, &statement, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_prepare(session, sql, NULL, 0, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_stream(NULL, sql, NULL, 0, 0, &stream, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_stream(session, NULL, NULL, 0, 0, &stream, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_stream(session, sql, NULL, 1, 0, &stream, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_stream(session, sql, NULL, 0, 0, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_copy_in(NULL, "COPY n FROM STDIN", &copy_in, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_copy_in(session, NULL, &copy_in, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_copy_in(session, "COPY n FROM STDIN", NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_copy_out(NULL, "COPY n TO STDOUT", &copy_out, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_copy_out(session, NULL, &copy_out, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_copy_out(session, "COPY n TO STDOUT", NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_pipeline(NULL, 0, &pipeline, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_pipeline(session, 0, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_notification(NULL, 0, &notification, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_notification(session, 0, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_cancel_handle(NULL, &cancel, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_cancel_handle(session, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_status(NULL, &state, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_status(session, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_parameter(NULL, "server_version", NULL, 0, &length, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_parameter(session, NULL, NULL, 0, &length, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_parameter(session, "server_version", NULL, 0, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_cancel_request(NULL, ERR));
    CHECK(result == MARK && statement == MARK && stream == MARK && copy_in == MARK && copy_out == MARK);
    CHECK(pipeline == MARK && notification == MARK && cancel == MARK && state == MARK);
    CHECK(rows == 4711 && length == 4711);
    CHECK_INT(db_int(session, "SELECT 1"), 1);
}

static void functions_of_children(void)
{
    uint64_t rows = 4711;
    size_t length = 4711;
    const void *data = MARK;
    segue_result *result = MARK;
    segue_stream *stream = NULL;
    segue_statement *statement = NULL;
    segue_copy_in *copy_in = NULL;
    segue_copy_out *copy_out = NULL;
    segue_pipeline *pipeline = NULL;
    segue_stream *stream_out = MARK;
    OK(segue_session_prepare(session, "SELECT 1", NULL, 0, &statement, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statement_execute(NULL, NULL, 0, &rows, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statement_execute(statement, NULL, 1, &rows, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statement_query(NULL, NULL, 0, 0, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statement_query(statement, NULL, 1, 0, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statement_query(statement, NULL, 0, 0, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statement_query(statement, NULL, 0, 9, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statement_stream(NULL, NULL, 0, 0, &stream_out, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statement_stream(statement, NULL, 1, 0, &stream_out, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statement_stream(statement, NULL, 0, 0, NULL, ERR));
    CHECK_STR(segue_statement_sql(NULL), NULL);
    CHECK_INT(segue_statement_param_count(NULL), 0);
    CHECK_INT(segue_statement_param_type(NULL, 0), 0);
    CHECK_INT(segue_statement_column_count(NULL), 0);
    CHECK_STR(segue_statement_column_name(NULL, 0), NULL);
    CHECK_INT(segue_statement_column_type(NULL, 0), 0);

    OK(segue_session_stream(session, "SELECT 1", NULL, 0, 0, &stream, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_stream_next(NULL, 1, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_stream_next(stream, 1, NULL, ERR));
    segue_stream_free(stream);
    OK(segue_session_copy_in(session, "COPY n FROM STDIN", &copy_in, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_copy_in_write(NULL, "1\n", 2, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_copy_in_write(copy_in, NULL, 2, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_copy_in_finish(NULL, &rows, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_copy_in_abort(NULL, "why", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_copy_in_abort(copy_in, NULL, ERR));
    CHECK_INT(rows, 4711);
    OK(segue_copy_in_write(copy_in, "1\n", 2, ERR));
    OK(segue_copy_in_finish(copy_in, &rows, ERR));
    CHECK_INT(rows, 1);
    segue_copy_in_free(copy_in);
    OK(segue_session_copy_out(session, "COPY n TO STDOUT", &copy_out, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_copy_out_read(NULL, &data, &length, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_copy_out_read(copy_out, NULL, &length, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_copy_out_read(copy_out, &data, NULL, ERR));
    CHECK(data == MARK && length == 4711);
    OK(segue_copy_out_read(copy_out, &data, &length, ERR));
    CHECK_INT(length, 2);
    segue_copy_out_free(copy_out);
    OK(segue_session_pipeline(session, 0, &pipeline, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_pipeline_add(NULL, "SELECT 1", NULL, 0, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_pipeline_add(pipeline, NULL, NULL, 0, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_pipeline_add(pipeline, "SELECT 1", NULL, 1, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_pipeline_add_statement(NULL, statement, NULL, 0, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_pipeline_add_statement(pipeline, NULL, NULL, 0, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_pipeline_add_statement(pipeline, statement, NULL, 1, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_pipeline_commit(NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_pipeline_next(NULL, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_pipeline_next(pipeline, NULL, ERR));
    CHECK(result == MARK && stream_out == MARK);
    segue_pipeline_free(pipeline);
    segue_statement_free(statement);
    CHECK_STR(segue_notification_channel(NULL), NULL);
    CHECK_STR(segue_notification_payload(NULL), NULL);
    CHECK_INT(segue_notification_process_id(NULL), 0);
    CHECK_INT(db_int(session, "SELECT count(*) FROM n"), 1);
}

static void results(void)
{
    bool flag = true;
    int64_t integer = 4711;
    double real = 47.11;
    const char *text = MARK;
    size_t length = 4711;
    char buffer[8];
    CHECK_INT(segue_result_row_count(NULL), 0);
    CHECK_INT(segue_result_column_count(NULL), 0);
    CHECK_STR(segue_result_column_name(NULL, 0), NULL);
    CHECK_INT(segue_result_column(NULL, "a"), -1);
    CHECK_INT(segue_result_column_type(NULL, 0), 0);
    CHECK_INT(segue_result_column_modifier(NULL, 0), -1);
    CHECK_INT(segue_result_column_table(NULL, 0), 0);
    CHECK_INT(segue_result_format(NULL), SEGUE_FORMAT_TEXT);
    const char *tag = segue_result_tag(NULL);
    CHECK(tag == NULL || *tag == '\0');
    CHECK_INT(segue_result_rows_affected(NULL), 0);
    CHECK(segue_result_next(NULL) == NULL);
    CHECK(segue_result_is_null(NULL, 0, 0));
    CHECK(segue_result_value(NULL, 0, 0, NULL) == NULL);
    FAILS(SEGUE_INVALID_ARGUMENT, segue_result_bool(NULL, 0, 0, &flag, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_result_int64(NULL, 0, 0, &integer, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_result_double(NULL, 0, 0, &real, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_result_text(NULL, 0, 0, &text, &length, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_result_bytea(NULL, 0, 0, buffer, 8, &length, ERR));
    segue_result *result = NULL;
    OK(segue_session_query(session, "SELECT true, 1, 1.5::float8, 'x', ''::bytea", NULL, 0, 0, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_result_bool(result, 0, 0, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_result_int64(result, 0, 1, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_result_double(result, 0, 2, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_result_text(result, 0, 3, NULL, &length, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_result_bytea(result, 0, 4, buffer, 8, NULL, ERR));
    CHECK(flag && integer == 4711 && real == 47.11 && text == MARK && length == 4711);
    OK(segue_result_text(result, 0, 3, &text, NULL, NULL));
    CHECK_STR(text, "x");
    segue_result_free(result);
}

static void snapshots(void)
{
    CHECK_INT(segue_status_server_count(NULL), 0);
    CHECK_STR(segue_status_server_address(NULL, 0), NULL);
    CHECK_INT(segue_status_server_role(NULL, 0), SEGUE_ROLE_UNKNOWN);
    CHECK_INT(segue_status_server_health(NULL, 0), SEGUE_HEALTH_UNKNOWN);
    CHECK_STR(segue_status_server_summary(NULL, 0), NULL);
    CHECK_STR(segue_status_server_error(NULL, 0), NULL);
    CHECK_INT(segue_status_server_number(NULL, 0, "lsn"), -1);
    CHECK_INT(segue_status_chosen(NULL), -1);
    CHECK_INT(segue_status_standby(NULL), -1);
    CHECK_INT(segue_status_number(NULL, "sessions"), -1);
    CHECK_STR(segue_status_ledger_problem(NULL), NULL);
    segue_statistics *statistics = MARK;
    uint64_t value = 4711;
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_statistics(NULL, &statistics, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_statistics(client, NULL, ERR));
    CHECK(statistics == MARK);
    CHECK_INT(segue_statistics_count(NULL), 0);
    CHECK_STR(segue_statistics_name(NULL, 0), NULL);
    CHECK_INT(segue_statistics_value(NULL, 0), 0);
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statistics_find(NULL, "statements", &value, ERR));
    OK(segue_client_statistics(client, &statistics, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statistics_find(statistics, NULL, &value, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_statistics_find(statistics, "statements", NULL, ERR));
    CHECK_INT(value, 4711);
    segue_statistics_free(statistics);
    segue_statistics_free(NULL);
    CHECK_INT(segue_session_state_id(NULL), 0);
    CHECK_INT(segue_session_state_server(NULL), -1);
    CHECK_STR(segue_session_state_address(NULL), NULL);
    CHECK_INT(segue_session_state_number(NULL, "timeline"), -1);
    CHECK(!segue_session_state_in_transaction(NULL));
    CHECK(!segue_session_state_transaction_failed(NULL));
    CHECK(!segue_session_state_ledger(NULL));
    CHECK_STR(segue_session_state_tls_version(NULL), NULL);
    CHECK_STR(segue_session_state_protection_lost(NULL), NULL);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    cluster *servers = cluster_start("--standbys 0 --replication async");
    client = db_client(cluster_conninfo(servers), "");
    session = db_session(client);
    db_execute(session, "CREATE TABLE n (id int)");
    RUN(client_functions);
    RUN(session_functions);
    RUN(functions_of_children);
    RUN(results);
    RUN(snapshots);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
    return check_finish();
}
