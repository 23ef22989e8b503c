/*
 * The workload of tests/chaos through the C ABI: two threads that pay, one that reads.
 *
 * Nothing is ever tried again: an application on Segue need not, and every error is to be seen. What the
 * lines of the logs mean is said in tests/chaos/clientlog.py.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <segue.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 3
#define PIPELINE 5

static const char *const transfer_sql =
    "UPDATE account SET balance = balance + $2 WHERE id = $1";
static const char *const insert_sql =
    "INSERT INTO payment (id, kind, src, dst, amount) VALUES ($1, $2, $3, $4, $5)";
static const char *const returning_sql =
    "INSERT INTO payment (id, kind, src, dst, amount) VALUES ($1, $2, $3, $4, $5) RETURNING id";
static const char *const own_sql =
    "SELECT balance FROM account WHERE id IN ($1, $2) ORDER BY id FOR UPDATE";
static const char *const sum_sql = "SELECT sum(balance)::bigint FROM account";

static const char *conninfo, *face, *logs, *stop;
static int64_t first_worker, incarnation, seed, accounts, total, pace_ms;
static segue_client *client;

struct worker {
    int64_t number;
    int64_t last_id;
    uint64_t random;
    int log;
    int knows_balances;
    int64_t balances[2];
};

/* One line is one write(2), which SIGKILL does not undo. */
static void note(int log, char letter, const char *format, ...)
{
    char line[2048];
    struct timespec now;
    size_t length, i;
    va_list arguments;

    clock_gettime(CLOCK_MONOTONIC, &now);
    length = (size_t)snprintf(line, sizeof line, "%c %" PRId64 " ", letter,
                              (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    va_start(arguments, format);
    vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    va_end(arguments);
    length = strlen(line);
    for (i = 0; i < length; i++) {
        if (line[i] == '\n') {
            line[i] = ' ';
        }
    }
    line[length++] = '\n';
    if (write(log, line, length) != (ssize_t)length) {
        perror("the log");
        exit(EXIT_FAILURE);
    }
}

/* SplitMix64. */
static int64_t below(struct worker *worker, int64_t limit)
{
    uint64_t mixed = worker->random += UINT64_C(0x9E3779B97F4A7C15);

    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (int64_t)((mixed ^ (mixed >> 31)) % (uint64_t)limit);
}

static void rest_ms(int64_t ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&time, NULL);
}

static int stops(void)
{
    return access(stop, F_OK) == 0;
}

static int64_t begin(struct worker *worker, const char *kind)
{
    note(worker->log, 'B', "%" PRId64 " %s", ++worker->last_id, kind);
    return worker->last_id;
}

/* What the application was told; frees the error. */
static void end(struct worker *worker, int64_t id, int32_t status, segue_error *error)
{
    const char *outcome = "unknown";

    if (status == SEGUE_OK) {
        note(worker->log, 'E', "%" PRId64 " committed 00000 ", id);
        return;
    }
    if (segue_error_outcome(error) == SEGUE_TXN_COMMITTED) {
        outcome = "committed";
    } else if (segue_error_outcome(error) == SEGUE_TXN_NOT_COMMITTED) {
        outcome = "not_committed";
    }
    note(worker->log, 'E', "%" PRId64 " %s %s %s: %s", id, outcome, segue_error_sqlstate(error),
         segue_status_name(status), segue_error_message(error));
    segue_error_free(error);
}

static void payment(segue_param *params, int64_t id, const char *kind, int32_t source,
                    int32_t target, int64_t amount)
{
    params[0] = segue_param_int8(id);
    params[1] = segue_param_text(kind);
    params[2] = source ? segue_param_int4(source) : segue_param_null();
    params[3] = target ? segue_param_int4(target) : segue_param_null();
    params[4] = segue_param_int8(amount);
}

static int32_t change(segue_session *session, int32_t account, int64_t amount, segue_error **error)
{
    segue_param params[2];

    params[0] = segue_param_int4(account);
    params[1] = segue_param_int8(amount);
    return segue_session_execute(session, transfer_sql, params, 2, NULL, error);
}

/* Between shared accounts, locked in order. */
static void transfer(struct worker *worker, segue_session *session)
{
    segue_error *error = NULL;
    segue_param params[5];
    int64_t id = begin(worker, "transfer");
    int32_t source = (int32_t)(1 + below(worker, accounts));
    int32_t target = (int32_t)(1 + (source + below(worker, accounts - 1)) % accounts);
    int64_t amount = 1 + below(worker, 100);
    int32_t status = segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, &error);

    if (status == SEGUE_OK) {
        status = source < target ? change(session, source, -amount, &error)
                                 : change(session, target, amount, &error);
        if (status == SEGUE_OK) {
            status = source < target ? change(session, target, amount, &error)
                                     : change(session, source, -amount, &error);
        }
        if (status == SEGUE_OK) {
            payment(params, id, "transfer", source, target, amount);
            status = segue_session_execute(session, insert_sql, params, 5, NULL, &error);
        }
        if (status == SEGUE_OK) {
            status = segue_session_commit(session, &error);
        } else {
            segue_session_rollback(session, NULL);
        }
    }
    end(worker, id, status, error);
}

