/**
 * @file segue.h
 * Segue: a PostgreSQL connection that outlives its server.
 *
 * GENERATED from the doc comments in src/ffi by `make header`; do not edit. See docs/abi.md.
 *
 * A whole program, without its declarations and error handling:
 *
 *     segue_client_open("postgresql://app@node1,node2/bank", &client, &error);
 *     segue_session_open(client, SEGUE_SESSION_DEFAULT, &session, &error);
 *     params[0] = segue_param_int4(7);
 *     segue_session_query(session, "SELECT name FROM account WHERE id = $1", params, 1,
 *                         SEGUE_FORMAT_TEXT, &result, &error);
 *     puts(segue_result_value(result, 0, 0, NULL));
 *     segue_result_free(result);
 *     segue_session_free(session);
 *     segue_client_free(client);
 *
 * bindings/examples has programs that compile as they stand.
 *
 * Status. A function that can fail returns an int32_t: SEGUE_OK, which is 0, or a code of the list
 * below. The codes stand in ranges, and new ones may appear in each of them:
 *     1 to 99     how the library was called; nothing was sent
 *     100 to 199  no server could be used: configuration, connection, authentication, TLS, protocol
 *     200 to 299  the server's own error, unchanged
 *     300 to 399  a server was lost, and not all could be hidden; segue_error_outcome() says what
 *                 became of the transaction
 *     900 to 999  a bug of Segue's
 *
 * Errors. The last parameter of such a function, error_out, may be NULL. It is written on failure
 * only; the error is then the caller's, who frees it with segue_error_free(). An error keeps neither
 * a session nor a client alive, and no error contains a password or the value of a parameter.
 *
 * Outputs are written on success only. A parameter that is called optional may be NULL.
 *
 * Ownership. What a function hands out through a parameter ..._out is the caller's, who frees it with
 * the function that bears its type's name: segue_session_free() for a segue_session. Freeing NULL
 * does nothing. What is made from a handle keeps that handle alive, so that they may be freed in any
 * order. Texts and bytes that a function returns belong to the handle that they were asked of.
 *
 * Texts are UTF-8 and end with a NUL; bytes come with their number. NULL for a text that must be there
 * is SEGUE_INVALID_ARGUMENT.
 *
 * Threads. A client, a segue_cancel and a segue_ticket may be used by any number of threads at once. A
 * session, and what is made from it (statement, stream, COPY, pipeline), is used by one thread at a time,
 * and by any one; a second caller at the same time gets SEGUE_BUSY. Results, errors, notifications,
 * statuses, statistics and dead letters do not change: any thread may read them. A handle is freed once,
 * when nobody else is using it.
 *
 * One at a time. While a stream, a COPY or a pipeline of a session is open, other calls on that session
 * give SEGUE_BUSY. It can be used again once that has come to its end or is freed.
 *
 * fork(). In the child, a handle that the parent has made answers SEGUE_FORKED; it may be freed there.
 *
 * The library never exits, prints, or installs a signal handler. Blocking calls have deadlines: see
 * connect_timeout, failover_timeout_ms and their like in docs/configuration.md.
 *
 * Versions. Within one SEGUE_ABI_VERSION_MAJOR, which is also the number in the library's SONAME, there
 * are additions only. A program that was compiled with this header works with every library of the same
 * major version that is not older; segue_abi_version() tells which one it has met.
 */

#ifndef SEGUE_H
#define SEGUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The version of the library that this header came with.
 */
#define SEGUE_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------
 * Handles: opaque, and only ever used by pointer.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Cancels what a session is executing. Any thread may use it at any time, also while the session is
 * in use, and after it was freed.
 */
typedef struct segue_cancel segue_cancel;

/**
 * The failover client: it knows the servers, keeps warm connections to a backup, and watches the
 * primary from one thread of its own. Any thread may use it. Clients opened with the same
 * configuration in one process share one.
 */
typedef struct segue_client segue_client;

/**
 * A COPY FROM STDIN under way. It uses its session until it is finished, aborted or freed.
 */
typedef struct segue_copy_in segue_copy_in;

/**
 * A COPY TO STDOUT under way. It uses its session until it has come to its end or is freed.
 */
typedef struct segue_copy_out segue_copy_out;

/**
 * The dead letters of a client at one moment, in the order in which they were handed over. Immutable: any
 * thread may read it.
 */
typedef struct segue_dead_letters segue_dead_letters;

/**
 * An error. Immutable: any thread may read it. Every text in it lives as long as it does.
 */
typedef struct segue_error segue_error;

/**
 * Something that an operator may want to know. It is good during the callback only, on its thread. No
 * event contains a secret or a parameter's value.
 */
typedef struct segue_event segue_event;

/**
 * A message of NOTIFY. Immutable: any thread may read it.
 */
typedef struct segue_notification segue_notification;

/**
 * The options of a client, one by one: an alternative to writing a connection string. One caller at a
 * time. It is not needed any more once a client was opened with it.
 */
typedef struct segue_options segue_options;

/**
 * Statements sent without waiting for each one's reply: add them, then ask for their results. Each is
 * a request of its own: outside a transaction each is committed by itself, and a failing one does not
 * stop the others. It uses its session until the last result was asked for, or it is freed.
 */
typedef struct segue_pipeline segue_pipeline;

/**
 * The statements of one transaction, one at a time: what the functions below say is said of the one that
 * segue_recovered_statements_next() has come to. One caller at a time.
 */
typedef struct segue_recovered_statements segue_recovered_statements;

/**
 * The transactions that an earlier process with the same journal had in flight, in the order in which they
 * began, and what became of each. Any thread may use it. As long as it is there, the journal keeps its
 * files, and no other client can have it: free it when all are dealt with. docs/recovery.md says what each
 * verdict means and why it holds.
 */
typedef struct segue_recovery segue_recovery;

/**
 * What a statement has returned. Immutable: any thread may read it; it outlives its session. Every
 * pointer into it is good until segue_result_free(). Rows and columns count from 0.
 */
typedef struct segue_result segue_result;

/**
 * A session: one logical connection. One caller at a time, from any thread; a second one at the same
 * time gets SEGUE_BUSY. It keeps its client alive, and what is made from it keeps it alive.
 */
typedef struct segue_session segue_session;

/**
 * Where a session was and what protected it at one moment. Immutable: any thread may read it.
 */
typedef struct segue_session_state segue_session_state;

/**
 * A prepared statement of a session, good on every server that the session moves to. It is used like
 * its session: one caller at a time. What it tells of itself any thread may ask.
 */
typedef struct segue_statement segue_statement;

/**
 * What all sessions of a client had done at one moment, those that were closed included. Immutable:
 * any thread may read it.
 */
typedef struct segue_statistics segue_statistics;

/**
 * What a client knew of its servers at one moment. Immutable: any thread may read it.
 */
typedef struct segue_status segue_status;

/**
 * The rows of one statement as they arrive. Memory stays bounded whatever their number. It uses its
 * session until it has come to its end or is freed.
 */
typedef struct segue_stream segue_stream;

/**
 * A transaction that is to be handed over whole: statements with their parameters, and how they are to
 * be treated. One caller at a time. docs/submit.md says what may be relied on.
 */
typedef struct segue_submission segue_submission;

/**
 * What became of a client's submissions until one moment. Immutable: any thread may read it.
 */
typedef struct segue_submission_status segue_submission_status;

/**
 * Keeps a callback in place until it is freed.
 */
typedef struct segue_subscription segue_subscription;

/**
 * A submission that was accepted. Any number of threads may use it at once. Freeing it changes nothing for
 * the submission.
 */
typedef struct segue_ticket segue_ticket;

/* ------------------------------------------------------------------------------------------------
 * What the library is, so that an application can tell whether it got what it was built for.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Raised when something is taken away or changed; the library's SONAME carries it.
 */
#define SEGUE_ABI_VERSION_MAJOR 1

/**
 * Raised when something is added.
 */
#define SEGUE_ABI_VERSION_MINOR 0

/**
 * The version of the ABI that the library has; the header's is SEGUE_ABI_VERSION_MAJOR and
 * SEGUE_ABI_VERSION_MINOR. A library serves all headers of its major version that are not newer.
 *
 * @return the major version in the upper 16 bits, the minor one in the lower
 * Threads: any.
 * @since ABI 1.0
 */
uint32_t segue_abi_version(void);

/**
 * The version of the library.
 *
 * @return a static text such as "0.1.0"
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_version(void);

/* ------------------------------------------------------------------------------------------------
 * Status codes and their names. A value is never given another meaning; ranges have gaps on
 * purpose.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Success.
 */
#define SEGUE_OK 0

/**
 * NULL where it is not allowed, text that is not UTF-8, an unknown constant, a row or column that does not exist.
 */
#define SEGUE_INVALID_ARGUMENT 1

/**
 * The call does not fit the state of the handle.
 */
#define SEGUE_USAGE 2

/**
 * The session is in use by another thread, or by a stream, COPY or pipeline that is still open.
 */
#define SEGUE_BUSY 3

/**
 * The handle was closed.
 */
#define SEGUE_CLOSED 4

/**
 * The handle was made by the process that forked this one.
 */
#define SEGUE_FORKED 5

/**
 * A value could not be converted to or from its PostgreSQL type.
 */
#define SEGUE_CONVERSION 6

/**
 * A typed getter met SQL's NULL.
 */
#define SEGUE_NULL_VALUE 7

/**
 * A limit of the configuration was reached, or a buffer is too small.
 */
#define SEGUE_LIMIT 8

/**
 * The configuration is not valid.
 */
#define SEGUE_CONFIG 100

/**
 * No connection could be opened.
 */
#define SEGUE_CONNECT 101

/**
 * The server refused the credentials, or asked for a method that is not allowed.
 */
#define SEGUE_AUTHENTICATION 102

/**
 * The TLS handshake failed, or the server's certificate is not the expected one.
 */
#define SEGUE_TLS 103

/**
 * The server sent what the protocol does not allow.
 */
#define SEGUE_PROTOCOL 104

/**
 * The server's own error, unchanged: see segue_error_sqlstate() and segue_error_field().
 */
#define SEGUE_SERVER 200

/**
 * COMMIT was sent, the server was lost, and no ledger can tell what became of it.
 */
#define SEGUE_OUTCOME_UNKNOWN 300

/**
 * Not committed: the replay gave other results than the application has seen.
 */
#define SEGUE_REPLAY_DIVERGED 301

/**
 * Committed, but what the statement returned was lost with the server.
 */
#define SEGUE_REPLY_LOST 302

/**
 * The server was lost while the session had no protection.
 */
#define SEGUE_PROTECTION_LOST 303

/**
 * No usable server appeared before failover_timeout_ms had passed.
 */
#define SEGUE_FAILOVER_TIMEOUT 304

/**
 * ledger=require, and the server's ledger is missing or may not be used.
 */
#define SEGUE_LEDGER 305

/**
 * COMMIT was asked for in a transaction that had failed earlier: it was rolled back.
 */
#define SEGUE_TRANSACTION_FAILED 306

/**
 * Not committed: the server has crashed each time that it ran the submission alone.
 */
#define SEGUE_SERVER_CRASH 307

/**
 * A bug of Segue's. The handle is closed, the process is unharmed.
 */
#define SEGUE_INTERNAL 900

/**
 * Nothing of the transaction is committed.
 */
#define SEGUE_TXN_NOT_COMMITTED 0

/**
 * The transaction is committed, although an error was reported.
 */
#define SEGUE_TXN_COMMITTED 1

/**
 * It cannot be told whether the transaction is committed.
 */
#define SEGUE_TXN_UNKNOWN 2

/**
 * The name of a status code.
 *
 * @param[in] status  A status that a function has returned.
 * @return its constant's name, such as "SEGUE_BUSY"; "unknown" for a value that is none
 * Threads: any. The text is static.
 * @since ABI 1.0
 */
const char *segue_status_name(int32_t status);

/* ------------------------------------------------------------------------------------------------
 * segue_error: what went wrong, what became of the transaction, and the server's own fields.
 * ------------------------------------------------------------------------------------------------ */

/**
 * The status of an error, the same that the function has returned.
 *
 * @param[in] error  An error; NULL gives SEGUE_OK.
 * @return the status
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_error_status(const segue_error *error);

/**
 * What happened, what became of the transaction, and what can be done. A server's error reads
 * "ERROR: ..." as the server has said it; its parts are in segue_error_field().
 *
 * @param[in] error  An error; NULL gives "".
 * @return a text that lives as long as the error; never NULL
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_error_message(const segue_error *error);

/**
 * What became of the transaction, or of the statement where there was none.
 *
 * @param[in] error  An error; NULL gives SEGUE_TXN_UNKNOWN.
 * @return SEGUE_TXN_NOT_COMMITTED, SEGUE_TXN_COMMITTED or SEGUE_TXN_UNKNOWN
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_error_outcome(const segue_error *error);

/**
 * The SQLSTATE: the server's own where it sent one, else the standard code nearest to the status.
 *
 * @param[in] error  An error; NULL gives "00000".
 * @return five characters that live as long as the error; never NULL
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_error_sqlstate(const segue_error *error);

/**
 * Whether running the whole transaction again is certain not to apply it twice, and may succeed.
 *
 * @param[in] error  An error; NULL gives false.
 * @return true if the transaction can be run again
 * Threads: any.
 * @since ABI 1.0
 */
