// Clients, sessions, results, prepared statements; and handles that are moved and destroyed in any order.
#include "support/check.hpp"
#include "support/cluster.hpp"

#include <algorithm>
#include <future>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

namespace {

segue::client& client() {
    static segue::client shared{one_server().conninfo()};
    return shared;
}

}  // namespace

TEST(versions) {
    CHECK_EQ(segue::version(), SEGUE_VERSION);
    CHECK_EQ(segue::abi_version() >> 16, static_cast<std::uint32_t>(SEGUE_ABI_VERSION_MAJOR));
}

TEST(rows_by_number_and_name) {
    auto session = client().open_session();
    const segue::result rows = session.query(
        "SELECT n, 'name ' || n AS name FROM generate_series(1, 5) n WHERE n > $1 ORDER BY n", 2);
    CHECK_EQ(rows.size(), 3u);
    CHECK(!rows.empty());
    CHECK_EQ(rows.column_count(), 2u);
    CHECK_EQ(rows.column_name(1), "name");
    CHECK_EQ(rows.column_name(2), "");
    CHECK_EQ(*rows.column_index("name"), 1u);
    CHECK(!rows.column_index("nothing").has_value());
    CHECK_EQ(rows.column_type(0), 23u);
    CHECK_EQ(rows.column_type(9), 0u);
    CHECK_EQ(rows.column_modifier(0), -1);
    CHECK_EQ(rows.column_table(0), 0u);
    CHECK(rows.format() == segue::format::text);
    CHECK_EQ(rows.tag(), "SELECT 3");
    CHECK_EQ(rows.rows_affected(), 3u);
    CHECK(rows.handle() != nullptr);
    int sum = 0;
    for (auto row : rows) {
        CHECK_EQ(row.size(), 2u);
        CHECK_EQ(row["name"].get<std::string>(), "name " + row.get<std::string>("n"));
        CHECK_EQ(row.get<int>(0), row.get<int>(std::size_t{0}));
        CHECK_EQ(row.get<int>("n"), row[0].get<int>());
        CHECK_EQ(row.index() + 3, static_cast<std::size_t>(row.get<int>(0)));
        CHECK(!row.is_null(0) && !row.is_null("n") && !row.is_null(std::size_t{1}));
        sum += row.get<int>(0);
    }
    CHECK_EQ(sum, 12);
    CHECK_EQ(rows.front().get<int>(0), 3);
    CHECK_EQ(rows.back().get<int>(0), 5);
    CHECK_EQ(rows[1][1].get<std::string_view>(), "name 4");
    CHECK_EQ(rows[0][0].type(), 23u);
    std::vector<std::string> cells;
    for (auto value : rows.front()) cells.emplace_back(value.get<std::string>());
    CHECK_EQ(cells, (std::vector<std::string>{"3", "name 3"}));
    const auto insert = session.query("CREATE TABLE made AS SELECT 1 AS a");
    CHECK(insert.empty());
    CHECK_EQ(insert.begin(), insert.end());
    const auto of_table = session.query("SELECT a::varchar(7) AS v, a FROM made");
    CHECK_EQ(of_table.column_modifier(0), 11);
    CHECK(of_table.column_table(1) != 0);
    session.execute("DROP TABLE made");
}

TEST(rows_as_tuples) {
    auto session = client().open_session();
    const auto rows = session.query("SELECT n, 'x' || n FROM generate_series(1, 3) n");
    auto [id, name] = rows.front().as<int, std::string>();
    CHECK_EQ(id, 1);
    CHECK_EQ(name, "x1");
    int sum = 0;
    for (auto [number, text] : rows.as<int, std::string_view>()) {
        CHECK_EQ(text, "x" + std::to_string(number));
        sum += number;
    }
    // The temporary result lives as long as the loop.
    for (auto [number, text] : session.query("SELECT n, repeat('y', 100) || n FROM generate_series(1, 3) n")
                                   .as<int, std::string_view>()) {
        CHECK_EQ(text, std::string(100, 'y') + std::to_string(number));
        sum += number;
    }
    CHECK_EQ(sum, 12);
    std::vector<int> numbers;
    for (int n : session.query("SELECT generate_series(1, 3)").as<int>()) numbers.push_back(n);
    CHECK_EQ(numbers, (std::vector<int>{1, 2, 3}));
    const auto typed = rows.as<int, std::string>();
    CHECK_EQ(typed.size(), 3u);
    CHECK(!typed.empty());
    CHECK_EQ(std::get<1>(typed[2]), "x3");
    CHECK_THROWS(segue::invalid_argument, typed[3]);
    const auto owned = session.query("SELECT generate_series(1, 3)").as<int>();
    CHECK_EQ(owned.size(), 3u);
    CHECK(!owned.empty());
    CHECK_EQ(owned[1], 2);
}

