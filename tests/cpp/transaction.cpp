// Transactions as scopes, savepoints, and functions that are run again where that is safe.
#include "support/check.hpp"
#include "support/cluster.hpp"

#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

namespace {

using segue::isolation;

segue::client& client() {
    static segue::client shared{one_server().conninfo()};
    return shared;
}

/// A session, and an empty table `t (n int primary key, v int)`.
segue::session fresh() {
    auto session = client().open_session();
    session.execute_batch("DROP TABLE IF EXISTS t; CREATE TABLE t (n int PRIMARY KEY, v int DEFAULT 0)");
    return session;
}

int count(segue::session& session) { return session.query_one<int>("SELECT count(*) FROM t"); }

struct of_the_application : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace

TEST(commit_and_rollback) {
    auto session = fresh();
    {
        segue::transaction tx{session};
        CHECK(tx.active());
        CHECK(tx.handle() == session.handle());
        tx.execute("INSERT INTO t VALUES (1)");
        CHECK(tx.status().in_transaction);
        tx.commit();
        CHECK(!tx.active());
        CHECK_THROWS(segue::usage_error, tx.commit());
        CHECK_THROWS(segue::usage_error, tx.rollback());
        CHECK_THROWS(segue::usage_error, tx.nested());
    }
    CHECK_EQ(count(session), 1);
    {
        segue::transaction tx{session};
        tx.execute("INSERT INTO t VALUES (2)");
        tx.rollback();
        CHECK(!tx.active());
        CHECK(!session.status().in_transaction);
    }
    {
        segue::transaction tx{session};
        tx.execute("INSERT INTO t VALUES (3)");
    }
    CHECK_EQ(count(session), 1);
    CHECK(!session.status().in_transaction);
}

TEST(an_exception_rolls_back) {
    auto session = fresh();
    try {
        segue::transaction tx{session};
        tx.execute("INSERT INTO t VALUES (1)");
        throw of_the_application("leave");
    } catch (const of_the_application&) {
    }
    CHECK_EQ(count(session), 0);
    // Also past a stream, a COPY and a pipeline that are open.
    try {
        segue::transaction tx{session};
        tx.execute("INSERT INTO t SELECT generate_series(1, 1000)");
        for (auto row : tx.stream("SELECT n FROM t ORDER BY n")) {
            if (row.get<int>(0) == 300) throw of_the_application("leave");
        }
    } catch (const of_the_application&) {
    }
    CHECK_EQ(count(session), 0);
    try {
        segue::transaction tx{session};
        auto copy = tx.copy_in("COPY t (n) FROM STDIN");
        copy.write_row(1);
        throw of_the_application("leave");
    } catch (const of_the_application&) {
    }
    try {
        segue::transaction tx{session};
        auto pipe = tx.pipeline();
        pipe.add("INSERT INTO t VALUES (1)");
        throw of_the_application("leave");
    } catch (const of_the_application&) {
    }
    CHECK_EQ(count(session), 0);
    CHECK_EQ(session.query_one<int>("SELECT 1"), 1);
}

TEST(savepoints_as_guards) {
    auto session = fresh();
    segue::transaction tx{session};
    tx.execute("INSERT INTO t VALUES (1)");
    {
        auto inner = tx.nested();
        inner.execute("INSERT INTO t VALUES (2)");
        inner.commit();
        CHECK(!inner.active() && tx.active());
    }
    {
        auto inner = tx.nested();
        inner.execute("INSERT INTO t VALUES (3)");
    }
    {
        // A failure inside a savepoint leaves the transaction usable.
        auto inner = tx.nested();
        CHECK_THROWS(segue::unique_violation, inner.execute("INSERT INTO t VALUES (1)"));
        CHECK_THROWS(segue::server_error, inner.commit());
        CHECK(inner.active());
    }
    {
        auto outer = tx.nested();
        outer.execute("INSERT INTO t VALUES (4)");
        auto inner = outer.nested();
        inner.execute("INSERT INTO t VALUES (5)");
        inner.rollback();
        auto other = outer.nested();
        other.execute("INSERT INTO t VALUES (6)");
        outer.commit();
        CHECK(!other.active());
        CHECK_THROWS(segue::usage_error, other.commit());
    }
    tx.commit();
    std::string all;
    for (int n : session.query("SELECT n FROM t ORDER BY n").as<int>()) all += std::to_string(n);
    CHECK_EQ(all, "1246");
}

TEST(guards_that_outlive_their_scope) {
    auto session = fresh();
    auto tx = std::make_unique<segue::transaction>(session);
    auto inner = std::make_unique<segue::transaction>(tx->nested());
    inner->execute("INSERT INTO t VALUES (1)");
    tx->commit();
    segue::transaction next{session};
    auto savepoint = next.nested();
    next.execute("INSERT INTO t VALUES (2)");
    // These must not touch the transaction that has begun since.
    inner.reset();
    tx.reset();
    savepoint.commit();
    next.commit();
    CHECK_EQ(count(session), 2);
    {
        segue::transaction ended{session};
        session.rollback();
        CHECK(!ended.active());
        session.begin();
        session.execute("INSERT INTO t VALUES (3)");
    }
    session.commit();
    CHECK_EQ(count(session), 3);
}

TEST(guards_that_move) {
    auto session = fresh();
    std::optional<segue::transaction> kept;
    {
        segue::transaction tx{session};
        tx.execute("INSERT INTO t VALUES (1)");
        kept.emplace(std::move(tx));
        CHECK(!tx.active());
        CHECK(tx.handle() == nullptr);
        CHECK_THROWS(segue::usage_error, tx.commit());
        CHECK_THROWS(segue::invalid_argument, tx.execute("SELECT 1"));
    }
    auto moved_session = std::move(session);
    kept->execute("INSERT INTO t VALUES (2)");
    kept->commit();
    CHECK_EQ(count(moved_session), 2);
    auto other = client().open_session();
    segue::transaction a{moved_session};
    a.execute("INSERT INTO t VALUES (3)");
    // What the guard held is rolled back when it is given another transaction.
    a = segue::transaction{other};
    CHECK(!moved_session.status().in_transaction);
    CHECK(other.status().in_transaction);
    a.execute("INSERT INTO t VALUES (4)");
    a.commit();
    CHECK_EQ(count(moved_session), 3);
}

TEST(isolation_and_modes) {
    auto session = fresh();
    const auto shows = [](segue::transaction& tx, const char* setting, const char* expected) {
        CHECK_EQ(tx.query_one<std::string>(std::string("SHOW ") + setting), expected);
    };
    {
        segue::transaction tx{session};
        shows(tx, "transaction_isolation", "read committed");
    }
    {
        segue::transaction tx{session, isolation::repeatable_read};
        shows(tx, "transaction_isolation", "repeatable read");
    }
    {
        segue::transaction tx{session, segue::transaction_options{isolation::serializable, true, true}};
        shows(tx, "transaction_isolation", "serializable");
        shows(tx, "transaction_read_only", "on");
        shows(tx, "transaction_deferrable", "on");
        CHECK_THROWS(segue::server_error, tx.execute("INSERT INTO t VALUES (1)"));
    }
    session.begin({isolation::read_committed, true, false});
    CHECK_EQ(session.query_one<std::string>("SHOW transaction_read_only"), "on");
    session.rollback();
}

TEST(without_a_guard) {
    auto session = fresh();
    session.begin();
    session.execute("INSERT INTO t VALUES (1)");
    session.savepoint("of \"mine\"");
    session.execute("INSERT INTO t VALUES (2)");
    session.rollback_to("of \"mine\"");
    session.release("of \"mine\"");
    CHECK_THROWS(segue::server_error, session.release("of \"mine\""));
    session.rollback();
    session.begin();
    session.execute("INSERT INTO t VALUES (3)");
    session.commit();
    CHECK_EQ(session.query_one<int>("SELECT n FROM t"), 3);
}

TEST(a_commit_that_fails) {
    auto session = fresh();
    session.execute("CREATE TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    segue::transaction tx{session};
    tx.execute("INSERT INTO late VALUES (1), (1)");
    const auto error = CHECK_THROWS(segue::unique_violation, tx.commit());
    CHECK_EQ(error.outcome(), segue::outcome::not_committed);
    CHECK(!tx.active());
    CHECK(!session.status().in_transaction);
    session.execute("DROP TABLE late");
}

TEST(a_commit_that_is_refused_leaves_the_transaction_open) {
    auto session = fresh();
    segue::transaction tx{session};
    tx.execute("INSERT INTO t VALUES (1)");
    auto stream = tx.stream("SELECT generate_series(1, 1000)");
    CHECK_THROWS(segue::busy_error, tx.commit());
    CHECK(tx.active());
    stream.close();
    tx.commit();
    CHECK_EQ(count(session), 1);
}

TEST(transact_returns_what_the_body_returns) {
    auto session = fresh();
    const int n = session.transact([](segue::transaction& tx) {
        tx.execute("INSERT INTO t VALUES (7)");
        return tx.query_one<int>("SELECT n FROM t");
    });
    CHECK_EQ(n, 7);
    const std::string text = client().transact(
        [](segue::transaction& tx) { return tx.query_one<std::string>("SELECT n FROM t"); });
    CHECK_EQ(text, "7");
    const auto unique = session.transact([](segue::transaction&) { return std::make_unique<int>(5); });
    CHECK_EQ(*unique, 5);
    session.transact([](segue::transaction& tx) { tx.execute("DELETE FROM t"); },
                     {isolation::serializable, false, false, 1});
    CHECK_EQ(count(session), 0);
}

TEST(transact_passes_the_applications_exceptions_on) {
    auto session = fresh();
    int runs = 0;
    CHECK_THROWS(of_the_application, session.transact([&](segue::transaction& tx) {
        ++runs;
        tx.execute("INSERT INTO t VALUES (1)");
        throw of_the_application("no");
    }));
    CHECK_EQ(runs, 1);
    CHECK_EQ(count(session), 0);
    CHECK_THROWS(segue::unique_violation, session.transact([&](segue::transaction& tx) {
        ++runs;
        tx.execute("INSERT INTO t VALUES (1), (1)");
    }));
    CHECK_EQ(runs, 2);
}

TEST(transact_leaves_a_body_that_has_ended_it_alone) {
    auto session = fresh();
    session.transact([](segue::transaction& tx) {
        tx.execute("INSERT INTO t VALUES (1)");
        tx.rollback();
    });
    CHECK_EQ(count(session), 0);
    session.transact([](segue::transaction& tx) {
        tx.execute("INSERT INTO t VALUES (1)");
        tx.commit();
    });
    CHECK_EQ(count(session), 1);
}

TEST(transact_inside_a_transaction_is_refused) {
    auto session = fresh();
    segue::transaction tx{session};
    int runs = 0;
    CHECK_THROWS(segue::usage_error, session.transact([&](segue::transaction&) { ++runs; }));
    CHECK_EQ(runs, 0);
    CHECK(tx.active());
}

TEST(transact_runs_again_after_a_serialization_failure) {
    auto session = fresh();
    auto other = client().open_session();
    session.execute("INSERT INTO t VALUES (1, 0)");
    int runs = 0;
    session.transact(
        [&](segue::transaction& tx) {
            const int v = tx.query_one<int>("SELECT v FROM t WHERE n = 1");
            if (++runs == 1) other.execute("UPDATE t SET v = v + 10 WHERE n = 1");
            tx.execute("UPDATE t SET v = $1 WHERE n = 1", v + 1);
        },
        {isolation::repeatable_read});
    CHECK_EQ(runs, 2);
    CHECK_EQ(session.query_one<int>("SELECT v FROM t"), 11);
    // Write skew, which only the commit, or the last statement, of one of the two finds out.
    session.execute("INSERT INTO t VALUES (2, 0)");
    runs = 0;
    session.transact(
        [&](segue::transaction& tx) {
            const int sum = tx.query_one<int>("SELECT sum(v) FROM t");
            if (++runs == 1) {
                segue::transaction skew{other, isolation::serializable};
                const int seen = skew.query_one<int>("SELECT sum(v) FROM t");
                skew.execute("UPDATE t SET v = $1 WHERE n = 2", seen);
                skew.commit();
            }
            tx.execute("UPDATE t SET v = $1 WHERE n = 1", sum);
        },
        {isolation::serializable});
    CHECK_EQ(runs, 2);
    CHECK_EQ(session.query_one<int>("SELECT v FROM t WHERE n = 1"), 22);
}

TEST(transact_gives_up_after_max_attempts) {
    auto session = fresh();
    auto other = client().open_session();
    session.execute("INSERT INTO t VALUES (1, 0)");
    for (const unsigned most : {1u, 2u, 5u}) {
        unsigned runs = 0;
        segue::transact_options options;
        options.isolation = isolation::repeatable_read;
        options.max_attempts = most;
        const auto body = [&](segue::transaction& tx) {
            ++runs;
            static_cast<void>(tx.query("SELECT v FROM t"));
            other.execute("UPDATE t SET v = v + 1");
            tx.execute("UPDATE t SET v = 0");
        };
        const auto error = CHECK_THROWS(segue::serialization_failure, session.transact(body, options));
        CHECK(error.is_retryable());
        CHECK_EQ(runs, most);
    }
}

TEST(transact_runs_again_after_a_deadlock) {
    auto session = fresh();
    session.execute("INSERT INTO t VALUES (1, 0), (2, 0)");
    std::atomic<int> runs{0};
    std::atomic<int> waiting{0};
    const auto crossing = [&](int first, int second) {
        auto own = client().open_session();
        segue::transact_options options;
        options.max_attempts = 20;
        auto body = [&, turn = 0](segue::transaction& tx) mutable {
            ++runs;
            tx.execute("UPDATE t SET v = v + 1 WHERE n = $1", first);
            if (++turn == 1) {
                // Both hold their first row before either asks for its second.
                ++waiting;
                while (waiting < 2) std::this_thread::yield();
            }
            tx.execute("UPDATE t SET v = v + 1 WHERE n = $1", second);
        };
        own.transact(body, options);
    };
    auto one = std::async(std::launch::async, crossing, 1, 2);
    auto two = std::async(std::launch::async, crossing, 2, 1);
    one.get();
    two.get();
    // The victim's next run may get its first row ahead of the survivor, and meet it crosswise again.
    CHECK(runs >= 3);
    CHECK_EQ(session.query_one<int>("SELECT sum(v) FROM t"), 4);
}

TEST(transact_never_runs_again_what_was_committed) {
    auto session = fresh();
    auto other = client().open_session();
    other.execute(
        "CREATE OR REPLACE FUNCTION conflict() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'x' USING "
        "errcode = '40001'; END $$");
    int runs = 0;
    // The body commits by itself, and meets a conflict of another session's afterwards.
    CHECK_THROWS(segue::serialization_failure, session.transact([&](segue::transaction& tx) {
        tx.execute("INSERT INTO t VALUES ($1)", ++runs);
        tx.commit();
        other.execute("SELECT conflict()");
    }));
    CHECK_EQ(runs, 1);
    CHECK_THROWS(segue::serialization_failure, session.transact([&](segue::transaction& tx) {
        tx.execute("INSERT INTO t VALUES ($1)", ++runs);
        session.commit();
        other.execute("SELECT conflict()");
    }));
    CHECK_EQ(runs, 2);
    CHECK_EQ(count(session), 2);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