bool segue_error_is_retryable(const segue_error *error);

/**
 * Whether the transaction may stand although an error was reported.
 *
 * @param[in] error  An error; NULL gives false.
 * @return true unless the outcome is SEGUE_TXN_NOT_COMMITTED
 * Threads: any.
 * @since ABI 1.0
 */
bool segue_error_maybe_committed(const segue_error *error);

/**
 * A field of the server's error, by the protocol's code, which libpq names PG_DIAG_*: 'S' severity,
 * 'C' SQLSTATE, 'M' message, 'D' detail, 'H' hint, 'P' position, 'p' internal position, 'q' internal
 * query, 'W' context, 's' schema, 't' table, 'c' column, 'd' data type, 'n' constraint, 'F' file,
 * 'L' line, 'R' routine.
 *
 * @param[in] error  An error, or NULL.
 * @param[in] field  The code of the field.
 * @return a text that lives as long as the error; NULL if the server has sent no such field
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_error_field(const segue_error *error,
                              char field);

/**
 * What caused the error, from the nearest cause to the farthest, joined by ": ".
 *
 * @param[in] error  An error, or NULL.
 * @return a text that lives as long as the error; NULL if no cause is known
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_error_cause(const segue_error *error);

/**
 * Frees an error.
 *
 * @param[in] error  An error; NULL does nothing.
 * Threads: any, once nobody else uses it.
 * @since ABI 1.0
 */
void segue_error_free(segue_error *error);

/* ------------------------------------------------------------------------------------------------
 * segue_options: a client's options, one by one.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Makes an empty set of options, which means what an empty connection string means.
 *
 * @param[out] options_out  The options; free with segue_options_free().
 * @param[out] error_out    Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  they are there
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_options_new(segue_options **options_out, segue_error **error_out);

/**
 * Sets an option by its name; docs/configuration.md lists all. The last value of a name holds.
 *
 * @param[in]  options    The options.
 * @param[in]  name       The option's name, such as host, password or failover_timeout_ms.
 * @param[in]  value      Its value; "" counts as not given. It is looked at when a client is opened.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK      it is set
 * @return SEGUE_CONFIG  there is no such option
 * Threads: one caller at a time.
 * @since ABI 1.0
 */
int32_t segue_options_set(segue_options *options,
                          const char *name,
                          const char *value,
                          segue_error **error_out);

/**
 * Sets a connection string, beside which options set by name win.
 *
 * @param[in]  options    The options.
 * @param[in]  conninfo   A URI or keywords and values, as for segue_client_open().
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  it is set; it is looked at when a client is opened
 * Threads: one caller at a time.
 * @since ABI 1.0
 */
int32_t segue_options_set_conninfo(segue_options *options,
                                   const char *conninfo,
                                   segue_error **error_out);

/**
 * Frees options; passwords in them are erased.
 *
 * @param[in] options  Options; NULL does nothing.
 * Threads: any, once nobody else uses them.
 * @since ABI 1.0
 */
void segue_options_free(segue_options *options);

/* ------------------------------------------------------------------------------------------------
 * segue_event and segue_subscription: what a client tells of itself, by callback.
 * ------------------------------------------------------------------------------------------------ */

/**
 * An event of a kind that is newer than the application.
 */
#define SEGUE_EVENT_OTHER 0

/**
 * A server has missed polls. Nobody moves because of that alone.
 */
#define SEGUE_EVENT_SERVER_SUSPECT 1

/**
 * A suspect or lost server answers again.
 */
#define SEGUE_EVENT_SERVER_RECOVERED 2

/**
 * A server cannot be reached.
 */
#define SEGUE_EVENT_SERVER_LOST 3

/**
 * A server takes no connection for now, and says that this will pass.
 */
#define SEGUE_EVENT_SERVER_COMING_BACK 4

/**
 * Sessions belong on this server from now on. Number: timeline.
 */
#define SEGUE_EVENT_PRIMARY_CHOSEN 5

/**
 * Sessions belong on this server from now on, because it was promoted. Number: timeline.
 */
#define SEGUE_EVENT_PROMOTED 6

/**
 * No server can be used for what the configuration asks.
 */
#define SEGUE_EVENT_NO_SERVER 7

/**
 * An old primary is there, on a timeline that the cluster has left: it is refused. Number: timeline.
 */
#define SEGUE_EVENT_STALE_SERVER 8

/**
 * A server belongs to another cluster: it is refused.
 */
#define SEGUE_EVENT_OTHER_CLUSTER 9

/**
 * Segue itself promotes a standby (on_primary_loss=promote).
 */
#define SEGUE_EVENT_PROMOTING 10

/**
 * Segue's own promotion did not work.
 */
#define SEGUE_EVENT_PROMOTION_FAILED 11

/**
 * So many links are warm on a server. Number: links.
 */
#define SEGUE_EVENT_WARM 12

/**
 * A session's in-flight transaction is being run again on another server. Number: statements.
 */
#define SEGUE_EVENT_REPLAY_STARTED 20

/**
 * All that the application has seen has matched.
 */
#define SEGUE_EVENT_REPLAY_FINISHED 21

/**
 * The replay gave something else at a statement, and was rolled back. Number: statement, from 1.
 */
#define SEGUE_EVENT_REPLAY_DIVERGED 22

/**
 * The session has a server again. Number: pause_us, how long it was without one.
 */
#define SEGUE_EVENT_SESSION_MOVED 23

/**
 * The session, or its open transaction, goes on without protection.
 */
#define SEGUE_EVENT_PROTECTION_LOST 24

/**
 * Commits that were acknowledged are not on the server that took over. Numbers: from, to.
 */
#define SEGUE_EVENT_COMMITS_LOST 25

/**
 * A commit that was acknowledged and then lost was run again, and stands. Number: number.
 */
#define SEGUE_EVENT_COMMIT_REAPPLIED 26

/**
 * A notice of the server's; see segue_event_field().
 */
#define SEGUE_EVENT_NOTICE 27

/**
 * A submission has become a dead letter: nothing of it is committed, and it is kept until it is retried
 * or purged. The message names its id; segue_event_field() gives SQLSTATE ('C') and message ('M').
 */
#define SEGUE_EVENT_SUBMISSION_DIED 28

/**
 * The client's journal holds transactions of an earlier process that nobody has asked about yet. Told to the
 * first callback, while it is put in place. Number: count.
 */
#define SEGUE_EVENT_TRANSACTIONS_FOUND 29

/**
 * Submissions that were told to be committed are not on the server that took over, and are not run again
 * by themselves: segue_event_submission_id() names them. Number: others, 1 if earlier ones may be lost
 * too, whose names are not remembered any more.
 */
#define SEGUE_EVENT_SUBMISSIONS_LOST 30

/**
 * A submission that was told to be committed and then lost was run again, and stands.
 */
#define SEGUE_EVENT_SUBMISSION_REAPPLIED 31

/**
 * What is called for an event: on the thread where it happens. It must not block, must not use this
 * client's sessions, and must not throw a C++ exception.
 */
typedef void (*segue_event_callback)(const segue_event *event, void *user_data);

/**
 * What is called once the user data is not needed any more.
 */
typedef void (*segue_destroy_callback)(void *user_data);

/**
 * Has a callback called for every event of a client, until the subscription is freed.
 *
 * @param[in]  client            The client.
 * @param[in]  callback          What is called, on the thread where an event happens, and on several
 *                               threads at once. It must not block or use this client's sessions.
 * @param[in]  user_data         What it is called with; may be NULL.
 * @param[in]  destroy           Called once with the user data when it is not needed any more, also if
 *                               this function fails; may be NULL.
 * @param[out] subscription_out  The subscription; free with segue_subscription_free().
 * @param[out] error_out         Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  the callback is in place
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_client_on_event(const segue_client *client,
                              segue_event_callback callback,
                              void *user_data,
                              segue_destroy_callback destroy,
                              segue_subscription **subscription_out,
                              segue_error **error_out);

/**
 * Removes a callback. When this returns, the callback is not running and will not be called any more,
 * unless this was called from inside a callback: then only later ones are prevented.
 *
 * @param[in] subscription  A subscription; NULL does nothing.
 * Threads: any. Waits for callbacks that are running on other threads.
 * @since ABI 1.0
 */
void segue_subscription_free(segue_subscription *subscription);

/**
 * The kind of an event.
 *
 * @param[in] event  An event; NULL gives SEGUE_EVENT_OTHER.
 * @return SEGUE_EVENT_...
 * Threads: the callback's.
 * @since ABI 1.0
 */
int32_t segue_event_kind(const segue_event *event);

/**
 * The name of an event's kind, such as "session_moved".
 *
 * @param[in] event  An event; NULL gives "other".
 * @return a static text; never NULL
 * Threads: the callback's.
 * @since ABI 1.0
 */
const char *segue_event_name(const segue_event *event);

/**
 * What has happened, on one line for people.
 *
 * @param[in] event  An event; NULL gives "".
 * @return a text that is good during the callback; never NULL
 * Threads: the callback's.
 * @since ABI 1.0
 */
const char *segue_event_message(const segue_event *event);

/**
 * The session that an event concerns.
 *
 * @param[in] event  An event; NULL gives 0.
 * @return the number that segue_session_state_id() gives; 0 if it concerns none
 * Threads: the callback's.
 * @since ABI 1.0
 */
uint64_t segue_event_session(const segue_event *event);

/**
 * The server that an event concerns.
 *
 * @param[in] event  An event; NULL gives -1.
 * @return its position among the configuration's hosts, from 0; -1 if it concerns none
 * Threads: the callback's.
 * @since ABI 1.0
 */
int32_t segue_event_server(const segue_event *event);

/**
 * The address of the server that an event concerns.
 *
 * @param[in] event  An event, or NULL.
 * @return a text that is good during the callback; NULL if the event has none
 * Threads: the callback's.
 * @since ABI 1.0
 */
const char *segue_event_address(const segue_event *event);

/**
 * A number that an event carries: "timeline", "links", "statements", "statement", "pause_us", "from",
 * "to", "number", "count", "others"; the kinds say which.
 *
 * @param[in] event  An event, or NULL.
 * @param[in] name   The number's name, or NULL.
 * @return the number; -1 if the event has none of that name
 * Threads: the callback's.
 * @since ABI 1.0
 */
int64_t segue_event_number(const segue_event *event,
                           const char *name);

/**
 * A field of a notice or a dead letter; the codes are those of segue_error_field().
 *
 * @param[in] event  An event, or NULL.
 * @param[in] field  The code of the field.
 * @return a text that is good during the callback; NULL if there is no such field
 * Threads: the callback's.
 * @since ABI 1.0
 */
const char *segue_event_field(const segue_event *event, char field);

/**
 * How many submissions an event names.
 *
 * @param[in] event  An event; NULL gives 0.
 * @return their number: those that are lost, or the one that has died or was run again; else 0
 * Threads: the callback's.
 * @since ABI 1.0
 */
size_t segue_event_submission_count(const segue_event *event);

/**
 * The id of a submission that an event names, as segue_ticket_id() gives it.
 *
 * @param[in] event  An event, or NULL.
 * @param[in] index  Which of them, from 0.
 * @return a text that is good during the callback; NULL if the event names none there
 * Threads: the callback's.
 * @since ABI 1.0
 */
const char *segue_event_submission_id(const segue_event *event, size_t index);

/**
 * The key of a submission that an event names: the application's own name for it.
 *
 * @param[in] event  An event, or NULL.
 * @param[in] index  Which of them, from 0.
 * @return a text that is good during the callback; NULL if it has no key, or the event names none there
 * Threads: the callback's.
 * @since ABI 1.0
 */
const char *segue_event_submission_key(const segue_event *event,
                                       size_t index);

/* ------------------------------------------------------------------------------------------------
 * segue_client: what an application opens once per cluster.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Opens a client. Returns at once: the first session waits for a server.
 *
 * @param[in]  conninfo    A URI (postgresql://user@a,b:5433/database?option=value) or keywords and
 *                         values (host=a,b user=...), as libpq takes them. docs/configuration.md
 *                         lists all options; environment, password and service files count as well.
 * @param[out] client_out  The client; free with segue_client_free().
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK      the client is open
 * @return SEGUE_CONFIG  the configuration is not valid, or the journal that it names cannot be opened, such
 *                       as when another client has it
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_client_open(const char *conninfo,
                          segue_client **client_out,
                          segue_error **error_out);

/**
 * Opens a client with options set one by one.
 *
 * @param[in]  options     The options, which stay the caller's.
 * @param[out] client_out  The client; free with segue_client_free().
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK      the client is open
 * @return SEGUE_CONFIG  the configuration is not valid, or the journal that it names cannot be opened, such
 *                       as when another client has it
 * Threads: one caller at a time per options.
 * @since ABI 1.0
 */
int32_t segue_client_open_options(const segue_options *options,
                                  segue_client **client_out,
                                  segue_error **error_out);

