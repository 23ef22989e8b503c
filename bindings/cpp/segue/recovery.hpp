// What became of the transactions that an earlier process had in flight: client::recover().
#ifndef SEGUE_RECOVERY_HPP
#define SEGUE_RECOVERY_HPP

#include "error.hpp"
#include "iterator.hpp"
#include "params.hpp"
#include "status.hpp"

#include <segue.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace segue {

/// What became of a transaction.
enum class verdict : std::int32_t {
    /// It may be committed or not; reason() says why that cannot be told.
    unknown = SEGUE_VERDICT_UNKNOWN,
    /// It is in the database, exactly once.
    committed = SEGUE_VERDICT_COMMITTED,
    /// Its commit was sent and has failed: nothing of it is in the database, and nothing of it will be.
    not_committed = SEGUE_VERDICT_NOT_COMMITTED,
    /// Its commit was never sent: nothing of it is in the database.
    never_sent = SEGUE_VERDICT_NEVER_SENT
};

/// One attempt to commit: where in the ledger it was to stand.
struct seal_evidence {
    /// segue.ledger.session. Whoever knows it can seal in it: do not print it where strangers read.
    std::string row;
    std::uint64_t number = 0;
    /// It would have been written only if the transaction had written anything itself.
    bool guarded = false;
    /// What the ledger says; nothing if it cannot say, or was not asked.
    std::optional<bool> committed;
};

/// The parameters of a recovered statement as they were sent: execute() and its like take them as they are.
/// They live until the next statement.
class recovered_params {
public:
    recovered_params(const segue_param* list, std::size_t size) noexcept : list_(list), size_(size) {}
    [[nodiscard]] const segue_param* data() const noexcept { return list_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

private:
    const segue_param* list_;
    std::size_t size_;
};

namespace detail {

template <>
class param_pack<recovered_params> {
public:
    explicit param_pack(const recovered_params& list) noexcept : list_(list) {}
    [[nodiscard]] const segue_param* data() const noexcept { return list_.data(); }
    [[nodiscard]] std::size_t size() const noexcept { return list_.size(); }

private:
    recovered_params list_;
};

}  // namespace detail

/// A statement that an earlier process had executed. What it gives lives until the next statement.
class recovered_statement {
public:
    explicit recovered_statement(const segue_recovered_statements* statements) noexcept
        : statements_(statements) {}

    /// The text: one statement, or, if is_simple(), a string of any number of them.
    [[nodiscard]] std::string sql() const {
        return detail::copied(segue_recovered_statements_sql(statements_));
    }
    /// It was sent as a simple query, without parameters.
    [[nodiscard]] bool is_simple() const noexcept {
        return segue_recovered_statements_is_simple(statements_);
    }
    [[nodiscard]] recovered_params params() const noexcept {
        std::size_t size = 0;
        const segue_param* list = segue_recovered_statements_params(statements_, &size);
        return {list, size};
    }
    /// What was sent behind COPY FROM STDIN; empty for everything else.
    [[nodiscard]] std::string_view copy_data() const noexcept {
        std::size_t size = 0;
        const void* data = segue_recovered_statements_copy_data(statements_, &size);
        return data == nullptr ? std::string_view() : std::string_view(static_cast<const char*>(data), size);
    }

private:
    const segue_recovered_statements* statements_;
};

/// What a transaction had executed, in order: a range that can be gone over once. One statement at a time is
/// in memory. One caller at a time.
class recovered_statements {
public:
    /// Takes a handle of the C interface over.
    explicit recovered_statements(segue_recovered_statements* handle) noexcept : handle_(handle) {}
    recovered_statements(recovered_statements&&) noexcept = default;
    recovered_statements& operator=(recovered_statements&&) noexcept = default;
    recovered_statements(const recovered_statements&) = delete;
    recovered_statements& operator=(const recovered_statements&) = delete;
    ~recovered_statements() = default;

