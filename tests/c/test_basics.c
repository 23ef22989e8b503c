/* Versions, names, options and parameters: what needs no server. */
#include "support/check.h"

static const struct {
    int32_t status;
    const char *name;
} STATUSES[] = {
    {SEGUE_OK, "SEGUE_OK"},
    {SEGUE_INVALID_ARGUMENT, "SEGUE_INVALID_ARGUMENT"},
    {SEGUE_USAGE, "SEGUE_USAGE"},
    {SEGUE_BUSY, "SEGUE_BUSY"},
    {SEGUE_CLOSED, "SEGUE_CLOSED"},
    {SEGUE_FORKED, "SEGUE_FORKED"},
    {SEGUE_CONVERSION, "SEGUE_CONVERSION"},
    {SEGUE_NULL_VALUE, "SEGUE_NULL_VALUE"},
    {SEGUE_LIMIT, "SEGUE_LIMIT"},
    {SEGUE_CONFIG, "SEGUE_CONFIG"},
    {SEGUE_CONNECT, "SEGUE_CONNECT"},
    {SEGUE_AUTHENTICATION, "SEGUE_AUTHENTICATION"},
    {SEGUE_TLS, "SEGUE_TLS"},
    {SEGUE_PROTOCOL, "SEGUE_PROTOCOL"},
    {SEGUE_SERVER, "SEGUE_SERVER"},
    {SEGUE_OUTCOME_UNKNOWN, "SEGUE_OUTCOME_UNKNOWN"},
    {SEGUE_REPLAY_DIVERGED, "SEGUE_REPLAY_DIVERGED"},
    {SEGUE_REPLY_LOST, "SEGUE_REPLY_LOST"},
    {SEGUE_PROTECTION_LOST, "SEGUE_PROTECTION_LOST"},
    {SEGUE_FAILOVER_TIMEOUT, "SEGUE_FAILOVER_TIMEOUT"},
    {SEGUE_LEDGER, "SEGUE_LEDGER"},
    {SEGUE_TRANSACTION_FAILED, "SEGUE_TRANSACTION_FAILED"},
    {SEGUE_SERVER_CRASH, "SEGUE_SERVER_CRASH"},
    {SEGUE_INTERNAL, "SEGUE_INTERNAL"},
};

static void versions(void)
{
    CHECK_INT(segue_abi_version() >> 16, SEGUE_ABI_VERSION_MAJOR);
    CHECK_INT(segue_abi_version() & 0xffff, SEGUE_ABI_VERSION_MINOR);
    CHECK_STR(segue_version(), SEGUE_VERSION);
}

static void status_names(void)
{
    for (size_t i = 0; i < COUNT(STATUSES); i++)
        CHECK_STR(segue_status_name(STATUSES[i].status), STATUSES[i].name);
    int named = 0;
    for (int32_t status = -10; status < 2000; status++)
        named += strcmp(segue_status_name(status), "unknown") != 0;
    CHECK_INT(named, COUNT(STATUSES));
}

/* A value may never change within a major version: programs were compiled with them. */
static void values_of_constants(void)
{
    CHECK_INT(SEGUE_OK, 0);
    CHECK_INT(SEGUE_LIMIT, 8);
    CHECK_INT(SEGUE_CONFIG, 100);
    CHECK_INT(SEGUE_PROTOCOL, 104);
    CHECK_INT(SEGUE_SERVER, 200);
    CHECK_INT(SEGUE_OUTCOME_UNKNOWN, 300);
    CHECK_INT(SEGUE_TRANSACTION_FAILED, 306);
    CHECK_INT(SEGUE_SERVER_CRASH, 307);
    CHECK_INT(SEGUE_INTERNAL, 900);
    CHECK_INT(SEGUE_TXN_NOT_COMMITTED, 0);
    CHECK_INT(SEGUE_TXN_COMMITTED, 1);
    CHECK_INT(SEGUE_TXN_UNKNOWN, 2);
    CHECK_INT(SEGUE_EVENT_OTHER, 0);
    CHECK_INT(SEGUE_EVENT_WARM, 12);
    CHECK_INT(SEGUE_EVENT_REPLAY_STARTED, 20);
    CHECK_INT(SEGUE_EVENT_NOTICE, 27);
    CHECK_INT(SEGUE_EVENT_SUBMISSION_DIED, 28);
    CHECK_INT(SEGUE_EVENT_TRANSACTIONS_FOUND, 29);
    CHECK_INT(SEGUE_EVENT_SUBMISSIONS_LOST, 30);
    CHECK_INT(SEGUE_EVENT_SUBMISSION_REAPPLIED, 31);
    CHECK_INT(SEGUE_FORMAT_TEXT, 0);
    CHECK_INT(SEGUE_FORMAT_BINARY, 1);
    CHECK_INT(SEGUE_ISOLATION_SERIALIZABLE, 3);
    CHECK_INT(SEGUE_ROLE_STANDBY, 3);
    CHECK_INT(SEGUE_HEALTH_COMING_BACK, 4);
}