TEST(iterators_are_of_random_access) {
    auto session = client().open_session();
    const auto rows = session.query("SELECT 2 * n AS n FROM generate_series(0, 99) n");
    const auto first = rows.begin();
    const auto last = rows.end();
    CHECK_EQ(last - first, 100);
    CHECK_EQ((first + 7)->get<int>(0), 14);
    CHECK_EQ(first[8].get<int>(0), 16);
    CHECK_EQ((*std::prev(last)).get<int>(0), 198);
    auto at = first;
    at += 10;
    at -= 4;
    ++at;
    at--;
    at++;
    --at;
    CHECK_EQ(at->get<int>(0), 12);
    CHECK(first < at && at > first && first <= at && at >= first && first != at);
    CHECK_EQ((2 + first)->get<int>(0), (last - 98)->get<int>(0));
    const auto found =
        std::lower_bound(first, last, 51, [](const segue::row& row, int n) { return row.get<int>(0) < n; });
    CHECK_EQ(found - first, 26);
    CHECK_EQ(std::distance(first, last), 100);
    CHECK_EQ(std::count_if(first, last, [](const segue::row& row) { return row.get<int>("n") > 100; }), 49);
    decltype(rows.begin()) nothing;
    static_cast<void>(nothing);
#if __cplusplus >= 202002L
    static_assert(std::random_access_iterator<segue::result::iterator>);
    static_assert(std::random_access_iterator<segue::row::iterator>);
    static_assert(std::random_access_iterator<segue::typed_rows<int, int>::iterator>);
    static_assert(std::ranges::random_access_range<const segue::result&>);
    static_assert(std::input_iterator<segue::row_stream::iterator>);
    static_assert(std::input_iterator<segue::copy_out::iterator>);
#endif
}

TEST(one_row_or_none) {
    auto session = client().open_session();
    CHECK_EQ(session.query_one<int>("SELECT $1::int + 1", 41), 42);
    auto [a, b] = session.query_one<int, std::optional<std::string>>("SELECT 1, NULL::text");
    CHECK_EQ(a, 1);
    CHECK(!b);
    CHECK(!session.query_opt<int>("SELECT 1 WHERE false"));
    CHECK_EQ(*session.query_opt<int>("SELECT 7"), 7);
    CHECK_EQ(std::get<1>(*session.query_opt<int, std::string>("SELECT 7, 'seven'")), "seven");
}

TEST(execute_tells_how_many_rows) {
    auto session = client().open_session();
    session.execute("CREATE TABLE many (n int)");
    CHECK_EQ(session.execute("INSERT INTO many SELECT generate_series(1, $1)", 10), 10u);
    CHECK_EQ(session.execute("DELETE FROM many WHERE n > $1", 7), 3u);
    const std::string sql = "DROP TABLE many";
    session.execute(sql);
}

TEST(batches) {
    auto session = client().open_session();
    const auto results = session.query_batch(
        "SELECT 1 AS a; SELECT 2 AS b, 3 AS c; CREATE TABLE b1 (n int); INSERT INTO b1 VALUES (1), (2)");
    CHECK_EQ(results.size(), 4u);
    CHECK(!results.empty());
    CHECK(results.handle() != nullptr);
    CHECK_EQ(results[0].front().get<int>("a"), 1);
    CHECK_EQ(results[1].front().get<int>("c"), 3);
    CHECK_EQ(results[3].rows_affected(), 2u);
    CHECK_THROWS(segue::invalid_argument, results[4]);
    std::size_t count = 0;
    for (const auto& result : results) count += result.size();
    CHECK_EQ(count, 2u);
    CHECK_EQ(std::get<1>(results[1].as<int, int>()[0]), 3);
    CHECK_THROWS(segue::syntax_error_or_access_rule, session.execute_batch("DROP TABLE b1; SELEC"));
    // It was one transaction.
    CHECK_EQ(session.query_one<int>("SELECT count(*) FROM b1"), 2);
    session.execute_batch("DROP TABLE b1; SELECT 1");
}

