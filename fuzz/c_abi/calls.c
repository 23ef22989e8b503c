/*
 * Any sequence of calls of the exported functions, as a C program might make them: NULL where a handle or a
 * text belongs, constants that there are not, lengths that do not fit, texts that are no UTF-8, frees in any
 * order that the header allows. What the header forbids is not done: nothing is used after it was freed, what
 * is said to be there is there, and no buffer is said to be longer than it is.
 *
 * What must hold behind each call is what the header promises: outputs are written on success only, an error
 * is there on failure only, and no status is SEGUE_INTERNAL.
 */
#include "segue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 3
#define TEXTS_MAX 64

/* Where a call is checked that has failed to keep the header's word. */
#define HOLDS(condition) ((condition) ? (void)0 : broken(#condition, __LINE__))

static void broken(const char *condition, int line)
{
    fprintf(stderr, "calls.c:%d: does not hold: %s\n", line, condition);
    abort();
}

static const uint8_t *input;
static size_t left;

/* What was copied for this input; freed at its end, so that whatever is kept beyond a call is noticed. */
static void *copies[TEXTS_MAX * 16];
static size_t copies_len;

static segue_client *clients[SLOTS];
static segue_session *sessions[SLOTS];
static segue_statement *statements[SLOTS];
static segue_result *results[SLOTS];
static segue_stream *streams[SLOTS];
static segue_copy_in *copy_ins[SLOTS];
static segue_copy_out *copy_outs[SLOTS];
static segue_pipeline *pipelines[SLOTS];
static segue_error *errors[SLOTS];
static segue_options *all_options[SLOTS];
static segue_subscription *subscriptions[SLOTS];
static segue_notification *notifications[SLOTS];
static segue_cancel *cancels[SLOTS];
static segue_status *statuses[SLOTS];
static segue_session_state *states[SLOTS];
static segue_statistics *all_statistics[SLOTS];
static segue_submission *submissions[SLOTS];
static segue_ticket *tickets[SLOTS];
static segue_dead_letters *letters[SLOTS];
static segue_submission_status *submission_statuses[SLOTS];

/* A handle of the input's choice; NULL at times, also where there is one. */
#define PICK(table) ((table)[byte() % SLOTS])
/* Where the next one goes; what stood there is freed first. */
#define ROOM(table, release) room_for((void **)(table), (void (*)(void *))(release))

static uint8_t byte(void)
{
    if (left == 0)
        return 0;
    left--;
    return *input++;
}

static uint64_t number(void)
{
    static const uint64_t edges[] = {0, 1, 2, 63, 64, 255, 65535, 65536, 0x7fffffff, 0x80000000, 0xffffffff,
                                     0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff};
    uint8_t first = byte();
    if (first < 192)
        return first % 8;
    if (first < 240)
        return edges[byte() % (sizeof edges / sizeof *edges)];
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | byte();
    return value;
}

/* `length` bytes of the input in memory of just that size and, for a text, a NUL behind them. */
static void *bytes(size_t *length_out, bool ends_with_nul)
{
    size_t length = byte();
    if (length == 255)
        length = 255 + (size_t)byte() * 16;
    if (length > left)
        length = left;
    if (copies_len == sizeof copies / sizeof *copies)
        length = 0;
    uint8_t *copy = malloc(length + ends_with_nul + (length == 0));
    memcpy(copy, input, length);
    input += length;
    left -= length;
    if (ends_with_nul)
        copy[length] = 0;
    if (copies_len < sizeof copies / sizeof *copies)
        copies[copies_len++] = copy;
    else
        abort();
    *length_out = length;
    return copy;
}

static bool has_room(void)
{
    return copies_len + 8 < sizeof copies / sizeof *copies;
}

/* A text: NULL, one of a list, or any bytes up to the first NUL. */
static const char *any_text(const char *const *list, size_t list_len)
{
    size_t length;
    uint8_t which = byte();
    if (which == 255 || !has_room())
        return NULL;
    if (which < 160 && list_len > 0)
        return list[which % list_len];
    return bytes(&length, true);
}

