// Exceptions: what went wrong, what became of the transaction, and the server's own words.
//
// Every failure of the library is thrown as segue::error or one of its subclasses. An exception owns
// copies of all it tells: it may be copied, stored and rethrown after every handle is gone.
#ifndef SEGUE_ERROR_HPP
#define SEGUE_ERROR_HPP

#include <segue.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace segue {

/// What went wrong. The numbers are those of the C interface; others may be added.
enum class error_kind : std::int32_t {
    invalid_argument = SEGUE_INVALID_ARGUMENT,
    usage = SEGUE_USAGE,
    busy = SEGUE_BUSY,
    closed = SEGUE_CLOSED,
    forked = SEGUE_FORKED,
    conversion = SEGUE_CONVERSION,
    null_value = SEGUE_NULL_VALUE,
    limit = SEGUE_LIMIT,
    config = SEGUE_CONFIG,
    connect = SEGUE_CONNECT,
    authentication = SEGUE_AUTHENTICATION,
    tls = SEGUE_TLS,
    protocol = SEGUE_PROTOCOL,
    server = SEGUE_SERVER,
    outcome_unknown = SEGUE_OUTCOME_UNKNOWN,
    replay_diverged = SEGUE_REPLAY_DIVERGED,
    reply_lost = SEGUE_REPLY_LOST,
    protection_lost = SEGUE_PROTECTION_LOST,
    failover_timeout = SEGUE_FAILOVER_TIMEOUT,
    ledger = SEGUE_LEDGER,
    transaction_failed = SEGUE_TRANSACTION_FAILED,
    server_crash = SEGUE_SERVER_CRASH,
    internal = SEGUE_INTERNAL
};

/// What became of the transaction (or of the autocommit statement) that an error ended.
enum class outcome : std::int32_t {
    /// Nothing of it is in the database, and nothing of it will be.
    not_committed = SEGUE_TXN_NOT_COMMITTED,
    /// It is in the database, exactly once.
    committed = SEGUE_TXN_COMMITTED,
    /// It cannot be said: look before running it again.
    unknown = SEGUE_TXN_UNKNOWN
};

namespace detail {

/// All that an exception tells.
struct error_data {
    std::int32_t status = SEGUE_INTERNAL;
    std::int32_t outcome = SEGUE_TXN_NOT_COMMITTED;
    bool retryable = false;
    bool maybe_committed = false;
    std::string sqlstate;
    std::string cause;
    std::vector<std::pair<char, std::string>> fields;
};

/// Used as the deleter of a std::unique_ptr over a handle.
template <auto Free>
struct freed_by {
    template <class T>
    void operator()(T* pointer) const noexcept {
        Free(pointer);
    }
};

/// Destroys a callback that the library was given.
template <class Callback>
void destroy_callback(void* user_data) noexcept {
    delete static_cast<Callback*>(user_data);
}

inline std::string copied(const char* text) { return text == nullptr ? std::string() : std::string(text); }

}  // namespace detail

/// The base of all of Segue's exceptions.
///
/// what() says what happened, what became of the transaction and what can be done. For a server's own
/// error it is the server's message, unchanged.
class error : public std::runtime_error {
public:
    /// An error of the C++ layer itself; applications have no need of it, traits may use the subclasses.
    error(error_kind kind, const std::string& message, const char* sqlstate, segue::outcome outcome)
        : std::runtime_error(message), data_(make(kind, sqlstate, outcome)) {}

    /// For the library: an error with all that the C interface has told of it.
    error(std::shared_ptr<const detail::error_data> data, const std::string& message)
        : std::runtime_error(message), data_(std::move(data)) {}

    /// What went wrong.
    [[nodiscard]] error_kind kind() const noexcept { return static_cast<error_kind>(data_->status); }

    /// The status of the C interface: `SEGUE_SERVER` and so on.
    [[nodiscard]] std::int32_t status() const noexcept { return data_->status; }

    /// What became of the transaction.
    [[nodiscard]] segue::outcome outcome() const noexcept {
        return static_cast<segue::outcome>(data_->outcome);
    }

    /// SQLSTATE: the server's, where it sent one, else the standard code nearest to the kind.
    [[nodiscard]] std::string_view sqlstate() const noexcept { return data_->sqlstate; }

    /// Whether running the whole transaction again may help and is certain not to apply it twice.
    [[nodiscard]] bool is_retryable() const noexcept { return data_->retryable; }