TEST(prepared_statements) {
    auto session = client().open_session();
    auto statement = session.prepare("SELECT $1::int AS n, $2 || '!' AS t WHERE $1 > 0");
    CHECK_EQ(statement.param_count(), 2u);
    CHECK_EQ(statement.param_type(0), 23u);
    CHECK_EQ(statement.param_type(1), 25u);
    CHECK_EQ(statement.param_type(2), 0u);
    CHECK_EQ(statement.column_count(), 2u);
    CHECK_EQ(statement.column_name(0), "n");
    CHECK_EQ(statement.column_name(5), "");
    CHECK_EQ(statement.column_type(1), 25u);
    CHECK_EQ(statement.column_type(5), 0u);
    CHECK_CONTAINS(statement.sql(), "WHERE $1 > 0");
    for (int i = 1; i < 5; ++i) {
        CHECK_EQ((statement.query_one<int, std::string>(i, "x")), (std::tuple<int, std::string>(i, "x!")));
    }
    CHECK((!statement.query_opt<int, std::string>(0, "x")));
    CHECK_EQ(statement.execute(1, "x"), 1u);
    CHECK_EQ(statement.query(segue::format::binary, 9, "x").front().get<int>(0), 9);
    int rows = 0;
    for (auto row : statement.stream(3, "x")) rows += row.get<int>(0);
    for (auto row : statement.stream(segue::format::binary, 3, "x")) rows += row.get<int>(0);
    CHECK_EQ(rows, 6);
    CHECK_THROWS(segue::usage_error, statement.query(1));
    CHECK_THROWS(segue::conversion_error, statement.query(1.5, "x"));
    CHECK_THROWS(segue::syntax_error_or_access_rule, session.prepare("SELEC"));
    auto typed = session.prepare("SELECT $1", {20});
    CHECK_EQ(typed.param_type(0), 20u);
    auto moved = std::move(typed);
    CHECK_EQ(moved.query_one<std::int64_t>(std::int64_t{1} << 40), std::int64_t{1} << 40);
    CHECK_THROWS(segue::invalid_argument, typed.query(1));
    CHECK_EQ(typed.sql(), "");
    CHECK_EQ(typed.param_count(), 0u);
}

TEST(options_and_status) {
    segue::options options{{"application_name", "of options"}, {"poll_interval_ms", "100"}};
    options.conninfo(one_server().conninfo()).set("poll_timeout_ms", 900).set("keepalives", true);
    CHECK(options.handle() != nullptr);
    segue::client configured{options};
    auto session = configured.open_session(segue::access::read_write);
    CHECK_EQ(session.query_one<std::string>("SHOW application_name"), "of options");
    const auto status = configured.status();
    CHECK_EQ(status.servers.size(), 1u);
    CHECK_EQ(*status.chosen, 0u);
    CHECK(!status.standby);
    CHECK(status.servers[0].role == segue::server_role::primary);
    CHECK(status.servers[0].health == segue::server_health::healthy);
    CHECK(!status.servers[0].address.empty() && !status.servers[0].summary.empty());
    CHECK(!status.servers[0].last_error);
    CHECK_EQ(*status.servers[0].timeline, 1);
    CHECK(*status.servers[0].lsn > 0);
    CHECK(*status.servers[0].links_dialled > 0);
    CHECK(status.system_identifier.has_value());
    CHECK_EQ(std::to_string(*status.system_identifier),
             one_server().sql(0, "SELECT system_identifier FROM pg_control_system()"));
    CHECK_EQ(*status.timeline_floor, 1);
    CHECK_EQ(status.sessions, 1);
    CHECK_EQ(status.waiting, 0);
    CHECK(!status.ledger_problem);
    const auto counters = configured.statistics();
    CHECK(counters.at("statements") > 0);
    const auto state = session.status();
    CHECK(state.id > 0);
    CHECK_EQ(*state.server, 0u);
    CHECK_EQ(*state.address, status.servers[0].address);
    CHECK_EQ(*state.timeline, 1);
    CHECK_EQ(*state.backend_pid, session.query_one<int>("SELECT pg_backend_pid()"));
    CHECK(!state.tls_version);
    CHECK(!state.in_transaction && !state.transaction_failed);
    CHECK(state.ledger);
    CHECK(!state.protection_lost);
    session.execute("CREATE TEMP TABLE brief (n int)");
    CHECK(session.status().protection_lost.has_value());
    CHECK_EQ(session.parameter("server_encoding").value(), "UTF8");
    CHECK(!session.parameter("no_such_setting"));
}

