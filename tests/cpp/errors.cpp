// Exceptions: their classes, what they tell, and that they outlive everything.
#include "support/check.hpp"
#include "support/cluster.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>

namespace {

segue::client& client() {
    static segue::client shared{one_server().conninfo()};
    return shared;
}

/// A session with a table that has a constraint of every kind.
segue::session& session() {
    static segue::session shared = [] {
        segue::session made = client().open_session();
        made.execute_batch(
            "CREATE FUNCTION raises(code text) RETURNS int LANGUAGE plpgsql AS"
            "  $$ BEGIN RAISE 'raised' USING errcode = code; END $$;"
            "CREATE TABLE parent (id int PRIMARY KEY);"
            "CREATE TABLE child (id int UNIQUE, parent int REFERENCES parent, name text NOT NULL,"
            "  age int CONSTRAINT adult CHECK (age > 17), period int4range, EXCLUDE USING gist (period WITH "
            "&&))");
        return made;
    }();
    return shared;
}

template <class Expected>
Expected insert_fails(const char* values) {
    const std::string sql = std::string("INSERT INTO child (id, parent, name, age, period) VALUES ") + values;
    const auto error = CHECK_THROWS(Expected, session().execute(sql));
    CHECK_EQ(error.kind(), segue::error_kind::server);
    CHECK_EQ(error.status(), SEGUE_SERVER);
    CHECK_EQ(error.outcome(), segue::outcome::not_committed);
    CHECK(!error.is_retryable());
    CHECK(!error.maybe_committed());
    return error;
}

}  // namespace

TEST(the_servers_own_errors) {
    const auto error =
        CHECK_THROWS(segue::syntax_error_or_access_rule, session().execute("SELECT wrong FROM parent"));
    CHECK_EQ(error.sqlstate(), "42703");
    CHECK_EQ(error.severity(), "ERROR");
    CHECK_EQ(error.position(), "8");
    CHECK_EQ(error.server_message(), "column \"wrong\" does not exist");
    CHECK_CONTAINS(error.what(), "column \"wrong\" does not exist");
    CHECK_EQ(*error.field('C'), "42703");
    CHECK(error.field('R').has_value());
    CHECK(!error.field('d').has_value());
    CHECK(!error.field('?').has_value());
    CHECK_EQ(error.constraint(), "");
    CHECK_EQ(error.cause(), "");
    const auto division = CHECK_THROWS(segue::server_error, session().execute("SELECT 1 / 0"));
    CHECK_EQ(division.sqlstate(), "22012");
    const auto raised = CHECK_THROWS(
        segue::server_error,
        session().execute(
            "DO $$ BEGIN RAISE 'no' USING detail = 'because', hint = 'do not', errcode = 'ZZ999',"
            " schema = 's', table = 't', column = 'c', datatype = 'd', constraint = 'n'; END $$"));
    CHECK_EQ(raised.sqlstate(), "ZZ999");
    CHECK_EQ(raised.detail(), "because");
    CHECK_EQ(raised.hint(), "do not");
    CHECK_EQ(raised.schema(), "s");
    CHECK_EQ(raised.table(), "t");
    CHECK_EQ(raised.column(), "c");
    CHECK_EQ(raised.datatype(), "d");
    CHECK_EQ(raised.constraint(), "n");
    CHECK_CONTAINS(raised.context(), "PL/pgSQL");
    CHECK_EQ(session().query_one<int>("SELECT 1"), 1);
}

TEST(constraints) {
    session().execute("INSERT INTO parent VALUES (1)");
    session().execute("INSERT INTO child VALUES (1, 1, 'a', 18, '[1,2)')");
    CHECK_EQ(insert_fails<segue::not_null_violation>("(2, 1, NULL, 18, '[2,3)')").column(), "name");
    CHECK_EQ(insert_fails<segue::foreign_key_violation>("(2, 9, 'b', 18, '[2,3)')").sqlstate(), "23503");
    CHECK_EQ(insert_fails<segue::unique_violation>("(1, 1, 'b', 18, '[2,3)')").constraint(), "child_id_key");
    CHECK_EQ(insert_fails<segue::check_violation>("(2, 1, 'b', 17, '[2,3)')").constraint(), "adult");
    CHECK_EQ(insert_fails<segue::exclusion_violation>("(2, 1, 'b', 18, '[1,3)')").sqlstate(), "23P01");
    CHECK_THROWS(segue::integrity_violation, session().execute("SELECT raises('23001')"));
    try {
        session().execute("INSERT INTO parent VALUES (1)");
        CHECK(false);
    } catch (const segue::integrity_violation& error) {
        CHECK_EQ(error.table(), "parent");
    }
}