/**
 * Installs or upgrades the ledger on the primary. Usually the first session does that by itself,
 * where its role may.
 *
 * @param[in]  client     The client, whose role may create schemas.
 * @param[in]  role       The role that may use the ledger; NULL for everybody.
 * @param[in]  hardened   Whether applications may use it through functions alone: slower, and proof
 *                        against a hostile role in the same database.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute()
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_client_setup(const segue_client *client,
                           const char *role,
                           bool hardened,
                           segue_error **error_out);

/**
 * Removes the ledger. Sessions in use lose their protection.
 *
 * @param[in]  client     The client.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute()
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_client_remove_ledger(const segue_client *client, segue_error **error_out);

/**
 * Frees a client. Sessions that were opened with it go on until they are freed as well.
 *
 * @param[in] client  A client; NULL does nothing.
 * Threads: any, once nobody else uses this handle.
 * @since ABI 1.0
 */
void segue_client_free(segue_client *client);

/* ------------------------------------------------------------------------------------------------
 * segue_status: a snapshot of what a client knows of its servers.
 * ------------------------------------------------------------------------------------------------ */

/**
 * It has never answered.
 */
#define SEGUE_ROLE_UNKNOWN 0

/**
 * It can be written to.
 */
#define SEGUE_ROLE_PRIMARY 1

/**
 * It is not in recovery, but does not allow writes.
 */
#define SEGUE_ROLE_READ_ONLY_PRIMARY 2

/**
 * It follows a primary.
 */
#define SEGUE_ROLE_STANDBY 3

/**
 * It was not reached yet.
 */
#define SEGUE_HEALTH_UNKNOWN 0

/**
 * It answers.
 */
#define SEGUE_HEALTH_HEALTHY 1

/**
 * It has missed polls.
 */
#define SEGUE_HEALTH_SUSPECT 2

/**
 * It cannot be reached.
 */
#define SEGUE_HEALTH_LOST 3

/**
 * It takes no connection for now, and says that this will pass.
 */
#define SEGUE_HEALTH_COMING_BACK 4

/**
 * Takes a snapshot of what a client knows of its servers.
 *
 * @param[in]  client      The client.
 * @param[out] status_out  The snapshot; free with segue_status_free().
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  it is there
 * Threads: any. Does not block.
 * @since ABI 1.0
 */
int32_t segue_client_status(const segue_client *client,
                            segue_status **status_out,
                            segue_error **error_out);

/**
 * The number of servers.
 *
 * @param[in] status  A snapshot; NULL gives 0.
 * @return the number of the configuration's hosts
 * Threads: any.
 * @since ABI 1.0
 */
size_t segue_status_server_count(const segue_status *status);

/**
 * The address of a server.
 *
 * @param[in] status  A snapshot, or NULL.
 * @param[in] server  The server's position among the configuration's hosts, from 0.
 * @return a text that lives as long as the snapshot; NULL if there is no such server
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_status_server_address(const segue_status *status, size_t server);

/**
 * What a server was when it last said so.
 *
 * @param[in] status  A snapshot, or NULL.
 * @param[in] server  The server's position, from 0.
 * @return SEGUE_ROLE_...
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_status_server_role(const segue_status *status, size_t server);

/**
 * How a server is.
 *
 * @param[in] status  A snapshot, or NULL.
 * @param[in] server  The server's position, from 0.
 * @return SEGUE_HEALTH_...
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_status_server_health(const segue_status *status, size_t server);

/**
 * What is known of a server, on one line for people.
 *
 * @param[in] status  A snapshot, or NULL.
 * @param[in] server  The server's position, from 0.
 * @return a text that lives as long as the snapshot; NULL if there is no such server
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_status_server_summary(const segue_status *status, size_t server);

/**
 * The last error of a server.
 *
 * @param[in] status  A snapshot, or NULL.
 * @param[in] server  The server's position, from 0.
 * @return a text that lives as long as the snapshot; NULL if it has none, or there is no such server
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_status_server_error(const segue_status *status,
                                      size_t server);

/**
 * A number about a server: "timeline"; "lsn" (written by a primary, replayed by a standby);
 * "lag_bytes" (how far a standby lies behind the chosen primary); "warm_links", "links_dialled",
 * "warm_links_used".
 *
 * @param[in] status  A snapshot, or NULL.
 * @param[in] server  The server's position, from 0.
 * @param[in] name    The number's name, or NULL.
 * @return the number; -1 if it is not known, or there is none of that name
 * Threads: any.
 * @since ABI 1.0
 */
int64_t segue_status_server_number(const segue_status *status, size_t server, const char *name);

/**
 * The server that sessions belong on.
 *
 * @param[in] status  A snapshot; NULL gives -1.
 * @return its position, from 0; -1 if there is none just now
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_status_chosen(const segue_status *status);

/**
 * The standby that has the warm links.
 *
 * @param[in] status  A snapshot; NULL gives -1.
 * @return its position, from 0; -1 if there is none just now
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_status_standby(const segue_status *status);

/**
 * A number about the client: "system_identifier" (its 64 bits), "timeline_floor" (nothing older is
 * written to again), "sessions" (that are open), "waiting" (of them, for a server); "journal_bytes" (of the
 * journal's files; -1 if it is in memory).
 *
 * @param[in] status  A snapshot, or NULL.
 * @param[in] name    The number's name, or NULL.
 * @return the number; -1 if it is not known, or there is none of that name
 * Threads: any.
 * @since ABI 1.0
 */
int64_t segue_status_number(const segue_status *status,
                            const char *name);

/**
 * Why the ledger could not be installed.
 *
 * @param[in] status  A snapshot, or NULL.
 * @return a text that lives as long as the snapshot; NULL if there is no problem
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_status_ledger_problem(const segue_status *status);

/**
 * The directory of the journal, with journal=file.
 *
 * @param[in] status  A snapshot, or NULL.
 * @return a path that lives as long as the snapshot; NULL if the journal is in memory
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_status_journal_dir(const segue_status *status);

/**
 * Frees a snapshot.
 *
 * @param[in] status  A snapshot; NULL does nothing.
 * Threads: any, once nobody else uses it.
 * @since ABI 1.0
 */
void segue_status_free(segue_status *status);

/* ------------------------------------------------------------------------------------------------
 * segue_statistics: what a client has been through, in numbers that have names.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Takes a snapshot of a client's counters, which are never reset. New ones may be added behind the
 * last:
 * "sessions_opened";
 * "statements" (without BEGIN, COMMIT, ROLLBACK and what a replay runs again);
 * "transactions_committed", "transactions_rolled_back" (those begun by the application);
 * "links_lost" (connections that broke under a session);
 * "replays_started", "replays_finished", "replays_diverged";
 * "commits_found" (whose acknowledgement was lost, and that the ledger has told to stand);
 * "outcomes_unknown"; "commits_lost", "commits_reapplied" (acknowledged, and not on the server that
 * took over); "protection_lost"; "notices";
 * "pause_longest_us", "pause_total_us" (how long sessions were without a server before they had moved).
 *
 * @param[in]  client          The client.
 * @param[out] statistics_out  The snapshot; free with segue_statistics_free().
 * @param[out] error_out       Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  it is there
 * Threads: any. Does not block.
 * @since ABI 1.0
 */
int32_t segue_client_statistics(const segue_client *client,
                                segue_statistics **statistics_out,
                                segue_error **error_out);

/**
 * The number of counters.
 *
 * @param[in] statistics  A snapshot; NULL gives 0.
 * @return how many there are
 * Threads: any.
 * @since ABI 1.0
 */
size_t segue_statistics_count(const segue_statistics *statistics);

/**
 * The name of a counter.
 *
 * @param[in] statistics  A snapshot, or NULL.
 * @param[in] index       The counter's position, from 0.
 * @return a static text; NULL if there is no such counter
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_statistics_name(const segue_statistics *statistics, size_t index);

/**
 * The value of a counter.
 *
 * @param[in] statistics  A snapshot, or NULL.
 * @param[in] index       The counter's position, from 0.
 * @return its value; 0 if there is no such counter
 * Threads: any.
 * @since ABI 1.0
 */
uint64_t segue_statistics_value(const segue_statistics *statistics, size_t index);

/**
 * The value of the counter with a name.
 *
 * @param[in]  statistics  The snapshot.
 * @param[in]  name        The counter's name.
 * @param[out] value_out   Its value.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK                it is there
 * @return SEGUE_INVALID_ARGUMENT  there is no such counter
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_statistics_find(const segue_statistics *statistics,
                              const char *name,
                              uint64_t *value_out,
                              segue_error **error_out);

/**
 * Frees a snapshot.
 *
 * @param[in] statistics  A snapshot; NULL does nothing.
 * Threads: any, once nobody else uses it.
 * @since ABI 1.0
 */
void segue_statistics_free(segue_statistics *statistics);

/* ------------------------------------------------------------------------------------------------
 * segue_param: the value of one parameter, a plain struct that the application fills in.
 * ------------------------------------------------------------------------------------------------ */

/**
 * SQL's NULL. A zeroed parameter is one.
 */
#define SEGUE_PARAM_NULL 0

/**
 * A boolean: integer is 0 or not.
 */
#define SEGUE_PARAM_BOOL 1

/**
 * An integer, of the width that type_oid has: int2, int4, int8 (also if it is 0), oid.
 */
#define SEGUE_PARAM_INT 2

/**
 * A floating-point number: float4, or float8 (also if type_oid is 0).
 */
#define SEGUE_PARAM_FLOAT 3

/**
 * data and length in text format; the server infers the type if type_oid is 0.
 */
#define SEGUE_PARAM_TEXT 4

/**
 * data and length in the binary format of type_oid.
 */
#define SEGUE_PARAM_BINARY 5

/**
 * Values as text, as PostgreSQL writes them.
 */
#define SEGUE_FORMAT_TEXT 0

/**
 * Values in PostgreSQL's binary formats.
 */
#define SEGUE_FORMAT_BINARY 1

/**
 * The value of a parameter. Zeroed it is SQL's NULL. The segue_param_... functions fill one in; what
 * data points to must stay there during the call that uses it, and no longer.
 */
typedef struct {
    /**
     * SEGUE_PARAM_...: which of the fields below count.
     */
    int32_t kind;
    /**
     * The OID of its PostgreSQL type; 0 leaves it open.
     */
    uint32_t type_oid;
    /**
     * The value of SEGUE_PARAM_BOOL and SEGUE_PARAM_INT.
     */
    int64_t integer;
    /**
     * The value of SEGUE_PARAM_FLOAT.
     */
    double real;
    /**
     * The bytes of SEGUE_PARAM_TEXT and SEGUE_PARAM_BINARY.
     */
    const void *data;
    /**
     * Their number, without a NUL.
     */
    size_t length;
} segue_param;

/**
 * SQL's NULL as a parameter, without a type.
 *
 * @return the parameter
 * Threads: any.
 * @since ABI 1.0
 */
segue_param segue_param_null(void);

/**
 * A boolean as a parameter.
 *
 * @param[in] value  The value.
 * @return the parameter, of type bool
 * Threads: any.
 * @since ABI 1.0
 */
segue_param segue_param_bool(bool value);

/**
 * A 16-bit integer as a parameter.
 *
 * @param[in] value  The value.
 * @return the parameter, of type int2
 * Threads: any.
 * @since ABI 1.0
 */
segue_param segue_param_int2(int16_t value);

/**
 * A 32-bit integer as a parameter.
 *
 * @param[in] value  The value.
 * @return the parameter, of type int4
 * Threads: any.
 * @since ABI 1.0
 */
segue_param segue_param_int4(int32_t value);

/**
 * A 64-bit integer as a parameter.
 *
 * @param[in] value  The value.
 * @return the parameter, of type int8
 * Threads: any.
 * @since ABI 1.0
 */
segue_param segue_param_int8(int64_t value);

/**
 * A single-precision number as a parameter.
 *
 * @param[in] value  The value.
 * @return the parameter, of type float4
 * Threads: any.
 * @since ABI 1.0
 */
segue_param segue_param_float4(float value);

/**
 * A double-precision number as a parameter.
 *
 * @param[in] value  The value.
 * @return the parameter, of type float8
 * Threads: any.
 * @since ABI 1.0
 */
segue_param segue_param_float8(double value);

/**
 * A text as a parameter. Its type is left open: the server reads it as it would read a literal in
 * quotes, be it a text, a date, a number or JSON.
 *
 * @param[in] text  A string in UTF-8, which must stay there until the call that uses the parameter
 *                  has returned; NULL makes SQL's NULL.
 * @return the parameter
 * Threads: any.
 * @since ABI 1.0
 */
segue_param segue_param_text(const char *text);

/**
 * A text of known length as a parameter; as segue_param_text().
 *
 * @param[in] text    Bytes in UTF-8, none of them NUL; NULL makes SQL's NULL.
 * @param[in] length  Their number.
 * @return the parameter
 * Threads: any.
 * @since ABI 1.0
 */
segue_param segue_param_text_sized(const char *text, size_t length);

/**
 * Bytes as a parameter.
 *
 * @param[in] data    Any bytes, which must stay there until the call that uses the parameter has
 *                    returned; NULL makes SQL's NULL.
 * @param[in] length  Their number.
 * @return the parameter, of type bytea
 * Threads: any.
 * @since ABI 1.0
 */
segue_param segue_param_bytea(const void *data, size_t length);