static void parameters(void)
{
    segue_param param = segue_param_null();
    CHECK_INT(param.kind, SEGUE_PARAM_NULL);
    segue_param zeroed;
    memset(&zeroed, 0, sizeof zeroed);
    CHECK_INT(zeroed.kind, SEGUE_PARAM_NULL);
    param = segue_param_bool(true);
    CHECK(param.kind == SEGUE_PARAM_BOOL && param.type_oid == 16 && param.integer == 1);
    param = segue_param_int2(INT16_MIN);
    CHECK(param.kind == SEGUE_PARAM_INT && param.type_oid == 21 && param.integer == INT16_MIN);
    param = segue_param_int4(INT32_MIN);
    CHECK(param.kind == SEGUE_PARAM_INT && param.type_oid == 23 && param.integer == INT32_MIN);
    param = segue_param_int8(INT64_MIN);
    CHECK(param.kind == SEGUE_PARAM_INT && param.type_oid == 20 && param.integer == INT64_MIN);
    param = segue_param_float4(0.5f);
    CHECK(param.kind == SEGUE_PARAM_FLOAT && param.type_oid == 700 && param.real == 0.5);
    param = segue_param_float8(-0.25);
    CHECK(param.kind == SEGUE_PARAM_FLOAT && param.type_oid == 701 && param.real == -0.25);
    const char *text = "segue";
    param = segue_param_text(text);
    CHECK(param.kind == SEGUE_PARAM_TEXT && param.data == text && param.length == 5);
    CHECK_INT(param.type_oid, 0);
    CHECK_INT(segue_param_text(NULL).kind, SEGUE_PARAM_NULL);
    param = segue_param_text_sized(text, 2);
    CHECK(param.kind == SEGUE_PARAM_TEXT && param.data == text && param.length == 2);
    param = segue_param_bytea(text, 3);
    CHECK(param.kind == SEGUE_PARAM_BINARY && param.type_oid == 17 && param.length == 3);
    param = segue_param_value(23, SEGUE_FORMAT_BINARY, text, 4);
    CHECK(param.kind == SEGUE_PARAM_BINARY && param.type_oid == 23 && param.data == text);
    param = segue_param_value(23, SEGUE_FORMAT_TEXT, text, 4);
    CHECK(param.kind == SEGUE_PARAM_TEXT && param.type_oid == 23);
    param = segue_param_value(23, SEGUE_FORMAT_BINARY, NULL, 4);
    CHECK(param.kind == SEGUE_PARAM_NULL && param.type_oid == 23);
}