/* The two balances that nobody else changes, compared with what they must be. */
static int32_t own_balances(struct worker *worker, segue_session *session, int32_t first,
                            int64_t seen[2], segue_error **error)
{
    segue_result *result = NULL;
    segue_param params[2];
    int32_t status;
    size_t row;

    params[0] = segue_param_int4(first);
    params[1] = segue_param_int4(first + 1);
    status = segue_session_query(session, own_sql, params, 2, SEGUE_FORMAT_BINARY, &result, error);
    for (row = 0; row < 2 && status == SEGUE_OK; row++) {
        status = segue_result_int64(result, row, 0, &seen[row], error);
    }
    segue_result_free(result);
    if (status == SEGUE_OK && worker->knows_balances &&
        (seen[0] != worker->balances[0] || seen[1] != worker->balances[1])) {
        note(worker->log, 'F', "own balances are %" PRId64 ", %" PRId64 " and must be %" PRId64 ", %" PRId64,
             seen[0], seen[1], worker->balances[0], worker->balances[1]);
    }
    return status;
}

/* Between the worker's own accounts, whose balances it knows. */
static void own(struct worker *worker, segue_session *session)
{
    segue_error *error = NULL;
    segue_result *result = NULL;
    segue_param params[5];
    int64_t seen[2] = {0, 0}, back = 0;
    int64_t id = begin(worker, "own");
    int64_t amount = below(worker, 100) - 50;
    int32_t first = (int32_t)(1000 + 2 * worker->number);
    int32_t status = segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, &error);

    if (status == SEGUE_OK) {
        status = own_balances(worker, session, first, seen, &error);
        if (status == SEGUE_OK) {
            status = change(session, first, -amount, &error);
        }
        if (status == SEGUE_OK) {
            status = change(session, first + 1, amount, &error);
        }
        if (status == SEGUE_OK) {
            payment(params, id, "own", first, first + 1, amount);
            status = segue_session_query(session, returning_sql, params, 5, SEGUE_FORMAT_TEXT,
                                         &result, &error);
        }
        if (status == SEGUE_OK) {
            status = segue_result_int64(result, 0, 0, &back, &error);
        }
        segue_result_free(result);
        if (status == SEGUE_OK) {
            status = segue_session_commit(session, &error);
        } else {
            segue_session_rollback(session, NULL);
        }
    }
    worker->knows_balances = status == SEGUE_OK;
    worker->balances[0] = seen[0] - amount;
    worker->balances[1] = seen[1] + amount;
    if (status == SEGUE_OK && back != id) {
        note(worker->log, 'F', "%" PRId64 " has come back as %" PRId64, id, back);
    }
    end(worker, id, status, error);
}

/* One statement in autocommit. */
static void insert(struct worker *worker, segue_session *session)
{
    segue_error *error = NULL;
    segue_result *result = NULL;
    segue_param params[5];
    int64_t id = begin(worker, "insert"), back = 0;
    int32_t status;

    payment(params, id, "insert", 0, 0, 1 + below(worker, 100));
    status = segue_session_query(session, returning_sql, params, 5, SEGUE_FORMAT_BINARY, &result,
                                 &error);
    if (status == SEGUE_OK &&
        (segue_result_int64(result, 0, 0, &back, NULL) != SEGUE_OK || back != id)) {
        note(worker->log, 'F', "%" PRId64 " has come back as %" PRId64, id, back);
    }
    segue_result_free(result);
    end(worker, id, status, error);
}

/* Statements that do not wait for each other, each committed by itself. */
static void pipeline(struct worker *worker, segue_session *session)
{
    segue_pipeline *pipeline = NULL;
    segue_result *result = NULL;
    segue_error *error = NULL;
    segue_param params[5];
    int64_t ids[PIPELINE];
    int32_t status = segue_session_pipeline(session, SEGUE_FORMAT_TEXT, &pipeline, &error);
    int i;

    if (status != SEGUE_OK) {
        end(worker, begin(worker, "pipeline"), status, error);
        return;
    }
    for (i = 0; i < PIPELINE; i++) {
        ids[i] = begin(worker, "pipeline");
        payment(params, ids[i], "pipeline", 0, 0, 1);
        status = segue_pipeline_add(pipeline, insert_sql, params, 5, &error);
        if (status != SEGUE_OK) {
            end(worker, ids[i], status, error);
            error = NULL;
            ids[i] = 0;
        }
    }
    for (i = 0; i < PIPELINE; i++) {
        if (ids[i] == 0) {
            continue;
        }
        status = segue_pipeline_next(pipeline, &result, &error);
        end(worker, ids[i], status, error);
        if (status == SEGUE_OK) {
            segue_result_free(result);
        }
        result = NULL;
        error = NULL;
    }
    segue_pipeline_free(pipeline);
}