/**
 * A value that is encoded already as a parameter.
 *
 * @param[in] type_oid  The OID of its type; 0 lets the server infer it.
 * @param[in] format    SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY.
 * @param[in] data      The encoded value, which must stay there until the call that uses the
 *                      parameter has returned; NULL makes SQL's NULL of that type.
 * @param[in] length    The number of its bytes.
 * @return the parameter; with an unknown format one that every statement refuses
 * Threads: any.
 * @since ABI 1.0
 */
segue_param segue_param_value(uint32_t type_oid, int32_t format, const void *data, size_t length);

/* ------------------------------------------------------------------------------------------------
 * segue_session: one logical connection that outlives the servers it uses.
 * ------------------------------------------------------------------------------------------------ */

/**
 * The session belongs where target_session_attrs says.
 */
#define SEGUE_SESSION_DEFAULT 0

/**
 * The session belongs on the primary.
 */
#define SEGUE_SESSION_READ_WRITE 1

/**
 * The session need not be able to write: it uses the primary while there is one, and a standby
 * otherwise. Nothing keeps it from writing on a primary; its commits are not sealed. To have sessions on
 * standbys, write target_session_attrs=read-only.
 */
#define SEGUE_SESSION_READ_ONLY 2

/**
 * The isolation level that the server's settings say.
 */
#define SEGUE_ISOLATION_DEFAULT 0

/**
 * READ COMMITTED.
 */
#define SEGUE_ISOLATION_READ_COMMITTED 1

/**
 * REPEATABLE READ.
 */
#define SEGUE_ISOLATION_REPEATABLE_READ 2

/**
 * SERIALIZABLE.
 */
#define SEGUE_ISOLATION_SERIALIZABLE 3

/**
 * A flag of segue_session_begin(): READ ONLY.
 */
#define SEGUE_BEGIN_READ_ONLY 1

/**
 * A flag of segue_session_begin(): DEFERRABLE, which has a meaning with SERIALIZABLE and READ ONLY.
 */
#define SEGUE_BEGIN_DEFERRABLE 2

/**
 * Opens a session; waits for a server for at most failover_timeout_ms.
 *
 * @param[in]  client       The client.
 * @param[in]  access       SEGUE_SESSION_DEFAULT, SEGUE_SESSION_READ_WRITE or SEGUE_SESSION_READ_ONLY.
 * @param[out] session_out  The session; free with segue_session_free().
 * @param[out] error_out    Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK                the session is open
 * @return SEGUE_FAILOVER_TIMEOUT  no usable server appeared in time
 * @return SEGUE_AUTHENTICATION, SEGUE_TLS, SEGUE_CONNECT  no server could be used, and why
 * @return SEGUE_LEDGER            ledger=require, and there is none
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_session_open(const segue_client *client,
                           int32_t access,
                           segue_session **session_out,
                           segue_error **error_out);

/**
 * Executes a statement. Outside a transaction it is committed by itself, exactly once.
 *
 * @param[in]  session            The session.
 * @param[in]  sql                One statement, with $1, $2, ... for parameters; or several, separated
 *                                by semicolons, without parameters, as one implicit transaction.
 * @param[in]  params             The parameters; NULL if there are none.
 * @param[in]  params_len         Their number.
 * @param[out] rows_affected_out  Optional: the number of rows affected or returned.
 * @param[out] error_out          Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK               it is executed
 * @return SEGUE_SERVER           the server's own error
 * @return SEGUE_OUTCOME_UNKNOWN, SEGUE_REPLAY_DIVERGED, SEGUE_REPLY_LOST, SEGUE_PROTECTION_LOST,
 *         SEGUE_FAILOVER_TIMEOUT  the server was lost: segue_error_outcome() says what became of it
 * Threads: one caller at a time per session. Blocks for the statement, and for at most
 * failover_timeout_ms without a server.
 * @since ABI 1.0
 */
int32_t segue_session_execute(segue_session *session,
                              const char *sql,
                              const segue_param *params,
                              size_t params_len,
                              uint64_t *rows_affected_out,
                              segue_error **error_out);

/**
 * Executes a statement and returns all that it returns.
 *
 * @param[in]  session     The session.
 * @param[in]  sql         As for segue_session_execute(); of several statements the last one's rows.
 * @param[in]  params      The parameters; NULL if there are none.
 * @param[in]  params_len  Their number.
 * @param[in]  format      SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY. Several statements give text.
 * @param[out] result_out  The result; free with segue_result_free().
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute()
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_query(segue_session *session,
                            const char *sql,
                            const segue_param *params,
                            size_t params_len,
                            int32_t format,
                            segue_result **result_out,
                            segue_error **error_out);

/**
 * Executes one or more statements, separated by semicolons, as one implicit transaction (unless they
 * control it themselves). Values come as text.
 *
 * @param[in]  session      The session.
 * @param[in]  sql          The statements.
 * @param[out] results_out  The first one's result; segue_result_next() gives the next one's. Free the
 *                          first with segue_result_free().
 * @param[out] error_out    Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute()
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_batch(segue_session *session,
                            const char *sql,
                            segue_result **results_out,
                            segue_error **error_out);

/**
 * Begins a transaction. BEGIN travels with the first statement.
 *
 * @param[in]  session    The session.
 * @param[in]  isolation  SEGUE_ISOLATION_...
 * @param[in]  flags      SEGUE_BEGIN_READ_ONLY and SEGUE_BEGIN_DEFERRABLE, or'ed; or 0.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK     a transaction is open
 * @return SEGUE_USAGE  there is one already; it goes on
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_begin(segue_session *session,
                            int32_t isolation,
                            uint32_t flags,
                            segue_error **error_out);

/**
 * Commits the open transaction, failing over and replaying it if its server is lost.
 *
 * @param[in]  session    The session, with an open transaction.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK                  committed exactly once on the server now in use
 * @return SEGUE_TRANSACTION_FAILED  it had failed earlier and was rolled back
 * @return SEGUE_SERVER              the server's own error; it is rolled back
 * @return SEGUE_OUTCOME_UNKNOWN     see segue_error_outcome()
 * @return SEGUE_REPLAY_DIVERGED     not committed: the replay gave other results than were seen
 * @return SEGUE_USAGE               no transaction is open
 * Threads: one caller at a time per session. Blocks for at most failover_timeout_ms.
 * @since ABI 1.0
 */
int32_t segue_session_commit(segue_session *session, segue_error **error_out);

/**
 * Rolls the open transaction back.
 *
 * @param[in]  session    The session, with an open transaction.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK     nothing of it is committed
 * @return SEGUE_USAGE  no transaction is open
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_rollback(segue_session *session, segue_error **error_out);

/**
 * Makes a savepoint in the open transaction.
 *
 * @param[in]  session    The session, with an open transaction.
 * @param[in]  name       The savepoint's name; need not be quoted.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute()
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_savepoint(segue_session *session, const char *name, segue_error **error_out);

/**
 * Undoes all since a savepoint, which stays. A transaction that has failed since goes on.
 *
 * @param[in]  session    The session, with an open transaction.
 * @param[in]  name       The savepoint's name; need not be quoted.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute()
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_rollback_to(segue_session *session,
                                  const char *name,
                                  segue_error **error_out);

/**
 * Lets go of a savepoint; what was done since stays part of the transaction.
 *
 * @param[in]  session    The session, with an open transaction.
 * @param[in]  name       The savepoint's name; need not be quoted.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute()
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_release(segue_session *session, const char *name, segue_error **error_out);

/**
 * A setting that the server reports, such as server_version or TimeZone, copied.
 *
 * @param[in]  session     The session.
 * @param[in]  name        The setting's name.
 * @param[out] buffer      Where the value and a NUL go; NULL asks for the length alone.
 * @param[in]  capacity    The number of bytes that the buffer has room for.
 * @param[out] length_out  The length of the value without the NUL.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK     it is there
 * @return SEGUE_USAGE  the server does not report such a setting: ask with SHOW
 * @return SEGUE_LIMIT  the buffer is too small; nothing was written
 * Threads: one caller at a time per session. Does not block.
 * @since ABI 1.0
 */
int32_t segue_session_parameter(const segue_session *session,
                                const char *name,
                                char *buffer,
                                size_t capacity,
                                size_t *length_out,
                                segue_error **error_out);

/**
 * Ends a session; an open transaction is rolled back. What was made from it stays valid, and keeps
 * the connection until it is freed as well.
 *
 * @param[in] session  A session; NULL does nothing.
 * Threads: any, once nobody else uses the session.
 * @since ABI 1.0
 */
void segue_session_free(segue_session *session);

/* ------------------------------------------------------------------------------------------------
 * segue_session_state: a snapshot of where a session is and what protects it.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Takes a snapshot of where a session is and what protects it.
 *
 * @param[in]  session    The session.
 * @param[out] state_out  The snapshot; free with segue_session_state_free().
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  it is there
 * Threads: one caller at a time per session. Does not block.
 * @since ABI 1.0
 */
int32_t segue_session_status(const segue_session *session,
                             segue_session_state **state_out,
                             segue_error **error_out);

/**
 * The number of a session, which events carry.
 *
 * @param[in] state  A snapshot; NULL gives 0.
 * @return the session's number, from 1
 * Threads: any.
 * @since ABI 1.0
 */
uint64_t segue_session_state_id(const segue_session_state *state);

/**
 * The server that a session is on, or was on last.
 *
 * @param[in] state  A snapshot; NULL gives -1.
 * @return its position among the configuration's hosts, from 0
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_session_state_server(const segue_session_state *state);

/**
 * The address of that server.
 *
 * @param[in] state  A snapshot, or NULL.
 * @return a text that lives as long as the snapshot; NULL if it is not known
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_session_state_address(const segue_session_state *state);

/**
 * A number about a session: "timeline" (it never goes to a server of an older one), "backend_pid".
 *
 * @param[in] state  A snapshot, or NULL.
 * @param[in] name   The number's name, or NULL.
 * @return the number; -1 if it is not known, or there is none of that name
 * Threads: any.
 * @since ABI 1.0
 */
int64_t segue_session_state_number(const segue_session_state *state, const char *name);

/**
 * Whether a transaction is open.
 *
 * @param[in] state  A snapshot; NULL gives false.
 * @return true inside a transaction, also one that has failed
 * Threads: any.
 * @since ABI 1.0
 */
bool segue_session_state_in_transaction(const segue_session_state *state);

/**
 * Whether the open transaction has failed and can only be rolled back.
 *
 * @param[in] state  A snapshot; NULL gives false.
 * @return true if it has failed
 * Threads: any.
 * @since ABI 1.0
 */
bool segue_session_state_transaction_failed(const segue_session_state *state);

/**
 * Whether the session's commits are sealed in the ledger.
 *
 * @param[in] state  A snapshot; NULL gives false.
 * @return true if they are
 * Threads: any.
 * @since ABI 1.0
 */
bool segue_session_state_ledger(const segue_session_state *state);

/**
 * The version of TLS in use, such as "TLSv1.3".
 *
 * @param[in] state  A snapshot, or NULL.
 * @return a text that lives as long as the snapshot; NULL if the connection is not encrypted
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_session_state_tls_version(const segue_session_state *state);

/**
 * Why the open transaction, or the session's state, would not survive its server.
 *
 * @param[in] state  A snapshot, or NULL.
 * @return a text that lives as long as the snapshot; NULL if it is protected
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_session_state_protection_lost(const segue_session_state *state);

/**
 * Frees a snapshot.
 *
 * @param[in] state  A snapshot; NULL does nothing.
 * Threads: any, once nobody else uses it.
 * @since ABI 1.0
 */
void segue_session_state_free(segue_session_state *state);

/* ------------------------------------------------------------------------------------------------
 * segue_result: what a statement has returned, immutable, with typed and text access.
 * ------------------------------------------------------------------------------------------------ */

/**
 * The number of rows.
 *
 * @param[in] result  A result; NULL gives 0.
 * @return the number of rows
 * Threads: any.
 * @since ABI 1.0
 */
size_t segue_result_row_count(const segue_result *result);

/**
 * The number of columns; 0 for a statement that returns no rows.
 *
 * @param[in] result  A result; NULL gives 0.
 * @return the number of columns
 * Threads: any.
 * @since ABI 1.0
 */
size_t segue_result_column_count(const segue_result *result);

/**
 * The name of a column.
 *
 * @param[in] result  A result, or NULL.
 * @param[in] column  The column's position.
 * @return its name; NULL if there is no such column
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_result_column_name(const segue_result *result, size_t column);

/**
 * The position of the first column with a name.
 *
 * @param[in] result  A result, or NULL.
 * @param[in] name    The name, exactly as the server has it (SELECT a AS "B" makes "B"); or NULL.
 * @return its position; -1 if there is no such column
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_result_column(const segue_result *result, const char *name);

/**
 * The OID of a column's type.
 *
 * @param[in] result  A result, or NULL.
 * @param[in] column  The column's position.
 * @return the OID; 0 if there is no such column
 * Threads: any.
 * @since ABI 1.0
 */
uint32_t segue_result_column_type(const segue_result *result, size_t column);

