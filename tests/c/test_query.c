/* Statements, parameters, results and their getters, prepared statements, strings of statements. */
#include <math.h>

#include "support/db.h"

static segue_session *session;

/* Sends a parameter there and back; the value in a text that lives until the next call. */
static const char *echo(const char *sql, segue_param param)
{
    static char text[256];
    segue_result *result = NULL;
    strcpy(text, "(failed)");
    if (OK(segue_session_query(session, sql, &param, 1, SEGUE_FORMAT_TEXT, &result, ERR))) {
        const char *value = segue_result_value(result, 0, 0, NULL);
        snprintf(text, sizeof text, "%s", value ? value : "(NULL)");
    }
    segue_result_free(result);
    return text;
}

static void every_kind_of_parameter(void)
{
    CHECK_STR(echo("SELECT $1::text", segue_param_null()), "(NULL)");
    CHECK_STR(echo("SELECT $1::bool", segue_param_bool(true)), "t");
    CHECK_STR(echo("SELECT $1", segue_param_bool(false)), "f");
    CHECK_STR(echo("SELECT $1", segue_param_int2(INT16_MIN)), "-32768");
    CHECK_STR(echo("SELECT pg_typeof($1)", segue_param_int2(1)), "smallint");
    CHECK_STR(echo("SELECT $1", segue_param_int4(INT32_MIN)), "-2147483648");
    CHECK_STR(echo("SELECT pg_typeof($1)", segue_param_int4(1)), "integer");
    CHECK_STR(echo("SELECT $1", segue_param_int8(INT64_MIN)), "-9223372036854775808");
    CHECK_STR(echo("SELECT $1", segue_param_int8(INT64_MAX)), "9223372036854775807");
    CHECK_STR(echo("SELECT pg_typeof($1)", segue_param_int8(1)), "bigint");
    CHECK_STR(echo("SELECT $1", segue_param_float4(1.5f)), "1.5");
    CHECK_STR(echo("SELECT pg_typeof($1)", segue_param_float4(1)), "real");
    CHECK_STR(echo("SELECT $1", segue_param_float8(0.1)), "0.1");
    CHECK_STR(echo("SELECT $1", segue_param_float8(HUGE_VAL)), "Infinity");
    CHECK_STR(echo("SELECT $1", segue_param_float8(nan(""))), "NaN");
    CHECK_STR(echo("SELECT $1::text", segue_param_text("gr\xc3\xbc\xc3\x9f dich")),
              "gr\xc3\xbc\xc3\x9f dich");
    CHECK_STR(echo("SELECT $1::text", segue_param_text("")), "");
    CHECK_STR(echo("SELECT $1::text", segue_param_text(NULL)), "(NULL)");
    CHECK_STR(echo("SELECT $1::text", segue_param_text_sized("abcdef", 3)), "abc");
    CHECK_STR(echo("SELECT $1::bytea", segue_param_bytea("a\0b\xff", 4)), "\\x610062ff");
    CHECK_STR(echo("SELECT $1::bytea", segue_param_bytea("", 0)), "\\x");
    CHECK_STR(echo("SELECT $1::bytea", segue_param_bytea(NULL, 0)), "(NULL)");
    CHECK_STR(echo("SELECT $1", segue_param_value(23, SEGUE_FORMAT_BINARY, "\0\0\1\2", 4)), "258");
    CHECK_STR(echo("SELECT $1", segue_param_value(1700, SEGUE_FORMAT_TEXT, "12.50", 5)), "12.50");
    CHECK_STR(echo("SELECT $1", segue_param_value(1700, SEGUE_FORMAT_TEXT, NULL, 5)), "(NULL)");
    /* Text goes wherever the server can read it as what it expects. */
    CHECK_STR(echo("SELECT $1::int4 + 1", segue_param_text("41")), "42");
    CHECK_STR(echo("SELECT $1::date", segue_param_text("2024-02-29")), "2024-02-29");
    CHECK_STR(echo("SELECT ($1::jsonb)->>'a'", segue_param_text("{\"a\": 7}")), "7");
    /* A narrow integer in a wider place. */
    segue_param by_hand;
    memset(&by_hand, 0, sizeof by_hand);
    by_hand.kind = SEGUE_PARAM_INT;
    by_hand.integer = 7;
    CHECK_STR(echo("SELECT $1::int8", by_hand), "7");
    memset(&by_hand, 0, sizeof by_hand);
    CHECK_STR(echo("SELECT $1::int8", by_hand), "(NULL)");
}