/* The sum of all balances never changes. */
static void look(struct worker *worker, segue_session *session)
{
    segue_error *error = NULL;
    segue_result *result = NULL;
    int64_t id = begin(worker, "read"), sum = 0;
    int32_t status =
        segue_session_query(session, sum_sql, NULL, 0, SEGUE_FORMAT_TEXT, &result, &error);

    if (status == SEGUE_OK && (segue_result_int64(result, 0, 0, &sum, NULL) != SEGUE_OK || sum != total)) {
        note(worker->log, 'F', "the sum is %" PRId64 ", and must be %" PRId64, sum, total);
    }
    segue_result_free(result);
    end(worker, id, status, error);
}

/* Where nobody is there at all, opening a session fails at once; then it is tried again. */
static segue_session *open_session(struct worker *worker, int32_t access)
{
    segue_session *session = NULL;
    segue_error *error = NULL;

    while (!stops()) {
        if (segue_session_open(client, access, &session, &error) == SEGUE_OK) {
            return session;
        }
        note(worker->log, 'V', "connect_error 0 0 0 0 %s %s", segue_error_sqlstate(error),
             segue_error_message(error));
        segue_error_free(error);
        error = NULL;
        rest_ms(200);
    }
    return NULL;
}

static void *run(void *data)
{
    struct worker *worker = data;
    int reads = worker->number == first_worker + WORKERS - 1;
    segue_session *session =
        open_session(worker, reads ? SEGUE_SESSION_READ_ONLY : SEGUE_SESSION_READ_WRITE);

    while (session != NULL && !stops()) {
        int64_t choice = reads ? -1 : below(worker, 6);

        if (choice < 0) {
            look(worker, session);
        } else if (choice < 2) {
            transfer(worker, session);
        } else if (choice == 2) {
            own(worker, session);
        } else if (choice < 5) {
            insert(worker, session);
        } else {
            pipeline(worker, session);
        }
        rest_ms(pace_ms * (20 + below(worker, 160)) / 100);
    }
    segue_session_free(session);
    note(worker->log, 'Q', "");
    return NULL;
}

static void on_event(const segue_event *event, void *data)
{
    struct worker *worker = data;
    int64_t pause = segue_event_number(event, "pause_us");
    int64_t from = segue_event_number(event, "from"), to = segue_event_number(event, "to");
    size_t i;

    if (segue_event_kind(event) == SEGUE_EVENT_SUBMISSIONS_LOST) {
        for (i = 0; i < segue_event_submission_count(event); i++) {
            const char *key = segue_event_submission_key(event, i);

            note(worker->log, 'L', "%s", key ? key : "nothing");
        }
    }
    note(worker->log, 'V', "%s %" PRIu64 " %" PRId64 " %" PRId64 " %" PRId64 " %s",
         segue_event_name(event), segue_event_session(event), from < 0 ? 0 : from, to < 0 ? 0 : to,
         pause < 0 ? 0 : pause, segue_event_message(event));
}

static const char *argument(int argc, char **argv, const char *name)
{
    int i;

    for (i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], name) == 0) {
            return argv[i + 1];
        }
    }
    fprintf(stderr, "%s is missing\n", name);
    exit(EXIT_FAILURE);
}

int main(int argc, char **argv)
{
    static struct worker workers[WORKERS];
    pthread_t threads[WORKERS];
    segue_subscription *subscription = NULL;
    segue_error *error = NULL;
    char path[4096];
    int i;

    conninfo = argument(argc, argv, "--conninfo");
    face = argument(argc, argv, "--face");
    logs = argument(argc, argv, "--logs");
    stop = argument(argc, argv, "--stop");
    first_worker = atoll(argument(argc, argv, "--worker"));
    incarnation = atoll(argument(argc, argv, "--incarnation"));
    seed = atoll(argument(argc, argv, "--seed"));
    accounts = atoll(argument(argc, argv, "--accounts"));
    total = atoll(argument(argc, argv, "--total"));
    pace_ms = atoll(argument(argc, argv, "--pace-ms"));
    for (i = 0; i < WORKERS; i++) {
        struct worker *worker = &workers[i];

        worker->number = first_worker + i;
        worker->last_id = worker->number * INT64_C(1000000000000) + incarnation * 10000000;
        worker->random = (uint64_t)(seed ^ (worker->last_id + 1) * 2654435761);
        snprintf(path, sizeof path, "%s/%s.%" PRId64 ".%" PRId64 ".log", logs, face, worker->number,
                 incarnation);
        worker->log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (worker->log < 0) {
            perror(path);
            return EXIT_FAILURE;
        }
    }
    if (segue_client_open(conninfo, &client, &error) != SEGUE_OK ||
        segue_client_on_event(client, on_event, &workers[0], NULL, &subscription, &error) != SEGUE_OK) {
        fprintf(stderr, "%s\n", segue_error_message(error));
        segue_error_free(error);
        segue_client_free(client);
        return EXIT_FAILURE;
    }
    for (i = 0; i < WORKERS; i++) {
        if (pthread_create(&threads[i], NULL, run, &workers[i]) != 0) {
            perror("a thread");
            return EXIT_FAILURE;
        }
    }
    for (i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    segue_subscription_free(subscription);
    segue_client_free(client);
    return EXIT_SUCCESS;
}
