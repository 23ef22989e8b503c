// The main job, seen from C++: transactions that outlive their server, and what is told when they cannot.
#include "support/check.hpp"
#include "support/cluster.hpp"

#include <atomic>
#include <future>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace {

std::vector<std::string> with_standby(std::vector<std::string> more = {}) {
    std::vector<std::string> all{"--standbys", "1", "--replication", "sync"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

void fail_over(cluster& servers) {
    servers.command("kill 0");
    servers.command("promote 1");
}

segue::session with_table(const segue::client& client) {
    auto session = client.open_session();
    session.execute("CREATE TABLE t (n int PRIMARY KEY, s text)");
    return session;
}

/// What the server that is left has, asked without Segue.
std::string rows_on(cluster& servers, int server) {
    return servers.sql(server, "SELECT coalesce(string_agg(n::text, ',' ORDER BY n), '') FROM t");
}

/// The names of the events, as they come.
class recorder {
public:
    explicit recorder(const segue::client& client)
        : subscription_(client.on_event([this](const segue::event& event) {
              const std::lock_guard<std::mutex> guard(mutex_);
              kinds_.insert(event.kind());
              if (event.kind() == segue::event_kind::session_moved) {
                  pause_us_ = event.number("pause_us");
                  moved_to_ = event.server();
                  moved_ = event.session();
              }
              if (event.kind() == segue::event_kind::promoted) {
                  timeline_ = event.number("timeline");
                  address_ = event.address().value_or("");
              }
          })) {}

    bool heard(segue::event_kind kind) {
        const std::lock_guard<std::mutex> guard(mutex_);
        return kinds_.count(kind) > 0;
    }

    std::mutex mutex_;
    std::set<segue::event_kind> kinds_;
    std::optional<std::int64_t> pause_us_;
    std::optional<std::size_t> moved_to_;
    std::optional<std::uint64_t> moved_;
    std::optional<std::int64_t> timeline_;
    std::string address_;

private:
    // Last, so that no callback comes when the rest is gone.
    segue::subscription subscription_;
};

}  // namespace

TEST(a_transaction_goes_on_and_events_tell) {
    cluster servers(with_standby());
    segue::client client{servers.conninfo()};
    auto session = with_table(client);
    auto prepared = session.prepare("INSERT INTO t VALUES ($1, $2)");
    recorder events(client);
    segue::transaction tx{session};
    for (int n = 0; n < 5; ++n) tx.execute("INSERT INTO t VALUES ($1)", n);
    auto inner = tx.nested();
    prepared.execute(5, "prepared before");
    fail_over(servers);
    prepared.execute(6, "and after");
    inner.commit();
    CHECK_EQ(tx.query_one<int>("SELECT count(*) FROM t"), 7);
    tx.commit();
    CHECK_EQ(rows_on(servers, 1), "0,1,2,3,4,5,6");
    CHECK_EQ(*session.status().server, 1u);
    CHECK_EQ(*session.status().timeline, 2);
    CHECK(!session.status().in_transaction);
    for (const auto kind : {segue::event_kind::promoted, segue::event_kind::replay_started,
                            segue::event_kind::replay_finished, segue::event_kind::session_moved}) {
        WAIT_UNTIL(events.heard(kind));
    }
    const std::lock_guard<std::mutex> guard(events.mutex_);
    CHECK(events.pause_us_.value() > 0);
    CHECK_EQ(events.moved_to_.value(), 1u);
    CHECK_EQ(events.moved_.value(), session.status().id);
    CHECK_EQ(events.timeline_.value(), 2);
    const auto status = client.status();
    CHECK_EQ(status.chosen.value(), 1u);
    CHECK_EQ(events.address_, status.servers[1].address);
    CHECK(status.servers[1].role == segue::server_role::primary);
    CHECK(status.servers[0].health != segue::server_health::healthy);
    CHECK(status.servers[0].last_error.has_value());
}

TEST(transact_through_a_failover_runs_its_body_once) {
    cluster servers(with_standby());
    segue::client client{servers.conninfo()};
    auto session = with_table(client);
    int runs = 0;
    const int counted = client.transact([&](segue::transaction& tx) {
        ++runs;
        tx.execute("INSERT INTO t VALUES (1)");
        fail_over(servers);
        tx.execute("INSERT INTO t VALUES (2)");
        return tx.query_one<int>("SELECT count(*) FROM t");
    });
    CHECK_EQ(runs, 1);
    CHECK_EQ(counted, 2);
    CHECK_EQ(rows_on(servers, 1), "1,2");
}

TEST(a_commit_in_flight_is_applied_once) {
    cluster servers(with_standby({"--proxy"}));
    segue::client client{servers.told("conninfo_proxy")};
    auto session = with_table(client);
    // The server gets the COMMIT, and its answer is lost.
    servers.command("arm 0 commit forward_then_reset");
    int runs = 0;
    session.transact([&](segue::transaction& tx) {
        ++runs;
        tx.execute("INSERT INTO t VALUES (1)");
    });
    servers.command("arm_wait");
    CHECK_EQ(runs, 1);
    CHECK_EQ(rows_on(servers, 0), "1");
    // It never gets it.
    servers.command("arm 0 commit reset");
    session.transact([&](segue::transaction& tx) { tx.execute("INSERT INTO t VALUES (2)"); });
    servers.command("arm_wait");
    CHECK_EQ(rows_on(servers, 0), "1,2");
}

TEST(streams_copies_and_pipelines_go_on) {
    cluster servers(with_standby());
    segue::client client{servers.conninfo()};
    auto session = with_table(client);
    session.execute("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 30000) n");
    session.transact([&](segue::transaction& tx) {
        int expected = 1;
        for (auto row : tx.stream("SELECT n, s FROM t ORDER BY n")) {
            CHECK_EQ(row.get<int>(0), expected++);
            if (expected == 100) fail_over(servers);
        }
        CHECK_EQ(expected, 30'001);
        tx.execute("DELETE FROM t");
    });
    servers.command("rejoin 0");
    servers.command(
        "wait_until 1 SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum') OR "
        "state = 'streaming'");
    CHECK_EQ(*session.status().server, 1u);
    segue::transaction tx{session};
    auto copy = tx.copy_in("COPY t (n) FROM STDIN");
    copy.write_row(1);
    servers.command("kill 1");
    servers.command("promote 0");
    copy.write_row(2);
    CHECK_EQ(copy.finish(), 2u);
    auto pipe = tx.pipeline();
    pipe.add("INSERT INTO t VALUES (3)");
    pipe.add("SELECT count(*) FROM t");
    CHECK_EQ(pipe.finish().at(1).front().get<int>(0), 3);
    tx.commit();
    CHECK_EQ(rows_on(servers, 0), "1,2,3");
}

TEST(a_divergence_is_told_and_transact_runs_again) {
    cluster servers(with_standby());
    segue::client client{servers.conninfo()};
    auto session = with_table(client);
    int runs = 0;
    session.transact([&](segue::transaction& tx) {
        tx.execute("INSERT INTO t VALUES ($1, $2)", ++runs,
                   tx.query_one<std::string>("SELECT random()::text"));
        if (runs == 1) fail_over(servers);
        tx.execute("SELECT 1");
    });
    CHECK_EQ(runs, 2);
    CHECK_EQ(rows_on(servers, 1), "2");
}

TEST(a_divergence_without_transact) {
    cluster servers(with_standby());
    segue::client client{servers.conninfo()};
    auto session = with_table(client);
    segue::transaction tx{session};
    tx.execute("INSERT INTO t VALUES (1)");
    CHECK(!tx.query_one<std::string>("SELECT random()::text").empty());
    fail_over(servers);
    const auto error = CHECK_THROWS(segue::replay_diverged, tx.execute("SELECT 1"));
    CHECK_EQ(error.sqlstate(), "40001");
    CHECK_EQ(error.outcome(), segue::outcome::not_committed);
    CHECK(error.is_retryable());
    try {
        tx.commit();
        CHECK(false);
    } catch (const segue::error& after) {
        CHECK_EQ(after.outcome(), segue::outcome::not_committed);
    }
    CHECK(!session.status().in_transaction);
    CHECK_EQ(rows_on(servers, 1), "");
    session.execute("INSERT INTO t VALUES (2)");
    CHECK_EQ(rows_on(servers, 1), "2");
}

TEST(an_unknown_outcome_is_never_run_again) {
    cluster servers(with_standby({"--proxy"}));
    segue::client client{servers.told("conninfo_proxy") + " ledger=off"};
    auto session = with_table(client);
    servers.command("arm 0 commit forward_then_reset");
    int runs = 0;
    const auto error = CHECK_THROWS(segue::outcome_unknown, session.transact([&](segue::transaction& tx) {
        ++runs;
        tx.execute("INSERT INTO t VALUES (1)");
    }));
    CHECK_EQ(runs, 1);
    CHECK_EQ(error.outcome(), segue::outcome::unknown);
    CHECK_EQ(error.sqlstate(), "08007");
    CHECK(error.maybe_committed());
    CHECK(!error.is_retryable());
    CHECK(!session.status().in_transaction);
    session.execute("INSERT INTO t VALUES (2)");
}

TEST(protection_that_is_lost) {
    cluster servers(with_standby());
    segue::client client{servers.conninfo() + " journal_bytes_max=4096"};
    auto session = with_table(client);
    recorder events(client);
    int runs = 0;
    std::vector<segue::error> errors;
    session.transact([&](segue::transaction& tx) {
        ++runs;
        try {
            tx.execute("INSERT INTO t VALUES ($1, $2)", runs, std::string(10'000, 'x'));
            if (runs == 1) {
                CHECK(tx.status().protection_lost.has_value());
                fail_over(servers);
            }
            tx.execute("SELECT 1");
        } catch (const segue::protection_lost& error) {
            errors.push_back(error);
            throw;
        }
    });
    CHECK_EQ(runs, 2);
    CHECK_EQ(errors.size(), 1u);
    CHECK_EQ(errors[0].outcome(), segue::outcome::not_committed);
    CHECK(errors[0].is_retryable());
    CHECK(events.heard(segue::event_kind::protection_lost));
    CHECK_EQ(rows_on(servers, 1), "2");
}

TEST(nobody_takes_over) {
    cluster servers(with_standby());
    segue::client client{servers.conninfo() + " failover_timeout_ms=1000"};
    auto session = with_table(client);
    segue::transaction tx{session};
    tx.execute("INSERT INTO t VALUES (1)");
    servers.command("kill 0");
    const auto error = CHECK_THROWS(segue::failover_timeout, tx.execute("INSERT INTO t VALUES (2)"));
    CHECK_EQ(error.outcome(), segue::outcome::not_committed);
    CHECK_EQ(error.kind(), segue::error_kind::failover_timeout);
    try {
        tx.rollback();
    } catch (const segue::error&) {
        CHECK(!session.status().in_transaction);
    }
    servers.command("promote 1");
    session.execute("INSERT INTO t VALUES (3)");
    CHECK_EQ(rows_on(servers, 1), "3");
}

TEST(reading_from_a_standby) {
    cluster servers(with_standby());
    segue::client client{servers.conninfo()};
    auto writer = with_table(client);
    auto neither = client.open_session(segue::access::read_only);
    CHECK_EQ(neither.query_one<int>("SELECT count(*) FROM t"), 0);
    CHECK(!writer.query_one<bool>("SELECT pg_is_in_recovery()"));
    WAIT_UNTIL(client.status().standby.has_value());
    segue::client readers{servers.conninfo() + " target_session_attrs=read-only"};
    auto reader = readers.open_session();
    CHECK(reader.query_one<bool>("SELECT pg_is_in_recovery()"));
    CHECK_THROWS(segue::server_error, reader.execute("CREATE TABLE no (n int)"));
}

TEST(eight_threads_through_a_failover) {
    cluster servers(with_standby());
    segue::client client{servers.conninfo()};
    auto session = with_table(client);
    constexpr int threads = 8;
    std::atomic<int> committed{0};
    std::atomic<bool> stop{false};
    std::vector<std::future<std::vector<int>>> workers;
    for (int thread = 0; thread < threads; ++thread) {
        workers.push_back(std::async(std::launch::async, [&, thread] {
            auto own = client.open_session();
            std::vector<int> done;
            for (int i = 0; !stop; ++i) {
                const int n = thread * 1'000'000 + i;
                own.transact([&](segue::transaction& tx) {
                    tx.execute("INSERT INTO t VALUES ($1)", n);
                    tx.execute("UPDATE t SET s = 'seen' WHERE n = $1", n);
                });
                done.push_back(n);
                ++committed;
            }
            return done;
        }));
    }
    std::string trouble;
    try {
        WAIT_UNTIL(committed > 100);
        fail_over(servers);
        const int before = committed;
        WAIT_UNTIL(committed > before + 100);
    } catch (const std::exception& error) {
        trouble = error.what();
    }
    stop = true;
    std::set<int> reported;
    for (auto& worker : workers) {
        for (const int n : worker.get()) CHECK(reported.insert(n).second);
    }
    CHECK_EQ(trouble, "");
    std::set<int> found;
    for (int n : session.query("SELECT n FROM t WHERE s = 'seen'").as<int>()) CHECK(found.insert(n).second);
    CHECK_EQ(found, reported);
    CHECK_EQ(session.query_one<std::size_t>("SELECT count(*) FROM t"), reported.size());
}

/// With asynchronous replication what was told may be lost; it is run again where that is asked for.
TEST(submissions_that_are_lost_are_run_again_and_named) {
    cluster servers({"--standbys", "1", "--replication", "async"});
    segue::client client{servers.conninfo() + " on_commits_lost=reapply"};
    client.open_session().execute("CREATE TABLE t (n int PRIMARY KEY)");
    std::mutex mutex;
    std::multiset<std::string> again;
    const auto subscription = client.on_event([&](const segue::event& event) {
        if (event.kind() != segue::event_kind::submission_reapplied) return;
        const std::lock_guard<std::mutex> guard(mutex);
        for (const auto& name : event.submissions()) again.emplace(name.key.value_or("no key"));
    });
    const auto tell = [&](int n) {
        const auto ticket = client.submit(
            segue::submission().statement("INSERT INTO t VALUES ($1)", n).key(std::to_string(n)));
        CHECK(ticket.wait().rows == std::vector<std::uint64_t>{1});
    };
    tell(1);
    servers.command("wait_until 1 SELECT count(*) = 1 FROM t");
    servers.command("sql 1 ALTER SYSTEM SET primary_conninfo = ''");
    servers.command("sql 1 SELECT pg_reload_conf()");
    servers.command("wait_until 0 SELECT count(*) = 0 FROM pg_stat_replication");
    for (int n = 2; n <= 9; ++n) tell(n);
    fail_over(servers);
    WAIT_UNTIL(client.submissions().reapplied == 8);
    WAIT_UNTIL([&] {
        const std::lock_guard<std::mutex> guard(mutex);
        return again.size() == 8;
    }());
    CHECK(again == (std::multiset<std::string>{"2", "3", "4", "5", "6", "7", "8", "9"}));
    CHECK_EQ(client.submissions().lost, 0);
    CHECK_EQ(rows_on(servers, 1), "1,2,3,4,5,6,7,8,9");
}

int main(int argc, char** argv) { return check::run(argc, argv); }
