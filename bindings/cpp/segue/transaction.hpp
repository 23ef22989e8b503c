// Transactions as scopes, and as functions that are run again where that is safe.
#ifndef SEGUE_TRANSACTION_HPP
#define SEGUE_TRANSACTION_HPP

#include "session.hpp"

#include <segue.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace segue {

/// How a transaction begins; by default as the server's settings say.
struct transaction_options {
    segue::isolation isolation = segue::isolation::by_server;
    bool read_only = false;
    /// With serializable and read_only: wait for a snapshot that cannot fail.
    bool deferrable = false;
};

/// How transact() runs a transaction.
struct transact_options {
    segue::isolation isolation = segue::isolation::by_server;
    bool read_only = false;
    bool deferrable = false;
    /// How often it is tried at most; 1 never runs it again.
    unsigned max_attempts = 3;
};

namespace detail {
inline std::uint32_t begin_flags(const transaction_options& options) noexcept {
    return (options.read_only ? std::uint32_t{SEGUE_BEGIN_READ_ONLY} : 0U) |
           (options.deferrable ? std::uint32_t{SEGUE_BEGIN_DEFERRABLE} : 0U);
}
}  // namespace detail

/// An open transaction, or a savepoint inside one: what is not committed is rolled back.
///
/// ```cpp
/// segue::transaction tx{session, segue::isolation::serializable};
/// tx.execute("UPDATE account SET balance = balance - $1 WHERE id = $2", amount, from);
/// tx.commit();
/// ```
///
/// It has all the calls of a session. The destructor rolls back and never throws; leaving by an exception
/// is thus safe. Streams, COPYs and pipelines opened inside have to be closed before, as they are where they
/// are declared after it.
class transaction : public queries {
public:
    /// Begins a transaction.
    explicit transaction(session& owner, segue::isolation level = segue::isolation::by_server)
        : transaction(owner, transaction_options{level, false, false}) {}
    transaction(session& owner, const transaction_options& options) : queries(owner.core_) {
        owner.begin(options);
        enter();
    }
    transaction(transaction&& other) noexcept
        : queries(std::move(other)),
          scope_(std::exchange(other.scope_, 0)),
          savepoint_(std::move(other.savepoint_)) {}
    transaction& operator=(transaction&& other) noexcept {
        if (this != &other) {
            undo();
            queries::operator=(std::move(other));
            scope_ = std::exchange(other.scope_, 0);
            savepoint_ = std::move(other.savepoint_);
        }
        return *this;
    }
    transaction(const transaction&) = delete;
    transaction& operator=(const transaction&) = delete;
    ~transaction() { undo(); }

    /// The handle of its session; null once it was moved from.
    [[nodiscard]] segue_session* handle() const noexcept { return raw(); }

    /// Whether it can still be committed or rolled back.
    [[nodiscard]] bool active() const noexcept {
        return core_ != nullptr && scope_ != 0 && position() != core_->scopes.end();
    }

    /// Commits, failing over and replaying the transaction if its server is lost; a savepoint is released.
    /// If it throws, the error tells the outcome.
    void commit() {
        require_active();
        if (!savepoint_.empty()) {
            detail::call(segue_session_release, raw(), savepoint_.c_str());
            leave();
            return;
        }
        end([this] { detail::call(segue_session_commit, raw()); });
    }

    /// Commits behind the statements of a pipeline of this transaction, in the same write: COMMIT costs no
    /// round trip of its own. The pipeline's next() then gives their results, also where this throws: a
    /// statement that failed makes it throw transaction_failed. Not for savepoints.
    void commit(segue::pipeline& statements) {
        require_active();
        if (!savepoint_.empty()) {
            throw usage_error("a savepoint is not committed by a pipeline: close that, then commit");
        }
        end([&statements] { detail::call(segue_pipeline_commit, statements.handle()); });
    }

    /// Rolls back to where it began.
    void rollback() {
        require_active();
        if (savepoint_.empty()) {
            detail::call(segue_session_rollback, raw());
        } else {
            detail::call(segue_session_rollback_to, raw(), savepoint_.c_str());
            detail::call(segue_session_release, raw(), savepoint_.c_str());
        }
        leave();
    }

