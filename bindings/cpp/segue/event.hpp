// What a client tells of itself: events, and the subscription that keeps a callback in place.
#ifndef SEGUE_EVENT_HPP
#define SEGUE_EVENT_HPP

#include "error.hpp"
#include "zstring.hpp"

#include <segue.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace segue {

/// What has happened. A newer library may send others.
enum class event_kind : std::int32_t {
    other = SEGUE_EVENT_OTHER,
    /// A server has missed polls. Nobody moves because of that alone.
    server_suspect = SEGUE_EVENT_SERVER_SUSPECT,
    /// A suspect or lost server answers again.
    server_recovered = SEGUE_EVENT_SERVER_RECOVERED,
    /// A server cannot be reached.
    server_lost = SEGUE_EVENT_SERVER_LOST,
    /// A server takes no connection for now, and says that this will pass.
    server_coming_back = SEGUE_EVENT_SERVER_COMING_BACK,
    /// Sessions belong on this server from now on.
    primary_chosen = SEGUE_EVENT_PRIMARY_CHOSEN,
    /// The same, because it was promoted.
    promoted = SEGUE_EVENT_PROMOTED,
    /// No server can be used for what the configuration asks.
    no_server = SEGUE_EVENT_NO_SERVER,
    /// An old primary is writable on a timeline that the cluster has left: it is refused.
    stale_server = SEGUE_EVENT_STALE_SERVER,
    /// A server of another cluster: it is refused.
    other_cluster = SEGUE_EVENT_OTHER_CLUSTER,
    /// Segue itself promotes a standby (`on_primary_loss=promote`).
    promoting = SEGUE_EVENT_PROMOTING,
    promotion_failed = SEGUE_EVENT_PROMOTION_FAILED,
    /// Links are warm on a server.
    warm = SEGUE_EVENT_WARM,
    /// A session's transaction is being run again on another link.
    replay_started = SEGUE_EVENT_REPLAY_STARTED,
    /// All that the application has seen has matched.
    replay_finished = SEGUE_EVENT_REPLAY_FINISHED,
    /// The replay gave something else; it was rolled back.
    replay_diverged = SEGUE_EVENT_REPLAY_DIVERGED,
    /// The session has a link again.
    session_moved = SEGUE_EVENT_SESSION_MOVED,
    /// The session, or its open transaction, goes on without protection.
    protection_lost = SEGUE_EVENT_PROTECTION_LOST,
    /// Commits that were acknowledged are not on the server that took over.
    commits_lost = SEGUE_EVENT_COMMITS_LOST,
    /// A commit that was acknowledged and then lost was run again, and stands.
    commit_reapplied = SEGUE_EVENT_COMMIT_REAPPLIED,
    /// A warning of the server's.
    notice = SEGUE_EVENT_NOTICE,
    /// A submission has become a dead letter.
    submission_died = SEGUE_EVENT_SUBMISSION_DIED,
    transactions_found = SEGUE_EVENT_TRANSACTIONS_FOUND,
    /// Submissions that were told to be committed are not on the server that took over; event::submissions
    /// names them.
    submissions_lost = SEGUE_EVENT_SUBMISSIONS_LOST,
    /// A submission that was told to be committed and then lost was run again, and stands.
    submission_reapplied = SEGUE_EVENT_SUBMISSION_REAPPLIED
};

/// A submission that an event names; both texts live as long as the event.
struct submission_name {
    std::string_view id;
    /// The application's own name for it.
    std::optional<std::string_view> key;
};

/// One event. It lives during the callback only; copy what is to be kept.
class event {
public:
    /// Of a handle of the C interface, which stays the library's.
    explicit event(const segue_event* handle) noexcept : handle_(handle) {}
    event(const event&) = delete;
    event& operator=(const event&) = delete;

    [[nodiscard]] const segue_event* handle() const noexcept { return handle_; }
    [[nodiscard]] event_kind kind() const noexcept {
        return static_cast<event_kind>(segue_event_kind(handle_));
    }
    /// Its kind in one word, such as `session_moved`.
    [[nodiscard]] std::string_view name() const noexcept {
        return text(segue_event_name(handle_)).value_or("");
    }
    /// One line for people.
    [[nodiscard]] std::string_view message() const noexcept {
        return text(segue_event_message(handle_)).value_or("");
    }
    /// The number of the session that it is about, as session_status::id.
    [[nodiscard]] std::optional<std::uint64_t> session() const noexcept {
        const std::uint64_t session = segue_event_session(handle_);
        return session == 0 ? std::nullopt : std::optional<std::uint64_t>(session);
    }
    /// Index of the server that it is about.
    [[nodiscard]] std::optional<std::size_t> server() const noexcept {
        const std::int32_t server = segue_event_server(handle_);
        return server < 0 ? std::nullopt : std::optional<std::size_t>(static_cast<std::size_t>(server));
    }
    [[nodiscard]] std::optional<std::string_view> address() const noexcept {
        return text(segue_event_address(handle_));
    }
    /// A number that the event carries, such as `timeline` or `pause_us`; segue_event_number() lists them.
    [[nodiscard]] std::optional<std::int64_t> number(zstring name) const noexcept {
        const std::int64_t number = segue_event_number(handle_, name.c_str());
        return number < 0 ? std::nullopt : std::optional<std::int64_t>(number);
    }
    /// A field of a notice by the protocol's code, as error::field.
    [[nodiscard]] std::optional<std::string_view> field(char code) const noexcept {
        return text(segue_event_field(handle_, code));
    }

    /// The submissions that it names: those that are lost, or the one that has died or was run again.
    [[nodiscard]] std::vector<submission_name> submissions() const {
        std::vector<submission_name> names(segue_event_submission_count(handle_));
        for (std::size_t index = 0; index < names.size(); ++index) {
            names[index].id = text(segue_event_submission_id(handle_, index)).value_or("");
            names[index].key = text(segue_event_submission_key(handle_, index));
        }
        return names;
    }

private:
    static std::optional<std::string_view> text(const char* text) noexcept {
        return text == nullptr ? std::nullopt : std::optional<std::string_view>(text);
    }

    const segue_event* handle_;
};

/// Keeps a callback in place; its destructor removes it, waiting for a callback that is running (unless
/// it is called from that callback).
class [[nodiscard]] subscription {
public:
    /// Takes a handle of the C interface over.
    explicit subscription(segue_subscription* handle) noexcept : handle_(handle) {}
    subscription(subscription&&) noexcept = default;
    subscription& operator=(subscription&&) noexcept = default;
    subscription(const subscription&) = delete;
    subscription& operator=(const subscription&) = delete;
    ~subscription() = default;

    [[nodiscard]] segue_subscription* handle() const noexcept { return handle_.get(); }

private:
    std::unique_ptr<segue_subscription, detail::freed_by<&segue_subscription_free>> handle_;
};

namespace detail {

template <class Callback>
void run_callback(const segue_event* handle, void* user_data) noexcept {
    // An exception must not cross the C interface; the event is all that is lost by it.
    try {
        (*static_cast<Callback*>(user_data))(event(handle));
    } catch (...) {
    }
}

}  // namespace detail
}  // namespace segue

#endif
