/*
 * Moves money between accounts, over and over. Kill the primary meanwhile and have the standby promoted:
 * this program sees a slow statement and no error, and the sum stays what it was.
 *
 *     cc -std=c99 transfer.c $(pkg-config --cflags --libs segue) -o transfer
 *     ./transfer "host=node1,node2 dbname=bank user=app" 1000
 */
#include <inttypes.h>
#include <segue.h>
#include <stdio.h>
#include <stdlib.h>

#define ACCOUNTS 100

/* Says what went wrong and what became of the transaction, and frees the error. */
static int failed(const char *doing, segue_error *error)
{
    fprintf(stderr, "%s: %s (SQLSTATE %s)\n", doing, segue_error_message(error),
            segue_error_sqlstate(error));
    if (segue_error_maybe_committed(error)) {
        fprintf(stderr, "the transaction may stand: look before you run it again\n");
    }
    segue_error_free(error);
    return EXIT_FAILURE;
}

static int32_t create_accounts(segue_session *session, segue_error **error)
{
    static const char *const tables =
        "CREATE TABLE IF NOT EXISTS account (id int PRIMARY KEY, balance bigint NOT NULL);"
        "CREATE TABLE IF NOT EXISTS transfer (id bigserial PRIMARY KEY, source int, target int,"
        " amount bigint)";
    segue_param count = segue_param_int4(ACCOUNTS);
    int32_t status = segue_session_execute(session, tables, NULL, 0, NULL, error);

    if (status == SEGUE_OK) {
        status = segue_session_execute(session,
                                       "INSERT INTO account SELECT id, 1000 FROM generate_series(1, $1)"
                                       " AS id ON CONFLICT DO NOTHING",
                                       &count, 1, NULL, error);
    }
    return status;
}

/* One transaction of three statements. Whatever fails, nothing of it stays. */
static int32_t transfer(segue_session *session, int32_t source, int32_t target, int64_t amount,
                        segue_error **error)
{
    segue_param take[2], give[2], note[3];
    int32_t status = segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, error);

    if (status != SEGUE_OK) {
        return status;
    }
    take[0] = segue_param_int8(amount);
    take[1] = segue_param_int4(source);
    give[0] = segue_param_int8(amount);
    give[1] = segue_param_int4(target);
    note[0] = segue_param_int4(source);
    note[1] = segue_param_int4(target);
    note[2] = segue_param_int8(amount);
    status = segue_session_execute(session, "UPDATE account SET balance = balance - $1 WHERE id = $2",
                                   take, 2, NULL, error);
    if (status == SEGUE_OK) {
        status = segue_session_execute(session,
                                       "UPDATE account SET balance = balance + $1 WHERE id = $2", give,
                                       2, NULL, error);
    }
    if (status == SEGUE_OK) {
        status = segue_session_execute(
            session, "INSERT INTO transfer (source, target, amount) VALUES ($1, $2, $3)", note, 3, NULL,
            error);
    }
    if (status == SEGUE_OK) {
        return segue_session_commit(session, error);
    }
    segue_session_rollback(session, NULL); /* The error above is the one to report. */
    return status;
}

static int32_t number(segue_session *session, const char *sql, int64_t *out, segue_error **error)
{
    segue_result *result = NULL;
    int32_t status =
        segue_session_query(session, sql, NULL, 0, SEGUE_FORMAT_TEXT, &result, error);

    if (status == SEGUE_OK) {
        status = segue_result_int64(result, 0, 0, out, error);
        segue_result_free(result);
    }
    return status;
}

static int run(segue_session *session, long count)
{
    segue_error *error = NULL;
    int64_t before = 0, after = 0, noted_before = 0, noted = 0;
    long done, retries = 0;

    if (create_accounts(session, &error) != SEGUE_OK) {
        return failed("creating accounts", error);
    }
    if (number(session, "SELECT sum(balance)::bigint FROM account", &before, &error) != SEGUE_OK ||
        number(session, "SELECT count(*) FROM transfer", &noted_before, &error) != SEGUE_OK) {
        return failed("asking for the sum", error);
    }
    for (done = 0; done < count;) {
        int32_t source = 1 + rand() % ACCOUNTS;
        int32_t target = 1 + (source + rand() % (ACCOUNTS - 1)) % ACCOUNTS;

        if (transfer(session, source, target, 1 + rand() % 10, &error) == SEGUE_OK) {
            done++;
            if (done % 100 == 0) {
                printf("%ld transfers\n", done);
                fflush(stdout);
            }
        } else if (segue_error_is_retryable(error)) { /* A deadlock, say: certainly not committed. */
            segue_error_free(error);
            error = NULL;
            retries++;
        } else {
            return failed("transferring", error);
        }
    }
    if (number(session, "SELECT sum(balance)::bigint FROM account", &after, &error) != SEGUE_OK ||
        number(session, "SELECT count(*) FROM transfer", &noted, &error) != SEGUE_OK) {
        return failed("asking for the sum", error);
    }
    printf("%ld transfers reported, %" PRId64 " in the database, %ld run again; sum %" PRId64
           " before, %" PRId64 " after\n",
           done, noted - noted_before, retries, before, after);
    return before == after && noted - noted_before == done ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    segue_client *client = NULL;
    segue_session *session = NULL;
    segue_error *error = NULL;
    int exit_code;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: %s CONNINFO [TRANSFERS]\n", argv[0]);
        return EXIT_FAILURE;
    }
    if (segue_client_open(argv[1], &client, &error) != SEGUE_OK) {
        return failed("opening the client", error);
    }
    if (segue_session_open(client, SEGUE_SESSION_READ_WRITE, &session, &error) != SEGUE_OK) {
        segue_client_free(client);
        return failed("opening a session", error);
    }
    exit_code = run(session, argc == 3 ? atol(argv[2]) : 1000);
    segue_session_free(session);
    segue_client_free(client);
    return exit_code;
}
