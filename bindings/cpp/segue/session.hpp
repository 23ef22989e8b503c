// Sessions and prepared statements, and what they open: streams, COPY, pipelines.
#ifndef SEGUE_SESSION_HPP
#define SEGUE_SESSION_HPP

#include "copy.hpp"
#include "params.hpp"
#include "result.hpp"
#include "status.hpp"
#include "stream.hpp"
#include "time.hpp"
#include "zstring.hpp"

#include <segue.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace segue {

class client;
class pipeline;
class session;
class transaction;
struct transaction_options;
struct transact_options;

/// For which servers a session is.
enum class access : std::int32_t {
    /// As the configuration's `target_session_attrs` says.
    by_configuration = SEGUE_SESSION_DEFAULT,
    /// It writes: only a server that accepts that will do.
    read_write = SEGUE_SESSION_READ_WRITE,
    /// It only reads: any server will do, that which the configuration prefers first. For a session on a
    /// standby open a client with `target_session_attrs=read-only`.
    read_only = SEGUE_SESSION_READ_ONLY
};

/// Isolation levels of PostgreSQL.
enum class isolation : std::int32_t {
    /// As the server's settings say.
    by_server = SEGUE_ISOLATION_DEFAULT,
    read_committed = SEGUE_ISOLATION_READ_COMMITTED,
    repeatable_read = SEGUE_ISOLATION_REPEATABLE_READ,
    serializable = SEGUE_ISOLATION_SERIALIZABLE
};

/// What NOTIFY sent.
struct notification {
    std::string channel;
    std::string payload;
    /// Of the backend that has sent it.
    std::int32_t process_id = 0;
};

namespace detail {

/// What a session shares with its statements and transactions, so that they may go in any order.
struct session_core {
    explicit session_core(segue_session* raw) noexcept : handle(raw) {}

    std::unique_ptr<segue_session, freed_by<&segue_session_free>> handle;
    /// The open transaction's number and those of the savepoints inside it.
    std::vector<std::uint64_t> scopes;
    std::uint64_t next_scope = 1;
    /// How often a transaction was committed.
    std::uint64_t commits = 0;
};
using core_ptr = std::shared_ptr<session_core>;

inline segue_session* raw(const core_ptr& core) noexcept { return core ? core->handle.get() : nullptr; }

/// Of a statement that was executed all the same, the error in flight says: if it was not part of a
/// transaction it stands, else it ends with that.
inline void mark_executed(error& failure, const core_ptr& core) {
    try {
        const bool inside = core && read_session(core->handle.get()).in_transaction;
        failure.set_outcome(inside ? outcome::not_committed : outcome::committed);
    } catch (const error&) {
        failure.set_outcome(outcome::unknown);
    }
}

template <class... Ts>
std::optional<as_t<Ts...>> one_or_none(const result& rows, const core_ptr& core, bool none_allowed) {
    static_assert(!any_view<Ts...>,
                  "segue: the result is gone when the call returns; read text as std::string");
    try {
        if (rows.size() > 1 || (rows.empty() && !none_allowed)) {
            throw unexpected_rows(std::string(none_allowed ? "at most" : "exactly") +
                                  " one row was expected, the statement returned " +
                                  std::to_string(rows.size()) + "; it was executed");
        }
        return rows.empty() ? std::nullopt
                            : std::optional<as_t<Ts...>>(rows.at_unchecked(0).template as<Ts...>());
    } catch (error& failure) {
        mark_executed(failure, core);
        throw;
    }
}

}  // namespace detail

/// A prepared statement. Ordinary statements need not be prepared: the session does that by itself; this
/// one tells its types as well. It outlives failovers. One caller at a time, as its session.
class statement {
public:
    statement(statement&&) noexcept = default;
    statement& operator=(statement&&) noexcept = default;
    statement(const statement&) = delete;
    statement& operator=(const statement&) = delete;
    ~statement() = default;

    [[nodiscard]] segue_statement* handle() const noexcept { return handle_.get(); }