TEST(conflicts_and_cancellations) {
    const auto serialization =
        CHECK_THROWS(segue::serialization_failure, session().execute("SELECT raises('40001')"));
    CHECK(serialization.is_retryable());
    CHECK_THROWS(segue::deadlock_detected, session().execute("SELECT raises('40P01')"));
    session().execute("SET statement_timeout = '20ms'");
    const auto timeout = CHECK_THROWS(segue::query_canceled, session().execute("SELECT pg_sleep(30)"));
    CHECK_EQ(timeout.sqlstate(), "57014");
    session().execute("RESET statement_timeout");
}

TEST(an_exception_outlives_everything) {
    std::optional<segue::error> kept;
    {
        segue::client other{one_server().conninfo() + " application_name=short"};
        segue::session brief = other.open_session();
        try {
            brief.execute("SELECT * FROM nowhere");
        } catch (const segue::error& error) {
            kept.emplace(error);
        }
    }
    CHECK(kept.has_value());
    const segue::error copy = *kept;
    kept.reset();
    CHECK_EQ(copy.sqlstate(), "42P01");
    CHECK_CONTAINS(copy.what(), "nowhere");
    CHECK_CONTAINS(copy.server_message(), "nowhere");
    static_assert(std::is_nothrow_copy_constructible_v<segue::error>);
    static_assert(std::is_base_of_v<std::runtime_error, segue::error>);
}

TEST(configuration) {
    const auto error = CHECK_THROWS(segue::config_error, segue::client("host=x sslmode=prefer"));
    CHECK_EQ(error.kind(), segue::error_kind::config);
    CHECK_CONTAINS(error.what(), "sslmode");
    CHECK_THROWS(segue::config_error, segue::client("no such thing"));
    segue::options options;
    CHECK_THROWS(segue::config_error, options.set("nonsense", "x"));
    CHECK_THROWS(segue::invalid_argument, segue::client("host=\xff"));
    CHECK_THROWS(segue::invalid_argument, segue::client(static_cast<const char*>(nullptr)));
}

TEST(servers_that_cannot_be_had) {
    segue::client nobody{
        "host=127.0.0.1 port=1 user=a dbname=b failover_timeout_ms=600000"};
    try {
        auto opened = nobody.open_session();
        CHECK(false);
    } catch (const segue::connect_error& error) {
        // Nobody was ever there: that is told at once.
        CHECK_EQ(error.outcome(), segue::outcome::not_committed);
        CHECK(error.is_retryable());
        CHECK_CONTAINS(std::string(error.what()) + std::string(error.cause()), "127.0.0.1");
    }
}

TEST(a_wrong_password) {
    cluster guarded({"--standbys", "0", "--auth", "scram"});
    segue::client stranger{guarded.conninfo() + " password=wrong failover_timeout_ms=5000"};
    try {
        auto opened = stranger.open_session();
        CHECK(false);
    } catch (const segue::authentication_error& error) {
        CHECK_EQ(error.sqlstate().substr(0, 2), "28");
    }
    CHECK_THROWS(segue::authentication_error, stranger.open_session());
    segue::client known{guarded.conninfo()};
    CHECK_EQ(known.open_session().query_one<int>("SELECT 1"), 1);
}

TEST(wrong_use) {
    CHECK_THROWS(segue::usage_error, session().commit());
    CHECK_THROWS(segue::usage_error, session().rollback());
    session().begin();
    CHECK_THROWS(segue::usage_error, session().begin());
    session().rollback();
    const auto rows = session().query("SELECT 1 AS a, 2 AS b");
    CHECK_EQ(CHECK_THROWS(segue::invalid_argument, rows[1]).outcome(), segue::outcome::unknown);
    CHECK_THROWS(segue::invalid_argument, rows[0][2]);
    CHECK_THROWS(segue::invalid_argument, rows[0][-1]);
    CHECK_THROWS(segue::invalid_argument, rows[0]["c"]);
    CHECK_THROWS(segue::invalid_argument, rows[0].as<int>());
    CHECK_THROWS(segue::invalid_argument, rows[0].as<int, int, int>());
    CHECK_THROWS(segue::invalid_argument, session().query("SELECT 1").back().get<int>("?"));
    CHECK_THROWS(segue::invalid_argument, session().query("SELECT 1 WHERE false").front());
    CHECK_THROWS(segue::invalid_argument, session().query("SELECT 1 WHERE false").back());
    CHECK_THROWS(segue::server_error, session().execute("SELECT $1::int"));
}