/**
 * The modifier of a column's type, such as the length of a varchar plus 4.
 *
 * @param[in] result  A result, or NULL.
 * @param[in] column  The column's position.
 * @return the modifier; -1 if it has none, or there is no such column
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_result_column_modifier(const segue_result *result, size_t column);

/**
 * The OID of the table that a column comes from.
 *
 * @param[in] result  A result, or NULL.
 * @param[in] column  The column's position.
 * @return the OID; 0 if it is no plain column of a table, or there is no such column
 * Threads: any.
 * @since ABI 1.0
 */
uint32_t segue_result_column_table(const segue_result *result, size_t column);

/**
 * The format of all its values.
 *
 * @param[in] result  A result; NULL gives SEGUE_FORMAT_TEXT.
 * @return SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_result_format(const segue_result *result);

/**
 * The server's command tag, such as "INSERT 0 5".
 *
 * @param[in] result  A result; NULL gives "".
 * @return the tag; "" for an empty statement and for the rows of a stream; never NULL
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_result_tag(const segue_result *result);

/**
 * The number of rows that the statement has affected or returned, by its command tag.
 *
 * @param[in] result  A result; NULL gives 0.
 * @return the number of rows; 0 for the rows of a stream
 * Threads: any.
 * @since ABI 1.0
 */
uint64_t segue_result_rows_affected(const segue_result *result);

/**
 * The result of the next statement of segue_session_batch().
 *
 * @param[in] result  A result, or NULL.
 * @return the next one, which is freed with the first; NULL at the end
 * Threads: any.
 * @since ABI 1.0
 */
const segue_result *segue_result_next(const segue_result *result);

/**
 * Whether a value is NULL.
 *
 * @param[in] result  A result, or NULL.
 * @param[in] row     The row's position.
 * @param[in] column  The column's position.
 * @return true if it is NULL, or there is no such row or column
 * Threads: any.
 * @since ABI 1.0
 */
bool segue_result_is_null(const segue_result *result, size_t row, size_t column);

/**
 * A value as the server has sent it, in text or binary as segue_result_format() says. A NUL stands
 * behind it that does not count.
 *
 * @param[in]  result      A result, or NULL.
 * @param[in]  row         The row's position.
 * @param[in]  column      The column's position.
 * @param[out] length_out  Optional: the number of its bytes. Untouched where NULL is returned.
 * @return its first byte; NULL for SQL's NULL, or if there is no such row or column
 * Threads: any.
 * @since ABI 1.0
 */
const void *segue_result_value(const segue_result *result,
                               size_t row,
                               size_t column,
                               size_t *length_out);

/**
 * A value as a boolean.
 *
 * @param[in]  result     The result.
 * @param[in]  row        The row's position.
 * @param[in]  column     The column's position.
 * @param[out] value_out  The value.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK          it is there
 * @return SEGUE_NULL_VALUE  it is NULL
 * @return SEGUE_CONVERSION  it is not of type bool
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_result_bool(const segue_result *result,
                          size_t row,
                          size_t column,
                          bool *value_out,
                          segue_error **error_out);

/**
 * A value as a 64-bit integer: any integer type; in text format anything that reads as one.
 *
 * @param[in]  result     The result.
 * @param[in]  row        The row's position.
 * @param[in]  column     The column's position.
 * @param[out] value_out  The value.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK          it is there
 * @return SEGUE_NULL_VALUE  it is NULL
 * @return SEGUE_CONVERSION  it is no integer, or out of range
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_result_int64(const segue_result *result,
                           size_t row,
                           size_t column,
                           int64_t *value_out,
                           segue_error **error_out);

/**
 * A value as a double: any floating-point or integer type; in text format anything that reads as a
 * number, numeric among it (rounded to the nearest double).
 *
 * @param[in]  result     The result.
 * @param[in]  row        The row's position.
 * @param[in]  column     The column's position.
 * @param[out] value_out  The value.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK          it is there
 * @return SEGUE_NULL_VALUE  it is NULL
 * @return SEGUE_CONVERSION  it is no number
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_result_double(const segue_result *result,
                            size_t row,
                            size_t column,
                            double *value_out,
                            segue_error **error_out);

/**
 * A value as text: everything in text format; in binary format the types whose binary form is text.
 *
 * @param[in]  result      The result.
 * @param[in]  row         The row's position.
 * @param[in]  column      The column's position.
 * @param[out] text_out    A string in UTF-8; NULL for SQL's NULL. Good until segue_result_free().
 * @param[out] length_out  Optional: the number of its bytes without the NUL; 0 for SQL's NULL.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK          it is there
 * @return SEGUE_CONVERSION  it came in a binary format that is not text
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_result_text(const segue_result *result,
                          size_t row,
                          size_t column,
                          const char **text_out,
                          size_t *length_out,
                          segue_error **error_out);

/**
 * The bytes of a bytea, copied: decoded where it came in text format.
 *
 * @param[in]  result      The result.
 * @param[in]  row         The row's position.
 * @param[in]  column      The column's position.
 * @param[out] buffer      Where the bytes go; NULL asks for their number alone.
 * @param[in]  capacity    The number of bytes that the buffer has room for.
 * @param[out] length_out  The number of bytes.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK          they are there
 * @return SEGUE_NULL_VALUE  it is NULL
 * @return SEGUE_LIMIT       the buffer is too small; nothing was written
 * @return SEGUE_CONVERSION  it is no bytea
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_result_bytea(const segue_result *result,
                           size_t row,
                           size_t column,
                           void *buffer,
                           size_t capacity,
                           size_t *length_out,
                           segue_error **error_out);

/**
 * Frees a result, and those chained to it.
 *
 * @param[in] result  A result; NULL does nothing. Not one that segue_result_next() has returned.
 * Threads: any, once nobody else uses it.
 * @since ABI 1.0
 */
void segue_result_free(segue_result *result);

/* ------------------------------------------------------------------------------------------------
 * segue_statement: a statement that the server has looked at.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Has the server look at a statement: the types of its parameters and its columns. Ordinary
 * statements need not be prepared for speed: that happens by itself.
 *
 * @param[in]  session        The session.
 * @param[in]  sql            One statement.
 * @param[in]  type_oids      The types of the first parameters, 0 for those that the server is to
 *                            infer; NULL if there are none.
 * @param[in]  type_oids_len  Their number.
 * @param[out] statement_out  The statement; free with segue_statement_free().
 * @param[out] error_out      Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute()
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_prepare(segue_session *session,
                              const char *sql,
                              const uint32_t *type_oids,
                              size_t type_oids_len,
                              segue_statement **statement_out,
                              segue_error **error_out);

/**
 * Executes a prepared statement; see segue_session_execute().
 *
 * @param[in]  statement          The statement.
 * @param[in]  params             The parameters; NULL if there are none.
 * @param[in]  params_len         Their number.
 * @param[out] rows_affected_out  Optional: the number of rows affected or returned.
 * @param[out] error_out          Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute(); SEGUE_USAGE for another number of parameters
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_statement_execute(const segue_statement *statement,
                                const segue_param *params,
                                size_t params_len,
                                uint64_t *rows_affected_out,
                                segue_error **error_out);

/**
 * Executes a prepared statement and returns all that it returns; see segue_session_query().
 *
 * @param[in]  statement   The statement.
 * @param[in]  params      The parameters; NULL if there are none.
 * @param[in]  params_len  Their number.
 * @param[in]  format      SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY.
 * @param[out] result_out  The result; free with segue_result_free().
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute(); SEGUE_USAGE for another number of parameters
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_statement_query(const segue_statement *statement,
                              const segue_param *params,
                              size_t params_len,
                              int32_t format,
                              segue_result **result_out,
                              segue_error **error_out);

/**
 * Executes a prepared statement and hands its rows over as they arrive; see segue_session_stream().
 *
 * @param[in]  statement   The statement.
 * @param[in]  params      The parameters; NULL if there are none.
 * @param[in]  params_len  Their number.
 * @param[in]  format      SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY.
 * @param[out] stream_out  The rows; free with segue_stream_free().
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_stream()
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_statement_stream(const segue_statement *statement,
                               const segue_param *params,
                               size_t params_len,
                               int32_t format,
                               segue_stream **stream_out,
                               segue_error **error_out);

/**
 * The text of a statement.
 *
 * @param[in] statement  A statement, or NULL.
 * @return its text, good until segue_statement_free(); NULL for NULL
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_statement_sql(const segue_statement *statement);

/**
 * The number of parameters that a statement takes.
 *
 * @param[in] statement  A statement; NULL gives 0.
 * @return the number of parameters
 * Threads: any.
 * @since ABI 1.0
 */
size_t segue_statement_param_count(const segue_statement *statement);

/**
 * The OID of a parameter's type, as the server has inferred it.
 *
 * @param[in] statement  A statement, or NULL.
 * @param[in] param      The parameter's position: 0 for $1.
 * @return the OID; 0 if there is no such parameter
 * Threads: any.
 * @since ABI 1.0
 */
uint32_t segue_statement_param_type(const segue_statement *statement, size_t param);

/**
 * The number of columns that a statement returns.
 *
 * @param[in] statement  A statement; NULL gives 0.
 * @return the number of columns; 0 for a statement that returns no rows
 * Threads: any.
 * @since ABI 1.0
 */
size_t segue_statement_column_count(const segue_statement *statement);

/**
 * The name of a column that a statement returns.
 *
 * @param[in] statement  A statement, or NULL.
 * @param[in] column     The column's position.
 * @return its name, good until segue_statement_free(); NULL if there is no such column
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_statement_column_name(const segue_statement *statement, size_t column);

/**
 * The OID of the type of a column that a statement returns.
 *
 * @param[in] statement  A statement, or NULL.
 * @param[in] column     The column's position.
 * @return the OID; 0 if there is no such column
 * Threads: any.
 * @since ABI 1.0
 */
uint32_t segue_statement_column_type(const segue_statement *statement, size_t column);

/**
 * Frees a statement. Its results stay.
 *
 * @param[in] statement  A statement; NULL does nothing.
 * Threads: any, once nobody else uses it.
 * @since ABI 1.0
 */
void segue_statement_free(segue_statement *statement);