    /// Whether the transaction may stand although an error was reported.
    [[nodiscard]] bool maybe_committed() const noexcept { return data_->maybe_committed; }

    /// A field of the server's error by the protocol's code, as libpq's `PG_DIAG_*`; nothing if absent.
    [[nodiscard]] std::optional<std::string_view> field(char code) const noexcept {
        for (const auto& entry : data_->fields) {
            if (entry.first == code) {
                return std::string_view(entry.second);
            }
        }
        return std::nullopt;
    }

    /// `ERROR`, `FATAL` or `PANIC`. This and what follows are empty where the server said nothing.
    [[nodiscard]] std::string_view severity() const noexcept { return field('S').value_or(""); }
    /// The server's primary message.
    [[nodiscard]] std::string_view server_message() const noexcept { return field('M').value_or(""); }
    /// The server's secondary message. It may carry values of a row.
    [[nodiscard]] std::string_view detail() const noexcept { return field('D').value_or(""); }
    /// What the server advises.
    [[nodiscard]] std::string_view hint() const noexcept { return field('H').value_or(""); }
    /// Where in the statement, in characters from 1.
    [[nodiscard]] std::string_view position() const noexcept { return field('P').value_or(""); }
    /// The call stack within the server, in words.
    [[nodiscard]] std::string_view context() const noexcept { return field('W').value_or(""); }
    [[nodiscard]] std::string_view schema() const noexcept { return field('s').value_or(""); }
    [[nodiscard]] std::string_view table() const noexcept { return field('t').value_or(""); }
    [[nodiscard]] std::string_view column() const noexcept { return field('c').value_or(""); }
    [[nodiscard]] std::string_view datatype() const noexcept { return field('d').value_or(""); }
    [[nodiscard]] std::string_view constraint() const noexcept { return field('n').value_or(""); }

    /// The chain of causes in one line; empty if there is none.
    [[nodiscard]] std::string_view cause() const noexcept { return data_->cause; }

    /// For the library: the same error with another outcome.
    void set_outcome(segue::outcome outcome) {
        auto changed = std::make_shared<detail::error_data>(*data_);
        changed->outcome = static_cast<std::int32_t>(outcome);
        changed->maybe_committed = outcome != segue::outcome::not_committed;
        changed->retryable = changed->retryable && !changed->maybe_committed;
        data_ = std::move(changed);
    }

private:
    static std::shared_ptr<const detail::error_data> make(error_kind kind, const char* sqlstate,
                                                          segue::outcome outcome) {
        auto data = std::make_shared<detail::error_data>();
        data->status = static_cast<std::int32_t>(kind);
        data->outcome = static_cast<std::int32_t>(outcome);
        data->maybe_committed = outcome != segue::outcome::not_committed;
        data->sqlstate = sqlstate;
        return data;
    }

    // Shared, so that copying an exception cannot throw.
    std::shared_ptr<const detail::error_data> data_;
};

/// The configuration is wrong or contradicts itself.
class config_error : public error {
    using error::error;
};

/// A server could not be talked to. The base of the four that follow it in this file.
class connection_error : public error {
    using error::error;
};
/// A server could not be reached.
class connect_error : public connection_error {
    using connection_error::connection_error;
};
/// The server refused the user, or asked for a method that the configuration does not allow.
class authentication_error : public connection_error {
    using connection_error::connection_error;
};
/// TLS could not be agreed upon, or a certificate was refused.
class tls_error : public connection_error {
    using connection_error::connection_error;
};
/// The server sent bytes that are not PostgreSQL's protocol.
class protocol_error : public connection_error {
    using connection_error::connection_error;
};