TEST(rows_too_many_or_too_few) {
    session().execute("CREATE TABLE counted (n int)");
    const auto none = CHECK_THROWS(segue::unexpected_rows, session().query_one<int>("SELECT 1 WHERE false"));
    CHECK_EQ(none.kind(), segue::error_kind::usage);
    CHECK_THROWS(segue::unexpected_rows, session().query_opt<int>("SELECT generate_series(1, 2)"));
    // The statement stands all the same, and the error says so: nobody must run it again.
    const auto both = CHECK_THROWS(
        segue::unexpected_rows, session().query_one<int>("INSERT INTO counted VALUES (1), (2) RETURNING n"));
    CHECK_EQ(both.outcome(), segue::outcome::committed);
    CHECK(both.maybe_committed());
    CHECK(!both.is_retryable());
    const auto text =
        CHECK_THROWS(segue::conversion_error,
                     session().query_one<int>("INSERT INTO counted VALUES (3) RETURNING 'three'"));
    CHECK_EQ(text.outcome(), segue::outcome::committed);
    CHECK_EQ(session().query_one<int>("SELECT count(*) FROM counted"), 3);
    segue::transaction tx{session()};
    const auto inside = CHECK_THROWS(segue::unexpected_rows,
                                     tx.query_one<int>("INSERT INTO counted VALUES (4), (5) RETURNING n"));
    CHECK_EQ(inside.outcome(), segue::outcome::not_committed);
}

TEST(a_transaction_that_had_failed) {
    segue::transaction tx{session()};
    CHECK_THROWS(segue::server_error, tx.execute("SELECT 1 / 0"));
    const auto aborted = CHECK_THROWS(segue::server_error, tx.execute("SELECT 1"));
    CHECK_EQ(aborted.sqlstate(), "25P02");
    CHECK(tx.status().transaction_failed);
    const auto error = CHECK_THROWS(segue::transaction_failed, tx.commit());
    CHECK_EQ(error.kind(), segue::error_kind::transaction_failed);
    CHECK_EQ(error.outcome(), segue::outcome::not_committed);
    CHECK(!tx.active());
    CHECK(!session().status().in_transaction);
}

TEST(a_child_of_fork) {
    const int mine = session().query_one<int>("SELECT 1");
    int ends[2] = {-1, -1};
    CHECK_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        // Nothing may leave this block: the child must not go on as a second test program.
        char code = 1;
        try {
            session().query_one<int>("SELECT 1");
        } catch (const segue::forked_error& error) {
            code = error.kind() == segue::error_kind::forked ? 0 : 2;
        } catch (...) {
            code = 3;
        }
        const bool told = write(ends[1], &code, 1) == 1;
        // No leak check here: it would count what belongs to threads that fork() has not copied.
        kill(getpid(), SIGKILL);
        _exit(told ? 0 : 1);
    }
    close(ends[1]);
    char code = -1;
    CHECK_EQ(read(ends[0], &code, 1), 1);
    CHECK_EQ(code, 0);
    close(ends[0]);
    int status = -1;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(session().query_one<int>("SELECT 1"), mine);
}

TEST(kinds_without_a_server) {
    // The mapping itself, for all kinds, those too that take more than one server to provoke.
    const auto thrown = [](std::int32_t status) {
        try {
            segue::detail::throw_failure(status, nullptr);
        } catch (const segue::error& error) {
            CHECK_EQ(error.status(), status);
            CHECK_EQ(std::string(error.what()), segue_status_name(status));
            return std::string(typeid(error).name());
        }
    };
    const auto is = [&](std::int32_t status, const std::type_info& type) {
        CHECK_EQ(thrown(status), std::string(type.name()));
    };
    is(SEGUE_INVALID_ARGUMENT, typeid(segue::invalid_argument));
    is(SEGUE_USAGE, typeid(segue::usage_error));
    is(SEGUE_BUSY, typeid(segue::busy_error));
    is(SEGUE_CLOSED, typeid(segue::closed_error));
    is(SEGUE_FORKED, typeid(segue::forked_error));
    is(SEGUE_CONVERSION, typeid(segue::conversion_error));
    is(SEGUE_NULL_VALUE, typeid(segue::null_value));
    is(SEGUE_LIMIT, typeid(segue::limit_error));
    is(SEGUE_CONFIG, typeid(segue::config_error));
    is(SEGUE_CONNECT, typeid(segue::connect_error));
    is(SEGUE_AUTHENTICATION, typeid(segue::authentication_error));
    is(SEGUE_TLS, typeid(segue::tls_error));
    is(SEGUE_PROTOCOL, typeid(segue::protocol_error));
    is(SEGUE_SERVER, typeid(segue::server_error));
    is(SEGUE_OUTCOME_UNKNOWN, typeid(segue::outcome_unknown));
    is(SEGUE_REPLAY_DIVERGED, typeid(segue::replay_diverged));
    is(SEGUE_REPLY_LOST, typeid(segue::reply_lost));
    is(SEGUE_PROTECTION_LOST, typeid(segue::protection_lost));
    is(SEGUE_FAILOVER_TIMEOUT, typeid(segue::failover_timeout));
    is(SEGUE_LEDGER, typeid(segue::ledger_error));
    is(SEGUE_TRANSACTION_FAILED, typeid(segue::transaction_failed));
    is(SEGUE_SERVER_CRASH, typeid(segue::server_crash));
    is(SEGUE_INTERNAL, typeid(segue::internal_error));
    is(54321, typeid(segue::error));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
