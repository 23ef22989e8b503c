// Tickets: what becomes of a transaction that was handed over whole.
#ifndef SEGUE_TICKET_HPP
#define SEGUE_TICKET_HPP

#include "error.hpp"
#include "time.hpp"

#include <segue.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace segue {

/// What a committed submission has done.
struct executed {
    /// How many rows each statement has affected or returned; empty if another attempt has committed and its
    /// reply is lost.
    std::vector<std::uint64_t> rows;
    /// It was found done already: by an attempt whose reply was lost, by an earlier process, or by another
    /// one that has used the same key.
    bool found_done = false;
};

namespace detail {

inline executed read_executed(const segue_ticket* ticket) {
    executed read;
    const std::size_t statements = segue_ticket_statement_count(ticket);
    for (std::size_t statement = 0; statement < statements; ++statement) {
        read.rows.push_back(segue_ticket_rows_affected(ticket, statement));
    }
    read.found_done = segue_ticket_found_done(ticket);
    return read;
}

inline std::string_view id_of(const segue_ticket* ticket) noexcept {
    const char* id = segue_ticket_id(ticket);
    return id == nullptr ? std::string_view() : id;
}

inline std::optional<std::string_view> key_of(const segue_ticket* ticket) noexcept {
    const char* key = segue_ticket_key(ticket);
    return key == nullptr ? std::nullopt : std::optional<std::string_view>(key);
}

}  // namespace detail

/// What a callback of ticket::on_done() is called with. It lives during the callback only.
class completion {
public:
    /// Of handles of the C interface, which stay the library's.
    completion(const segue_ticket* ticket, const segue_error* error) noexcept
        : ticket_(ticket), error_(error) {}
    completion(const completion&) = delete;
    completion& operator=(const completion&) = delete;

    [[nodiscard]] std::string_view id() const noexcept { return detail::id_of(ticket_); }
    [[nodiscard]] std::optional<std::string_view> key() const noexcept { return detail::key_of(ticket_); }
    /// Whether it is committed; else get() throws why not.
    [[nodiscard]] bool committed() const noexcept { return error_ == nullptr; }
    /// What it has done; throws as ticket::poll().
    [[nodiscard]] executed get() const {
        if (error_ != nullptr) {
            detail::throw_copy(segue_error_status(error_), error_);
        }
        return detail::read_executed(ticket_);
    }

private:
    const segue_ticket* ticket_;
    const segue_error* error_;
};

namespace detail {

template <class Callback>
void run_on_done(const segue_ticket* ticket, const segue_error* error, void* user_data) noexcept {
    // An exception must not cross the C interface.
    try {
        (*static_cast<Callback*>(user_data))(completion(ticket, error));
    } catch (...) {
    }
}

}  // namespace detail

/// A submission that was accepted. Any thread may use it. Destroying it changes nothing for the submission.
class ticket {
public:
    /// Takes a handle of the C interface over.
    explicit ticket(segue_ticket* handle) noexcept : handle_(handle) {}
    ticket(ticket&&) noexcept = default;
    ticket& operator=(ticket&&) noexcept = default;
    ticket(const ticket&) = delete;
    ticket& operator=(const ticket&) = delete;
    ~ticket() = default;

    [[nodiscard]] segue_ticket* handle() const noexcept { return handle_.get(); }

    /// Under this UUID client::ticket() finds it again; so is its row named in the server's table
    /// segue.submission once it is committed. Good as long as the ticket.
    [[nodiscard]] std::string_view id() const noexcept { return detail::id_of(raw()); }
    /// The key that the application gave it.
    [[nodiscard]] std::optional<std::string_view> key() const noexcept { return detail::key_of(raw()); }

    /// What has become of it: nothing while that is not known. Throws if it is a dead letter now: the
    /// server's error, or transaction_failed for another number of rows than was expected.
    [[nodiscard]] std::optional<executed> poll() const {
        bool committed = false;
        detail::call(segue_ticket_poll, raw(), &committed);
        return committed ? std::optional<executed>(detail::read_executed(raw())) : std::nullopt;
    }

    /// As poll(), but waits for at most `timeout` (of a day at most).
    template <class Rep, class Period>
    [[nodiscard]] std::optional<executed> wait_for(std::chrono::duration<Rep, Period> timeout) const {
        return wait_ms(detail::wait_ms(timeout));
    }

    /// As poll(), but waits for as long as it takes, be that for ever.
    executed wait() const { return wait_ms(-1).value(); }

    /// Calls `callback(const completion&)` once its outcome is known: here and now if it is, else on a thread
    /// of the client's, also if this ticket was destroyed before. It must not block; it may hand over more
    /// with client::try_submit(). An exception that it throws is swallowed: it cannot cross the C interface.
    template <class Callback>
    void on_done(Callback&& callback) const {
        using held = std::decay_t<Callback>;
        static_assert(std::is_invocable_v<held&, const completion&>,
                      "segue: a callback takes a const segue::completion&");
        auto owned = std::make_unique<held>(std::forward<Callback>(callback));
        // The library takes it over, also if the call fails, and destroys it when it is not needed any more.
        detail::call(segue_ticket_on_done, raw(), &detail::run_on_done<held>,
                     static_cast<void*>(owned.release()), &detail::destroy_callback<held>);
    }

private:
    [[nodiscard]] const segue_ticket* raw() const noexcept { return handle_.get(); }

    [[nodiscard]] std::optional<executed> wait_ms(std::int64_t timeout_ms) const {
        bool committed = false;
        detail::call(segue_ticket_wait, raw(), timeout_ms, &committed);
        return committed ? std::optional<executed>(detail::read_executed(raw())) : std::nullopt;
    }

    std::unique_ptr<segue_ticket, detail::freed_by<&segue_ticket_free>> handle_;
};

namespace detail {

inline std::optional<ticket> ticket_if(segue_ticket* handle) {
    return handle == nullptr ? std::nullopt : std::optional<ticket>(ticket(handle));
}

}  // namespace detail
}  // namespace segue

#endif