/* ------------------------------------------------------------------------------------------------
 * segue_stream: rows as they arrive.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Executes a statement and hands its rows over as they arrive. A failover in the middle goes on with
 * the next row. Other calls on the session give SEGUE_BUSY until the stream has come to its end or is
 * freed.
 *
 * @param[in]  session     The session.
 * @param[in]  sql         One statement.
 * @param[in]  params      The parameters; NULL if there are none.
 * @param[in]  params_len  Their number.
 * @param[in]  format      SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY.
 * @param[out] stream_out  The rows; free with segue_stream_free().
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  the statement is under way; its errors come with segue_stream_next()
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_stream(segue_session *session,
                             const char *sql,
                             const segue_param *params,
                             size_t params_len,
                             int32_t format,
                             segue_stream **stream_out,
                             segue_error **error_out);

/**
 * The next rows of a stream. Waits until there are so many, or no more.
 *
 * @param[in]  stream      The stream.
 * @param[in]  rows_max    How many rows at most, from 1.
 * @param[out] result_out  The rows; free with segue_result_free(). NULL at the end: then the session
 *                         can be used again.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute(); after an error the stream has come to its end
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_stream_next(segue_stream *stream,
                          size_t rows_max,
                          segue_result **result_out,
                          segue_error **error_out);

/**
 * Frees a stream. Before its end, that reads the rest and throws it away: cancel the statement first
 * if it is long.
 *
 * @param[in] stream  A stream; NULL does nothing.
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
void segue_stream_free(segue_stream *stream);

/* ------------------------------------------------------------------------------------------------
 * segue_copy_in and segue_copy_out: COPY from and to the application.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Starts a COPY ... FROM STDIN. Other calls on the session give SEGUE_BUSY until it is finished,
 * aborted or freed.
 *
 * @param[in]  session    The session.
 * @param[in]  sql        The COPY statement.
 * @param[out] copy_out   The COPY; free with segue_copy_in_free().
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK     the server awaits data
 * @return SEGUE_USAGE  the statement is no COPY FROM STDIN; it was executed
 * @return SEGUE_SERVER and others, as segue_session_execute()
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_copy_in(segue_session *session,
                              const char *sql,
                              segue_copy_in **copy_out,
                              segue_error **error_out);

/**
 * Sends a piece of data; pieces need not end where rows do.
 *
 * @param[in]  copy       The COPY.
 * @param[in]  data       The bytes, in the format that the statement asks for.
 * @param[in]  length     Their number.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK     it is sent, or gathered for sending
 * @return SEGUE_USAGE  the COPY has failed or has ended: segue_copy_in_finish() tells why
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_copy_in_write(segue_copy_in *copy,
                            const void *data,
                            size_t length,
                            segue_error **error_out);

/**
 * Ends a COPY. Outside a transaction it is committed then.
 *
 * @param[in]  copy       The COPY, which is to be freed all the same.
 * @param[out] rows_out   Optional: the number of rows.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute(); SEGUE_USAGE if it has ended already
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_copy_in_finish(segue_copy_in *copy, uint64_t *rows_out, segue_error **error_out);

/**
 * Makes a COPY fail, so that nothing of it is committed.
 *
 * @param[in]  copy       The COPY, which is to be freed all the same.
 * @param[in]  reason     What the server's error says.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_SERVER  the server's error, SQLSTATE 57014, which is what was asked for
 * @return SEGUE_USAGE   it has ended already
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_copy_in_abort(segue_copy_in *copy, const char *reason, segue_error **error_out);

/**
 * Frees a COPY; one that was not finished is aborted.
 *
 * @param[in] copy  A COPY; NULL does nothing.
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
void segue_copy_in_free(segue_copy_in *copy);

/**
 * Starts a COPY ... TO STDOUT. Other calls on the session give SEGUE_BUSY until it has come to its end
 * or is freed.
 *
 * @param[in]  session    The session.
 * @param[in]  sql        The COPY statement.
 * @param[out] copy_out   The COPY; free with segue_copy_out_free().
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK     the server sends data
 * @return SEGUE_USAGE  the statement is no COPY TO STDOUT; it was executed
 * @return SEGUE_SERVER and others, as segue_session_execute()
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_copy_out(segue_session *session,
                               const char *sql,
                               segue_copy_out **copy_out,
                               segue_error **error_out);

/**
 * The next piece of a COPY's data: one row of the text formats.
 *
 * @param[in]  copy        The COPY.
 * @param[out] data_out    The bytes, good until the next call or segue_copy_out_free(); NULL at the
 *                         end: then the session can be used again.
 * @param[out] length_out  Their number; 0 at the end.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_session_execute(); after an error the COPY has come to its end
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_copy_out_read(segue_copy_out *copy,
                            const void **data_out,
                            size_t *length_out,
                            segue_error **error_out);

/**
 * Frees a COPY. Before its end, that reads the rest and throws it away.
 *
 * @param[in] copy  A COPY; NULL does nothing.
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
void segue_copy_out_free(segue_copy_out *copy);

/* ------------------------------------------------------------------------------------------------
 * segue_pipeline: statements sent without waiting for each one's reply.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Starts a pipeline. Transactions are begun outside of it, and ended there or by
 * segue_pipeline_commit(). Other calls on the session give
 * SEGUE_BUSY until its results have been asked for, or it is freed.
 *
 * @param[in]  session       The session.
 * @param[in]  format        SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY, for all its results.
 * @param[out] pipeline_out  The pipeline; free with segue_pipeline_free().
 * @param[out] error_out     Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  it can be added to
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_pipeline(segue_session *session,
                               int32_t format,
                               segue_pipeline **pipeline_out,
                               segue_error **error_out);

/**
 * Adds a statement.
 *
 * @param[in]  pipeline    The pipeline.
 * @param[in]  sql         One statement that does not begin or end a transaction.
 * @param[in]  params      The parameters; NULL if there are none.
 * @param[in]  params_len  Their number.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  it is added; what becomes of it, segue_pipeline_next() tells. Otherwise nothing
 *                   was added, and the pipeline can be used further.
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_pipeline_add(segue_pipeline *pipeline,
                           const char *sql,
                           const segue_param *params,
                           size_t params_len,
                           segue_error **error_out);

/**
 * Adds a prepared statement, of the same session or another one of the client.
 *
 * @param[in]  pipeline    The pipeline.
 * @param[in]  statement   The statement.
 * @param[in]  params      The parameters; NULL if there are none.
 * @param[in]  params_len  Their number.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return as segue_pipeline_add()
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_pipeline_add_statement(segue_pipeline *pipeline,
                                     const segue_statement *statement,
                                     const segue_param *params,
                                     size_t params_len,
                                     segue_error **error_out);

/**
 * Commits the session's open transaction behind the statements that were added: COMMIT goes out with
 * them and costs no round trip of its own. Waits for all replies; nothing can be added afterwards,
 * whatever is returned, and the session can be used again. segue_pipeline_next() gives the results.
 *
 * @param[in]  pipeline   The pipeline.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return as segue_session_commit(): SEGUE_TRANSACTION_FAILED where one of the statements has failed
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_pipeline_commit(segue_pipeline *pipeline,
                              segue_error **error_out);

/**
 * The result of the next statement, in the order in which they were added. The first call waits for
 * all of them; nothing can be added after it, and the session can be used again.
 *
 * @param[in]  pipeline    The pipeline.
 * @param[out] result_out  The result; free with segue_result_free(). NULL after the last.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or what became of this statement, as segue_session_execute(); go on with the next
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_pipeline_next(segue_pipeline *pipeline,
                            segue_result **result_out,
                            segue_error **error_out);

/**
 * Frees a pipeline. Before its results have been asked for, that waits for them.
 *
 * @param[in] pipeline  A pipeline; NULL does nothing.
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
void segue_pipeline_free(segue_pipeline *pipeline);

/* ------------------------------------------------------------------------------------------------
 * segue_notification: a message of NOTIFY.
 * ------------------------------------------------------------------------------------------------ */

/**
 * The next notification of a session that has executed LISTEN: one that has arrived already, or one
 * that arrives in time. LISTEN survives a failover; what is notified during one may be missed.
 *
 * @param[in]  session           The session.
 * @param[in]  timeout_ms        How long to wait; 0 does not wait, a negative number waits for ever.
 * @param[out] notification_out  The notification; free with segue_notification_free(). NULL if none
 *                               has arrived in time.
 * @param[out] error_out         Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or SEGUE_FAILOVER_TIMEOUT and others if the session has no server any more
 * Threads: one caller at a time per session.
 * @since ABI 1.0
 */
int32_t segue_session_notification(segue_session *session,
                                   int64_t timeout_ms,
                                   segue_notification **notification_out,
                                   segue_error **error_out);

/**
 * The channel of a notification.
 *
 * @param[in] notification  A notification, or NULL.
 * @return the channel's name, good until segue_notification_free(); NULL for NULL
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_notification_channel(const segue_notification *notification);

/**
 * The payload of a notification.
 *
 * @param[in] notification  A notification, or NULL.
 * @return the payload, good until segue_notification_free(); NULL for NULL
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_notification_payload(const segue_notification *notification);

/**
 * The process of the server that has sent a notification.
 *
 * @param[in] notification  A notification; NULL gives 0.
 * @return the number of the backend's process
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_notification_process_id(const segue_notification *notification);

/**
 * Frees a notification.
 *
 * @param[in] notification  A notification; NULL does nothing.
 * Threads: any, once nobody else uses it.
 * @since ABI 1.0
 */
void segue_notification_free(segue_notification *notification);

/* ------------------------------------------------------------------------------------------------
 * segue_cancel: cancels what a session is executing, from any thread.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Makes a handle that cancels what the session is executing.
 *
 * @param[in]  session     The session, which may be in use.
 * @param[out] cancel_out  The handle; free with segue_cancel_free().
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  the handle is there
 * Threads: any. Does not block.
 * @since ABI 1.0
 */
int32_t segue_session_cancel_handle(const segue_session *session,
                                    segue_cancel **cancel_out,
                                    segue_error **error_out);

/**
 * Asks the server to cancel the session's statement, which then fails with SQLSTATE 57014, unless it
 * is over by the time that the server hears of it.
 *
 * @param[in]  cancel     The handle.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK       the server was asked, or nothing is being executed
 * @return SEGUE_CONNECT  the server could not be reached
 * Threads: any. Blocks for one connection to the server.
 * @since ABI 1.0
 */
int32_t segue_cancel_request(const segue_cancel *cancel,
                             segue_error **error_out);

/**
 * Frees the handle. The session goes on.
 *
 * @param[in] cancel  A handle; NULL does nothing.
 * Threads: any, once nobody else uses it.
 * @since ABI 1.0
 */
void segue_cancel_free(segue_cancel *cancel);

/* ------------------------------------------------------------------------------------------------
 * segue_submission: a transaction that is handed over whole.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Makes a submission without statements.
 *
 * @param[out] submission_out  The submission; free with segue_submission_free().
 * @param[out] error_out       Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  it is there
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_submission_new(segue_submission **submission_out, segue_error **error_out);

/**
 * Adds a statement. Its parameters are copied, so that they are not needed after this call. What could
 * be no part of a transaction, or would change the session that runs it, is refused here: BEGIN, COMMIT,
 * SAVEPOINT, COPY, SET without LOCAL, LISTEN, several statements in one string and the like.
 *
 * @param[in]  submission  The submission; unchanged if this fails.
 * @param[in]  sql         One statement, with $1, $2, ... for parameters.
 * @param[in]  params      The parameters; NULL if there are none.
 * @param[in]  params_len  Their number.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK          it is added; whether a server takes it is told by the ticket
 * @return SEGUE_USAGE       it can be no part of a submission, or has too many parameters
 * @return SEGUE_CONVERSION  a parameter does not fit the type that it names
 * Threads: one caller at a time.
 * @since ABI 1.0
 */
int32_t segue_submission_add_statement(segue_submission *submission,
                                       const char *sql,
                                       const segue_param *params,
                                       size_t params_len,
                                       segue_error **error_out);

/**
 * Says how many rows the statement added last must affect or return. If it does not, nothing of the
 * submission is committed, and it becomes a dead letter.
 *
 * @param[in]  submission  The submission.
 * @param[in]  rows_min    At least so many.
 * @param[in]  rows_max    At most so many; UINT64_MAX is no limit.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK                it is set
 * @return SEGUE_USAGE             there is no statement yet
 * @return SEGUE_INVALID_ARGUMENT  rows_min is more than rows_max
 * Threads: one caller at a time.
 * @since ABI 1.0
 */
int32_t segue_submission_expect_rows(segue_submission *submission,
                                     uint64_t rows_min,
                                     uint64_t rows_max,
                                     segue_error **error_out);

/**
 * Puts the submission in a lane: those of one lane take effect in the order in which they were handed
 * over. Without a lane a submission is ordered with nothing.
 *
 * @param[in]  submission  The submission.
 * @param[in]  lane        The lane's name, any text; NULL or "" for none.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  it is set
 * Threads: one caller at a time.
 * @since ABI 1.0
 */
int32_t segue_submission_set_lane(segue_submission *submission,
                                  const char *lane,
                                  segue_error **error_out);

/**
 * Gives the submission the application's own name: the same key is never executed twice, whichever
 * process hands it over and how often, for as long as the ledger of submissions remembers it.
 *
 * @param[in]  submission  The submission.
 * @param[in]  key         The key, any text; NULL or "" for none.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  it is set
 * Threads: one caller at a time.
 * @since ABI 1.0
 */
int32_t segue_submission_set_key(segue_submission *submission,
                                 const char *key,
                                 segue_error **error_out);

/**
 * Says whether what follows in the lane waits if this submission becomes a dead letter, until that is
 * retried or purged. Otherwise the lane goes on.
 *
 * @param[in]  submission       The submission, which needs a lane then.
 * @param[in]  stop_on_failure  Whether the lane waits.
 * @param[out] error_out        Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  it is set
 * Threads: one caller at a time.
 * @since ABI 1.0
 */
int32_t segue_submission_set_stop_on_failure(segue_submission *submission,
                                             bool stop_on_failure,
                                             segue_error **error_out);

/**
 * Hands over a transaction whole: it is kept when this returns (on disk with journal=file), and then run
 * until its outcome is known, exactly once, whatever becomes of servers and, with journal=file, of this
 * process. Needs no server.
 *
 * @param[in]  client      The client.
 * @param[in]  submission  The submission, which stays the caller's. Handed over again it is another one,
 *                         unless it has a key: a key that is queued, or was done lately, gives that ticket.
 * @param[out] ticket_out  The ticket; free with segue_ticket_free(), which changes nothing for the
 *                         submission.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK               it is kept
 * @return SEGUE_USAGE            it has no statement, or stop_on_failure without a lane
 * @return SEGUE_LIMIT            it is too large, or no room was left in the queue or the journal within
 *                                failover_timeout_ms (submit_queue_max, journal_bytes_max)
 * @return SEGUE_PROTECTION_LOST  the journal cannot be written: it was not accepted
 * Threads: any; one caller at a time per submission. Waits for room for at most failover_timeout_ms.
 * @since ABI 1.0
 */
int32_t segue_submit(const segue_client *client,
                     const segue_submission *submission,
                     segue_ticket **ticket_out,
                     segue_error **error_out);

/**
 * As segue_submit(), but does not wait for room.
 *
 * @param[in]  client      The client.
 * @param[in]  submission  The submission, which stays the caller's.
 * @param[out] ticket_out  The ticket; free with segue_ticket_free().
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK     it is kept
 * @return SEGUE_LIMIT  there is no room just now; nothing was handed over
 * @return as segue_submit() otherwise
 * Threads: any; one caller at a time per submission. Waits for the disk alone.
 * @since ABI 1.0
 */
int32_t segue_try_submit(const segue_client *client,
                         const segue_submission *submission,
                         segue_ticket **ticket_out,
                         segue_error **error_out);

/**
 * Frees a submission. What was handed over with it is not touched.
 *
 * @param[in] submission  A submission; NULL does nothing.
 * Threads: any, once nobody else uses it.
 * @since ABI 1.0
 */
void segue_submission_free(segue_submission *submission);

/* ------------------------------------------------------------------------------------------------
 * segue_ticket: what is got for a submission, to wait on, poll, or be called back by.
 * ------------------------------------------------------------------------------------------------ */

