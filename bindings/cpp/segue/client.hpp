// Clients: what an application opens once per cluster.
#ifndef SEGUE_CLIENT_HPP
#define SEGUE_CLIENT_HPP

#include "event.hpp"
#include "recovery.hpp"
#include "session.hpp"
#include "status.hpp"
#include "submission.hpp"
#include "ticket.hpp"
#include "transaction.hpp"
#include "zstring.hpp"

#include <segue.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace segue {

/// The version of the library in use, such as "0.1.0".
[[nodiscard]] inline std::string version() { return detail::copied(segue_version()); }

/// The version of the C interface in use: major << 16 | minor.
[[nodiscard]] inline std::uint32_t abi_version() noexcept { return segue_abi_version(); }

/// A configuration, option by option; docs/configuration.md lists them.
///
/// ```cpp
/// segue::client client{segue::options{{"host", "db1,db2"}, {"dbname", "shop"}}.set("failover_timeout_ms",
/// 30'000)};
/// ```
class options {
public:
    options() {
        segue_options* made = nullptr;
        detail::call(segue_options_new, &made);
        handle_.reset(made);
    }
    options(std::initializer_list<std::pair<zstring, zstring>> list) : options() {
        for (const auto& entry : list) {
            set(entry.first, entry.second);
        }
    }
    options(options&&) noexcept = default;
    options& operator=(options&&) noexcept = default;
    options(const options&) = delete;
    options& operator=(const options&) = delete;
    ~options() = default;

    [[nodiscard]] segue_options* handle() const noexcept { return handle_.get(); }

    /// Sets one option; throws config_error for a name or value that there is not.
    options& set(zstring name, zstring value) {
        detail::call(segue_options_set, handle(), name.c_str(), value.c_str());
        return *this;
    }
    template <class Number, class = std::enable_if_t<std::is_arithmetic_v<Number>>>
    options& set(zstring name, Number value) {
        if constexpr (std::is_same_v<Number, bool>) {
            return set(name, value ? "on" : "off");
        } else {
            static_assert(std::is_integral_v<Number>, "segue: options are texts, integers or bool");
            return set(name, std::to_string(value));
        }
    }

    /// Takes options from a URI or keyword string; what is set by name wins.
    options& conninfo(zstring text) {
        detail::call(segue_options_set_conninfo, handle(), text.c_str());
        return *this;
    }

private:
    std::unique_ptr<segue_options, detail::freed_by<&segue_options_free>> handle_;
};

/// What an application opens once per cluster: the configuration, the servers, one background thread.
///
/// Any thread may use it. Clients opened with the same configuration in one process share all that. It may be
/// destroyed before its sessions.
class client {
public:
    /// Opens a client for a URI or keyword string, as libpq knows them. It returns at once: the first session
    /// waits for a server.
    explicit client(zstring conninfo) {
        check_version();
        segue_client* opened = nullptr;
        detail::call(segue_client_open, conninfo.c_str(), &opened);
        handle_.reset(opened);
    }
    explicit client(const options& configuration) {
        check_version();
        segue_client* opened = nullptr;
        detail::call(segue_client_open_options, static_cast<const segue_options*>(configuration.handle()),
                     &opened);
        handle_.reset(opened);
    }
    client(client&&) noexcept = default;
    client& operator=(client&&) noexcept = default;
    client(const client&) = delete;
    client& operator=(const client&) = delete;
    ~client() = default;

    [[nodiscard]] segue_client* handle() const noexcept { return handle_.get(); }

    /// Opens a session; waits for a server for at most `failover_timeout_ms`.
    [[nodiscard]] session open_session(access wanted = access::by_configuration) const {
        return session(*this, wanted);
    }

    /// Runs `body(transaction&)` in a transaction of a session opened for it; see session::transact. Where
    /// there are many to run, hold a session and use its transact().
    template <class Body>
    auto transact(Body&& body, const transact_options& options = {}) const {
        return open_session().transact(std::forward<Body>(body), options);
    }

    /// Hands over a transaction whole: it is kept (on disk with `journal=file`) when this returns, and then
    /// run until its outcome is known, exactly once, whatever becomes of servers and, with `journal=file`,
    /// of this process. Needs no server. If there is no room it waits for at most `failover_timeout_ms`,
    /// and then throws limit_error. Handed over again it is another one, unless it has a key: a key that is
    /// queued, or was done lately, gives that ticket. docs/submit.md says what may be relied on.
    segue::ticket submit(const submission& transaction) const {
        segue_ticket* ticket = nullptr;
        detail::call(segue_submit, raw(), static_cast<const segue_submission*>(transaction.handle()),
                     &ticket);
        return segue::ticket(ticket);
    }

    /// As submit(), but does not wait for room: limit_error if there is none.
    segue::ticket try_submit(const submission& transaction) const {
        segue_ticket* ticket = nullptr;
        detail::call(segue_try_submit, raw(), static_cast<const segue_submission*>(transaction.handle()),
                     &ticket);
        return segue::ticket(ticket);
    }