    [[nodiscard]] segue_recovered_statements* handle() const noexcept { return handle_.get(); }

    /// The next one; nothing behind the last. Throws config_error if the journal cannot be read.
    [[nodiscard]] std::optional<recovered_statement> next() {
        bool there = false;
        detail::call(segue_recovered_statements_next, handle_.get(), &there);
        return there ? std::optional<recovered_statement>(handle_.get()) : std::nullopt;
    }

    /// Goes over the statements that are left, once.
    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = recovered_statement;
        using difference_type = std::ptrdiff_t;
        using pointer = const recovered_statement*;
        using reference = const recovered_statement&;

        iterator() noexcept = default;
        explicit iterator(recovered_statements& statements) : statements_(&statements) { ++*this; }
        reference operator*() const noexcept { return *here_; }
        pointer operator->() const noexcept { return &*here_; }
        iterator& operator++() {
            here_ = statements_->next();
            if (!here_) {
                statements_ = nullptr;
            }
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(const iterator& a, const iterator& b) noexcept {
            return a.statements_ == b.statements_;
        }
        friend bool operator!=(const iterator& a, const iterator& b) noexcept {
            return a.statements_ != b.statements_;
        }

    private:
        recovered_statements* statements_ = nullptr;
        std::optional<recovered_statement> here_;
    };

    [[nodiscard]] iterator begin() { return iterator(*this); }
    [[nodiscard]] iterator end() const noexcept { return {}; }

private:
    std::unique_ptr<segue_recovered_statements, detail::freed_by<&segue_recovered_statements_free>> handle_;
};

/// One transaction of a recovery, which it points into.
class recovered_transaction {
public:
    recovered_transaction(const segue_recovery* recovery, std::size_t index) noexcept
        : recovery_(recovery), index_(index) {}

    /// Its number in the journal, by which `segue journal` calls it too; grows in the order of beginning.
    [[nodiscard]] std::uint64_t number() const noexcept { return segue_recovery_number(recovery_, index_); }
    [[nodiscard]] segue::verdict verdict() const noexcept {
        return static_cast<segue::verdict>(segue_recovery_verdict(recovery_, index_));
    }
    /// Why the verdict is unknown, and what can be done about it; empty for any other.
    [[nodiscard]] std::string reason() const {
        return detail::copied(segue_recovery_reason(recovery_, index_));
    }
    /// Records of it may be missing, because the journal was found damaged: do not run its statements again
    /// without having looked at them.
    [[nodiscard]] bool is_doubtful() const noexcept {
        return segue_recovery_is_doubtful(recovery_, index_);
    }
    /// The session that ran it, a UUID, and its number in the journal; nothing if that record is lost.
    [[nodiscard]] std::optional<std::string> session() const {
        return detail::text_if(segue_recovery_session(recovery_, index_));
    }
    [[nodiscard]] std::optional<std::uint64_t> session_number() const noexcept {
        const std::uint64_t number = segue_recovery_session_number(recovery_, index_);
        return number == 0 ? std::nullopt : std::optional<std::uint64_t>(number);
    }
    [[nodiscard]] std::optional<std::string> database() const {
        return detail::text_if(segue_recovery_database(recovery_, index_));
    }
    [[nodiscard]] std::optional<std::string> user() const {
        return detail::text_if(segue_recovery_user(recovery_, index_));
    }
    /// When it began, by the clock of the machine that ran it.
    [[nodiscard]] std::optional<std::chrono::system_clock::time_point> began_at() const noexcept {
        const std::int64_t since = segue_recovery_began_at_ms(recovery_, index_);
        if (since < 0) {
            return std::nullopt;
        }
        return std::chrono::system_clock::time_point(std::chrono::milliseconds(since));
    }
    /// Whether it was one statement outside a transaction block.
    [[nodiscard]] bool is_autocommit() const noexcept {
        return segue_recovery_is_autocommit(recovery_, index_);
    }
    /// Whether it was declared READ ONLY.
    [[nodiscard]] bool is_read_only() const noexcept {
        return segue_recovery_is_read_only(recovery_, index_);
    }
    /// The statement that began it; empty for a plain BEGIN.
    [[nodiscard]] std::string begin_statement() const {
        return detail::copied(segue_recovery_begin(recovery_, index_));
    }
    /// How many statements were recorded, and what they take up in the journal.
    [[nodiscard]] std::size_t statement_count() const noexcept {
        return segue_recovery_statement_count(recovery_, index_);
    }
    [[nodiscard]] std::uint64_t bytes() const noexcept { return segue_recovery_bytes(recovery_, index_); }
    /// Where in the ledger its commits were to stand, one for each attempt, and what the ledger says.
    [[nodiscard]] std::vector<seal_evidence> seals() const {
        std::vector<seal_evidence> read;
        const std::size_t count = segue_recovery_seal_count(recovery_, index_);
        for (std::size_t at = 0; at < count; ++at) {
            seal_evidence& seal = read.emplace_back();
            seal.row = detail::copied(segue_recovery_seal_row(recovery_, index_, at));
            seal.number = segue_recovery_seal_number(recovery_, index_, at);
            seal.guarded = segue_recovery_seal_is_guarded(recovery_, index_, at);
            const std::int32_t committed = segue_recovery_seal_committed(recovery_, index_, at);
            seal.committed = committed < 0 ? std::nullopt : std::optional<bool>(committed == 1);
        }
        return read;
    }