/**
 * What is called once the outcome of a submission is known, on a thread of the client's, or on the one
 * that asks for it if it is known already. The error is NULL if the submission is committed; else it says
 * what segue_ticket_poll() would. Ticket and error stay the library's, and are good during the call only.
 * It must not block, and must not throw a C++ exception; it may submit with segue_try_submit().
 */
typedef void (*segue_ticket_callback)(const segue_ticket *ticket,
                                      const segue_error *error,
                                      void *user_data);

/**
 * The ticket of a submission that has not ended, also if an earlier process has handed it over with the
 * same journal; or that has ended lately in this process (the last few thousand).
 *
 * @param[in]  client      The client.
 * @param[in]  id          What segue_ticket_id() gave.
 * @param[out] ticket_out  The ticket; free with segue_ticket_free(). NULL if there is none.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK                ticket_out says whether there is one
 * @return SEGUE_INVALID_ARGUMENT  the id is no UUID
 * Threads: any. Does not block.
 * @since ABI 1.0
 */
int32_t segue_client_ticket(const segue_client *client,
                            const char *id,
                            segue_ticket **ticket_out,
                            segue_error **error_out);

/**
 * The same, by the key that the application gave the submission.
 *
 * @param[in]  client      The client.
 * @param[in]  key         The key.
 * @param[out] ticket_out  The ticket; free with segue_ticket_free(). NULL if there is none.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  ticket_out says whether there is one
 * Threads: any. Does not block.
 * @since ABI 1.0
 */
int32_t segue_client_ticket_for_key(const segue_client *client,
                                    const char *key,
                                    segue_ticket **ticket_out,
                                    segue_error **error_out);

/**
 * The id of a submission: under it the ticket is found again, and so is the row in the server's table
 * segue.submission once it is committed.
 *
 * @param[in] ticket  A ticket, or NULL.
 * @return a UUID of 36 characters, good until segue_ticket_free(); NULL for NULL
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_ticket_id(const segue_ticket *ticket);

/**
 * The key that the application gave the submission.
 *
 * @param[in] ticket  A ticket, or NULL.
 * @return the key, good until segue_ticket_free(); NULL if it has none
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_ticket_key(const segue_ticket *ticket);

/**
 * What has become of a submission.
 *
 * @param[in]  ticket         The ticket.
 * @param[out] committed_out  true if it is committed, exactly once; false while that is not known.
 * @param[out] error_out      Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK                  committed_out says it
 * @return SEGUE_SERVER              it is a dead letter, and this is the server's error, unchanged
 * @return SEGUE_TRANSACTION_FAILED  it is a dead letter: another number of rows was expected
 * @return SEGUE_SERVER_CRASH        it is a dead letter: the server has crashed each time that it ran it alone
 * @return SEGUE_CLOSED              the client's submissions have come to an end by a failure; with
 *                                   journal=file it goes on when the client is opened again
 * Threads: any. Does not block.
 * @since ABI 1.0
 */
int32_t segue_ticket_poll(const segue_ticket *ticket,
                          bool *committed_out,
                          segue_error **error_out);

/**
 * Waits until it is known what has become of a submission.
 *
 * @param[in]  ticket         The ticket.
 * @param[in]  timeout_ms     How long to wait; 0 does not wait, a negative number waits for ever.
 * @param[out] committed_out  true if it is committed, exactly once; false if that is not known yet.
 * @param[out] error_out      Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK, or as segue_ticket_poll()
 * Threads: any, but no callback's.
 * @since ABI 1.0
 */
int32_t segue_ticket_wait(const segue_ticket *ticket,
                          int64_t timeout_ms,
                          bool *committed_out,
                          segue_error **error_out);

/**
 * Whether a committed submission was found done already: by an attempt whose reply was lost, by an
 * earlier process, or by another one that has used the same key.
 *
 * @param[in] ticket  A ticket; NULL gives false.
 * @return true if it was found done; false as long as it is not committed
 * Threads: any. Does not block.
 * @since ABI 1.0
 */
bool segue_ticket_found_done(const segue_ticket *ticket);

/**
 * For how many statements of a committed submission it is known how many rows they have affected.
 *
 * @param[in] ticket  A ticket; NULL gives 0.
 * @return the number of statements; 0 as long as it is not committed, and if the reply of the attempt
 *         that has committed it is lost
 * Threads: any. Does not block.
 * @since ABI 1.0
 */
size_t segue_ticket_statement_count(const segue_ticket *ticket);

/**
 * How many rows a statement of a committed submission has affected or returned.
 *
 * @param[in] ticket     A ticket, or NULL.
 * @param[in] statement  The statement's position, from 0.
 * @return the number of rows; 0 if there is no such statement, or none is known
 * Threads: any. Does not block.
 * @since ABI 1.0
 */
uint64_t segue_ticket_rows_affected(const segue_ticket *ticket, size_t statement);

/**
 * Has a callback called once, as soon as the outcome of a submission is known: here and now if it is,
 * else on a thread of the client's, or of whoever frees the client: with SEGUE_CLOSED then. It is called
 * also if the ticket was freed before. A dead letter that is retried calls nobody for a second time: ask
 * for that anew.
 *
 * @param[in]  ticket     The ticket.
 * @param[in]  callback   What is called.
 * @param[in]  user_data  What it is called with; may be NULL.
 * @param[in]  destroy    Called once with the user data, after the callback, or if it will never be
 *                        called, also if this function fails; may be NULL.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  the callback was called or will be
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_ticket_on_done(const segue_ticket *ticket,
                             segue_ticket_callback callback,
                             void *user_data,
                             segue_destroy_callback destroy,
                             segue_error **error_out);

/**
 * Frees a ticket. The submission goes on, and callbacks stay in place.
 *
 * @param[in] ticket  A ticket; NULL does nothing. Not one that a callback was given.
 * Threads: any, once nobody else uses it. Where it is the last that keeps the client alive, as
 * segue_client_free().
 * @since ABI 1.0
 */
void segue_ticket_free(segue_ticket *ticket);

/* ------------------------------------------------------------------------------------------------
 * segue_dead_letters: the submissions that can never succeed as things are.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Lists the submissions that can never succeed as things are: what a server refuses for good, and what has
 * found another number of rows than it expects. Each is kept until it is retried with success or purged.
 *
 * @param[in]  client       The client.
 * @param[out] letters_out  The list, which may be empty; free with segue_dead_letters_free().
 * @param[out] error_out    Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  it is there
 * Threads: any. Does not block.
 * @since ABI 1.0
 */
int32_t segue_client_dead_letters(const segue_client *client,
                                  segue_dead_letters **letters_out,
                                  segue_error **error_out);

/**
 * Runs a dead letter again, ahead of what waits in its lane. Its tickets are without an outcome again.
 *
 * @param[in]  client      The client.
 * @param[in]  id          The id of the submission.
 * @param[out] ticket_out  Optional: the ticket; free with segue_ticket_free().
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK                it is queued
 * @return SEGUE_USAGE             it is no dead letter of this client
 * @return SEGUE_INVALID_ARGUMENT  the id is no UUID
 * @return SEGUE_LIMIT, SEGUE_PROTECTION_LOST  the journal cannot be written: it stays what it is
 * Threads: any. Waits for the disk alone.
 * @since ABI 1.0
 */
int32_t segue_client_retry_dead_letter(const segue_client *client,
                                       const char *id,
                                       segue_ticket **ticket_out,
                                       segue_error **error_out);

/**
 * Forgets a dead letter for good; a lane that it has stopped goes on.
 *
 * @param[in]  client     The client.
 * @param[in]  id         The id of the submission.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK                it is gone
 * @return SEGUE_USAGE             it is no dead letter of this client
 * @return SEGUE_INVALID_ARGUMENT  the id is no UUID
 * Threads: any. Waits for the disk alone.
 * @since ABI 1.0
 */
int32_t segue_client_purge_dead_letter(const segue_client *client,
                                       const char *id,
                                       segue_error **error_out);

/**
 * The number of dead letters.
 *
 * @param[in] letters  A list; NULL gives 0.
 * @return how many there are
 * Threads: any.
 * @since ABI 1.0
 */
size_t segue_dead_letters_count(const segue_dead_letters *letters);

/**
 * The id of a submission, as segue_ticket_id() gave it.
 *
 * @param[in] letters  A list, or NULL.
 * @param[in] index    The letter's position, from 0.
 * @return a UUID that lives as long as the list; NULL if there is no such letter
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_dead_letters_id(const segue_dead_letters *letters, size_t index);

/**
 * The key that the application gave the submission.
 *
 * @param[in] letters  A list, or NULL.
 * @param[in] index    The letter's position, from 0.
 * @return a text that lives as long as the list; NULL if it has none, or there is no such letter
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_dead_letters_key(const segue_dead_letters *letters, size_t index);

/**
 * The lane of the submission.
 *
 * @param[in] letters  A list, or NULL.
 * @param[in] index    The letter's position, from 0.
 * @return a text that lives as long as the list; NULL if it has none, or there is no such letter
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_dead_letters_lane(const segue_dead_letters *letters, size_t index);

/**
 * Whether the lane stands still because of a letter.
 *
 * @param[in] letters  A list, or NULL.
 * @param[in] index    The letter's position, from 0.
 * @return true if it does; false if there is no such letter
 * Threads: any.
 * @since ABI 1.0
 */
bool segue_dead_letters_stops_lane(const segue_dead_letters *letters, size_t index);

/**
 * When the submission became a dead letter.
 *
 * @param[in] letters  A list, or NULL.
 * @param[in] index    The letter's position, from 0.
 * @return milliseconds since 1970 (UTC), by this machine's clock; -1 if there is no such letter
 * Threads: any.
 * @since ABI 1.0
 */
int64_t segue_dead_letters_died_at_ms(const segue_dead_letters *letters, size_t index);

/**
 * The statement that failed.
 *
 * @param[in] letters  A list, or NULL.
 * @param[in] index    The letter's position, from 0.
 * @return the statement's position in the submission, from 0; 0 if there is no such letter
 * Threads: any.
 * @since ABI 1.0
 */
size_t segue_dead_letters_statement(const segue_dead_letters *letters, size_t index);

/**
 * The number of statements of the submission.
 *
 * @param[in] letters  A list, or NULL.
 * @param[in] index    The letter's position, from 0.
 * @return how many it has; 0 if there is no such letter
 * Threads: any.
 * @since ABI 1.0
 */
size_t segue_dead_letters_statement_count(const segue_dead_letters *letters, size_t index);

/**
 * The text of a statement of the submission, without its parameters.
 *
 * @param[in] letters    A list, or NULL.
 * @param[in] index      The letter's position, from 0.
 * @param[in] statement  The statement's position, from 0.
 * @return a text that lives as long as the list; NULL if there is no such letter or statement
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_dead_letters_sql(const segue_dead_letters *letters,
                                   size_t index,
                                   size_t statement);

/**
 * The SQLSTATE of the server's error; 25P02 where another number of rows was expected.
 *
 * @param[in] letters  A list, or NULL.
 * @param[in] index    The letter's position, from 0.
 * @return five characters that live as long as the list; NULL if there is no such letter
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_dead_letters_sqlstate(const segue_dead_letters *letters, size_t index);

/**
 * The server's message.
 *
 * @param[in] letters  A list, or NULL.
 * @param[in] index    The letter's position, from 0.
 * @return a text that lives as long as the list; NULL if there is no such letter
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_dead_letters_message(const segue_dead_letters *letters, size_t index);

/**
 * The detail of the server's error, which may hold values of the application's.
 *
 * @param[in] letters  A list, or NULL.
 * @param[in] index    The letter's position, from 0.
 * @return a text that lives as long as the list; NULL if it has none, or there is no such letter
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_dead_letters_detail(const segue_dead_letters *letters, size_t index);

/**
 * The error that the submission's tickets give, with all fields of the server's: constraint, table, hint.
 *
 * @param[in] letters  A list, or NULL.
 * @param[in] index    The letter's position, from 0.
 * @return an error that belongs to the list and lives as long: not to be freed; NULL if there is no such letter
 * Threads: any.
 * @since ABI 1.0
 */
const segue_error *segue_dead_letters_error(const segue_dead_letters *letters,
                                            size_t index);

/**
 * Frees a list. The dead letters stay where they are.
 *
 * @param[in] letters  A list; NULL does nothing.
 * Threads: any, once nobody else uses it.
 * @since ABI 1.0
 */
void segue_dead_letters_free(segue_dead_letters *letters);

/* ------------------------------------------------------------------------------------------------
 * segue_submission_status: a snapshot of what becomes of a client's submissions.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Takes a snapshot of what becomes of a client's submissions.
 *
 * @param[in]  client      The client.
 * @param[out] status_out  The snapshot; free with segue_submission_status_free().
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK  it is there
 * Threads: any. Does not block.
 * @since ABI 1.0
 */
int32_t segue_client_submissions(const segue_client *client,
                                 segue_submission_status **status_out,
                                 segue_error **error_out);