static void parameters_that_cannot_be(void)
{
    segue_result *result = (segue_result *)&session;
    segue_param param = segue_param_text("\xff");
    FAILS(SEGUE_INVALID_ARGUMENT,
          segue_session_query(session, "SELECT $1::text", &param, 1, 0, &result, ERR));
    param = segue_param_int4(1);
    param.kind = 77;
    FAILS(SEGUE_INVALID_ARGUMENT,
          segue_session_query(session, "SELECT $1::int4", &param, 1, 0, &result, ERR));
    param = segue_param_value(23, 5, "x", 1);
    FAILS(SEGUE_INVALID_ARGUMENT,
          segue_session_query(session, "SELECT $1::int4", &param, 1, 0, &result, ERR));
    param = segue_param_text_sized(NULL, 3);
    param.kind = SEGUE_PARAM_TEXT;
    param.length = 3;
    FAILS(SEGUE_INVALID_ARGUMENT,
          segue_session_query(session, "SELECT $1::text", &param, 1, 0, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT,
          segue_session_query(session, "SELECT $1::text", NULL, 1, 0, &result, ERR));
    param = segue_param_int4(1);
    FAILS(SEGUE_INVALID_ARGUMENT,
          segue_session_query(session, "SELECT $1::int4", &param, 1, 2, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT,
          segue_session_query(session, "SELECT $1::int4", &param, 1, -1, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT,
          segue_session_query(session, "SELECT $1::int4", &param, SIZE_MAX, 0, &result, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT,
          segue_session_query(session, "SELECT '\xff'", NULL, 0, 0, &result, ERR));
    /* Too few, which the server finds out. */
    FAILS(SEGUE_SERVER, segue_session_query(session, "SELECT $1::int", NULL, 0, 0, &result, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "08P01");
    CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
    /* An integer that its type cannot hold. */
    param = segue_param_int4(1);
    param.integer = INT64_MAX;
    FAILS(SEGUE_CONVERSION,
          segue_session_query(session, "SELECT $1::int4", &param, 1, 0, &result, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "22023");
    CHECK(segue_error_cause(LAST) != NULL);
    CHECK(strstr(segue_error_cause(LAST), "9223372036854775807") == NULL);
    CHECK(result == (segue_result *)&session);
    CHECK_INT(db_int(session, "SELECT 1"), 1);
}

static void many_parameters(void)
{
    enum { N = 1000 };
    static char sql[N * 16];
    static segue_param params[N];
    size_t length = (size_t)sprintf(sql, "SELECT 0");
    for (int i = 0; i < N; i++) {
        params[i] = segue_param_int4(i);
        length += (size_t)sprintf(sql + length, " + $%d::int4", i + 1);
    }
    segue_result *result = NULL;
    OK(segue_session_query(session, sql, params, N, SEGUE_FORMAT_BINARY, &result, ERR));
    int64_t sum = 0;
    OK(segue_result_int64(result, 0, 0, &sum, ERR));
    CHECK_INT(sum, N * (N - 1) / 2);
    segue_result_free(result);
}

static void executing(void)
{
    uint64_t rows = 99;
    OK(segue_session_execute(session, "CREATE TEMP TABLE e (id int PRIMARY KEY, note text)", NULL, 0,
                             &rows, ERR));
    CHECK_INT(rows, 0);
    CHECK_INT(db_execute(session, "INSERT INTO e SELECT g, 'n' FROM generate_series(1, 10) g"), 10);
    segue_param params[2] = {segue_param_text("m"), segue_param_int4(5)};
    OK(segue_session_execute(session, "UPDATE e SET note = $1 WHERE id > $2", params, 2, &rows, ERR));
    CHECK_INT(rows, 5);
    OK(segue_session_execute(session, "SELECT * FROM e", NULL, 0, &rows, ERR));
    CHECK_INT(rows, 10);
    OK(segue_session_execute(session, "DELETE FROM e WHERE id = 1", NULL, 0, NULL, ERR));
    OK(segue_session_execute(session, "DELETE FROM e WHERE id = 2", NULL, 0, NULL, NULL));
    rows = 99;
    FAILS(SEGUE_SERVER, segue_session_execute(session, "nonsense", NULL, 0, &rows, ERR));
    CHECK_INT(rows, 99);
    CHECK_INT(db_int(session, "SELECT count(*) FROM e"), 8);
    CHECK_INT(db_execute(session, ""), 0);
    CHECK_INT(db_execute(session, "-- nothing but a comment"), 0);
    db_execute(session, "DROP TABLE e");
}

static void what_a_result_says(void)
{
    db_execute(session, "CREATE TABLE shape (id int, v varchar(20), n numeric(8,2))");
    db_execute(session, "INSERT INTO shape VALUES (1, 'one', 1.25), (2, NULL, NULL)");
    segue_result *result = NULL;
    OK(segue_session_query(session, "SELECT id, v, n, id AS id, 1 AS \"Quoted\" FROM shape ORDER BY 1",
                           NULL, 0, SEGUE_FORMAT_TEXT, &result, ERR));
    CHECK_INT(segue_result_row_count(result), 2);
    CHECK_INT(segue_result_column_count(result), 5);
    CHECK_STR(segue_result_column_name(result, 1), "v");
    CHECK_STR(segue_result_column_name(result, 5), NULL);
    CHECK_INT(segue_result_column(result, "id"), 0);
    CHECK_INT(segue_result_column(result, "n"), 2);
    CHECK_INT(segue_result_column(result, "Quoted"), 4);
    CHECK_INT(segue_result_column(result, "quoted"), -1);
    CHECK_INT(segue_result_column(result, ""), -1);
    CHECK_INT(segue_result_column(result, NULL), -1);
    CHECK_INT(segue_result_column(result, "\xff"), -1);
    CHECK_INT(segue_result_column_type(result, 0), 23);
    CHECK_INT(segue_result_column_type(result, 1), 1043);
    CHECK_INT(segue_result_column_type(result, 2), 1700);
    CHECK_INT(segue_result_column_type(result, 9), 0);
    CHECK_INT(segue_result_column_modifier(result, 0), -1);
    CHECK_INT(segue_result_column_modifier(result, 1), 24);
    CHECK_INT(segue_result_column_modifier(result, 2), ((8 << 16) | 2) + 4);
    CHECK_INT(segue_result_column_modifier(result, 9), -1);
    CHECK_INT(segue_result_column_table(result, 0), db_int(session, "SELECT 'shape'::regclass::oid"));
    CHECK_INT(segue_result_column_table(result, 4), 0);
    CHECK_INT(segue_result_column_table(result, 9), 0);
    CHECK_INT(segue_result_format(result), SEGUE_FORMAT_TEXT);
    CHECK_STR(segue_result_tag(result), "SELECT 2");
    CHECK_INT(segue_result_rows_affected(result), 2);
    CHECK(segue_result_next(result) == NULL);
    size_t length = 99;
    CHECK_STR(segue_result_value(result, 0, 1, &length), "one");
    CHECK_INT(length, 3);
    CHECK(!segue_result_is_null(result, 0, 1));
    CHECK(segue_result_is_null(result, 1, 1));
    CHECK(segue_result_is_null(result, 2, 0));
    CHECK(segue_result_is_null(result, 0, 5));
    CHECK(segue_result_value(result, 1, 1, &length) == NULL);
    CHECK(segue_result_value(result, 2, 0, &length) == NULL);
    CHECK(segue_result_value(result, 0, 5, NULL) == NULL);
    CHECK(segue_result_value(result, SIZE_MAX, SIZE_MAX, NULL) == NULL);
    segue_result_free(result);

    OK(segue_session_query(session, "UPDATE shape SET id = 3 WHERE id = 1", NULL, 0,
                           SEGUE_FORMAT_BINARY, &result, ERR));
    CHECK_INT(segue_result_row_count(result), 0);
    CHECK_INT(segue_result_column_count(result), 0);
    CHECK_STR(segue_result_tag(result), "UPDATE 1");
    CHECK_INT(segue_result_rows_affected(result), 1);
    CHECK_INT(segue_result_format(result), SEGUE_FORMAT_BINARY);
    segue_result_free(result);
    OK(segue_session_query(session, "SELECT id FROM shape WHERE false", NULL, 0, SEGUE_FORMAT_TEXT,
                           &result, ERR));
    CHECK_INT(segue_result_row_count(result), 0);
    CHECK_INT(segue_result_column_count(result), 1);
    segue_result_free(result);
    db_execute(session, "DROP TABLE shape");
}

/* What each getter makes of a value: a status, and its text where that is SEGUE_OK. */
static const struct {
    const char *sql;
    int32_t format, as_bool, as_int64, as_double, as_text, as_bytea;
    int64_t int64;
    double real;
    const char *text;
} GETTERS[] = {
    {"true", 0, SEGUE_OK, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, 0, 0, "t"},
    {"true", 1, SEGUE_OK, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, 0, 0, NULL},
    {"7::int2", 0, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, SEGUE_OK, SEGUE_OK, 7, 7, "7"},
    {"-7::int2", 1, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, SEGUE_CONVERSION, SEGUE_OK, -7, -7, NULL},
    {"-8::int4", 1, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, SEGUE_CONVERSION, SEGUE_OK, -8, -8, NULL},
    {"4294967295::oid", 1, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, SEGUE_CONVERSION, SEGUE_OK, 4294967295,
     4294967295.0, NULL},
    {"9223372036854775807::int8", 1, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, SEGUE_CONVERSION, SEGUE_OK,
     INT64_MAX, 9223372036854775807.0, NULL},
    {"'-9223372036854775808'::int8", 0, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, SEGUE_OK, SEGUE_OK, INT64_MIN,
     -9223372036854775808.0, "-9223372036854775808"},
    {"9223372036854775808::numeric", 0, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, SEGUE_OK, 0,
     9223372036854775808.0, "9223372036854775808"},
    {"1.5::numeric", 1, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, 0,
     0, NULL},
    {"1.5::float4", 1, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, SEGUE_CONVERSION, SEGUE_OK, 0, 1.5,
     NULL},
    {"0.1::float8", 1, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, SEGUE_CONVERSION, SEGUE_OK, 0, 0.1,
     NULL},
    {"0.1::float8", 0, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, SEGUE_OK, 0, 0.1, "0.1"},
    {"'Infinity'::float8", 0, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, SEGUE_OK, 0, HUGE_VAL,
     "Infinity"},
    {"'text'::text", 0, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, 0, 0,
     "text"},
    {"'text'::text", 1, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, 0, 0,
     "text"},
    {"'v'::varchar(3)", 1, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, 0, 0,
     "v"},
    {"'{}'::json", 1, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, 0, 0, "{}"},
    {"''::text", 0, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_CONVERSION, SEGUE_OK, SEGUE_OK, 0, 0, ""},
    {"NULL::int8", 0, SEGUE_NULL_VALUE, SEGUE_NULL_VALUE, SEGUE_NULL_VALUE, SEGUE_OK, SEGUE_NULL_VALUE, 0, 0,
     NULL},
    {"NULL::text", 1, SEGUE_NULL_VALUE, SEGUE_NULL_VALUE, SEGUE_NULL_VALUE, SEGUE_OK, SEGUE_NULL_VALUE, 0, 0,
     NULL},
};

static void typed_getters(void)
{
    for (size_t i = 0; i < COUNT(GETTERS); i++) {
        char sql[128];
        snprintf(sql, sizeof sql, "SELECT %s", GETTERS[i].sql);
        segue_result *result = NULL;
        OK(segue_session_query(session, sql, NULL, 0, GETTERS[i].format, &result, ERR));
        bool flag = false;
        int64_t integer = 4711;
        double real = 47.11;
        const char *text = "untouched";
        size_t length = 4711;
        char bytes[64];
        bool well = FAILS(GETTERS[i].as_bool, segue_result_bool(result, 0, 0, &flag, ERR));
        well &= CHECK(flag == (GETTERS[i].as_bool == SEGUE_OK));
        well &= FAILS(GETTERS[i].as_int64, segue_result_int64(result, 0, 0, &integer, ERR));
        well &= CHECK_INT(integer, GETTERS[i].as_int64 == SEGUE_OK ? GETTERS[i].int64 : 4711);
        well &= FAILS(GETTERS[i].as_double, segue_result_double(result, 0, 0, &real, ERR));
        well &= CHECK(real == (GETTERS[i].as_double == SEGUE_OK ? GETTERS[i].real : 47.11));
        well &= FAILS(GETTERS[i].as_text, segue_result_text(result, 0, 0, &text, &length, ERR));
        if (GETTERS[i].as_text == SEGUE_OK) {
            well &= CHECK_STR(text, GETTERS[i].text);
            well &= CHECK_INT(length, GETTERS[i].text ? strlen(GETTERS[i].text) : 0);
        } else {
            well &= CHECK_STR(text, "untouched");
            well &= CHECK_INT(length, 4711);
        }
        length = 4711;
        well &= FAILS(GETTERS[i].as_bytea,
                      segue_result_bytea(result, 0, 0, bytes, sizeof bytes, &length, ERR));
        well &= CHECK((length == 4711) == (GETTERS[i].as_bytea != SEGUE_OK));
        if (!well)
            fprintf(stderr, "  the value: %s, format %d\n", GETTERS[i].sql, GETTERS[i].format);
        FAILS(SEGUE_INVALID_ARGUMENT, segue_result_bool(result, 1, 0, &flag, ERR));
        FAILS(SEGUE_INVALID_ARGUMENT, segue_result_int64(result, 0, 1, &integer, ERR));
        FAILS(SEGUE_INVALID_ARGUMENT, segue_result_double(result, 9, 9, &real, ERR));
        FAILS(SEGUE_INVALID_ARGUMENT, segue_result_text(result, 1, 0, &text, NULL, ERR));
        FAILS(SEGUE_INVALID_ARGUMENT, segue_result_bytea(result, 1, 0, NULL, 0, &length, ERR));
        segue_result_free(result);
    }
}

static void nan_is_read(void)
{
    for (int32_t format = 0; format < 2; format++) {
        segue_result *result = NULL;
        double real = 0;
        OK(segue_session_query(session, "SELECT 'NaN'::float8", NULL, 0, format, &result, ERR));
        OK(segue_result_double(result, 0, 0, &real, ERR));
        CHECK(isnan(real));
        segue_result_free(result);
    }
}

static void bytes_with_zeros(void)
{
    static unsigned char every[256];
    for (int i = 0; i < 256; i++)
        every[i] = (unsigned char)i;
    segue_param param = segue_param_bytea(every, sizeof every);
    for (int32_t round = 0; round < 3; round++) {
        int32_t format = round == 0 ? SEGUE_FORMAT_BINARY : SEGUE_FORMAT_TEXT;
        db_execute(session, round == 2 ? "SET bytea_output = escape" : "SET bytea_output = hex");
        segue_result *result = NULL;
        OK(segue_session_query(session, "SELECT $1::bytea", &param, 1, format, &result, ERR));
        size_t length = 0;
        OK(segue_result_bytea(result, 0, 0, NULL, 0, &length, ERR));
        CHECK_INT(length, 256);
        unsigned char back[257];
        memset(back, 0x5a, sizeof back);
        length = 4711;
        FAILS(SEGUE_LIMIT, segue_result_bytea(result, 0, 0, back, 255, &length, ERR));
        CHECK_HAS(segue_error_message(LAST), "256");
        CHECK(back[0] == 0x5a && length == 4711);
        OK(segue_result_bytea(result, 0, 0, back, 256, &length, ERR));
        CHECK(length == 256 && memcmp(back, every, 256) == 0 && back[256] == 0x5a);
        if (format == SEGUE_FORMAT_BINARY) {
            const unsigned char *value = segue_result_value(result, 0, 0, &length);
            CHECK(length == 256 && memcmp(value, every, 256) == 0 && value[256] == '\0');
        }
        segue_result_free(result);
    }
    db_execute(session, "RESET bytea_output");
    segue_result *result = NULL;
    OK(segue_session_query(session, "SELECT 'no bytes', ''::bytea", NULL, 0, SEGUE_FORMAT_TEXT, &result,
                           ERR));
    size_t length = 4711;
    OK(segue_result_bytea(result, 0, 1, NULL, 0, &length, ERR));
    CHECK_INT(length, 0);
    segue_result_free(result);
}

static void large_results(void)
{
    int rows = check_is_slow() ? 2000 : 20000;
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT g, repeat('x', g %% 50), NULL FROM generate_series(1, %d) g", rows);
    segue_result *result = NULL;
    OK(segue_session_query(session, sql, NULL, 0, SEGUE_FORMAT_BINARY, &result, ERR));
    CHECK_INT(segue_result_row_count(result), rows);
    int wrong = 0;
    for (int row = 0; row < rows; row++) {
        int64_t id = 0;
        size_t length = 0;
        const char *text = segue_result_value(result, (size_t)row, 1, &length);
        wrong += segue_result_int64(result, (size_t)row, 0, &id, NULL) != SEGUE_OK || id != row + 1;
        wrong += length != (size_t)(id % 50) || strlen(text) != length;
        wrong += !segue_result_is_null(result, (size_t)row, 2);
    }
    CHECK_INT(wrong, 0);
    segue_result_free(result);
    OK(segue_session_query(session, "SELECT repeat('abcdefgh', 1000000)", NULL, 0, SEGUE_FORMAT_TEXT,
                           &result, ERR));
    size_t length = 0;
    const char *text = NULL;
    OK(segue_result_text(result, 0, 0, &text, &length, ERR));
    CHECK(length == 8000000 && text[7999999] == 'h' && text[8000000] == '\0');
    segue_result_free(result);
}

static void prepared_statements(void)
{
    db_execute(session, "CREATE TABLE p (id int, note text)");
    segue_statement *insert = NULL;
    OK(segue_session_prepare(session, "INSERT INTO p VALUES ($1, $2)", NULL, 0, &insert, ERR));
    CHECK_STR(segue_statement_sql(insert), "INSERT INTO p VALUES ($1, $2)");
    CHECK_INT(segue_statement_param_count(insert), 2);
    CHECK_INT(segue_statement_param_type(insert, 0), 23);
    CHECK_INT(segue_statement_param_type(insert, 1), 25);
    CHECK_INT(segue_statement_param_type(insert, 2), 0);
    CHECK_INT(segue_statement_column_count(insert), 0);
    CHECK_STR(segue_statement_column_name(insert, 0), NULL);
    CHECK_INT(segue_statement_column_type(insert, 0), 0);
    for (int i = 0; i < 10; i++) {
        segue_param params[2] = {segue_param_int4(i), segue_param_text("n")};
        uint64_t rows = 0;
        OK(segue_statement_execute(insert, params, 2, &rows, ERR));
        CHECK_INT(rows, 1);
    }
    FAILS(SEGUE_USAGE, segue_statement_execute(insert, NULL, 0, NULL, ERR));
    segue_statement_free(insert);

    uint32_t oids[2] = {20, 0};
    segue_statement *select = NULL;
    OK(segue_session_prepare(session, "SELECT id, note AS words, $1 + 1 FROM p WHERE id < $2 ORDER BY id",
                             oids, 2, &select, ERR));
    CHECK_INT(segue_statement_param_type(select, 0), 20);
    CHECK_INT(segue_statement_param_type(select, 1), 23);
    CHECK_INT(segue_statement_column_count(select), 3);
    CHECK_STR(segue_statement_column_name(select, 1), "words");
    CHECK_STR(segue_statement_column_name(select, 3), NULL);
    CHECK_INT(segue_statement_column_type(select, 2), 20);
    segue_param params[2] = {segue_param_int8(41), segue_param_int4(3)};
    for (int32_t format = 0; format < 2; format++) {
        segue_result *result = NULL;
        OK(segue_statement_query(select, params, 2, format, &result, ERR));
        CHECK_INT(segue_result_row_count(result), 3);
        int64_t value = 0;
        OK(segue_result_int64(result, 2, 2, &value, ERR));
        CHECK_INT(value, 42);
        /* The result outlives everything. */
        segue_result_free(result);
        segue_stream *stream = NULL;
        OK(segue_statement_stream(select, params, 2, format, &stream, ERR));
        OK(segue_stream_next(stream, 100, &result, ERR));
        CHECK_INT(segue_result_row_count(result), 3);
        segue_result_free(result);
        segue_stream_free(stream);
    }
    segue_statement_free(select);
    segue_statement *statement = NULL;
    FAILS(SEGUE_SERVER, segue_session_prepare(session, "SELEC 1", NULL, 0, &statement, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "42601");
    FAILS(SEGUE_USAGE, segue_session_prepare(session, "SELECT 1; SELECT 2", NULL, 0, &statement, ERR));
    CHECK(statement == NULL);
    db_execute(session, "DROP TABLE p");
}

static void strings_of_statements(void)
{
    segue_result *first = NULL;
    OK(segue_session_batch(session,
                           "CREATE TEMP TABLE b (id int); INSERT INTO b VALUES (1), (2); SELECT id, id * 2 "
                           "FROM b ORDER BY 1; DROP TABLE b",
                           &first, ERR));
    static const char *const TAGS[] = {"CREATE TABLE", "INSERT 0 2", "SELECT 2", "DROP TABLE"};
    const segue_result *result = first;
    for (size_t i = 0; i < COUNT(TAGS); i++) {
        CHECK_STR(segue_result_tag(result), TAGS[i]);
        if (i == 2) {
            CHECK_INT(segue_result_format(result), SEGUE_FORMAT_TEXT);
            CHECK_STR(segue_result_value(result, 1, 1, NULL), "4");
        }
        result = segue_result_next(result);
    }
    CHECK(result == NULL);
    segue_result_free(first);
    /* They stand and fall together. */
    segue_result *none = NULL;
    db_execute(session, "CREATE TABLE together (id int)");
    FAILS(SEGUE_SERVER,
          segue_session_batch(session, "INSERT INTO together VALUES (1); SELECT 1/0", &none, ERR));
    CHECK_STR(segue_error_sqlstate(LAST), "22012");
    CHECK(none == NULL);
    CHECK_INT(db_int(session, "SELECT count(*) FROM together"), 0);
    db_execute(session, "DROP TABLE together");
    OK(segue_session_batch(session, "", &first, ERR));
    CHECK_INT(segue_result_row_count(first), 0);
    segue_result_free(first);
}

static void parameters_of_the_server(void)
{
    char buffer[64] = "untouched";
    size_t length = 0;
    OK(segue_session_parameter(session, "server_version", NULL, 0, &length, ERR));
    CHECK(length > 0 && length < sizeof buffer);
    size_t again = 0;
    FAILS(SEGUE_LIMIT, segue_session_parameter(session, "server_version", buffer, length, &again, ERR));
    CHECK_STR(buffer, "untouched");
    CHECK_INT(again, 0);
    OK(segue_session_parameter(session, "server_version", buffer, length + 1, &again, ERR));
    CHECK_INT(again, length);
    CHECK_INT(strlen(buffer), length);
    OK(segue_session_parameter(session, "client_encoding", buffer, sizeof buffer, &length, ERR));
    CHECK_STR(buffer, "UTF8");
    FAILS(SEGUE_USAGE,
          segue_session_parameter(session, "no_such_parameter", buffer, sizeof buffer, &length, ERR));
    CHECK_STR(buffer, "UTF8");
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    cluster *servers = cluster_start("--standbys 0 --replication async");
    segue_client *client = db_client(cluster_conninfo_unix(servers), "");
    session = db_session(client);
    RUN(every_kind_of_parameter);
    RUN(parameters_that_cannot_be);
    RUN(many_parameters);
    RUN(executing);
    RUN(what_a_result_says);
    RUN(typed_getters);
    RUN(nan_is_read);
    RUN(bytes_with_zeros);
    RUN(large_results);
    RUN(prepared_statements);
    RUN(strings_of_statements);
    RUN(parameters_of_the_server);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
    return check_finish();
}