    /// What it had executed, read from the journal's files as it is asked for. It may outlive the recovery.
    [[nodiscard]] recovered_statements statements() const {
        segue_recovered_statements* opened = nullptr;
        detail::call(segue_recovery_statements, recovery_, index_, &opened);
        return recovered_statements(opened);
    }

    /// The application is done with it: the journal forgets it. Where it is to be run again, run it first.
    /// Returns once that is kept; throws protection_lost if it cannot be. May be repeated.
    void done() const { detail::call(segue_recovery_done, recovery_, index_); }

private:
    const segue_recovery* recovery_;
    std::size_t index_;
};

/// The transactions that an earlier process with the same journal had in flight, in the order in which they
/// began: a range with random access. Any thread may use it.
///
/// As long as it is there, the journal keeps its files, and no other client can have it: let go of it when all
/// are dealt with. It may outlive its client.
class recovery {
public:
    /// Takes a handle of the C interface over.
    explicit recovery(segue_recovery* handle) noexcept : handle_(handle) {}
    recovery(recovery&&) noexcept = default;
    recovery& operator=(recovery&&) noexcept = default;
    recovery(const recovery&) = delete;
    recovery& operator=(const recovery&) = delete;
    ~recovery() = default;

    [[nodiscard]] segue_recovery* handle() const noexcept { return handle_.get(); }

    [[nodiscard]] std::size_t size() const noexcept { return segue_recovery_count(handle_.get()); }
    [[nodiscard]] bool empty() const noexcept { return size() == 0; }
    /// One of them; of those that are not there, accessors give nothing, and the rest throws
    /// invalid_argument.
    [[nodiscard]] recovered_transaction operator[](std::size_t index) const noexcept {
        return {handle_.get(), index};
    }

private:
    struct view {
        const segue_recovery* handle = nullptr;
        [[nodiscard]] recovered_transaction at_unchecked(std::size_t index) const noexcept {
            return {handle, index};
        }
    };

public:
    using iterator = detail::index_iterator<view>;
    using const_iterator = iterator;
    [[nodiscard]] iterator begin() const { return {view{handle_.get()}, 0}; }
    [[nodiscard]] iterator end() const { return {view{handle_.get()}, size()}; }

private:
    std::unique_ptr<segue_recovery, detail::freed_by<&segue_recovery_free>> handle_;
};

}  // namespace segue

#endif