/// The server's own error. Subclasses name the SQLSTATEs that applications tell apart most often.
class server_error : public error {
    using error::error;
};
/// Class 23: a constraint was violated; constraint(), table() and column() tell which.
class integrity_violation : public server_error {
    using server_error::server_error;
};
/// 23502
class not_null_violation : public integrity_violation {
    using integrity_violation::integrity_violation;
};
/// 23503
class foreign_key_violation : public integrity_violation {
    using integrity_violation::integrity_violation;
};
/// 23505
class unique_violation : public integrity_violation {
    using integrity_violation::integrity_violation;
};
/// 23514
class check_violation : public integrity_violation {
    using integrity_violation::integrity_violation;
};
/// 23P01
class exclusion_violation : public integrity_violation {
    using integrity_violation::integrity_violation;
};
/// 40001: the transaction lost against another one and can be run again.
class serialization_failure : public server_error {
    using server_error::server_error;
};
/// 40P01: the transaction was chosen as the victim of a deadlock and can be run again.
class deadlock_detected : public server_error {
    using server_error::server_error;
};
/// 57014: the statement was cancelled, or ran into statement_timeout.
class query_canceled : public server_error {
    using server_error::server_error;
};
/// Class 42: the statement is wrong, names what is not there, or is not allowed.
class syntax_error_or_access_rule : public server_error {
    using server_error::server_error;
};

/// The link was lost and nothing can be said of the commit that was in flight. Never run it again unseen.
class outcome_unknown : public error {
    using error::error;
};
/// The replay gave other results than the application has seen; it was rolled back. SQLSTATE 40001.
class replay_diverged : public error {
    using error::error;
};
/// The commit stands, but the server's reply to the statement is lost.
class reply_lost : public error {
    using error::error;
};
/// The link was lost and the transaction was not protected; what() names the reason.
class protection_lost : public error {
    using error::error;
};
/// No usable server appeared before `failover_timeout_ms` had passed.
class failover_timeout : public error {
    using error::error;
};
/// `ledger=require`, and the server's ledger is missing or may not be used.
class ledger_error : public error {
    using error::error;
};
/// COMMIT was asked for in a transaction that had failed earlier: it was rolled back.
class transaction_failed : public error {
    using error::error;
};
/// Not committed: the server has crashed each time that it ran the submission alone.
class server_crash : public error {
    using error::error;
};
/// A limit of the configuration was reached.
class limit_error : public error {
    using error::error;
};
/// A bug of Segue's: the session is closed, the process is unharmed.
class internal_error : public error {
    using error::error;
};

/// The call does not fit the state of the handle. The base of the four that follow it.
class usage_error : public error {
public:
    using error::error;
    explicit usage_error(const std::string& message)
        : error(error_kind::usage, message, "HY010", segue::outcome::not_committed) {}
};
/// A row or column out of range, text that is not UTF-8, an unknown constant.
class invalid_argument : public usage_error {
public:
    using usage_error::usage_error;
    explicit invalid_argument(const std::string& message,
                              segue::outcome outcome = segue::outcome::not_committed)
        : usage_error(error_kind::invalid_argument, message, "HY009", outcome) {}
};
/// The session is in use by another thread, or lent to a stream, COPY or pipeline that is still open.
class busy_error : public usage_error {
    using usage_error::usage_error;
};
/// The handle was closed.
class closed_error : public usage_error {
    using usage_error::usage_error;
};
/// The handle was made by the process that forked this one.
class forked_error : public usage_error {
    using usage_error::usage_error;
};

/// A statement returned another number of rows than query_one() or query_opt() allow. It was executed:
/// outcome() says whether it is committed already or belongs to the open transaction.
class unexpected_rows : public usage_error {
public:
    using usage_error::usage_error;
};

/// A value does not fit the type asked for. User-defined traits throw it, too.
///
/// Reading a value of a result ends no transaction and knows of none, so that outcome() is `unknown` then;
/// query_one() and query_opt() say `committed` of an autocommit statement that they have executed. It is
/// `not_committed` where a parameter was refused: then nothing was sent.
class conversion_error : public error {
public:
    using error::error;
    explicit conversion_error(const std::string& message, segue::outcome outcome = segue::outcome::unknown)
        : error(error_kind::conversion, message, "22023", outcome) {}
};
/// SQL NULL where the type has no place for it; use std::optional.
class null_value : public conversion_error {
public:
    using conversion_error::conversion_error;
    explicit null_value(const std::string& message)
        : conversion_error(error_kind::null_value, message, "22002", segue::outcome::unknown) {}
};

