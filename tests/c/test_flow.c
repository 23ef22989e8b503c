/* Streams, COPY, notifications, pipelines, cancelling: what goes on over several calls. */
#include <pthread.h>

#include "support/db.h"

static cluster *servers;
static segue_client *client;
static segue_session *session;

static void streams(void)
{
    int rows = check_is_slow() ? 3000 : 30000;
    segue_param param = segue_param_int4(rows);
    for (int32_t format = 0; format < 2; format++) {
        segue_stream *stream = NULL;
        OK(segue_session_stream(session, "SELECT g, 'row ' || g FROM generate_series(1, $1) g", &param, 1,
                                format, &stream, ERR));
        int64_t expected = 1;
        int wrong = 0;
        for (;;) {
            segue_result *result = NULL;
            if (!OK(segue_stream_next(stream, 1000, &result, ERR)) || !result)
                break;
            CHECK(segue_result_row_count(result) >= 1 && segue_result_row_count(result) <= 1000);
            CHECK_INT(segue_result_format(result), format);
            CHECK_STR(segue_result_column_name(result, 0), "g");
            for (size_t row = 0; row < segue_result_row_count(result); row++) {
                int64_t id = 0;
                wrong += segue_result_int64(result, row, 0, &id, NULL) != SEGUE_OK || id != expected++;
            }
            segue_result_free(result);
        }
        CHECK_INT(wrong, 0);
        CHECK_INT(expected, rows + 1);
        /* At its end the session is back, and asking on is no error. */
        CHECK_INT(db_int(session, "SELECT 1"), 1);
        segue_result *result = (segue_result *)&servers;
        OK(segue_stream_next(stream, 1, &result, ERR));
        CHECK(result == NULL);
        segue_stream_free(stream);
    }
}

static void an_open_stream_has_the_session(void)
{
    segue_stream *stream = NULL;
    OK(segue_session_stream(session, "SELECT generate_series(1, 5000)", NULL, 0, SEGUE_FORMAT_TEXT, &stream,
                            ERR));
    segue_result *result = NULL;
    OK(segue_stream_next(stream, 1, &result, ERR));
    CHECK_INT(segue_result_row_count(result), 1);
    segue_result_free(result);
    FAILS(SEGUE_INVALID_ARGUMENT, segue_stream_next(stream, 0, &result, ERR));
    FAILS(SEGUE_BUSY, segue_session_execute(session, "SELECT 1", NULL, 0, NULL, ERR));
    FAILS(SEGUE_BUSY, segue_session_begin(session, 0, 0, ERR));
    segue_stream *second = NULL;
    FAILS(SEGUE_BUSY, segue_session_stream(session, "SELECT 1", NULL, 0, 0, &second, ERR));
    CHECK(second == NULL);
    segue_session_state *state = NULL;
    FAILS(SEGUE_BUSY, segue_session_status(session, &state, ERR));
    segue_stream_free(stream);
    CHECK_INT(db_int(session, "SELECT 1"), 1);
}

