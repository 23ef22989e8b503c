// Snapshots of what a client and a session know: plain structs, which own all they tell.
#ifndef SEGUE_STATUS_HPP
#define SEGUE_STATUS_HPP

#include "error.hpp"

#include <segue.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace segue {

/// What a server was when it last said so.
enum class server_role : std::int32_t {
    unknown = SEGUE_ROLE_UNKNOWN,
    primary = SEGUE_ROLE_PRIMARY,
    read_only_primary = SEGUE_ROLE_READ_ONLY_PRIMARY,
    standby = SEGUE_ROLE_STANDBY
};

/// How a server is.
enum class server_health : std::int32_t {
    unknown = SEGUE_HEALTH_UNKNOWN,
    healthy = SEGUE_HEALTH_HEALTHY,
    suspect = SEGUE_HEALTH_SUSPECT,
    lost = SEGUE_HEALTH_LOST,
    coming_back = SEGUE_HEALTH_COMING_BACK
};

/// One server of the configuration.
struct server_status {
    std::string address;
    server_role role = server_role::unknown;
    server_health health = server_health::unknown;
    /// One line for people.
    std::string summary;
    std::optional<std::string> last_error;
    std::optional<std::int64_t> timeline;
    /// The write position of a primary, the replay position of a standby.
    std::optional<std::int64_t> lsn;
    /// How many bytes of WAL a standby lies behind the chosen primary.
    std::optional<std::int64_t> lag_bytes;
    /// Links that are ready to be handed to a session.
    std::optional<std::int64_t> warm_links;
    /// Links ever made to it.
    std::optional<std::int64_t> links_dialled;
    /// Warm links ever handed to a session.
    std::optional<std::int64_t> warm_links_used;
};

/// A client: its servers, in the order of the configuration, and how it is set up.
struct client_status {
    std::vector<server_status> servers;
    /// Index of the server that sessions belong on; nothing if there is none.
    std::optional<std::size_t> chosen;
    /// Index of the standby on which links are kept warm.
    std::optional<std::size_t> standby;
    std::optional<std::uint64_t> system_identifier;
    /// No session goes to a server of an older timeline.
    std::optional<std::int64_t> timeline_floor;
    /// Sessions that are open.
    std::int64_t sessions = 0;
    /// Sessions that are waiting for a server.
    std::int64_t waiting = 0;
    /// Why the ledger could not be installed, if it could not.
    std::optional<std::string> ledger_problem;
    /// The journal's directory and what all of its files take up; nothing if it is in memory.
    std::optional<std::string> journal_dir;
    std::optional<std::int64_t> journal_bytes;
};

/// A session: where it is and what protects it.
struct session_status {
    std::uint64_t id = 0;
    /// Index of its server in the configuration.
    std::optional<std::size_t> server;
    std::optional<std::string> address;
    std::optional<std::int64_t> timeline;
    std::optional<std::int64_t> backend_pid;
    std::optional<std::string> tls_version;
    bool in_transaction = false;
    bool transaction_failed = false;
    /// Whether its commits are sealed.
    bool ledger = false;
    /// Why the open transaction, or the session's state, would not survive its server.
    std::optional<std::string> protection_lost;
};

/// A submission that can never succeed as things are.
struct dead_letter {
    /// As ticket::id.
    std::string id;
    std::optional<std::string> key;
    std::optional<std::string> lane;
    /// Whether its lane stands still because of it.
    bool stops_lane = false;
    std::chrono::system_clock::time_point died_at;
    /// The statement that failed, from 0, and all texts.
    std::size_t statement = 0;
    std::vector<std::string> statements;
    /// The server's error; 25P02 where another number of rows was expected.
    std::string sqlstate;
    std::string message;
    /// May hold values of the application's.
    std::optional<std::string> detail;
    /// What its ticket throws, with all fields of the server's error: std::rethrow_exception(error).
    std::exception_ptr error;
};