    /// As session::execute.
    template <class... Values>
    std::uint64_t execute(const Values&... values) const {
        const detail::param_pack<Values...> list(values...);
        std::uint64_t rows = 0;
        detail::call(segue_statement_execute, handle(), list.data(), list.size(), &rows);
        return rows;
    }

    /// As session::query.
    template <class... Values>
    [[nodiscard]] result query(const Values&... values) const {
        return query(format::text, values...);
    }
    template <class... Values>
    [[nodiscard]] result query(format form, const Values&... values) const {
        const detail::param_pack<Values...> list(values...);
        segue_result* rows = nullptr;
        detail::call(segue_statement_query, handle(), list.data(), list.size(),
                     static_cast<std::int32_t>(form), &rows);
        return result(rows);
    }

    /// As session::query_one.
    template <class... Ts, class... Values>
    detail::as_t<Ts...> query_one(const Values&... values) const {
        return *detail::one_or_none<Ts...>(query(values...), core_, false);
    }
    /// As session::query_opt.
    template <class... Ts, class... Values>
    std::optional<detail::as_t<Ts...>> query_opt(const Values&... values) const {
        return detail::one_or_none<Ts...>(query(values...), core_, true);
    }

    /// As session::stream.
    template <class... Values>
    [[nodiscard]] row_stream stream(const Values&... values) const {
        return stream(format::text, values...);
    }
    template <class... Values>
    [[nodiscard]] row_stream stream(format form, const Values&... values) const {
        const detail::param_pack<Values...> list(values...);
        segue_stream* opened = nullptr;
        detail::call(segue_statement_stream, handle(), list.data(), list.size(),
                     static_cast<std::int32_t>(form), &opened);
        return row_stream(opened);
    }

    [[nodiscard]] std::string_view sql() const noexcept { return text(segue_statement_sql(handle())); }
    [[nodiscard]] std::size_t param_count() const noexcept { return segue_statement_param_count(handle()); }
    /// The OID of a parameter's type, from 0; 0 if there is no such parameter.
    [[nodiscard]] std::uint32_t param_type(std::size_t param) const noexcept {
        return segue_statement_param_type(handle(), param);
    }
    [[nodiscard]] std::size_t column_count() const noexcept { return segue_statement_column_count(handle()); }
    /// Empty if there is no such column.
    [[nodiscard]] std::string_view column_name(std::size_t column) const noexcept {
        return text(segue_statement_column_name(handle(), column));
    }
    /// The OID of a column's type; 0 if there is no such column.
    [[nodiscard]] std::uint32_t column_type(std::size_t column) const noexcept {
        return segue_statement_column_type(handle(), column);
    }

private:
    friend class queries;
    statement(segue_statement* handle, detail::core_ptr core) noexcept
        : handle_(handle), core_(std::move(core)) {}

    static std::string_view text(const char* text) noexcept {
        return text == nullptr ? std::string_view() : text;
    }

    std::unique_ptr<segue_statement, detail::freed_by<&segue_statement_free>> handle_;
    detail::core_ptr core_;
};

/// What can be asked of a session, and of a transaction in it alike.
class queries {
public:
    /// Executes a statement with parameters `$1`, `$2` and so on; the number of rows affected or returned.
    template <class... Values>
    std::uint64_t execute(zstring sql, const Values&... values) {
        const detail::param_pack<Values...> list(values...);
        std::uint64_t rows = 0;
        detail::call(segue_session_execute, raw(), sql.c_str(), list.data(), list.size(), &rows);
        return rows;
    }

    /// Executes a statement; all that it returned.
    template <class... Values>
    [[nodiscard]] result query(zstring sql, const Values&... values) {
        return query(format::text, sql, values...);
    }
    /// The same, with the form in which the values are to come.
    template <class... Values>
    [[nodiscard]] result query(format form, zstring sql, const Values&... values) {
        const detail::param_pack<Values...> list(values...);
        segue_result* rows = nullptr;
        detail::call(segue_session_query, raw(), sql.c_str(), list.data(), list.size(),
                     static_cast<std::int32_t>(form), &rows);
        return result(rows);
    }