static void streams_that_fail(void)
{
    segue_stream *stream = NULL;
    segue_result *result = NULL;
    /* It is sent, and what the server says of it comes with the first rows. */
    OK(segue_session_stream(session, "SELEC 1", NULL, 0, SEGUE_FORMAT_TEXT, &stream, ERR));
    FAILS(SEGUE_SERVER, segue_stream_next(stream, 1, &result, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "42601");
    CHECK_INT(db_int(session, "SELECT 1"), 1);
    segue_stream_free(stream);
    /* The rows before the failure come first. */
    OK(segue_session_stream(session, "SELECT 1 / (50 - g) FROM generate_series(1, 100) g", NULL, 0,
                            SEGUE_FORMAT_TEXT, &stream, ERR));
    size_t rows = 0;
    int32_t status;
    while ((status = segue_stream_next(stream, 30, &result, ERR)) == SEGUE_OK && result) {
        rows += segue_result_row_count(result);
        segue_result_free(result);
        result = NULL;
    }
    CHECK_INT(rows, 49);
    CHECK_INT(status, SEGUE_SERVER);
    CHECK_STR(segue_error_sqlstate(LAST), "22012");
    CHECK_INT(db_int(session, "SELECT 1"), 1);
    segue_stream_free(stream);
    OK(segue_session_stream(session, "UPDATE c SET id = id", NULL, 0, SEGUE_FORMAT_TEXT, &stream, ERR));
    OK(segue_stream_next(stream, 1, &result, ERR));
    CHECK(result == NULL);
    segue_stream_free(stream);
    segue_stream_free(NULL);
}

static void copying_in(void)
{
    db_execute(session, "DELETE FROM c");
    segue_copy_in *copy = NULL;
    OK(segue_session_copy_in(session, "COPY c FROM STDIN", &copy, ERR));
    FAILS(SEGUE_BUSY, segue_session_execute(session, "SELECT 1", NULL, 0, NULL, ERR));
    /* Pieces need not end where rows do, and may be empty. */
    OK(segue_copy_in_write(copy, "1\to", 3, ERR));
    OK(segue_copy_in_write(copy, "", 0, ERR));
    OK(segue_copy_in_write(copy, NULL, 0, ERR));
    OK(segue_copy_in_write(copy, "ne\n2\t\\N\n", 8, ERR));
    uint64_t rows = 0;
    OK(segue_copy_in_finish(copy, &rows, ERR));
    CHECK_INT(rows, 2);
    CHECK_INT(db_int(session, "SELECT count(*) FROM c WHERE note IS NULL"), 1);
    FAILS(SEGUE_USAGE, segue_copy_in_write(copy, "x", 1, ERR));
    FAILS(SEGUE_USAGE, segue_copy_in_finish(copy, &rows, ERR));
    FAILS(SEGUE_USAGE, segue_copy_in_abort(copy, "late", ERR));
    segue_copy_in_free(copy);

    /* Much of it, in a transaction. */
    int count = check_is_slow() ? 2000 : 50000;
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    OK(segue_session_copy_in(session, "COPY c FROM STDIN", &copy, ERR));
    for (int i = 0; i < count; i++) {
        char line[64];
        int length = snprintf(line, sizeof line, "%d\tnumber %d\n", i + 10, i);
        if (segue_copy_in_write(copy, line, (size_t)length, ERR) != SEGUE_OK)
            CHECK(!"a piece is written");
    }
    OK(segue_copy_in_finish(copy, NULL, ERR));
    segue_copy_in_free(copy);
    OK(segue_session_commit(session, ERR));
    CHECK_INT(db_int(session, "SELECT count(*) FROM c"), count + 2);
}

static void copying_in_vain(void)
{
    int64_t before = db_int(session, "SELECT count(*) FROM c");
    segue_copy_in *copy = NULL;
    OK(segue_session_copy_in(session, "COPY c FROM STDIN", &copy, ERR));
    OK(segue_copy_in_write(copy, "1\tx\n", 4, ERR));
    FAILS(SEGUE_SERVER, segue_copy_in_abort(copy, "of my own will", ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "57014");
    CHECK_HAS(segue_error_message(LAST), "of my own will");
    segue_copy_in_free(copy);
    /* Freed without an end: nothing of it stays. */
    OK(segue_session_copy_in(session, "COPY c FROM STDIN", &copy, ERR));
    OK(segue_copy_in_write(copy, "1\tx\n", 4, ERR));
    segue_copy_in_free(copy);
    /* Bad data are found out at the end. */
    OK(segue_session_copy_in(session, "COPY c FROM STDIN", &copy, ERR));
    OK(segue_copy_in_write(copy, "no number\tx\n", 12, ERR));
    uint64_t rows = 4711;
    FAILS(SEGUE_SERVER, segue_copy_in_finish(copy, &rows, ERR));
    CHECK_INT(rows, 4711);
    CHECK_STR(segue_error_sqlstate(LAST), "22P02");
    CHECK_HAS(segue_error_field(LAST, 'W'), "COPY c, line 1");
    segue_copy_in_free(copy);
    CHECK_INT(db_int(session, "SELECT count(*) FROM c"), before);

    segue_copy_in *none = NULL;
    FAILS(SEGUE_SERVER, segue_session_copy_in(session, "COPY nonesuch FROM STDIN", &none, ERR));
    FAILS(SEGUE_USAGE, segue_session_copy_in(session, "SELECT 1", &none, ERR));
    CHECK(none == NULL);
    CHECK_INT(db_int(session, "SELECT 1"), 1);
    segue_copy_in_free(NULL);
}

static void copying_out(void)
{
    db_execute(session, "DELETE FROM c; INSERT INTO c SELECT g, 'n' || g FROM generate_series(1, 1000) g");
    segue_copy_out *copy = NULL;
    OK(segue_session_copy_out(session, "COPY (SELECT * FROM c ORDER BY id) TO STDOUT", &copy, ERR));
    FAILS(SEGUE_BUSY, segue_session_commit(session, ERR));
    int lines = 0;
    size_t bytes = 0;
    for (;;) {
        const void *data = NULL;
        size_t length = 0;
        if (!OK(segue_copy_out_read(copy, &data, &length, ERR)) || !data)
            break;
        bytes += length;
        for (size_t i = 0; i < length; i++)
            lines += ((const char *)data)[i] == '\n';
        if (lines == 1)
            CHECK(memcmp(data, "1\tn1\n", 5) == 0);
    }
    CHECK_INT(lines, 1000);
    CHECK_INT(bytes, db_int(session, "SELECT sum(length(id::text) + length(note) + 2) FROM c"));
    segue_copy_out_free(copy);

    /* Binary, freed half-way. */
    OK(segue_session_copy_out(session, "COPY c TO STDOUT (FORMAT binary)", &copy, ERR));
    const void *data = NULL;
    size_t length = 0;
    OK(segue_copy_out_read(copy, &data, &length, ERR));
    CHECK(length >= 11 && memcmp(data, "PGCOPY\n\377\r\n\0", 11) == 0);
    segue_copy_out_free(copy);
    CHECK_INT(db_int(session, "SELECT 1"), 1);

    segue_copy_out *none = NULL;
    FAILS(SEGUE_SERVER, segue_session_copy_out(session, "COPY nonesuch TO STDOUT", &none, ERR));
    FAILS(SEGUE_USAGE, segue_session_copy_out(session, "SELECT 1", &none, ERR));
    CHECK(none == NULL);
    /* One that fails in the middle. */
    OK(segue_session_copy_out(session, "COPY (SELECT 1 / (5 - id) FROM c WHERE id < 10) TO STDOUT", &copy,
                              ERR));
    int32_t status;
    int pieces = 0;
    while ((status = segue_copy_out_read(copy, &data, &length, ERR)) == SEGUE_OK && data)
        pieces++;
    CHECK_INT(status, SEGUE_SERVER);
    CHECK_INT(pieces, 4);
    CHECK_STR(segue_error_sqlstate(LAST), "22012");
    segue_copy_out_free(copy);
    segue_copy_out_free(NULL);
    CHECK_INT(db_int(session, "SELECT 1"), 1);
}

static void notifications(void)
{
    segue_session *other = db_session(client);
    db_execute(session, "LISTEN \"my channel\"");
    segue_notification *notification = (segue_notification *)&servers;
    OK(segue_session_notification(session, 0, &notification, ERR));
    CHECK(notification == NULL);
    int64_t start = check_now_ms();
    OK(segue_session_notification(session, 50, &notification, ERR));
    CHECK(notification == NULL);
    CHECK(check_now_ms() - start >= 45);
    db_execute(other, "NOTIFY \"my channel\", 'first'");
    db_execute(other, "NOTIFY \"my channel\"");
    int64_t pid = db_int(other, "SELECT pg_backend_pid()");
    OK(segue_session_notification(session, check_scaled(10000), &notification, ERR));
    CHECK_STR(segue_notification_channel(notification), "my channel");
    CHECK_STR(segue_notification_payload(notification), "first");
    CHECK_INT(segue_notification_process_id(notification), pid);
    segue_notification_free(notification);
    OK(segue_session_notification(session, -1, &notification, ERR));
    CHECK_STR(segue_notification_payload(notification), "");
    segue_notification_free(notification);
    /* Without waiting at all, what has arrived is seen. */
    db_execute(other, "NOTIFY \"my channel\", 'polled'");
    int64_t end = check_now_ms() + check_scaled(10000);
    for (notification = NULL; !notification && check_now_ms() < end; check_sleep_ms(1))
        OK(segue_session_notification(session, 0, &notification, ERR));
    CHECK_STR(segue_notification_payload(notification), "polled");
    segue_notification_free(notification);
    /* One's own, that comes with a statement's reply. */
    db_execute(session, "NOTIFY \"my channel\", 'self'");
    OK(segue_session_notification(session, 0, &notification, ERR));
    CHECK_STR(segue_notification_payload(notification), "self");
    segue_notification_free(notification);
    db_execute(session, "UNLISTEN *");
    segue_notification_free(NULL);
    segue_session_free(other);
}

static void pipelines(void)
{
    db_execute(session, "CREATE TABLE pl (id int PRIMARY KEY)");
    segue_statement *insert = NULL;
    OK(segue_session_prepare(session, "INSERT INTO pl VALUES ($1)", NULL, 0, &insert, ERR));
    for (int32_t format = 0; format < 2; format++) {
        db_execute(session, "DELETE FROM pl");
        segue_pipeline *pipeline = NULL;
        OK(segue_session_pipeline(session, format, &pipeline, ERR));
        FAILS(SEGUE_BUSY, segue_session_execute(session, "SELECT 1", NULL, 0, NULL, ERR));
        /* Number 5 twice: the second one fails, and those behind it do not. */
        static const int IDS[] = {1, 2, 5, 5, 6};
        for (size_t i = 0; i < COUNT(IDS); i++) {
            segue_param param = segue_param_int4(IDS[i]);
            if (i % 2)
                OK(segue_pipeline_add_statement(pipeline, insert, &param, 1, ERR));
            else
                OK(segue_pipeline_add(pipeline, "INSERT INTO pl VALUES ($1)", &param, 1, ERR));
        }
        FAILS(SEGUE_USAGE, segue_pipeline_add(pipeline, "COMMIT", NULL, 0, ERR));
        OK(segue_pipeline_add(pipeline, "SELECT count(*) FROM pl", NULL, 0, ERR));
        for (size_t i = 0; i <= COUNT(IDS); i++) {
            segue_result *result = NULL;
            if (i == 3) {
                FAILS(SEGUE_SERVER, segue_pipeline_next(pipeline, &result, ERR));
                CHECK_STR(segue_error_sqlstate(LAST), "23505");
                CHECK(result == NULL);
                continue;
            }
            OK(segue_pipeline_next(pipeline, &result, ERR));
            if (i == COUNT(IDS)) {
                int64_t count = 0;
                OK(segue_result_int64(result, 0, 0, &count, ERR));
                CHECK_INT(count, 4);
                CHECK_INT(segue_result_format(result), format);
            } else {
                CHECK_INT(segue_result_rows_affected(result), 1);
            }
            segue_result_free(result);
        }
        segue_result *result = (segue_result *)&servers;
        OK(segue_pipeline_next(pipeline, &result, ERR));
        CHECK(result == NULL);
        CHECK_INT(db_int(session, "SELECT count(*) FROM pl"), 4);
        FAILS(SEGUE_USAGE, segue_pipeline_add(pipeline, "SELECT 1", NULL, 0, ERR));
        segue_pipeline_free(pipeline);
    }
    segue_statement_free(insert);
}

static void large_and_empty_pipelines(void)
{
    segue_pipeline *pipeline = NULL;
    segue_result *result = NULL;
    OK(segue_session_pipeline(session, SEGUE_FORMAT_TEXT, &pipeline, ERR));
    OK(segue_pipeline_next(pipeline, &result, ERR));
    CHECK(result == NULL);
    segue_pipeline_free(pipeline);
    FAILS(SEGUE_INVALID_ARGUMENT, segue_session_pipeline(session, 2, &pipeline, ERR));
    /* More than fits into the sockets' buffers, both ways; then freed without being asked. */
    int count = check_is_slow() ? 200 : 2000;
    for (int round = 0; round < 2; round++) {
        OK(segue_session_pipeline(session, SEGUE_FORMAT_TEXT, &pipeline, ERR));
        for (int i = 0; i < count; i++) {
            segue_param param = segue_param_int4(i);
            if (segue_pipeline_add(pipeline, "SELECT $1::int, repeat('x', 1000)", &param, 1, ERR) != SEGUE_OK)
                CHECK(!"a statement is added");
        }
        int wrong = 0;
        for (int i = 0; round == 0 && i < count; i++) {
            int64_t value = -1;
            wrong += segue_pipeline_next(pipeline, &result, ERR) != SEGUE_OK;
            wrong += segue_result_int64(result, 0, 0, &value, NULL) != SEGUE_OK || value != i;
            segue_result_free(result);
        }
        CHECK_INT(wrong, 0);
        segue_pipeline_free(pipeline);
        CHECK_INT(db_int(session, "SELECT 1"), 1);
    }
    segue_pipeline_free(NULL);
}

static void a_pipeline_in_a_transaction(void)
{
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    segue_pipeline *pipeline = NULL;
    OK(segue_session_pipeline(session, SEGUE_FORMAT_TEXT, &pipeline, ERR));
    OK(segue_pipeline_add(pipeline, "INSERT INTO pl VALUES (100)", NULL, 0, ERR));
    OK(segue_pipeline_add(pipeline, "SELECT 1/0", NULL, 0, ERR));
    OK(segue_pipeline_add(pipeline, "INSERT INTO pl VALUES (101)", NULL, 0, ERR));
    segue_result *result = NULL;
    OK(segue_pipeline_next(pipeline, &result, ERR));
    segue_result_free(result);
    FAILS(SEGUE_SERVER, segue_pipeline_next(pipeline, &result, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "22012");
    FAILS(SEGUE_SERVER, segue_pipeline_next(pipeline, &result, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "25P02");
    segue_pipeline_free(pipeline);
    FAILS(SEGUE_TRANSACTION_FAILED, segue_session_commit(session, ERR));
    CHECK_INT(db_int(session, "SELECT count(*) FROM pl WHERE id >= 100"), 0);
}

/* COMMIT sent with the statements: what stands afterwards, and what each statement says. */
static void a_commit_in_a_pipeline(void)
{
    db_execute(session, "DELETE FROM pl");
    for (int round = 0; round < 3; round++) {
        /* All is well; a statement fails; nothing was added. */
        segue_pipeline *pipeline = NULL;
        segue_result *result = NULL;
        OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
        OK(segue_session_pipeline(session, SEGUE_FORMAT_TEXT, &pipeline, ERR));
        for (int i = 0; round < 2 && i < 100; i++) {
            segue_param param = segue_param_int4(round == 1 && i == 60 ? 1000 + 59 : round * 1000 + i);
            OK(segue_pipeline_add(pipeline, "INSERT INTO pl VALUES ($1)", &param, 1, ERR));
        }
        if (round == 1)
            FAILS(SEGUE_TRANSACTION_FAILED, segue_pipeline_commit(pipeline, ERR));
        else
            OK(segue_pipeline_commit(pipeline, ERR));
        FAILS(SEGUE_USAGE, segue_pipeline_commit(pipeline, ERR));
        FAILS(SEGUE_USAGE, segue_pipeline_add(pipeline, "SELECT 1", NULL, 0, ERR));
        /* The session is free before the results have been read. */
        CHECK_INT(db_int(session, "SELECT count(*) FROM pl"), 100);
        for (int i = 0; round < 2 && i < 100; i++) {
            if (round == 1 && i >= 60) {
                FAILS(SEGUE_SERVER, segue_pipeline_next(pipeline, &result, ERR));
                CHECK_STR(segue_error_sqlstate(LAST), i == 60 ? "23505" : "25P02");
                continue;
            }
            OK(segue_pipeline_next(pipeline, &result, ERR));
            CHECK_INT(segue_result_rows_affected(result), 1);
            segue_result_free(result);
        }
        OK(segue_pipeline_next(pipeline, &result, ERR));
        CHECK(result == NULL);
        segue_pipeline_free(pipeline);
    }
    /* Without a transaction there is nothing to commit; the statement stands. */
    segue_pipeline *pipeline = NULL;
    segue_result *result = NULL;
    OK(segue_session_pipeline(session, SEGUE_FORMAT_TEXT, &pipeline, ERR));
    OK(segue_pipeline_add(pipeline, "INSERT INTO pl VALUES (5000)", NULL, 0, ERR));
    FAILS(SEGUE_USAGE, segue_pipeline_commit(pipeline, ERR));
    OK(segue_pipeline_next(pipeline, &result, ERR));
    CHECK_INT(segue_result_rows_affected(result), 1);
    segue_result_free(result);
    segue_pipeline_free(pipeline);
    CHECK_INT(db_int(session, "SELECT count(*) FROM pl"), 101);
}

static void *sleep_long(void *cancelled)
{
    *(bool *)cancelled =
        FAILS(SEGUE_SERVER, segue_session_execute(session, "SELECT pg_sleep(120)", NULL, 0, NULL, ERR)) &&
        CHECK_STR(segue_error_sqlstate(LAST), "57014");
    check_forget();
    return NULL;
}

static void cancelling(void)
{
    segue_cancel *cancel = NULL;
    OK(segue_session_cancel_handle(session, &cancel, ERR));
    /* With nothing to cancel. */
    OK(segue_cancel_request(cancel, ERR));
    CHECK_INT(db_int(session, "SELECT 1"), 1);
    bool cancelled = false;
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_long, &cancelled);
    cluster_do(servers, "wait_until 0 SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    /* Also while the session is in use. */
    segue_cancel *second = NULL;
    OK(segue_session_cancel_handle(session, &second, ERR));
    OK(segue_cancel_request(second, ERR));
    pthread_join(thread, NULL);
    CHECK(cancelled);
    CHECK_INT(db_int(session, "SELECT 1"), 1);
    segue_cancel_free(second);
    /* A long stream is cancelled, then freed. */
    segue_stream *stream = NULL;
    OK(segue_session_stream(session, "SELECT repeat('x', 10000), pg_sleep(0.01) FROM generate_series(1, 1000000)",
                            NULL, 0, SEGUE_FORMAT_TEXT, &stream, ERR));
    segue_result *result = NULL;
    OK(segue_stream_next(stream, 1, &result, ERR));
    segue_result_free(result);
    OK(segue_cancel_request(cancel, ERR));
    segue_stream_free(stream);
    CHECK_INT(db_int(session, "SELECT 1"), 1);
    segue_cancel_free(cancel);
    segue_cancel_free(NULL);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    servers = cluster_start("--standbys 0 --replication async");
    client = db_client(cluster_conninfo(servers), "");
    session = db_session(client);
    db_execute(session, "CREATE TABLE c (id int, note text)");
    RUN(streams);
    RUN(an_open_stream_has_the_session);
    RUN(streams_that_fail);
    RUN(copying_in);
    RUN(copying_in_vain);
    RUN(copying_out);
    RUN(notifications);
    RUN(pipelines);
    RUN(large_and_empty_pipelines);
    RUN(a_pipeline_in_a_transaction);
    RUN(a_commit_in_a_pipeline);
    RUN(cancelling);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
    return check_finish();
}
