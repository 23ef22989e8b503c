// Transactions that are handed over whole: client::submit() takes them.
#ifndef SEGUE_SUBMISSION_HPP
#define SEGUE_SUBMISSION_HPP

#include "error.hpp"
#include "params.hpp"
#include "zstring.hpp"

#include <segue.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

namespace segue {

/// For expect_rows(): no upper limit.
inline constexpr std::uint64_t any_number = std::numeric_limits<std::uint64_t>::max();

/// A transaction that is to be handed over whole: statements with their parameters, and how they are to be
/// treated. One caller at a time.
///
/// ```cpp
/// client.submit(segue::submission()
///                   .statement("UPDATE stock SET left = left - $1 WHERE article = $2", 2, "4711")
///                   .expect_rows(1)
///                   .statement("INSERT INTO sale (number) VALUES ($1)", number)
///                   .lane("till 7")
///                   .key("sale " + std::to_string(number)));
/// ```
///
/// A call that throws leaves it as it was.
class submission {
public:
    submission() {
        segue_submission* made = nullptr;
        detail::call(segue_submission_new, &made);
        handle_.reset(made);
    }
    submission(submission&&) noexcept = default;
    submission& operator=(submission&&) noexcept = default;
    submission(const submission&) = delete;
    submission& operator=(const submission&) = delete;
    ~submission() = default;

    [[nodiscard]] segue_submission* handle() const noexcept { return handle_.get(); }

    /// Adds a statement; its parameters are copied. What could be no part of a transaction, or would change
    /// the session that runs it, throws usage_error.
    template <class... Values>
    submission& statement(zstring sql, const Values&... values) & {
        const detail::param_pack<Values...> list(values...);
        detail::call(segue_submission_add_statement, handle(), sql.c_str(), list.data(), list.size());
        return *this;
    }
    /// So many rows must the statement added last affect or return, or nothing of the submission is committed
    /// and it becomes a dead letter.
    submission& expect_rows(std::uint64_t rows) & { return expect_rows(rows, rows); }
    /// From `min` to `max` rows; any_number is no limit.
    submission& expect_rows(std::uint64_t min, std::uint64_t max) & {
        detail::call(segue_submission_expect_rows, handle(), min, max);
        return *this;
    }
    /// Submissions of one lane take effect in the order in which they were handed over. Without a lane ("") a
    /// submission is ordered with nothing.
    submission& lane(zstring name) & {
        detail::call(segue_submission_set_lane, handle(), name.c_str());
        return *this;
    }
    /// The application's own name for it: the same key is never executed twice, whichever process hands it
    /// over, for as long as the server's ledger of submissions remembers. "" is none.
    submission& key(zstring name) & {
        detail::call(segue_submission_set_key, handle(), name.c_str());
        return *this;
    }
    /// What follows in the lane waits if this one becomes a dead letter, until that is retried or purged.
    submission& stop_on_failure(bool stop = true) & {
        detail::call(segue_submission_set_stop_on_failure, handle(), stop);
        return *this;
    }

    // The same for one that is built and handed over in one expression.
    template <class... Values>
    submission&& statement(zstring sql, const Values&... values) && {
        return std::move(statement(sql, values...));
    }
    submission&& expect_rows(std::uint64_t rows) && { return std::move(expect_rows(rows)); }
    submission&& expect_rows(std::uint64_t min, std::uint64_t max) && {
        return std::move(expect_rows(min, max));
    }
    submission&& lane(zstring name) && { return std::move(lane(name)); }
    submission&& key(zstring name) && { return std::move(key(name)); }
    submission&& stop_on_failure(bool stop = true) && { return std::move(stop_on_failure(stop)); }

private:
    std::unique_ptr<segue_submission, detail::freed_by<&segue_submission_free>> handle_;
};

}  // namespace segue

#endif