    /// Executes a statement that returns exactly one row: `query_one<int>(...)` is an int,
    /// `query_one<int, std::string>(...)` a tuple. Throws unexpected_rows otherwise; the statement was
    /// executed all the same.
    template <class... Ts, class... Values>
    detail::as_t<Ts...> query_one(zstring sql, const Values&... values) {
        return *detail::one_or_none<Ts...>(query(sql, values...), core_, false);
    }
    /// Executes a statement that returns one row or none.
    template <class... Ts, class... Values>
    std::optional<detail::as_t<Ts...>> query_opt(zstring sql, const Values&... values) {
        return detail::one_or_none<Ts...>(query(sql, values...), core_, true);
    }

    /// Executes one or more statements, separated by semicolons, without parameters: as one implicit
    /// transaction, unless they control it themselves.
    [[nodiscard]] segue::batch query_batch(zstring sql) {
        segue_result* first = nullptr;
        detail::call(segue_session_batch, raw(), sql.c_str(), &first);
        return segue::batch(first);
    }
    /// The same, for what returns nothing of interest.
    void execute_batch(zstring sql) { static_cast<void>(query_batch(sql)); }

    /// Executes a statement whose rows are handed over as they arrive.
    template <class... Values>
    [[nodiscard]] row_stream stream(zstring sql, const Values&... values) {
        return stream(format::text, sql, values...);
    }
    template <class... Values>
    [[nodiscard]] row_stream stream(format form, zstring sql, const Values&... values) {
        const detail::param_pack<Values...> list(values...);
        segue_stream* opened = nullptr;
        detail::call(segue_session_stream, raw(), sql.c_str(), list.data(), list.size(),
                     static_cast<std::int32_t>(form), &opened);
        return row_stream(opened);
    }

    /// Has the server look at a statement; `types` gives the OIDs of the first parameters' types, where the
    /// server is not to infer them.
    [[nodiscard]] statement prepare(zstring sql, const std::vector<std::uint32_t>& types = {}) {
        segue_statement* prepared = nullptr;
        detail::call(segue_session_prepare, raw(), sql.c_str(), types.data(), types.size(), &prepared);
        return {prepared, core_};
    }

    /// Starts COPY ... FROM STDIN.
    [[nodiscard]] segue::copy_in copy_in(zstring sql) {
        segue_copy_in* started = nullptr;
        detail::call(segue_session_copy_in, raw(), sql.c_str(), &started);
        return segue::copy_in(started);
    }

    /// Starts COPY ... TO STDOUT.
    [[nodiscard]] segue::copy_out copy_out(zstring sql) {
        segue_copy_out* started = nullptr;
        detail::call(segue_session_copy_out, raw(), sql.c_str(), &started);
        return segue::copy_out(started);
    }

    /// Opens a pipeline: statements sent without waiting for each one's reply.
    [[nodiscard]] segue::pipeline pipeline(format form = format::text);

    /// Where the session is and what protects it.
    [[nodiscard]] session_status status() const { return detail::read_session(raw()); }

protected:
    explicit queries(detail::core_ptr core) noexcept : core_(std::move(core)) {}
    queries(queries&&) noexcept = default;
    queries& operator=(queries&&) noexcept = default;
    queries(const queries&) = delete;
    queries& operator=(const queries&) = delete;
    // Not virtual: nobody owns a session or transaction by its base.
    ~queries() = default;

    [[nodiscard]] segue_session* raw() const noexcept { return detail::raw(core_); }

    detail::core_ptr core_;
};