/* Nothing is dialled by opening, so that a wrong configuration shows at once and a dead server later. */
static void wrong_connection_strings(void)
{
    static const char *const WRONG[] = {
        "host",
        "host=",
        "host=127.0.0.1 port=0",
        "host=127.0.0.1 port=65536",
        "host=127.0.0.1 port=1,2,3",
        "host=127.0.0.1 unheard_of=1",
        "host=127.0.0.1 sslmode=prefer",
        "host=127.0.0.1 sslmode=bogus",
        "host=127.0.0.1 ledger=maybe",
        "host=127.0.0.1 failover_timeout_ms=-1",
        "host=127.0.0.1 failover_timeout_ms=99999999999999999999",
        "host=127.0.0.1 password='unclosed",
        "postgresql://127.0.0.1:port/db",
        "postgresql://127.0.0.1/db?unheard_of=1",
        "mysql://127.0.0.1/db",
        "host=127.0.0.1 service=there_is_none_of_that_name",
        "host=127.0.0.1 sslmode=verify-full sslrootcert=/nonexistent/root.crt",
    };
    for (size_t i = 0; i < COUNT(WRONG); i++) {
        segue_client *client = (segue_client *)&WRONG;
        /* "host=" counts as not given and falls back on the default socket. */
        if (strcmp(WRONG[i], "host=") == 0) {
            OK(segue_client_open(WRONG[i], &client, ERR));
            segue_client_free(client);
            continue;
        }
        if (!FAILS(SEGUE_CONFIG, segue_client_open(WRONG[i], &client, ERR)))
            fprintf(stderr, "  the string: %s\n", WRONG[i]);
        CHECK(client == (segue_client *)&WRONG);
        CHECK_INT(segue_error_outcome(LAST), SEGUE_TXN_NOT_COMMITTED);
        CHECK(!segue_error_is_retryable(LAST));
        CHECK_STR(segue_error_field(LAST, 'C'), NULL);
    }
    segue_client *client = NULL;
    FAILS(SEGUE_CONFIG, segue_client_open("host=h password=hunter2 unheard_of=1", &client, ERR));
    CHECK(strstr(segue_error_message(LAST), "hunter2") == NULL);
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_open("host=\xff\xfe", &client, ERR));
    CHECK(client == NULL);
    /* The place for the error is optional. */
    FAILS(SEGUE_CONFIG, segue_client_open("unheard_of=1", &client, NULL));
}

static void options(void)
{
    segue_options *options = NULL;
    OK(segue_options_new(&options, ERR));
    REQUIRE(options != NULL);
    FAILS(SEGUE_CONFIG, segue_options_set(options, "unheard_of", "1", ERR));
    CHECK_HAS(segue_error_message(LAST), "unheard_of");
    FAILS(SEGUE_CONFIG, segue_options_set(options, "", "1", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_options_set(options, "ho\xffst", "1", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_options_set(options, "host", "\xc3(", ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_options_set_conninfo(options, "\xc3(", ERR));

    /* A value is looked at when a client is opened, and what is set by name wins, the last one. */
    segue_client *client = NULL;
    OK(segue_options_set_conninfo(options, "host=127.0.0.1 port=nonsense", ERR));
    FAILS(SEGUE_CONFIG, segue_client_open_options(options, &client, ERR));
    CHECK(client == NULL);
    OK(segue_options_set(options, "port", "65536", ERR));
    FAILS(SEGUE_CONFIG, segue_client_open_options(options, &client, ERR));
    OK(segue_options_set_conninfo(options, "host=127.0.0.1 port=5", ERR));
    OK(segue_options_set(options, "port", "1", ERR));
    OK(segue_client_open_options(options, &client, ERR));
    segue_status *status = NULL;
    OK(segue_client_status(client, &status, ERR));
    REQUIRE(segue_status_server_count(status) == 1);
    CHECK_HAS(segue_status_server_address(status, 0), "127.0.0.1");
    CHECK_HAS(segue_status_server_address(status, 0), "1");
    CHECK(strstr(segue_status_server_address(status, 0), ":5") == NULL);
    segue_status_free(status);
    /* The options are not needed any more. */
    segue_options_free(options);
    segue_client *twin = NULL;
    OK(segue_client_open("host=127.0.0.1 port=1", &twin, ERR));
    segue_client_free(client);
    segue_client_free(twin);

    /* No options at all mean the environment and the defaults. */
    OK(segue_options_new(&options, ERR));
    OK(segue_client_open_options(options, &client, ERR));
    segue_client_free(client);
    segue_options_free(options);
    segue_options_free(NULL);
}

static void errors_are_safe_without_an_error(void)
{
    CHECK_INT(segue_error_status(NULL), SEGUE_OK);
    CHECK_STR(segue_error_message(NULL), "");
    CHECK_INT(segue_error_outcome(NULL), SEGUE_TXN_UNKNOWN);
    CHECK_STR(segue_error_sqlstate(NULL), "00000");
    CHECK(!segue_error_is_retryable(NULL));
    CHECK(!segue_error_maybe_committed(NULL));
    CHECK_STR(segue_error_field(NULL, 'M'), NULL);
    CHECK_STR(segue_error_cause(NULL), NULL);
    segue_error_free(NULL);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    RUN(versions);
    RUN(status_names);
    RUN(values_of_constants);
    RUN(parameters);
    RUN(wrong_connection_strings);
    RUN(options);
    RUN(errors_are_safe_without_an_error);
    return check_finish();
}
