/*
 * What a program needs of an installed Segue: header and library that belong together, a session where a
 * server is given, an error where there is none.
 *
 *     consumer [CONNINFO]
 */
#include <segue.h>
#include <stdio.h>
#include <string.h>

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            return 1;                                                               \
        }                                                                           \
    } while (0)

static int without_a_server(void)
{
    segue_client *client = NULL;
    segue_session *session = NULL;
    segue_error *error = NULL;
    int32_t status;

    CHECK(segue_client_open("hots=nowhere", &client, &error) == SEGUE_CONFIG);
    CHECK(client == NULL && error != NULL);
    CHECK(strcmp(segue_status_name(segue_error_status(error)), "SEGUE_CONFIG") == 0);
    segue_error_free(error);
    error = NULL;

    /* Nobody listens on port 1. */
    CHECK(segue_client_open("host=127.0.0.1 port=1 user=nobody dbname=nothing sslmode=disable "
                            "failover_timeout_ms=300",
                            &client, &error) == SEGUE_OK);
    status = segue_session_open(client, SEGUE_SESSION_DEFAULT, &session, &error);
    CHECK(status == SEGUE_CONNECT || status == SEGUE_FAILOVER_TIMEOUT);
    CHECK(session == NULL && error != NULL && segue_error_message(error)[0] != '\0');
    CHECK(!segue_error_maybe_committed(error));
    segue_error_free(error);
    segue_client_free(client);
    return 0;
}

static int with_a_server(const char *conninfo)
{
    segue_client *client = NULL;
    segue_session *session = NULL;
    segue_result *result = NULL;
    segue_param params[2];
    int64_t sum = 0;

    CHECK(segue_client_open(conninfo, &client, NULL) == SEGUE_OK);
    CHECK(segue_session_open(client, SEGUE_SESSION_DEFAULT, &session, NULL) == SEGUE_OK);
    params[0] = segue_param_int4(40);
    params[1] = segue_param_int4(2);
    CHECK(segue_session_query(session, "SELECT $1 + $2", params, 2, SEGUE_FORMAT_TEXT, &result, NULL) ==
          SEGUE_OK);
    CHECK(segue_result_int64(result, 0, 0, &sum, NULL) == SEGUE_OK && sum == 42);
    segue_result_free(result);
    segue_session_free(session);
    segue_client_free(client);
    return 0;
}

int main(int argc, char **argv)
{
    CHECK(segue_abi_version() == ((uint32_t)SEGUE_ABI_VERSION_MAJOR << 16 | SEGUE_ABI_VERSION_MINOR));
    CHECK(strcmp(segue_version(), SEGUE_VERSION) == 0);
    return argc > 1 ? with_a_server(argv[1]) : without_a_server();
}