/// Statements sent without waiting for each one's reply: add() them, then read as many results with next().
///
/// Each statement is a request of its own: outside a transaction each is committed by itself, and a failing
/// one does not stop the others. Inside a transaction a failure fails those behind it. While it is open its
/// session takes no other calls.
///
/// ```cpp
/// auto pipe = session.pipeline();
/// for (int id : ids) pipe.add("INSERT INTO t VALUES ($1)", id);
/// while (auto result = pipe.next()) { ... }
/// ```
class pipeline {
public:
    /// Takes a handle of the C interface over.
    explicit pipeline(segue_pipeline* handle) noexcept : handle_(handle) {}
    pipeline(pipeline&&) noexcept = default;
    pipeline& operator=(pipeline&&) noexcept = default;
    pipeline(const pipeline&) = delete;
    pipeline& operator=(const pipeline&) = delete;
    ~pipeline() = default;

    [[nodiscard]] segue_pipeline* handle() const noexcept { return handle_.get(); }

    /// Adds a statement. If this throws, nothing was added.
    template <class... Values>
    void add(zstring sql, const Values&... values) {
        const detail::param_pack<Values...> list(values...);
        detail::call(segue_pipeline_add, handle(), sql.c_str(), list.data(), list.size());
    }
    template <class... Values>
    void add(const statement& prepared, const Values&... values) {
        const detail::param_pack<Values...> list(values...);
        detail::call(segue_pipeline_add_statement, handle(), prepared.handle(), list.data(), list.size());
    }

    /// The result of the next statement, in order; nothing at the end. It throws the error of a failed
    /// statement; go on with the next one then.
    [[nodiscard]] std::optional<result> next() {
        segue_result* rows = nullptr;
        detail::call(segue_pipeline_next, handle(), &rows);
        return rows == nullptr ? std::nullopt : std::optional<result>(result(rows));
    }

    /// All results that are left. If a statement has failed, the first error is thrown once all are read.
    std::vector<result> finish() {
        std::vector<result> results;
        std::exception_ptr first;
        for (;;) {
            try {
                auto rows = next();
                if (!rows) {
                    break;
                }
                results.push_back(std::move(*rows));
            } catch (const usage_error&) {
                // This is not a statement's failure but the call's: there is nothing more to read.
                throw;
            } catch (const error&) {
                if (!first) {
                    first = std::current_exception();
                }
            }
        }
        if (first) {
            std::rethrow_exception(first);
        }
        return results;
    }

private:
    std::unique_ptr<segue_pipeline, detail::freed_by<&segue_pipeline_free>> handle_;
};

inline pipeline queries::pipeline(format form) {
    segue_pipeline* opened = nullptr;
    detail::call(segue_session_pipeline, raw(), static_cast<std::int32_t>(form), &opened);
    return segue::pipeline(opened);
}

/// Cancels what a session is executing. Any thread may use it at any time, while the session is busy and
/// after it is gone.
class cancel_handle {
public:
    /// Takes a handle of the C interface over.
    explicit cancel_handle(segue_cancel* handle) noexcept : handle_(handle) {}
    cancel_handle(cancel_handle&&) noexcept = default;
    cancel_handle& operator=(cancel_handle&&) noexcept = default;
    cancel_handle(const cancel_handle&) = delete;
    cancel_handle& operator=(const cancel_handle&) = delete;
    ~cancel_handle() = default;

    [[nodiscard]] segue_cancel* handle() const noexcept { return handle_.get(); }

    /// Asks the server to cancel the statement. It may be over by the time the server hears of it; if not,
    /// it fails with query_canceled.
    void cancel() const { detail::call(segue_cancel_request, static_cast<const segue_cancel*>(handle())); }

private:
    std::unique_ptr<segue_cancel, detail::freed_by<&segue_cancel_free>> handle_;
};

/// One logical connection, which outlives the servers that it uses. One caller at a time; it may move
/// between threads.
///
/// Its destructor closes it; a transaction that is still open is rolled back. What it has opened may be
/// destroyed before it or after it.
class session : public queries {
public:
    /// Opens a session; waits for a server for at most `failover_timeout_ms`. See client::open_session.
    explicit session(const client& owner, access wanted = access::by_configuration);
    /// Takes a handle of the C interface over.
    explicit session(segue_session* handle) : queries(std::make_shared<detail::session_core>(handle)) {}
    session(session&&) noexcept = default;
    session& operator=(session&&) noexcept = default;
    session(const session&) = delete;
    session& operator=(const session&) = delete;
    ~session() = default;