    /// The ticket of a submission that has not ended, also if an earlier process has handed it over with the
    /// same journal; or that has ended lately in this process (the last few thousand).
    [[nodiscard]] std::optional<segue::ticket> ticket(zstring id) const {
        segue_ticket* ticket = nullptr;
        detail::call(segue_client_ticket, raw(), id.c_str(), &ticket);
        return detail::ticket_if(ticket);
    }

    /// The same, by the key that the application gave it.
    [[nodiscard]] std::optional<segue::ticket> ticket_for_key(zstring key) const {
        segue_ticket* ticket = nullptr;
        detail::call(segue_client_ticket_for_key, raw(), key.c_str(), &ticket);
        return detail::ticket_if(ticket);
    }

    /// The submissions that can never succeed as things are, in the order of handing over. Each is kept until
    /// it is retried with success or purged.
    [[nodiscard]] std::vector<dead_letter> dead_letters() const { return detail::read_dead_letters(raw()); }

    /// Runs a dead letter again, ahead of what waits in its lane. Throws usage_error for what is none.
    segue::ticket retry_dead_letter(zstring id) const {
        segue_ticket* ticket = nullptr;
        detail::call(segue_client_retry_dead_letter, raw(), id.c_str(), &ticket);
        return segue::ticket(ticket);
    }

    /// Forgets a dead letter for good; a lane that it has stopped goes on.
    void purge_dead_letter(zstring id) const {
        detail::call(segue_client_purge_dead_letter, raw(), id.c_str());
    }

    /// What becomes of submissions, in numbers.
    [[nodiscard]] submission_status submissions() const { return detail::read_submissions(raw()); }

    /// What became of the transactions that an earlier process with this client's journal (`journal=file`) had
    /// in flight: each is committed, not committed, never sent or unknown, which the ledger is asked for; waits
    /// for a server for at most `failover_timeout_ms`. Each is told again, by this client and by later ones,
    /// until recovered_transaction::done(). Commits of this client wait while the journal is read: this is for
    /// the time after the start. docs/recovery.md says what each verdict means.
    ///
    /// ```cpp
    /// for (const auto& it : client.recover()) {
    ///     if (it.verdict() != segue::verdict::unknown) it.done();
    /// }
    /// ```
    [[nodiscard]] recovery recover() const {
        segue_recovery* found = nullptr;
        detail::call(segue_client_recover, raw(), &found);
        return recovery(found);
    }

    /// Installs or upgrades the ledger on the primary, for everybody or for one role. Usually the first
    /// session does that by itself, where its role may. `hardened` has applications seal through a function
    /// only.
    void setup(std::optional<zstring> role = std::nullopt, bool hardened = false) const {
        detail::call(segue_client_setup, raw(), role ? role->c_str() : nullptr, hardened);
    }

    /// Removes the ledger. Sessions in use lose their protection.
    void remove_ledger() const { detail::call(segue_client_remove_ledger, raw()); }

    /// What is known of the servers.
    [[nodiscard]] client_status status() const { return detail::read_client(raw()); }

    /// The counters.
    [[nodiscard]] segue::statistics statistics() const { return detail::read_statistics(raw()); }

    /// Calls `callback(const event&)` for every event until the subscription is destroyed. It is called on
    /// the thread where the event happens, perhaps on several at once: it must not block, nor use this
    /// client's sessions. An exception that it throws is swallowed: it cannot cross the C interface.
    template <class Callback>
    [[nodiscard]] subscription on_event(Callback&& callback) const {
        using held = std::decay_t<Callback>;
        static_assert(std::is_invocable_v<held&, const event&>,
                      "segue: a callback takes a const segue::event&");
        auto owned = std::make_unique<held>(std::forward<Callback>(callback));
        segue_subscription* made = nullptr;
        // The library takes it over, also if the call fails, and destroys it when it is not needed any more.
        detail::call(segue_client_on_event, raw(), &detail::run_callback<held>,
                     static_cast<void*>(owned.release()), &detail::destroy_callback<held>, &made);
        return subscription(made);
    }

private:
    [[nodiscard]] const segue_client* raw() const noexcept { return handle_.get(); }

    /// Whether the library that was loaded is one that this header fits.
    static void check_version() {
        const std::uint32_t loaded = segue_abi_version();
        constexpr std::uint32_t major = SEGUE_ABI_VERSION_MAJOR;
        constexpr std::uint32_t minor = SEGUE_ABI_VERSION_MINOR;
        if (loaded >> 16 != major || (loaded & 0xffff) < minor) {
            throw usage_error(
                "the program was compiled for another version of libsegue than the one that was loaded");
        }
    }

    std::unique_ptr<segue_client, detail::freed_by<&segue_client_free>> handle_;
};

inline session::session(const client& owner, access wanted) : queries(nullptr) {
    segue_session* opened = nullptr;
    detail::call(segue_session_open, static_cast<const segue_client*>(owner.handle()),
                 static_cast<std::int32_t>(wanted), &opened);
    std::unique_ptr<segue_session, detail::freed_by<&segue_session_free>> owned(opened);
    core_ = std::make_shared<detail::session_core>(opened);
    static_cast<void>(owned.release());
}

}  // namespace segue

#endif