TEST(setup_and_removal) {
    cluster own({"--standbys", "0"});
    segue::client owner{own.conninfo()};
    owner.setup();
    CHECK_THROWS(segue::syntax_error_or_access_rule, owner.setup("nobody_of_that_name"));
    auto session = owner.open_session();
    own.sql(0, "CREATE ROLE somebody");
    owner.setup("somebody", true);
    CHECK(session.status().ledger);
    owner.remove_ledger();
    CHECK_EQ(own.sql(0, "SELECT count(*) FROM pg_namespace WHERE nspname = 'segue'"), "0");
}

TEST(access_to_a_read_only_session) {
    auto session = client().open_session(segue::access::read_write);
    CHECK_EQ(session.query_one<int>("SELECT 1"), 1);
    segue::session direct{client()};
    CHECK_EQ(direct.query_one<int>("SELECT 1"), 1);
}

TEST(moved_from_handles) {
    segue::client first{one_server().conninfo()};
    segue::client second = std::move(first);
    CHECK(first.handle() == nullptr && second.handle() != nullptr);
    CHECK_THROWS(segue::invalid_argument, first.open_session());
    CHECK_THROWS(segue::invalid_argument, first.status());
    CHECK_THROWS(segue::invalid_argument, first.on_event([](const segue::event&) {}));
    first = std::move(second);
    auto session = first.open_session();
    auto other = std::move(session);
    CHECK(session.handle() == nullptr);
    CHECK_THROWS(segue::invalid_argument, session.query("SELECT 1"));
    CHECK_THROWS(segue::invalid_argument, session.commit());
    CHECK_THROWS(segue::invalid_argument, session.status());
    CHECK_THROWS(segue::invalid_argument, session.transact([](segue::transaction&) {}));
    CHECK_THROWS(segue::invalid_argument, session.prepare("SELECT 1"));
    session = std::move(other);
    auto rows = session.query("SELECT 1");
    auto taken = std::move(rows);
    CHECK(rows.empty());
    CHECK_EQ(taken.front().get<int>(0), 1);
    rows = std::move(taken);
    CHECK(taken.empty());
    CHECK_EQ(rows.front().get<int>(0), 1);
    segue::result nothing;
    CHECK(nothing.empty());
    CHECK_EQ(nothing.begin(), nothing.end());
    CHECK_EQ(nothing.tag(), "");
    segue::options options;
    auto more = std::move(options);
    CHECK_THROWS(segue::invalid_argument, options.set("host", "x"));
    auto cancel = session.cancel_handle();
    auto moved_cancel = std::move(cancel);
    CHECK_THROWS(segue::invalid_argument, cancel.cancel());
    auto stream = session.stream("SELECT generate_series(1, 3)");
    auto moved_stream = std::move(stream);
    CHECK(stream.handle() == nullptr);
    CHECK(!stream.next());
    CHECK_EQ(moved_stream.next()->get<int>(0), 1);
    moved_stream.close();
    moved_stream.close();
    auto pipe = session.pipeline();
    auto moved_pipe = std::move(pipe);
    CHECK_THROWS(segue::invalid_argument, pipe.next());
    CHECK_THROWS(segue::invalid_argument, pipe.finish());
    moved_pipe.add("SELECT 1");
    CHECK_EQ(moved_pipe.finish().size(), 1u);
    session.close();
    CHECK(session.handle() == nullptr);
    session.close();
    CHECK_THROWS(segue::invalid_argument, session.query("SELECT 1"));
}