    /// Null once it was closed or moved from; every call then throws invalid_argument.
    [[nodiscard]] segue_session* handle() const noexcept { return raw(); }

    /// Closes it now.
    void close() noexcept {
        if (core_) {
            core_->handle.reset();
            core_->scopes.clear();
            core_.reset();
        }
    }

    /// Runs `body(transaction&)` in a transaction, commits, and returns what it returned; see
    /// transact_options.
    template <class Body>
    auto transact(Body&& body, const transact_options& options);
    template <class Body>
    auto transact(Body&& body);

    /// Begins a transaction without a guard; better use segue::transaction.
    void begin(const transaction_options& options);
    void begin();
    /// Commits the open transaction, failing over and replaying it if its server is lost.
    void commit() {
        detail::call(segue_session_commit, raw());
        core_->scopes.clear();
        ++core_->commits;
    }
    void rollback() {
        detail::call(segue_session_rollback, raw());
        core_->scopes.clear();
    }
    /// Sets a savepoint; its name is quoted where it has to be.
    void savepoint(zstring name) { detail::call(segue_session_savepoint, raw(), name.c_str()); }
    void rollback_to(zstring name) { detail::call(segue_session_rollback_to, raw(), name.c_str()); }
    void release(zstring name) { detail::call(segue_session_release, raw(), name.c_str()); }

    /// The next notification of a channel that this session listens to: one that has arrived, or one that
    /// arrives within `timeout` (of a day at most); nothing if none does.
    template <class Rep, class Period>
    [[nodiscard]] std::optional<segue::notification> notification(
        std::chrono::duration<Rep, Period> timeout) {
        segue_notification* arrived = nullptr;
        detail::call(segue_session_notification, raw(), detail::wait_ms(timeout), &arrived);
        if (arrived == nullptr) {
            return std::nullopt;
        }
        const std::unique_ptr<segue_notification, detail::freed_by<&segue_notification_free>> owned(arrived);
        return segue::notification{detail::copied(segue_notification_channel(arrived)),
                                   detail::copied(segue_notification_payload(arrived)),
                                   segue_notification_process_id(arrived)};
    }

    /// What cancels this session's statements from another thread.
    [[nodiscard]] segue::cancel_handle cancel_handle() const {
        segue_cancel* made = nullptr;
        detail::call(segue_session_cancel_handle, static_cast<const segue_session*>(raw()), &made);
        return segue::cancel_handle(made);
    }

    /// A setting that the server reports, such as `server_version`; nothing if it does not report it.
    [[nodiscard]] std::optional<std::string> parameter(zstring name) const;

private:
    friend class transaction;
};

inline std::optional<std::string> session::parameter(zstring name) const {
    std::size_t length = 0;
    try {
        detail::call(segue_session_parameter, raw(), name.c_str(), static_cast<char*>(nullptr),
                     std::size_t{0}, &length);
    } catch (const usage_error& failure) {
        if (failure.kind() == error_kind::usage) {
            return std::nullopt;
        }
        throw;
    }
    std::string value(length + 1, '\0');
    detail::call(segue_session_parameter, raw(), name.c_str(), value.data(), value.size(), &length);
    value.resize(length);
    return value;
}

/// A name as an identifier of SQL, in double quotes: for LISTEN, table names and the like, which cannot
/// be parameters.
[[nodiscard]] inline std::string quote_identifier(std::string_view name) {
    std::string quoted = "\"";
    for (const char c : name) {
        quoted += c;
        if (c == '"') {
            quoted += c;
        }
    }
    return quoted + '"';
}

}  // namespace segue

#endif