#define TEXT(...)                                                                                                      \
    any_text((const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static const char *sql(void)
{
    return TEXT("SELECT 1", "SELECT $1", "INSERT INTO t VALUES ($1, $2) RETURNING a", "INSERT INTO t VALUES (1)",
                "SELECT a, b FROM t", "VALUES (1), (2)", "RAISE 23505", "RAISE 40001", "DIE", "BEGIN", "COMMIT",
                "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s", "COMMIT AND CHAIN", "SELECT 1; SELECT 2; INSERT INTO t",
                "BEGIN; SELECT 1; COMMIT", "COPY t FROM STDIN", "COPY t TO STDOUT", "LISTEN c", "NOTIFY c",
                "SET work_mem = '1MB'", "CREATE TEMP TABLE x (a int)", "PREPARE TRANSACTION 'x'", "", ";", "--",
                "SELECT 'never ends", "UPDATE t SET a = $1 WHERE b = $3", "CALL p($1)", "DISCARD ALL",
                "DEALLOCATE ALL", "PREPARE p AS SELECT 1", "VACUUM");
}

static int32_t constant(void)
{
    return (int32_t)number();
}

static segue_param param(void)
{
    static const uint32_t types[] = {0, 16, 21, 23, 20, 26, 700, 701, 25, 1043, 17, 1700, 114, 3802, 1114, 2950, 1};
    uint32_t type = byte() % 8 ? types[byte() % (sizeof types / sizeof *types)] : (uint32_t)number();
    size_t length = 0;
    double real;
    uint64_t bits;
    switch (byte() % 14) {
    case 0: return segue_param_null();
    case 1: return segue_param_bool(byte() & 1);
    case 2: return segue_param_int2((int16_t)number());
    case 3: return segue_param_int4((int32_t)number());
    case 4: return segue_param_int8((int64_t)number());
    case 5:
        bits = number();
        memcpy(&real, &bits, sizeof real);
        return byte() & 1 ? segue_param_float4((float)real) : segue_param_float8(real);
    case 6: return segue_param_text(TEXT("", "a", "12", "2026-01-01", "\xff"));
    case 7: {
        const void *data = has_room() ? bytes(&length, false) : NULL;
        return segue_param_text_sized(data, length);
    }
    case 8: {
        const void *data = has_room() ? bytes(&length, false) : NULL;
        return segue_param_bytea(data, length);
    }
    case 9: return segue_param_bytea(NULL, number());
    case 10: {
        const void *data = has_room() ? bytes(&length, false) : NULL;
        return segue_param_value(type, constant(), data, length);
    }
    case 11: return segue_param_value(type, constant(), NULL, number());
    default: {
        /* Filled in by hand, as far as the header says what is looked at. */
        segue_param made;
        memset(&made, 0, sizeof made);
        made.kind = constant();
        made.type_oid = type;
        made.integer = (int64_t)number();
        bits = number();
        memcpy(&made.real, &bits, sizeof made.real);
        uint8_t how = byte();
        if (how % 4 == 0) {
            made.length = number(); /* with NULL for data */
        } else if (has_room()) {
            made.data = bytes(&made.length, false);
            if (how % 4 == 1)
                made.length = SIZE_MAX - byte(); /* more than memory can hold: to be refused */
        }
        return made;
    }
    }
}

struct params {
    segue_param *list;
    size_t length;
};

static struct params params(void)
{
    struct params all = {NULL, byte() % 12};
    if (all.length == 11) {
        /* None, but they are said to be there. */
        all.length = number();
        return all;
    }
    if (all.length > 0 && has_room()) {
        all.list = malloc(all.length * sizeof *all.list);
        copies[copies_len++] = all.list;
        for (size_t i = 0; i < all.length; i++)
            all.list[i] = param();
        if (byte() == 254)
            all.list = (segue_param *)((char *)all.list + 1); /* not aligned: to be refused */
    } else {
        all.length = 0;
    }
    return all;
}

static void **room_for(void **table, void (*release)(void *))
{
    void **slot = &table[byte() % SLOTS];
    release(*slot);
    *slot = NULL;
    return slot;
}

static void look_at_text(const char *text)
{
    if (text != NULL)
        HOLDS(strlen(text) < 1u << 24);
}

static void look_at_error(const segue_error *error)
{
    int32_t status = segue_error_status(error);
    HOLDS(segue_status_name(status) != NULL);
    HOLDS(segue_error_message(error) != NULL && *segue_error_message(error) != '\0');
    HOLDS(strlen(segue_error_sqlstate(error)) == 5);
    int32_t outcome = segue_error_outcome(error);
    HOLDS(outcome >= SEGUE_TXN_NOT_COMMITTED && outcome <= SEGUE_TXN_UNKNOWN);
    HOLDS(segue_error_maybe_committed(error) == (outcome != SEGUE_TXN_NOT_COMMITTED));
    HOLDS(!segue_error_is_retryable(error) || outcome == SEGUE_TXN_NOT_COMMITTED);
    look_at_text(segue_error_field(error, (char)byte()));
    look_at_text(segue_error_cause(error));
}

/* The place for an error: NULL at times. */
static segue_error *fresh;

static segue_error **error_place(void)
{
    fresh = NULL;
    return byte() % 8 == 7 ? NULL : &fresh;
}

/* What must hold behind a call that can fail. */
static void ended(int32_t status, bool wrote, bool gives, segue_error *const *place)
{
    HOLDS(status != SEGUE_INTERNAL && status != SEGUE_FORKED);
    HOLDS(strcmp(segue_status_name(status), segue_status_name(-1)) != 0);
    if (status == SEGUE_OK) {
        HOLDS(fresh == NULL);
        HOLDS(wrote || !gives);
    } else {
        HOLDS(!wrote);
        HOLDS((fresh != NULL) == (place != NULL));
        if (fresh != NULL) {
            HOLDS(segue_error_status(fresh) == status);
            look_at_error(fresh);
            if (byte() % 4 == 0) {
                segue_error **kept = (segue_error **)ROOM(errors, segue_error_free);
                *kept = fresh;
                fresh = NULL;
            }
        }
    }
    segue_error_free(fresh);
    fresh = NULL;
}

/* A call that hands out a handle, into a free place or into NULL. */
#define GIVES(table, release, call)                                                                                    \
    do {                                                                                                               \
        void **slot = ROOM(table, release);                                                                            \
        void *made = NULL;                                                                                             \
        void *out = byte() == 253 ? NULL : (void *)&made;                                                              \
        segue_error **place = error_place();                                                                           \
        int32_t status = call;                                                                                         \
        ended(status, made != NULL, true, place);                                                                      \
        *slot = made;                                                                                                  \
    } while (0)

/* A call that hands out nothing. */
#define DOES(call)                                                                                                     \
    do {                                                                                                               \
        segue_error **place = error_place();                                                                           \
        int32_t status = call;                                                                                         \
        ended(status, false, false, place);                                                                            \
    } while (0)

/* A call that writes a number, where it may. */
#define WRITES(type, call)                                                                                             \
    do {                                                                                                               \
        type value;                                                                                                    \
        type untouched;                                                                                                \
        memset((void *)&untouched, 0, sizeof untouched);                                                               \
        memset((void *)&value, 0, sizeof value);                                                                       \
        type *out = byte() == 253 ? NULL : &value;                                                                     \
        segue_error **place = error_place();                                                                           \
        int32_t status = call;                                                                                         \
        ended(status, memcmp(&value, &untouched, sizeof value) != 0, false, place);                                    \
    } while (0)

static void hear(const segue_event *event, void *user_data)
{
    HOLDS(user_data == &fresh);
    HOLDS(segue_event_name(event) != NULL && segue_event_message(event) != NULL);
    look_at_text(segue_event_address(event));
    look_at_text(segue_event_field(event, 'C'));
    (void)segue_event_kind(event);
    (void)segue_event_session(event);
    (void)segue_event_server(event);
    (void)segue_event_number(event, "number");
    (void)segue_event_number(event, NULL);
}

static void heard_of_ticket(const segue_ticket *ticket, const segue_error *error, void *user_data)
{
    HOLDS(user_data == &fresh);
    look_at_text(segue_ticket_id(ticket));
    if (error != NULL)
        HOLDS(segue_error_message(error) != NULL);
}

static void not_needed(void *user_data)
{
    HOLDS(user_data == &fresh);
}

static void look_at_result(const segue_result *result)
{
    size_t rows = segue_result_row_count(result), columns = segue_result_column_count(result);
    size_t row = number(), column = number();
    bool there = row < rows && column < columns;
    size_t length = 77;
    const uint8_t *value = segue_result_value(result, row, column, byte() & 1 ? &length : NULL);
    HOLDS(there || value == NULL);
    HOLDS((value == NULL) == segue_result_is_null(result, row, column));
    if (value != NULL && length != 77)
        HOLDS(value[length] == 0);
    HOLDS((column < columns) == (segue_result_column_name(result, column) != NULL));
    (void)segue_result_column(result, segue_result_column_name(result, column));
    (void)segue_result_column(result, TEXT("c0", "c1", ""));
    (void)segue_result_column_type(result, column);
    (void)segue_result_column_modifier(result, column);
    (void)segue_result_column_table(result, column);
    (void)segue_result_format(result);
    (void)segue_result_rows_affected(result);
    HOLDS(segue_result_tag(result) != NULL);
    const segue_result *next = segue_result_next(result);
    (void)segue_result_row_count(next);
    HOLDS(next != result || next == NULL);
    WRITES(bool, segue_result_bool(result, row, column, out, place));
    WRITES(int64_t, segue_result_int64(result, row, column, out, place));
    WRITES(double, segue_result_double(result, row, column, out, place));
    WRITES(const char *, segue_result_text(result, row, column, out, &length, place));
    size_t capacity = byte() % 48;
    uint8_t *buffer = byte() % 4 ? malloc(capacity + 1) : NULL;
    WRITES(size_t, segue_result_bytea(result, row, column, buffer, capacity, out, place));
    free(buffer);
}

static void look_at_state(const segue_session_state *state)
{
    (void)segue_session_state_id(state);
    (void)segue_session_state_server(state);
    look_at_text(segue_session_state_address(state));
    (void)segue_session_state_number(state, TEXT("timeline", "commit_number", "journal_bytes", "backend_pid", ""));
    (void)segue_session_state_in_transaction(state);
    (void)segue_session_state_transaction_failed(state);
    (void)segue_session_state_ledger(state);
    look_at_text(segue_session_state_tls_version(state));
    look_at_text(segue_session_state_protection_lost(state));
}

static void look_at_status(const segue_status *status)
{
    size_t server = number();
    HOLDS(server < segue_status_server_count(status) || segue_status_server_address(status, server) == NULL);
    (void)segue_status_server_role(status, server);
    (void)segue_status_server_health(status, server);
    look_at_text(segue_status_server_summary(status, server));
    look_at_text(segue_status_server_error(status, server));
    (void)segue_status_server_number(status, server, TEXT("timeline", "lsn", "answer_us", ""));
    (void)segue_status_chosen(status);
    (void)segue_status_standby(status);
    (void)segue_status_number(status, TEXT("sessions", "timeline", "system_identifier", ""));
    look_at_text(segue_status_ledger_problem(status));
}

static void look_at_statistics(const segue_statistics *statistics)
{
    size_t index = number();
    const char *name = segue_statistics_name(statistics, index);
    HOLDS((index < segue_statistics_count(statistics)) == (name != NULL));
    uint64_t value = segue_statistics_value(statistics, index), found = 0;
    if (name != NULL)
        HOLDS(segue_statistics_find(statistics, name, &found, NULL) == SEGUE_OK && found == value);
    WRITES(uint64_t, segue_statistics_find(statistics, TEXT("commits", "replays", ""), out, place));
}

static void look_at_letters(const segue_dead_letters *all)
{
    size_t index = number(), statement = number();
    bool there = index < segue_dead_letters_count(all);
    HOLDS(there == (segue_dead_letters_id(all, index) != NULL));
    look_at_text(segue_dead_letters_key(all, index));
    look_at_text(segue_dead_letters_lane(all, index));
    (void)segue_dead_letters_stops_lane(all, index);
    (void)segue_dead_letters_died_at_ms(all, index);
    (void)segue_dead_letters_statement(all, index);
    (void)segue_dead_letters_statement_count(all, index);
    look_at_text(segue_dead_letters_sql(all, index, statement));
    look_at_text(segue_dead_letters_sqlstate(all, index));
    look_at_text(segue_dead_letters_message(all, index));
    look_at_text(segue_dead_letters_detail(all, index));
}

/* The options whose values are names of files or of hosts: none of this machine's is to be touched. */
static bool reaches_out(const char *name)
{
    static const char *const parts[] = {"file", "dir", "cert", "key", "crl", "host", "port", "service", "timeout",
                                        "poll", "interval", "krb", "gss"};
    if (name == NULL)
        return false;
    char lower[64];
    size_t length = 0;
    for (; name[length] != '\0' && length < sizeof lower - 1; length++)
        lower[length] = (char)(name[length] | 0x20);
    lower[length] = '\0';
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (strstr(lower, parts[i]) != NULL)
            return true;
    }
    return false;
}

/* Of the Rust side: the servers that there are, in memory; and one that nobody listens for. */
extern const char *const segue_fuzz_conninfos[];

static void step(void)
{
    struct params given;
    const char *text, *other;
    void *out_pointer;
    size_t length;
    switch (byte() % 64) {
    case 0:
        GIVES(clients, segue_client_free,
              segue_client_open(any_text(segue_fuzz_conninfos, 4), out, place));
        break;
    case 1:
        GIVES(all_options, segue_options_free, segue_options_new(out, place));
        break;
    case 2:
        text = TEXT("user", "dbname", "application_name", "retry_conflicts", "ledger", "statement_cache_size",
                    "journal_bytes_max", "message_bytes_max", "target_session_attrs", "commit_ack", "");
        other = TEXT("", "0", "1", "off", "require", "reapply", "any", "read-only", "backup", "99999999999", "-1");
        if (!reaches_out(text))
            DOES(segue_options_set(PICK(all_options), text, other, place));
        break;
    case 3:
        DOES(segue_options_set_conninfo(PICK(all_options), any_text(segue_fuzz_conninfos, 4), place));
        break;
    case 4: {
        segue_options *options = PICK(all_options);
        /* Wherever else it was told to go. */
        (void)segue_options_set_conninfo(options, segue_fuzz_conninfos[0], NULL);
        GIVES(clients, segue_client_free, segue_client_open_options(options, out, place));
        break;
    }
    case 5: {
        bool with = byte() % 4, with_end = byte() % 4;
        GIVES(subscriptions, segue_subscription_free,
              segue_client_on_event(PICK(clients), with ? hear : NULL, &fresh, with_end ? not_needed : NULL, out,
                                    place));
        break;
    }
    case 6:
        GIVES(statuses, segue_status_free, segue_client_status(PICK(clients), out, place));
        break;
    case 7: look_at_status(PICK(statuses)); break;
    case 8:
        GIVES(all_statistics, segue_statistics_free, segue_client_statistics(PICK(clients), out, place));
        break;
    case 9: look_at_statistics(PICK(all_statistics)); break;
    case 10: case 11: case 12:
        GIVES(sessions, segue_session_free, segue_session_open(PICK(clients), constant() % 4, out, place));
        break;
    case 13: case 14: case 15:
        text = sql();
        given = params();
        WRITES(uint64_t, segue_session_execute(PICK(sessions), text, given.list, given.length, out, place));
        break;
    case 16: case 17: case 18:
        text = sql();
        given = params();
        GIVES(results, segue_result_free,
              segue_session_query(PICK(sessions), text, given.list, given.length, constant() % 3, out, place));
        break;
    case 19:
        GIVES(results, segue_result_free, segue_session_batch(PICK(sessions), sql(), out, place));
        break;
    case 20: case 21:
        DOES(segue_session_begin(PICK(sessions), constant() % 5, (uint32_t)number() % 5, place));
        break;
    case 22: DOES(segue_session_commit(PICK(sessions), place)); break;
    case 23: DOES(segue_session_rollback(PICK(sessions), place)); break;
    case 24: DOES(segue_session_savepoint(PICK(sessions), TEXT("s", "S", "\"", ""), place)); break;
    case 25: DOES(segue_session_rollback_to(PICK(sessions), TEXT("s", "S", "\"", ""), place)); break;
    case 26: DOES(segue_session_release(PICK(sessions), TEXT("s", "S", "\"", ""), place)); break;
    case 27: {
        size_t capacity = byte() % 32;
        char *buffer = byte() % 4 ? malloc(capacity + 1) : NULL;
        text = TEXT("server_version", "TimeZone", "client_encoding", "");
        WRITES(size_t, segue_session_parameter(PICK(sessions), text, buffer, capacity, out, place));
        free(buffer);
        break;
    }
    case 28:
        GIVES(states, segue_session_state_free, segue_session_status(PICK(sessions), out, place));
        break;
    case 29: look_at_state(PICK(states)); break;
    case 30: case 31: case 32: look_at_result(PICK(results)); break;
    case 33: {
        uint32_t types[4] = {(uint32_t)number(), (uint32_t)number(), 23, 0};
        length = byte() % 6;
        const uint32_t *given_types = length == 5 ? NULL : types;
        GIVES(statements, segue_statement_free,
              segue_session_prepare(PICK(sessions), sql(), given_types, length, out, place));
        break;
    }
    case 34:
        given = params();
        WRITES(uint64_t, segue_statement_execute(PICK(statements), given.list, given.length, out, place));
        break;
    case 35:
        given = params();
        GIVES(results, segue_result_free,
              segue_statement_query(PICK(statements), given.list, given.length, constant() % 3, out, place));
        break;
    case 36:
        given = params();
        GIVES(streams, segue_stream_free,
              segue_statement_stream(PICK(statements), given.list, given.length, constant() % 3, out, place));
        break;
    case 37: {
        const segue_statement *statement = PICK(statements);
        length = number();
        look_at_text(segue_statement_sql(statement));
        HOLDS(length < segue_statement_param_count(statement) || segue_statement_param_type(statement, length) == 0);
        HOLDS((length < segue_statement_column_count(statement)) ==
              (segue_statement_column_name(statement, length) != NULL));
        (void)segue_statement_column_type(statement, length);
        break;
    }
    case 38:
        text = sql();
        given = params();
        GIVES(streams, segue_stream_free,
              segue_session_stream(PICK(sessions), text, given.list, given.length, constant() % 3, out, place));
        break;
    case 39: case 40: {
        /* At a stream's end there is no result, and that is no failure. */
        segue_result **slot = (segue_result **)ROOM(results, segue_result_free);
        segue_error **place = error_place();
        segue_stream *stream = PICK(streams);
        int32_t status = segue_stream_next(stream, number(), slot, place);
        ended(status, *slot != NULL, false, place);
        break;
    }
    case 41:
        GIVES(copy_ins, segue_copy_in_free, segue_session_copy_in(PICK(sessions), sql(), out, place));
        break;
    case 42: {
        segue_copy_in *copy = PICK(copy_ins);
        length = 0;
        out_pointer = byte() == 255 || !has_room() ? NULL : bytes(&length, false);
        if (out_pointer == NULL)
            length = number();
        DOES(segue_copy_in_write(copy, out_pointer, length, place));
        break;
    }
    case 43: WRITES(uint64_t, segue_copy_in_finish(PICK(copy_ins), out, place)); break;
    case 44: DOES(segue_copy_in_abort(PICK(copy_ins), TEXT("no", ""), place)); break;
    case 45:
        GIVES(copy_outs, segue_copy_out_free, segue_session_copy_out(PICK(sessions), sql(), out, place));
        break;
    case 46: {
        const void *data = NULL;
        length = 0;
        segue_error **place = error_place();
        int32_t status = segue_copy_out_read(PICK(copy_outs), &data, &length, place);
        ended(status, data != NULL, false, place);
        uint8_t sum = 0;
        for (size_t i = 0; i < length; i++)
            sum ^= ((const uint8_t *)data)[i];
        (void)sum;
        break;
    }
    case 47:
        GIVES(pipelines, segue_pipeline_free,
              segue_session_pipeline(PICK(sessions), constant() % 3, out, place));
        break;
    case 48:
        text = sql();
        given = params();
        DOES(segue_pipeline_add(PICK(pipelines), text, given.list, given.length, place));
        break;
    case 49: {
        const segue_statement *statement = PICK(statements);
        given = params();
        DOES(segue_pipeline_add_statement(PICK(pipelines), statement, given.list, given.length, place));
        break;
    }
    case 50: DOES(segue_pipeline_commit(PICK(pipelines), place)); break;
    case 51: {
        segue_result **slot = (segue_result **)ROOM(results, segue_result_free);
        segue_error **place = error_place();
        segue_pipeline *pipeline = PICK(pipelines);
        int32_t status = segue_pipeline_next(pipeline, slot, place);
        ended(status, *slot != NULL, false, place);
        break;
    }
    case 52: {
        segue_notification **slot = (segue_notification **)ROOM(notifications, segue_notification_free);
        segue_error **place = error_place();
        int32_t status = segue_session_notification(PICK(sessions), byte() % 3, slot, place);
        ended(status, *slot != NULL, false, place);
        look_at_text(segue_notification_channel(*slot));
        look_at_text(segue_notification_payload(*slot));
        (void)segue_notification_process_id(*slot);
        break;
    }
    case 53:
        GIVES(cancels, segue_cancel_free, segue_session_cancel_handle(PICK(sessions), out, place));
        break;
    case 54: DOES(segue_cancel_request(PICK(cancels), place)); break;
    case 55: {
        const segue_error *error = PICK(errors);
        if (error != NULL)
            look_at_error(error);
        (void)segue_error_status(NULL);
        (void)segue_error_message(NULL);
        (void)segue_status_name(constant());
        break;
    }
    case 56: {
        segue_submission *submission = PICK(submissions);
        if (submission == NULL || byte() % 16 == 0)
            GIVES(submissions, segue_submission_free, segue_submission_new(out, place));
        break;
    }
    case 57: {
        segue_submission *submission = PICK(submissions);
        text = sql();
        given = params();
        DOES(segue_submission_add_statement(submission, text, given.list, given.length, place));
        break;
    }
    case 58: {
        segue_submission *submission = PICK(submissions);
        switch (byte() % 4) {
        case 0: {
            uint64_t least = number(), most = number();
            DOES(segue_submission_expect_rows(submission, least, most, place));
            break;
        }
        case 1: DOES(segue_submission_set_lane(submission, TEXT("a", "b", ""), place)); break;
        case 2: DOES(segue_submission_set_key(submission, TEXT("k", "l", ""), place)); break;
        default: DOES(segue_submission_set_stop_on_failure(submission, byte() & 1, place)); break;
        }
        break;
    }
    case 59: {
        const segue_client *client = PICK(clients);
        const segue_submission *submission = PICK(submissions);
        bool waits = byte() & 1;
        GIVES(tickets, segue_ticket_free,
              (waits ? segue_submit : segue_try_submit)(client, submission, out, place));
        break;
    }
    case 60: {
        const segue_ticket *ticket = PICK(tickets);
        look_at_text(segue_ticket_id(ticket));
        look_at_text(segue_ticket_key(ticket));
        WRITES(bool, segue_ticket_poll(ticket, out, place));
        WRITES(bool, segue_ticket_wait(ticket, byte() % 3, out, place));
        (void)segue_ticket_found_done(ticket);
        (void)segue_ticket_rows_affected(ticket, number());
        (void)segue_ticket_statement_count(ticket);
        bool with = byte() % 4, with_end = byte() % 4;
        DOES(segue_ticket_on_done(ticket, with ? heard_of_ticket : NULL, &fresh, with_end ? not_needed : NULL, place));
        break;
    }
    case 61: {
        const segue_client *client = PICK(clients);
        switch (byte() % 8) {
        case 0:
            GIVES(letters, segue_dead_letters_free, segue_client_dead_letters(client, out, place));
            break;
        case 1:
            text = byte() & 1 ? segue_dead_letters_id(PICK(letters), 0) : TEXT("", "x");
            GIVES(tickets, segue_ticket_free, segue_client_retry_dead_letter(client, text, out, place));
            break;
        case 2:
            text = byte() & 1 ? segue_dead_letters_id(PICK(letters), 0) : TEXT("", "x");
            DOES(segue_client_purge_dead_letter(client, text, place));
            break;
        case 3: {
            segue_ticket **slot = (segue_ticket **)ROOM(tickets, segue_ticket_free);
            segue_error **place = error_place();
            text = byte() & 1 ? segue_ticket_id(PICK(tickets)) : TEXT("", "x");
            int32_t status = segue_client_ticket(client, text, slot, place);
            ended(status, *slot != NULL, false, place);
            break;
        }
        case 4: {
            segue_ticket **slot = (segue_ticket **)ROOM(tickets, segue_ticket_free);
            segue_error **place = error_place();
            int32_t status = segue_client_ticket_for_key(client, TEXT("k", "l", ""), slot, place);
            ended(status, *slot != NULL, false, place);
            break;
        }
        case 5: {
            bool hardened = byte() & 1;
            DOES(segue_client_setup(client, TEXT("app", "a\"b", ""), hardened, place));
            break;
        }
        case 6: DOES(segue_client_remove_ledger(client, place)); break;
        default:
            GIVES(submission_statuses, segue_submission_status_free,
                  segue_client_submissions(client, out, place));
            break;
        }
        break;
    }
    case 62: {
        look_at_letters(PICK(letters));
        const segue_submission_status *status = PICK(submission_statuses);
        (void)segue_submission_status_number(status, TEXT("waiting", "done", "dead", ""));
        look_at_text(segue_submission_status_problem(status));
        break;
    }
    default:
        /* One is freed, whatever hangs from it. */
        switch (byte() % 20) {
        case 0: (void)ROOM(clients, segue_client_free); break;
        case 1: (void)ROOM(sessions, segue_session_free); break;
        case 2: (void)ROOM(statements, segue_statement_free); break;
        case 3: (void)ROOM(results, segue_result_free); break;
        case 4: (void)ROOM(streams, segue_stream_free); break;
        case 5: (void)ROOM(copy_ins, segue_copy_in_free); break;
        case 6: (void)ROOM(copy_outs, segue_copy_out_free); break;
        case 7: (void)ROOM(pipelines, segue_pipeline_free); break;
        case 8: (void)ROOM(errors, segue_error_free); break;
        case 9: (void)ROOM(all_options, segue_options_free); break;
        case 10: (void)ROOM(subscriptions, segue_subscription_free); break;
        case 11: (void)ROOM(notifications, segue_notification_free); break;
        case 12: (void)ROOM(cancels, segue_cancel_free); break;
        case 13: (void)ROOM(statuses, segue_status_free); break;
        case 14: (void)ROOM(states, segue_session_state_free); break;
        case 15: (void)ROOM(all_statistics, segue_statistics_free); break;
        case 16: (void)ROOM(submissions, segue_submission_free); break;
        case 17: (void)ROOM(tickets, segue_ticket_free); break;
        case 18: (void)ROOM(letters, segue_dead_letters_free); break;
        default: (void)ROOM(submission_statuses, segue_submission_status_free); break;
        }
    }
}

/* Frees what is left of one kind. */
#define FREE_ALL(table, release)                                                                                       \
    for (size_t i = 0; i < SLOTS; i++) {                                                                               \
        release((table)[i]);                                                                                           \
        (table)[i] = NULL;                                                                                             \
    }

static void free_all(bool parents_first)
{
    if (parents_first) {
        FREE_ALL(clients, segue_client_free)
        FREE_ALL(sessions, segue_session_free)
    }
    FREE_ALL(streams, segue_stream_free)
    FREE_ALL(copy_ins, segue_copy_in_free)
    FREE_ALL(copy_outs, segue_copy_out_free)
    FREE_ALL(pipelines, segue_pipeline_free)
    FREE_ALL(statements, segue_statement_free)
    FREE_ALL(results, segue_result_free)
    FREE_ALL(errors, segue_error_free)
    FREE_ALL(all_options, segue_options_free)
    FREE_ALL(subscriptions, segue_subscription_free)
    FREE_ALL(notifications, segue_notification_free)
    FREE_ALL(cancels, segue_cancel_free)
    FREE_ALL(statuses, segue_status_free)
    FREE_ALL(states, segue_session_state_free)
    FREE_ALL(all_statistics, segue_statistics_free)
    FREE_ALL(submissions, segue_submission_free)
    FREE_ALL(tickets, segue_ticket_free)
    FREE_ALL(letters, segue_dead_letters_free)
    FREE_ALL(submission_statuses, segue_submission_status_free)
    FREE_ALL(sessions, segue_session_free)
    FREE_ALL(clients, segue_client_free)
}

/*
 * Makes the calls that `data` says. One client stays open behind all of them: clients of the same configuration
 * share one, and so an input need not wait for another to find its servers.
 */
void segue_fuzz_calls(const uint8_t *data, size_t length)
{
    static segue_client *kept;
    if (kept == NULL)
        (void)segue_client_open(segue_fuzz_conninfos[0], &kept, NULL);
    input = data;
    left = length;
    uint8_t mode = byte();
    bool parents_first = mode & 1;
    if ((mode & 2) == 0) {
        /* Where the machine is too busy for it to come about in time, the calls below meet NULL. */
        (void)segue_client_open(segue_fuzz_conninfos[0], &clients[0], NULL);
        (void)segue_session_open(clients[0], SEGUE_SESSION_DEFAULT, &sessions[0], NULL);
    }
    while (left > 0 && has_room())
        step();
    left = 0;
    free_all(parents_first);
    while (copies_len > 0)
        free(copies[--copies_len]);
}