    /// A savepoint inside this transaction, as a guard of the same kind.
    [[nodiscard]] transaction nested() {
        require_active();
        return transaction(core_);
    }

private:
    /// A savepoint.
    explicit transaction(detail::core_ptr core)
        : queries(std::move(core)), savepoint_("segue_scope_" + std::to_string(core_->next_scope)) {
        detail::call(segue_session_savepoint, raw(), savepoint_.c_str());
        enter();
    }

    void enter() {
        if (savepoint_.empty()) {
            core_->scopes.clear();
        }
        scope_ = core_->next_scope++;
        core_->scopes.push_back(scope_);
    }

    [[nodiscard]] std::vector<std::uint64_t>::iterator position() const noexcept {
        return std::find(core_->scopes.begin(), core_->scopes.end(), scope_);
    }

    void require_active() const {
        if (!active()) {
            throw usage_error(
                "the transaction has ended already: it was committed, rolled back or moved from");
        }
    }

    /// Ends this scope, and those opened inside it, which the server has ended with it.
    void leave() noexcept { core_->scopes.erase(position(), core_->scopes.end()); }

    /// COMMIT, by whatever call.
    template <class Commit>
    void end(Commit&& commit) {
        try {
            commit();
        } catch (const usage_error&) {
            // The call was refused, because a stream is open for instance: the transaction is as it was.
            throw;
        } catch (...) {
            leave();
            abandon();
            throw;
        }
        leave();
        ++core_->commits;
    }

    /// After a COMMIT that failed: should the session still be inside the transaction, it must not stay
    /// there.
    void abandon() noexcept {
        try {
            if (status().in_transaction) {
                segue_session_rollback(raw(), nullptr);
            }
        } catch (...) {
        }
    }

    void undo() noexcept {
        if (!active()) {
            return;
        }
        if (savepoint_.empty()) {
            segue_session_rollback(raw(), nullptr);
        } else if (segue_session_rollback_to(raw(), savepoint_.c_str(), nullptr) == SEGUE_OK) {
            segue_session_release(raw(), savepoint_.c_str(), nullptr);
        }
        leave();
    }

    std::uint64_t scope_ = 0;
    /// Empty for a transaction.
    std::string savepoint_;
};

inline void session::begin(const transaction_options& options) {
    detail::call(segue_session_begin, raw(), static_cast<std::int32_t>(options.isolation),
                 detail::begin_flags(options));
}

inline void session::begin() { begin(transaction_options{}); }

/// Runs `body(transaction&)` in a transaction, commits and returns what `body` returned.
///
/// Segue itself replays what a lost server interrupts. Beyond that, the whole body is run again if an error
/// is_retryable(): a serialization failure, a deadlock, a replay that diverged, and the like. It is never run
/// again if anything of it may be committed. An exception of any other kind rolls back and is passed on.
/// The body must not have effects elsewhere that cannot be repeated, nor execute COMMIT as a text. A body
/// that has committed or rolled back itself is left at that.
template <class Body>
auto session::transact(Body&& body, const transact_options& options) {
    using returned = std::invoke_result_t<Body&, transaction&>;
    for (unsigned attempt = 1;; ++attempt) {
        const std::uint64_t commits = core_ ? core_->commits : 0;
        try {
            transaction tx(*this,
                           transaction_options{options.isolation, options.read_only, options.deferrable});
            if constexpr (std::is_void_v<returned>) {
                body(tx);
                if (tx.active()) {
                    tx.commit();
                }
                return;
            } else {
                static_assert(!std::is_reference_v<returned>,
                              "segue: return a value from a transaction, not a reference");
                returned value = body(tx);
                if (tx.active()) {
                    tx.commit();
                }
                return value;
            }
        } catch (const error& failure) {
            const bool committed = !core_ || core_->commits != commits || failure.maybe_committed();
            if (committed || !failure.is_retryable() || attempt >= options.max_attempts) {
                throw;
            }
        }
    }
}

template <class Body>
auto session::transact(Body&& body) {
    return transact(std::forward<Body>(body), transact_options{});
}

}  // namespace segue

#endif