TEST(destruction_in_any_order) {
    auto owner = std::make_unique<segue::client>(one_server().conninfo() + " application_name=order");
    auto session = std::make_unique<segue::session>(*owner);
    owner.reset();
    auto statement = std::make_unique<segue::statement>(session->prepare("SELECT 1"));
    auto rows = std::make_unique<segue::result>(session->query("SELECT 'kept'"));
    auto cancel = std::make_unique<segue::cancel_handle>(session->cancel_handle());
    session->execute("CREATE TABLE ordered (n int)");
    auto tx = std::make_unique<segue::transaction>(*session);
    tx->execute("INSERT INTO ordered VALUES (1)");
    auto inner = std::make_unique<segue::transaction>(tx->nested());
    session.reset();
    // The transaction keeps its session.
    inner->execute("INSERT INTO ordered VALUES (2)");
    tx->commit();
    CHECK(!inner->active());
    inner.reset();
    tx.reset();
    CHECK_EQ(statement->query_one<int>(), 1);
    statement.reset();
    cancel->cancel();
    cancel.reset();
    CHECK_EQ(rows->front().get<std::string>(0), "kept");
    rows.reset();
    auto other = client().open_session();
    CHECK_EQ(other.query_one<int>("SELECT count(*) FROM ordered"), 2);
    {
        auto short_lived = std::make_unique<segue::session>(client());
        auto stream = short_lived->stream("SELECT generate_series(1, 1000)");
        short_lived.reset();
        int count = 0;
        for (auto row : stream) count += row.get<int>(0) > 0 ? 1 : 0;
        CHECK_EQ(count, 1000);
    }
}

TEST(one_caller_at_a_time) {
    auto session = client().open_session();
    auto cancel = session.cancel_handle();
    std::thread sleeper([&] {
        try {
            session.execute("SELECT pg_sleep(60) /* the sleeper */");
        } catch (const segue::query_canceled&) {
        }
    });
    WAIT_UNTIL(one_server().sql(0,
                                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE "
                                "'%/* the sleeper */' AND pid <> pg_backend_pid()") == "1");
    std::optional<segue::error> refused;
    try {
        session.execute("SELECT 1");
    } catch (const segue::busy_error& error) {
        refused.emplace(error);
    }
    cancel.cancel();
    sleeper.join();
    CHECK(refused.has_value());
    CHECK_EQ(refused->kind(), segue::error_kind::busy);
    CHECK_EQ(session.query_one<int>("SELECT 1"), 1);
}

TEST(a_session_moves_between_threads_and_a_result_is_read_by_many) {
    auto session = std::async(std::launch::async, [] { return client().open_session(); }).get();
    const auto rows = session.query("SELECT n FROM generate_series(1, 1000) n");
    std::vector<std::future<long>> sums;
    for (int i = 0; i < 4; ++i) {
        sums.push_back(std::async(std::launch::async, [&] {
            long sum = 0;
            for (long n : rows.as<long>()) sum += n;
            return sum;
        }));
    }
    for (auto& sum : sums) CHECK_EQ(sum.get(), 500'500);
}

TEST(eight_threads_with_a_session_each) {
    auto session = client().open_session();
    session.execute("CREATE TABLE threads (thread int, n int)");
    std::vector<std::future<void>> workers;
    for (int thread = 0; thread < 8; ++thread) {
        workers.push_back(std::async(std::launch::async, [thread] {
            auto own = client().open_session();
            for (int n = 0; n < 20; ++n) {
                own.transact([&](segue::transaction& tx) {
                    tx.execute("INSERT INTO threads VALUES ($1, $2)", thread, n);
                });
            }
        }));
    }
    for (auto& worker : workers) worker.get();
    CHECK_EQ(session.query_one<int>("SELECT count(DISTINCT (thread, n)) FROM threads"), 160);
}

TEST(identifiers) {
    CHECK_EQ(segue::quote_identifier("plain"), "\"plain\"");
    CHECK_EQ(segue::quote_identifier("od\"d"), "\"od\"\"d\"");
}

int main(int argc, char** argv) { return check::run(argc, argv); }