/**
 * A number of a snapshot. At that moment: "waiting" (handed over and not sent yet, or to be sent again),
 * "in_flight" (sent and not answered), "dead_letters"; "lanes" (with anything in them), "lanes_stopped" (of
 * these, by a dead letter); "bytes" (of memory, about), "journal_bytes" (of the journal's files; -1 if it is
 * in memory). Since the client was opened: "submitted", "recovered" (found in the journal), "committed",
 * "found_done" (of these, found to be so already), "resubmitted" (attempts made once more), "died"; "lost" (told
 * to be committed, lost by a promotion, and not run again, or not with success), "reapplied" (run again).
 *
 * @param[in] status  A snapshot, or NULL.
 * @param[in] name    The number's name, or NULL.
 * @return the number; -1 if it is not known, or there is none of that name
 * Threads: any.
 * @since ABI 1.0
 */
int64_t segue_submission_status_number(const segue_submission_status *status,
                                       const char *name);

/**
 * Why no submission can be run at present, such as that no server can be reached.
 *
 * @param[in] status  A snapshot, or NULL.
 * @return a text that lives as long as the snapshot; NULL if there is no problem
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_submission_status_problem(const segue_submission_status *status);

/**
 * Frees a snapshot.
 *
 * @param[in] status  A snapshot; NULL does nothing.
 * Threads: any, once nobody else uses it.
 * @since ABI 1.0
 */
void segue_submission_status_free(segue_submission_status *status);

/* ------------------------------------------------------------------------------------------------
 * segue_recovery: what became of the transactions that an earlier process had in flight.
 * ------------------------------------------------------------------------------------------------ */

/**
 * It may be committed or not: segue_recovery_reason() says why that cannot be told.
 */
#define SEGUE_VERDICT_UNKNOWN 0

/**
 * It is in the database, exactly once.
 */
#define SEGUE_VERDICT_COMMITTED 1

/**
 * Its commit was sent and has failed: nothing of it is in the database, and nothing of it will be.
 */
#define SEGUE_VERDICT_NOT_COMMITTED 2

/**
 * Its commit was never sent: nothing of it is in the database.
 */
#define SEGUE_VERDICT_NEVER_SENT 3

/**
 * Finds what an earlier process with this client's journal (journal=file) had in flight, and asks the
 * ledger what became of it. Each transaction is found again, by this client and by later ones, until
 * segue_recovery_done(). Submissions are not among them: the client goes on with those by itself. Commits
 * of this client wait while the journal is read: this is for the time after the start.
 *
 * @param[in]  client        The client.
 * @param[out] recovery_out  What was found, which may be nothing; free with segue_recovery_free().
 * @param[out] error_out     Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK      it is told; where the ledger could not be asked, the verdict is SEGUE_VERDICT_UNKNOWN
 * @return SEGUE_CONFIG  the journal cannot be read
 * @return SEGUE_FORKED  the client was opened before fork()
 * Threads: any. Waits for a server for at most failover_timeout_ms.
 * @since ABI 1.0
 */
int32_t segue_client_recover(const segue_client *client,
                             segue_recovery **recovery_out,
                             segue_error **error_out);

/**
 * The number of transactions that were found.
 *
 * @param[in] recovery  A recovery; NULL gives 0.
 * @return how many there are
 * Threads: any.
 * @since ABI 1.0
 */
size_t segue_recovery_count(const segue_recovery *recovery);

/**
 * The number of a transaction in the journal, by which the command `segue journal` calls it too. It grows in
 * the order of beginning.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return its number, from 1; 0 if there is no such transaction
 * Threads: any.
 * @since ABI 1.0
 */
uint64_t segue_recovery_number(const segue_recovery *recovery,
                               size_t index);

/**
 * What became of a transaction.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return SEGUE_VERDICT_...
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_recovery_verdict(const segue_recovery *recovery, size_t index);

/**
 * Why the verdict is SEGUE_VERDICT_UNKNOWN, and what can be done about it.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return a text that lives as long as the recovery; NULL for any other verdict, or if there is no such
 *         transaction
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_recovery_reason(const segue_recovery *recovery,
                                  size_t index);

/**
 * Whether records of a transaction may be missing, because the journal was found damaged: do not run its
 * statements again without having looked at them.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return true if that is so; false if there is no such transaction
 * Threads: any.
 * @since ABI 1.0
 */
bool segue_recovery_is_doubtful(const segue_recovery *recovery,
                                size_t index);

/**
 * The session that ran a transaction.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return a UUID that lives as long as the recovery; NULL if that record is lost, or there is no such
 *         transaction
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_recovery_session(const segue_recovery *recovery,
                                   size_t index);

/**
 * The number of that session in the journal.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return its number, from 1; 0 if that record is lost, or there is no such transaction
 * Threads: any.
 * @since ABI 1.0
 */
uint64_t segue_recovery_session_number(const segue_recovery *recovery, size_t index);

/**
 * The database that a transaction was run in.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return a text that lives as long as the recovery; NULL if that record is lost, or there is no such
 *         transaction
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_recovery_database(const segue_recovery *recovery,
                                    size_t index);

/**
 * The role that ran a transaction.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return a text that lives as long as the recovery; NULL if that record is lost, or there is no such
 *         transaction
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_recovery_user(const segue_recovery *recovery,
                                size_t index);

/**
 * When a transaction began.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return milliseconds since 1970 (UTC), by the clock of the machine that ran it; -1 if that record is lost,
 *         or there is no such transaction
 * Threads: any.
 * @since ABI 1.0
 */
int64_t segue_recovery_began_at_ms(const segue_recovery *recovery,
                                   size_t index);

/**
 * Whether a transaction was one statement outside a transaction block.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return true if it was; false if there is no such transaction
 * Threads: any.
 * @since ABI 1.0
 */
bool segue_recovery_is_autocommit(const segue_recovery *recovery, size_t index);

/**
 * Whether a transaction was declared READ ONLY.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return true if it was; false if there is no such transaction
 * Threads: any.
 * @since ABI 1.0
 */
bool segue_recovery_is_read_only(const segue_recovery *recovery, size_t index);

/**
 * The statement that began a transaction.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return a text that lives as long as the recovery, "" for a plain BEGIN; NULL if there is no such
 *         transaction
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_recovery_begin(const segue_recovery *recovery, size_t index);

/**
 * How many statements of a transaction were recorded. One that was executed with several sets of parameters
 * at once counts once here, and segue_recovery_statements() gives it once for each.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return their number; 0 if there is no such transaction
 * Threads: any.
 * @since ABI 1.0
 */
size_t segue_recovery_statement_count(const segue_recovery *recovery,
                                      size_t index);

/**
 * What a transaction takes up in the journal.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return a number of bytes; 0 if there is no such transaction
 * Threads: any.
 * @since ABI 1.0
 */
uint64_t segue_recovery_bytes(const segue_recovery *recovery, size_t index);

/**
 * How often a transaction may have been committed under a number of the ledger: one for each attempt. What
 * the ledger says of them is what the verdict rests on.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @return the number of attempts; 0 if none was sent, or there is no such transaction
 * Threads: any.
 * @since ABI 1.0
 */
size_t segue_recovery_seal_count(const segue_recovery *recovery,
                                 size_t index);

/**
 * The row of the ledger (segue.ledger.session) in which an attempt was to stand. Whoever knows it can seal in
 * it: do not print it where strangers read.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @param[in] seal      The attempt's position, from 0.
 * @return a UUID that lives as long as the recovery; NULL if there is no such attempt
 * Threads: any.
 * @since ABI 1.0
 */
const char *segue_recovery_seal_row(const segue_recovery *recovery,
                                    size_t index,
                                    size_t seal);

/**
 * The number under which an attempt was to stand in its row.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @param[in] seal      The attempt's position, from 0.
 * @return its number; 0 if there is no such attempt
 * Threads: any.
 * @since ABI 1.0
 */
uint64_t segue_recovery_seal_number(const segue_recovery *recovery, size_t index, size_t seal);

/**
 * Whether an attempt would have been written into the ledger only if the transaction had written anything
 * itself.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @param[in] seal      The attempt's position, from 0.
 * @return true if that is so; false if there is no such attempt
 * Threads: any.
 * @since ABI 1.0
 */
bool segue_recovery_seal_is_guarded(const segue_recovery *recovery,
                                    size_t index,
                                    size_t seal);

/**
 * What the ledger says of an attempt.
 *
 * @param[in] recovery  A recovery, or NULL.
 * @param[in] index     The transaction's position, from 0.
 * @param[in] seal      The attempt's position, from 0.
 * @return 1 if it has committed, 0 if it has not and never will; -1 if the ledger cannot say or was not asked,
 *         or there is no such attempt
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_recovery_seal_committed(const segue_recovery *recovery,
                                      size_t index,
                                      size_t seal);

/**
 * Opens the statements that a transaction had executed, in order. They are read from the journal's files one
 * at a time, as segue_recovered_statements_next() asks for them.
 *
 * @param[in]  recovery        What was found.
 * @param[in]  index           The transaction's position, from 0.
 * @param[out] statements_out  The statements, before the first one; free with
 *                             segue_recovered_statements_free().
 * @param[out] error_out       Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK                they are open
 * @return SEGUE_INVALID_ARGUMENT  there is no such transaction
 * @return SEGUE_FORKED            they were found before fork()
 * Threads: any.
 * @since ABI 1.0
 */
int32_t segue_recovery_statements(const segue_recovery *recovery,
                                  size_t index,
                                  segue_recovered_statements **statements_out,
                                  segue_error **error_out);

/**
 * The application is done with a transaction: the journal forgets it. Returns once that is kept. May be
 * repeated. Run a transaction again first, where it is to be run again, and call this then.
 *
 * @param[in]  recovery   What was found.
 * @param[in]  index      The transaction's position, from 0.
 * @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK                it will not be found again
 * @return SEGUE_INVALID_ARGUMENT  there is no such transaction
 * @return SEGUE_PROTECTION_LOST   the journal cannot be written: it is found again when the journal is opened
 * @return SEGUE_FORKED            it was found before fork()
 * Threads: any. Waits for the disk alone.
 * @since ABI 1.0
 */
int32_t segue_recovery_done(const segue_recovery *recovery,
                            size_t index,
                            segue_error **error_out);

/**
 * Frees a recovery. What is not done with stays in the journal.
 *
 * @param[in] recovery  A recovery; NULL does nothing. Its statements may be freed later.
 * Threads: any, once nobody else uses it. Where it is the last that keeps the client alive, as
 * segue_client_free().
 * @since ABI 1.0
 */
void segue_recovery_free(segue_recovery *recovery);

/* ------------------------------------------------------------------------------------------------
 * segue_recovered_statements: what a transaction of an earlier process had executed.
 * ------------------------------------------------------------------------------------------------ */

/**
 * Goes on to the next statement. What was got of the one before is good no longer.
 *
 * @param[in]  statements  The statements.
 * @param[out] there_out   true if there is one; false behind the last.
 * @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
 * @return SEGUE_OK        there_out says it
 * @return SEGUE_CONFIG    the journal's file cannot be read
 * @return SEGUE_PROTOCOL  part of the statement's data was never written; there is no more behind it
 * @return SEGUE_FORKED    they were found before fork()
 * Threads: one caller at a time. Waits for the disk alone.
 * @since ABI 1.0
 */
int32_t segue_recovered_statements_next(segue_recovered_statements *statements,
                                        bool *there_out,
                                        segue_error **error_out);

/**
 * The text of the statement.
 *
 * @param[in] statements  The statements, or NULL.
 * @return a text that lives until the next statement; NULL if it stands at none
 * Threads: one caller at a time.
 * @since ABI 1.0
 */
const char *segue_recovered_statements_sql(const segue_recovered_statements *statements);

/**
 * Whether the statement was sent as a simple query: a string of any number of statements, without
 * parameters.
 *
 * @param[in] statements  The statements, or NULL.
 * @return true if it was; false if it stands at none
 * Threads: one caller at a time.
 * @since ABI 1.0
 */
bool segue_recovered_statements_is_simple(const segue_recovered_statements *statements);

/**
 * The parameters of the statement, as they were sent: segue_session_execute() and its like take them as they
 * are.
 *
 * @param[in]  statements  The statements, or NULL.
 * @param[out] length_out  Optional: the number of parameters; 0 if it stands at no statement.
 * @return the parameters, which live until the next statement; NULL if there are none
 * Threads: one caller at a time.
 * @since ABI 1.0
 */
const segue_param *segue_recovered_statements_params(const segue_recovered_statements *statements,
                                                     size_t *length_out);

/**
 * What was sent to the server behind COPY ... FROM STDIN.
 *
 * @param[in]  statements  The statements, or NULL.
 * @param[out] length_out  Optional: the number of bytes; 0 for any other statement, or if it stands at none.
 * @return the bytes, which live until the next statement; NULL if there are none
 * Threads: one caller at a time.
 * @since ABI 1.0
 */
const void *segue_recovered_statements_copy_data(const segue_recovered_statements *statements,
                                                 size_t *length_out);

/**
 * Frees the statements; the journal keeps them.
 *
 * @param[in] statements  The statements; NULL does nothing.
 * Threads: any, once nobody else uses them. Where they are the last that keeps the client alive, as
 * segue_client_free().
 * @since ABI 1.0
 */
void segue_recovered_statements_free(segue_recovered_statements *statements);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* SEGUE_H */
