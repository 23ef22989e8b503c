// Streams, COPY, pipelines, notifications and cancelling.
#include "support/check.hpp"
#include "support/cluster.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <future>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace {

using namespace std::chrono_literals;

segue::client& client() {
    static segue::client shared{one_server().conninfo()};
    return shared;
}

segue::session fresh() {
    auto session = client().open_session();
    session.execute_batch("DROP TABLE IF EXISTS t; CREATE TABLE t (n int PRIMARY KEY, s text)");
    return session;
}

}  // namespace

TEST(streams_give_every_row_once) {
    auto session = fresh();
    // Around the size of a batch and far beyond it.
    for (const int rows : {0, 1, 255, 256, 257, 512, 10'000}) {
        int expected = 1;
        for (auto row : session.stream("SELECT n, 'x' || n FROM generate_series(1, $1) n", rows)) {
            auto [n, text] = row.as<int, std::string>();
            CHECK_EQ(n, expected++);
            CHECK_EQ(text, "x" + std::to_string(n));
        }
        CHECK_EQ(expected, rows + 1);
    }
    long sum = 0;
    for (auto row : session.stream(segue::format::binary, "SELECT n::int8 FROM generate_series(1, 1000) n"))
        sum += row.get<long>(0);
    CHECK_EQ(sum, 500'500);
}

TEST(streams_by_hand) {
    auto session = fresh();
    auto stream = session.stream("SELECT generate_series(1, 10) AS n");
    CHECK(stream.handle() != nullptr);
    CHECK_EQ(stream.next()->get<int>("n"), 1);
    stream.close();
    CHECK(!stream.next());
    CHECK(stream.begin() == stream.end());
    auto batches = session.stream("SELECT generate_series(1, 10)");
    std::vector<std::size_t> sizes;
    while (auto batch = batches.next_batch(4)) sizes.push_back(batch->size());
    CHECK_EQ(sizes, (std::vector<std::size_t>{4, 4, 2}));
    CHECK(!batches.next_batch(4));
    auto wrong = session.stream("SELECT 1");
    CHECK_THROWS(segue::invalid_argument, wrong.next_batch(0));
    wrong.close();
    CHECK_EQ(session.query_one<int>("SELECT 1"), 1);
}

TEST(a_session_is_busy_while_its_stream_is_open) {
    auto session = fresh();
    {
        auto stream = session.stream("SELECT generate_series(1, 1000)");
        CHECK_THROWS(segue::busy_error, session.query("SELECT 1"));
        CHECK_THROWS(segue::busy_error, session.pipeline());
        CHECK_THROWS(segue::busy_error, session.copy_in("COPY t FROM STDIN"));
        CHECK_EQ(stream.next()->get<int>(0), 1);
    }
    CHECK_EQ(session.query_one<int>("SELECT 1"), 1);
    auto stream = session.stream("SELECT 1");
    while (stream.next()) {
    }
    // It has come to its end, though its object is still there.
    CHECK_EQ(session.query_one<int>("SELECT 1"), 1);
}

TEST(streams_that_fail) {
    auto session = fresh();
    int rows = 0;
    const auto read = [&](const char* sql) {
        rows = 0;
        for (auto row : session.stream(sql)) rows += row.size() == 1 ? 1 : 0;
    };
    CHECK_THROWS(segue::server_error, read("SELECT 100 / (500 - n) FROM generate_series(1, 1000) n"));
    CHECK_EQ(rows, 499);
    CHECK_THROWS(segue::syntax_error_or_access_rule, read("SELEC"));
    CHECK_EQ(session.query_one<int>("SELECT 1"), 1);
}

TEST(copy_in_rows) {
    auto session = fresh();
    session.execute(
        "CREATE TABLE IF NOT EXISTS wide (b bool, i int2, l int8, f float4, d float8, s text, x bytea, t "
        "timestamptz, a int[], z text, y date, u text[])");
    const auto when = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>(
        std::chrono::microseconds(1'709'164'800'000'001));
    using days = std::chrono::duration<int, std::ratio<86'400>>;
    const std::string awkward = "tab\t newline\n return\r back\\slash \\N \\. \b end";
    const std::vector<std::byte> binary{std::byte{0}, std::byte{255}, std::byte{'\\'}};
    auto copy = session.copy_in("COPY wide FROM STDIN");
    CHECK(copy.handle() != nullptr);
    copy.write_row(true, std::int16_t{-3}, std::numeric_limits<std::int64_t>::min(), 0.1f, 1e-300, awkward,
                   binary, when, std::vector<int>{1, 2}, nullptr,
                   std::chrono::time_point<std::chrono::system_clock, days>(days(19'782)),
                   std::vector<std::string>{"a\tb", "\\", "\""});
    copy.write_row(std::optional<bool>(), nullptr, nullptr, nullptr, nullptr, "", nullptr, nullptr, nullptr,
                   "\\N", nullptr, nullptr);
    CHECK_EQ(copy.finish(), 2u);
    const auto rows = session.query("SELECT * FROM wide ORDER BY b");
    const auto row = rows.front();
    CHECK(row.get<bool>("b"));
    CHECK_EQ(row.get<int>("i"), -3);
    CHECK_EQ(row.get<std::int64_t>("l"), std::numeric_limits<std::int64_t>::min());
    CHECK_EQ(row.get<float>("f"), 0.1f);
    CHECK_EQ(row.get<double>("d"), 1e-300);
    CHECK_EQ(row.get<std::string>("s"), awkward);
    CHECK_EQ(row.get<std::vector<std::byte>>("x"), binary);
    CHECK(row.get<std::remove_const_t<decltype(when)>>("t") == when);
    CHECK_EQ(row.get<std::vector<int>>("a"), (std::vector<int>{1, 2}));
    CHECK(row.is_null("z"));
    CHECK_EQ(row.get<std::string>("y"), "2024-02-29");
    CHECK_EQ(row.get<std::vector<std::string>>("u"), (std::vector<std::string>{"a\tb", "\\", "\""}));
    CHECK(rows.back().is_null("b"));
    CHECK_EQ(rows.back().get<std::string>("s"), "");
    CHECK_EQ(rows.back().get<std::string>("z"), "\\N");
    session.execute("DROP TABLE wide");
}

TEST(copy_in_pieces) {
    auto session = fresh();
    auto copy = session.copy_in("COPY t FROM STDIN (FORMAT csv)");
    copy.write("1,\"a, ");
    copy.write(std::string("b\"\n2"));
    copy.write(segue::bytes_view(",c\n", 3));
    copy.write(std::string_view());
    CHECK_EQ(copy.finish(), 2u);
    CHECK_THROWS(segue::invalid_argument, copy.write("3,d\n"));
    CHECK_EQ(session.query_one<std::string>("SELECT s FROM t WHERE n = 1"), "a, b");
    auto large = session.copy_in("COPY t FROM STDIN");
    for (int n = 10; n < 20'010; ++n) large.write_row(n, "a row of some length");
    CHECK_EQ(large.finish(), 20'000u);
}

TEST(copy_in_that_is_given_up) {
    auto session = fresh();
    auto copy = session.copy_in("COPY t FROM STDIN");
    copy.write_row(1, "a");
    copy.abort("changed my mind");
    {
        auto dropped = session.copy_in("COPY t FROM STDIN");
        dropped.write_row(2, "b");
    }
    CHECK_EQ(session.query_one<int>("SELECT count(*) FROM t"), 0);
}

TEST(copy_in_that_fails) {
    auto session = fresh();
    session.execute("INSERT INTO t VALUES (1, 'there')");
    auto copy = session.copy_in("COPY t FROM STDIN");
    copy.write_row(1, "again");
    CHECK_THROWS(segue::unique_violation, copy.finish());
    CHECK_THROWS(segue::syntax_error_or_access_rule, session.copy_in("COPY nowhere FROM STDIN"));
    CHECK_THROWS(segue::usage_error, session.copy_in("SELECT 1"));
    CHECK_THROWS(segue::usage_error, session.copy_out("SELECT 1"));
    CHECK_EQ(session.query_one<int>("SELECT count(*) FROM t"), 1);
}

TEST(copy_out) {
    auto session = fresh();
    session.execute("INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 1000) n");
    std::size_t lines = 0;
    auto copy = session.copy_out("COPY (SELECT * FROM t ORDER BY n) TO STDOUT");
    CHECK(copy.handle() != nullptr);
    for (std::string_view line : copy) {
        ++lines;
        if (lines == 7) CHECK_EQ(line, "7\trow 7\n");
    }
    CHECK_EQ(lines, 1000u);
    CHECK(!copy.read());
    auto early = session.copy_out("COPY t TO STDOUT");
    CHECK(early.read().has_value());
    CHECK_THROWS(segue::busy_error, session.query("SELECT 1"));
    early.close();
    CHECK(!early.read());
    auto empty = session.copy_out("COPY (SELECT 1 WHERE false) TO STDOUT");
    CHECK(empty.begin() == empty.end());
    CHECK_THROWS(segue::server_error, [&] {
        for (auto piece : session.copy_out("COPY (SELECT 1 / (n - 1) FROM t ORDER BY n) TO STDOUT"))
            CHECK(piece.empty());
    }());
    CHECK_EQ(session.query_one<int>("SELECT 1"), 1);
}

TEST(pipelines) {
    auto session = fresh();
    auto insert = session.prepare("INSERT INTO t VALUES ($1, $2)");
    auto pipe = session.pipeline();
    for (int n = 0; n < 500; ++n) {
        const std::string temporary = "text " + std::to_string(n);
        if (n % 2 == 0) {
            pipe.add(insert, n, temporary);
        } else {
            pipe.add("INSERT INTO t VALUES ($1, $2)", n, temporary);
        }
    }
    pipe.add("SELECT count(*) FROM t");
    CHECK_THROWS(segue::busy_error, session.query("SELECT 1"));
    int results = 0;
    std::optional<segue::result> last;
    while (auto result = pipe.next()) {
        ++results;
        last = std::move(result);
    }
    CHECK_EQ(results, 501);
    CHECK_EQ(last->front().get<int>(0), 500);
    CHECK(!pipe.next());
    CHECK_THROWS(segue::usage_error, pipe.add("SELECT 1"));
    CHECK_EQ(session.query_one<std::string>("SELECT s FROM t WHERE n = 77"), "text 77");
    auto binary = session.pipeline(segue::format::binary);
    binary.add("SELECT 7");
    const auto sevens = binary.finish();
    CHECK(sevens.at(0).format() == segue::format::binary);
    CHECK_EQ(sevens.at(0).front().get<int>(0), 7);
    auto empty = session.pipeline();
    CHECK(empty.finish().empty());
}

TEST(pipelines_with_failures) {
    auto session = fresh();
    {
        auto pipe = session.pipeline();
        pipe.add("INSERT INTO t VALUES (1)");
        pipe.add("INSERT INTO t VALUES (1)");
        pipe.add("INSERT INTO t VALUES (2)");
        CHECK_THROWS(segue::usage_error, pipe.add("COMMIT"));
        CHECK_EQ(pipe.next()->rows_affected(), 1u);
        CHECK_THROWS(segue::unique_violation, pipe.next());
        CHECK_EQ(pipe.next()->rows_affected(), 1u);
        CHECK(!pipe.next());
    }
    auto pipe = session.pipeline();
    pipe.add("SELECT 1 / 0");
    pipe.add("INSERT INTO t VALUES (1)");
    pipe.add("INSERT INTO t VALUES (3)");
    CHECK_THROWS(segue::server_error, pipe.finish());
    CHECK_EQ(session.query_one<int>("SELECT sum(n) FROM t"), 6);
    {
        auto dropped = session.pipeline();
        dropped.add("INSERT INTO t VALUES (4)");
    }
    CHECK_EQ(session.query_one<int>("SELECT max(n) FROM t"), 4);
    segue::transaction tx{session};
    auto inside = tx.pipeline();
    inside.add("INSERT INTO t VALUES (5)");
    inside.add("INSERT INTO t VALUES (5)");
    inside.add("INSERT INTO t VALUES (6)");
    CHECK_THROWS(segue::unique_violation, inside.finish());
    tx.rollback();
    CHECK_EQ(session.query_one<int>("SELECT max(n) FROM t"), 4);
}

TEST(a_pipeline_that_commits) {
    auto session = client().open_session();
    session.execute("CREATE TEMP TABLE c (n int PRIMARY KEY)");
    segue::transaction tx{session};
    auto pipe = tx.pipeline();
    pipe.add("INSERT INTO c VALUES (1)");
    pipe.add("INSERT INTO c VALUES (2) RETURNING n");
    tx.commit(pipe);
    CHECK(!tx.active());
    CHECK(!session.status().in_transaction);
    const auto results = pipe.finish();
    CHECK_EQ(results.size(), 2U);
    CHECK_EQ(results[1].front().get<int>(0), 2);
    CHECK_EQ(session.query_one<int>("SELECT count(*) FROM c"), 2);

    segue::transaction second{session};
    auto inner = second.nested();
    auto failing = second.pipeline();
    failing.add("INSERT INTO c VALUES (3)");
    failing.add("INSERT INTO c VALUES (3)");
    CHECK_THROWS(segue::usage_error, inner.commit(failing));
    const auto failure = CHECK_THROWS(segue::transaction_failed, second.commit(failing));
    CHECK_EQ(failure.outcome(), segue::outcome::not_committed);
    CHECK(!second.active());
    CHECK_EQ(failing.next()->rows_affected(), 1U);
    CHECK_THROWS(segue::unique_violation, failing.next());
    CHECK_EQ(session.query_one<int>("SELECT count(*) FROM c"), 2);
    CHECK_THROWS(segue::usage_error, second.commit(failing));
}

TEST(notifications) {
    auto listener = client().open_session();
    auto speaker = client().open_session();
    const std::string channel = "a \"channel\"";
    listener.execute("LISTEN " + segue::quote_identifier(channel));
    CHECK(!listener.notification(0s));
    CHECK(!listener.notification(-5ms));
    CHECK(!listener.notification(30ms));
    speaker.execute("SELECT pg_notify($1, $2)", channel, "first");
    speaker.execute("SELECT pg_notify($1, $2)", channel, "second");
    const auto first = listener.notification(60s);
    CHECK(first.has_value());
    CHECK_EQ(first->channel, channel);
    CHECK_EQ(first->payload, "first");
    CHECK_EQ(first->process_id, static_cast<int>(*speaker.status().backend_pid));
    CHECK_EQ(listener.notification(std::chrono::duration<double>(60.5))->payload, "second");
    auto later =
        std::async(std::launch::async, [&] { speaker.execute("SELECT pg_notify($1, 'third')", channel); });
    CHECK_EQ(listener.notification(std::chrono::hours(1'000'000))->payload, "third");
    later.get();
}

TEST(cancelling) {
    auto session = client().open_session();
    const auto cancel = session.cancel_handle();
    CHECK(cancel.handle() != nullptr);
    std::atomic<bool> over{false};
    // Again and again, since a cancellation may come before the statement does.
    std::thread canceller([&] {
        while (!over) {
            cancel.cancel();
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
    });
    std::optional<segue::error> error;
    try {
        session.execute("SELECT pg_sleep(60)");
    } catch (const segue::query_canceled& canceled) {
        error.emplace(canceled);
    } catch (...) {
        over = true;
        canceller.join();
        throw;
    }
    over = true;
    canceller.join();
    CHECK(error.has_value());
    CHECK_EQ(error->sqlstate(), "57014");
    WAIT_UNTIL([&] {
        try {
            return session.query_one<int>("SELECT 1") == 1;
        } catch (const segue::query_canceled&) {
            return false;
        }
    }());
}

TEST(notices_and_callbacks_that_throw) {
    // A client of its own: clients of one configuration are one, and hear each other's events.
    segue::client loud{one_server().conninfo() + " application_name=loud"};
    auto session = loud.open_session();
    std::atomic<int> heard{0};
    std::string message;
    std::string severity;
    std::uint64_t about = 0;
    auto subscription = loud.on_event([&](const segue::event& event) {
        if (event.kind() != segue::event_kind::notice) return;
        message = event.message();
        severity = event.field('S').value_or("?");
        about = event.session().value_or(0);
        CHECK_EQ(event.name(), "notice");
        CHECK(!event.number("timeline"));
        CHECK(!event.server());
        CHECK(event.handle() != nullptr);
        ++heard;
        throw std::runtime_error("swallowed");
    });
    CHECK(subscription.handle() != nullptr);
    session.execute("DO $$ BEGIN RAISE WARNING 'hear this'; END $$");
    WAIT_UNTIL(heard == 1);
    CHECK_CONTAINS(message, "hear this");
    CHECK_EQ(severity, "WARNING");
    CHECK_EQ(about, session.status().id);
    {
        auto moved = std::move(subscription);
        CHECK(subscription.handle() == nullptr);
        session.execute("DO $$ BEGIN RAISE WARNING 'and this'; END $$");
        WAIT_UNTIL(heard == 2);
    }
    session.execute("DO $$ BEGIN RAISE WARNING 'nobody hears this'; END $$");
    CHECK_EQ(heard.load(), 2);
}

TEST(callbacks_are_destroyed_once) {
    segue::client own{one_server().conninfo() + " application_name=destroyed"};
    auto token = std::make_shared<int>(5);
    {
        auto subscription = own.on_event([token](const segue::event&) {});
        CHECK_EQ(token.use_count(), 2);
    }
    WAIT_UNTIL(token.use_count() == 1);
    segue::client gone = std::move(own);
    CHECK_THROWS(segue::invalid_argument, own.on_event([token](const segue::event&) {}));
    CHECK_EQ(token.use_count(), 1);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