/// What becomes of a client's submissions.
struct submission_status {
    /// Handed over and not sent yet, or to be sent again.
    std::int64_t waiting = 0;
    /// Sent and not answered.
    std::int64_t in_flight = 0;
    std::int64_t dead_letters = 0;
    /// Lanes with anything in them, and those of them that a dead letter has stopped.
    std::int64_t lanes = 0;
    std::int64_t lanes_stopped = 0;
    /// Memory that they take up, about.
    std::int64_t bytes = 0;
    /// The journal's files, if submissions are kept in files.
    std::optional<std::int64_t> journal_bytes;
    /// Since the client was opened: handed over; found in the journal; committed, and of these found to be
    /// so already; attempts that were made once more; dead letters; told to be committed and lost by a
    /// promotion, of these not run again, or not with success; and run again.
    std::int64_t submitted = 0;
    std::int64_t recovered = 0;
    std::int64_t committed = 0;
    std::int64_t found_done = 0;
    std::int64_t resubmitted = 0;
    std::int64_t died = 0;
    std::int64_t lost = 0;
    std::int64_t reapplied = 0;
    /// Why nothing can be run at present, if that is so.
    std::optional<std::string> problem;
};

/// Counters by name.
using statistics = std::map<std::string, std::uint64_t>;

namespace detail {

inline std::optional<std::string> text_if(const char* text) {
    return text == nullptr ? std::nullopt : std::optional<std::string>(text);
}
inline std::optional<std::int64_t> number_if(std::int64_t number) noexcept {
    return number < 0 ? std::nullopt : std::optional<std::int64_t>(number);
}
inline std::optional<std::size_t> index_if(std::int32_t index) noexcept {
    return index < 0 ? std::nullopt : std::optional<std::size_t>(static_cast<std::size_t>(index));
}

inline server_status read_server(const segue_status* status, std::size_t server) {
    const auto number = [&](const char* name) {
        return number_if(segue_status_server_number(status, server, name));
    };
    server_status read;
    read.address = copied(segue_status_server_address(status, server));
    read.role = static_cast<server_role>(segue_status_server_role(status, server));
    read.health = static_cast<server_health>(segue_status_server_health(status, server));
    read.summary = copied(segue_status_server_summary(status, server));
    read.last_error = text_if(segue_status_server_error(status, server));
    read.timeline = number("timeline");
    read.lsn = number("lsn");
    read.lag_bytes = number("lag_bytes");
    read.warm_links = number("warm_links");
    read.links_dialled = number("links_dialled");
    read.warm_links_used = number("warm_links_used");
    return read;
}

inline client_status read_client(const segue_client* client) {
    segue_status* raw = nullptr;
    call(segue_client_status, client, &raw);
    const std::unique_ptr<segue_status, freed_by<&segue_status_free>> status(raw);
    client_status read;
    const std::size_t servers = segue_status_server_count(raw);
    for (std::size_t server = 0; server < servers; ++server) {
        read.servers.push_back(read_server(raw, server));
    }
    read.chosen = index_if(segue_status_chosen(raw));
    read.standby = index_if(segue_status_standby(raw));
    // It is 64 bits wide, so that a negative number is one, too; only -1 says that it is not known.
    if (const std::int64_t bits = segue_status_number(raw, "system_identifier"); bits != -1) {
        read.system_identifier = static_cast<std::uint64_t>(bits);
    }
    read.timeline_floor = number_if(segue_status_number(raw, "timeline_floor"));
    read.sessions = number_if(segue_status_number(raw, "sessions")).value_or(0);
    read.waiting = number_if(segue_status_number(raw, "waiting")).value_or(0);
    read.ledger_problem = text_if(segue_status_ledger_problem(raw));
    read.journal_dir = text_if(segue_status_journal_dir(raw));
    read.journal_bytes = number_if(segue_status_number(raw, "journal_bytes"));
    return read;
}

inline statistics read_statistics(const segue_client* client) {
    segue_statistics* raw = nullptr;
    call(segue_client_statistics, client, &raw);
    const std::unique_ptr<segue_statistics, freed_by<&segue_statistics_free>> counters(raw);
    statistics read;
    const std::size_t count = segue_statistics_count(raw);
    for (std::size_t index = 0; index < count; ++index) {
        read.emplace(copied(segue_statistics_name(raw, index)), segue_statistics_value(raw, index));
    }
    return read;
}

/// The exception that stands for an error of the C interface, not thrown.
inline std::exception_ptr exception_of(const segue_error* raw) {
    try {
        throw_copy(segue_error_status(raw), raw);
    } catch (...) {
        return std::current_exception();
    }
}

inline std::vector<dead_letter> read_dead_letters(const segue_client* client) {
    segue_dead_letters* raw = nullptr;
    call(segue_client_dead_letters, client, &raw);
    const std::unique_ptr<segue_dead_letters, freed_by<&segue_dead_letters_free>> letters(raw);
    std::vector<dead_letter> read;
    const std::size_t count = segue_dead_letters_count(raw);
    for (std::size_t index = 0; index < count; ++index) {
        dead_letter& letter = read.emplace_back();
        letter.id = copied(segue_dead_letters_id(raw, index));
        letter.key = text_if(segue_dead_letters_key(raw, index));
        letter.lane = text_if(segue_dead_letters_lane(raw, index));
        letter.stops_lane = segue_dead_letters_stops_lane(raw, index);
        letter.died_at = std::chrono::system_clock::time_point(
            std::chrono::milliseconds(segue_dead_letters_died_at_ms(raw, index)));
        letter.statement = segue_dead_letters_statement(raw, index);
        const std::size_t statements = segue_dead_letters_statement_count(raw, index);
        for (std::size_t statement = 0; statement < statements; ++statement) {
            letter.statements.push_back(copied(segue_dead_letters_sql(raw, index, statement)));
        }
        letter.sqlstate = copied(segue_dead_letters_sqlstate(raw, index));
        letter.message = copied(segue_dead_letters_message(raw, index));
        letter.detail = text_if(segue_dead_letters_detail(raw, index));
        letter.error = exception_of(segue_dead_letters_error(raw, index));
    }
    return read;
}

inline submission_status read_submissions(const segue_client* client) {
    segue_submission_status* raw = nullptr;
    call(segue_client_submissions, client, &raw);
    const std::unique_ptr<segue_submission_status, freed_by<&segue_submission_status_free>> status(raw);
    const auto number = [&](const char* name) {
        return number_if(segue_submission_status_number(raw, name)).value_or(0);
    };
    submission_status read;
    read.waiting = number("waiting");
    read.in_flight = number("in_flight");
    read.dead_letters = number("dead_letters");
    read.lanes = number("lanes");
    read.lanes_stopped = number("lanes_stopped");
    read.bytes = number("bytes");
    read.journal_bytes = number_if(segue_submission_status_number(raw, "journal_bytes"));
    read.submitted = number("submitted");
    read.recovered = number("recovered");
    read.committed = number("committed");
    read.found_done = number("found_done");
    read.resubmitted = number("resubmitted");
    read.died = number("died");
    read.lost = number("lost");
    read.reapplied = number("reapplied");
    read.problem = text_if(segue_submission_status_problem(raw));
    return read;
}

inline session_status read_session(segue_session* session) {
    segue_session_state* raw = nullptr;
    call(segue_session_status, session, &raw);
    const std::unique_ptr<segue_session_state, freed_by<&segue_session_state_free>> state(raw);
    session_status read;
    read.id = segue_session_state_id(raw);
    read.server = index_if(segue_session_state_server(raw));
    read.address = text_if(segue_session_state_address(raw));
    read.timeline = number_if(segue_session_state_number(raw, "timeline"));
    read.backend_pid = number_if(segue_session_state_number(raw, "backend_pid"));
    read.tls_version = text_if(segue_session_state_tls_version(raw));
    read.in_transaction = segue_session_state_in_transaction(raw);
    read.transaction_failed = segue_session_state_transaction_failed(raw);
    read.ledger = segue_session_state_ledger(raw);
    read.protection_lost = text_if(segue_session_state_protection_lost(raw));
    return read;
}

}  // namespace detail
}  // namespace segue

#endif