namespace detail {

using error_handle = std::unique_ptr<segue_error, freed_by<&segue_error_free>>;
using error_data_ptr = std::shared_ptr<const error_data>;

[[noreturn]] inline void throw_server_error(error_data_ptr data, const std::string& message) {
    const std::string& code = data->sqlstate;
    if (code == "23502") throw not_null_violation(std::move(data), message);
    if (code == "23503") throw foreign_key_violation(std::move(data), message);
    if (code == "23505") throw unique_violation(std::move(data), message);
    if (code == "23514") throw check_violation(std::move(data), message);
    if (code == "23P01") throw exclusion_violation(std::move(data), message);
    if (code == "40001") throw serialization_failure(std::move(data), message);
    if (code == "40P01") throw deadlock_detected(std::move(data), message);
    if (code == "57014") throw query_canceled(std::move(data), message);
    if (code.compare(0, 2, "23") == 0) throw integrity_violation(std::move(data), message);
    if (code.compare(0, 2, "42") == 0) throw syntax_error_or_access_rule(std::move(data), message);
    throw server_error(std::move(data), message);
}

[[noreturn]] inline void throw_kind(error_data_ptr data, const std::string& message) {
    switch (data->status) {
        case SEGUE_INVALID_ARGUMENT: throw invalid_argument(std::move(data), message);
        case SEGUE_USAGE: throw usage_error(std::move(data), message);
        case SEGUE_BUSY: throw busy_error(std::move(data), message);
        case SEGUE_CLOSED: throw closed_error(std::move(data), message);
        case SEGUE_FORKED: throw forked_error(std::move(data), message);
        case SEGUE_CONVERSION: throw conversion_error(std::move(data), message);
        case SEGUE_NULL_VALUE: throw null_value(std::move(data), message);
        case SEGUE_LIMIT: throw limit_error(std::move(data), message);
        case SEGUE_CONFIG: throw config_error(std::move(data), message);
        case SEGUE_CONNECT: throw connect_error(std::move(data), message);
        case SEGUE_AUTHENTICATION: throw authentication_error(std::move(data), message);
        case SEGUE_TLS: throw tls_error(std::move(data), message);
        case SEGUE_PROTOCOL: throw protocol_error(std::move(data), message);
        case SEGUE_SERVER: throw_server_error(std::move(data), message);
        case SEGUE_OUTCOME_UNKNOWN: throw outcome_unknown(std::move(data), message);
        case SEGUE_REPLAY_DIVERGED: throw replay_diverged(std::move(data), message);
        case SEGUE_REPLY_LOST: throw reply_lost(std::move(data), message);
        case SEGUE_PROTECTION_LOST: throw protection_lost(std::move(data), message);
        case SEGUE_FAILOVER_TIMEOUT: throw failover_timeout(std::move(data), message);
        case SEGUE_LEDGER: throw ledger_error(std::move(data), message);
        case SEGUE_TRANSACTION_FAILED: throw transaction_failed(std::move(data), message);
        case SEGUE_SERVER_CRASH: throw server_crash(std::move(data), message);
        case SEGUE_INTERNAL: throw internal_error(std::move(data), message);
        // A newer library may know more kinds than this header.
        default: throw error(std::move(data), message);
    }
}

/// Throws what an error of the C interface tells; that stays whose it is.
[[noreturn]] inline void throw_copy(std::int32_t status, const segue_error* raw) {
    auto data = std::make_shared<error_data>();
    data->status = status;
    if (raw == nullptr) {
        throw_kind(std::move(data), copied(segue_status_name(status)));
    }
    data->outcome = segue_error_outcome(raw);
    data->retryable = segue_error_is_retryable(raw);
    data->maybe_committed = segue_error_maybe_committed(raw);
    data->sqlstate = copied(segue_error_sqlstate(raw));
    data->cause = copied(segue_error_cause(raw));
    for (const char code : std::string_view("SVCMDHPpqWstcdnFLR")) {
        if (const char* text = segue_error_field(raw, code)) {
            data->fields.emplace_back(code, text);
        }
    }
    throw_kind(std::move(data), copied(segue_error_message(raw)));
}

/// Throws what a failed call has left behind; takes `raw` over.
[[noreturn]] inline void throw_failure(std::int32_t status, segue_error* raw) {
    const error_handle failure(raw);
    throw_copy(status, raw);
}

/// Calls a function of the C interface, whose last parameter is `error_out`; throws if it fails.
template <class Function, class... Arguments>
void call(Function function, Arguments... arguments) {
    segue_error* failure = nullptr;
    const std::int32_t status = function(arguments..., &failure);
    if (status != SEGUE_OK) {
        throw_failure(status, failure);
    }
}

}  // namespace detail
}  // namespace segue

#endif
