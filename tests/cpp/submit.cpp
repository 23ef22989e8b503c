// Transactions handed over whole: building them, tickets, callbacks, dead letters, servers and journals.
#include "support/check.hpp"
#include "support/cluster.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <stdlib.h>

using namespace std::chrono_literals;

namespace {

segue::client& client() {
    static segue::client shared{one_server().conninfo()};
    return shared;
}

/// A table of its own for each test: `id int PRIMARY KEY, note text`.
std::string table() {
    static int count = 0;
    const std::string name = "s" + std::to_string(++count);
    client().open_session().execute("CREATE TABLE " + name + " (id int PRIMARY KEY, note text)");
    return name;
}

std::int64_t rows(const std::string& name) {
    return std::stoll(one_server().sql(0, "SELECT count(*) FROM " + name));
}

segue::submission insert(const std::string& name, int id) {
    return segue::submission().statement("INSERT INTO " + name + " (id) VALUES ($1)", id);
}

segue::executed committed(const segue::ticket& ticket) {
    auto done = ticket.wait_for(60s);
    CHECK(done.has_value());
    return *done;
}

/// A directory that goes with it.
class folder {
public:
    folder() {
        std::string name = (std::filesystem::temp_directory_path() / "segue-test.XXXXXX").string();
        CHECK(mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    folder(const folder&) = delete;
    folder& operator=(const folder&) = delete;
    ~folder() { std::filesystem::remove_all(path_); }

    [[nodiscard]] std::string options() const { return " journal=file journal_dir=" + path_; }

private:
    std::string path_;
};

}  // namespace

TEST(in_one_expression) {
    const auto name = table();
    const auto ticket =
        client().submit(segue::submission()
                            .statement("INSERT INTO " + name + " VALUES ($1, $2), ($3, NULL)", 1, "a", 2)
                            .expect_rows(2)
                            .statement("UPDATE " + name + " SET note = 'b' WHERE note IS NULL")
                            .expect_rows(1, segue::any_number)
                            .lane("one")
                            .key("in one expression")
                            .stop_on_failure());
    CHECK_EQ(ticket.id().size(), 36u);
    CHECK_EQ(*ticket.key(), "in one expression");
    const auto done = committed(ticket);
    CHECK(done.rows == (std::vector<std::uint64_t>{2, 1}));
    CHECK(!done.found_done);
    CHECK(ticket.wait().rows == done.rows);
    CHECK(ticket.poll()->rows == done.rows);
    CHECK_EQ(rows(name), 2);
    CHECK(ticket.handle() != nullptr);
}

TEST(step_by_step) {
    const auto name = table();
    segue::submission it;
    it.statement("INSERT INTO " + name + " SELECT 1 + count(*) FROM " + name);
    it.expect_rows(1).lane("steps").stop_on_failure(false);
    segue::params list;
    list.add(1).add(std::optional<int>());
    it.statement("SELECT $1::int, $2::int", list);
    // It stays ours: handed over twice it is executed twice, but for a key.
    committed(client().submit(it));
    committed(client().try_submit(it));
    CHECK_EQ(rows(name), 2);
    it.key("steps of " + name);
    const auto first = client().submit(it);
    const auto second = client().submit(it);
    CHECK_EQ(first.id(), second.id());
    committed(first);
    CHECK_EQ(rows(name), 3);
    CHECK_EQ(client().ticket_for_key("steps of " + name)->id(), first.id());
    CHECK_EQ(*client().ticket(std::string(first.id()))->key(), "steps of " + name);
    CHECK(!client().ticket_for_key("nobody's"));
    CHECK(!client().ticket("00000000-0000-4000-8000-000000000000"));
    // Another client finds it done.
    segue::client other{one_server().conninfo() + " application_name=other"};
    const auto found = committed(other.submit(it));
    CHECK(found.found_done);
    CHECK(found.rows.empty());
    CHECK_EQ(other.submissions().found_done, 1);
    CHECK_EQ(rows(name), 3);
}

TEST(what_is_refused) {
    segue::submission it;
    CHECK_THROWS(segue::usage_error, client().submit(it));
    CHECK_THROWS(segue::usage_error, it.expect_rows(1));
    CHECK_THROWS(segue::usage_error, it.statement("COMMIT"));
    CHECK_THROWS(segue::usage_error, it.statement("LISTEN a"));
    CHECK_THROWS(segue::invalid_argument, it.statement("SELECT '\xff'"));
    it.statement("SELECT 1");
    CHECK_THROWS(segue::invalid_argument, it.expect_rows(2, 1));
    CHECK_THROWS(segue::invalid_argument, it.lane("\xff"));
    it.stop_on_failure();
    const auto error = CHECK_THROWS(segue::usage_error, client().submit(it));
    CHECK_CONTAINS(error.what(), "lane");
    CHECK_EQ(error.outcome(), segue::outcome::not_committed);
    CHECK_THROWS(segue::invalid_argument, client().ticket("no id"));
    CHECK_THROWS(segue::usage_error, client().retry_dead_letter("00000000-0000-4000-8000-000000000000"));
    CHECK_THROWS(segue::usage_error, client().purge_dead_letter("00000000-0000-4000-8000-000000000000"));
    committed(client().submit(it.lane("a")));
    // Moved from.
    auto moved = std::move(it);
    CHECK_THROWS(segue::invalid_argument, it.statement("SELECT 1"));
    CHECK_THROWS(segue::invalid_argument, client().submit(it));
    auto ticket = client().submit(moved);
    const auto kept = std::move(ticket);
    CHECK_THROWS(segue::invalid_argument, ticket.poll());
    CHECK_THROWS(segue::invalid_argument, ticket.wait_for(1s));
    CHECK_EQ(ticket.id(), "");
    CHECK(!ticket.key());
    committed(kept);
}

TEST(no_room) {
    const auto name = table();
    segue::client own{one_server().conninfo() + " submit_queue_max=1 failover_timeout_ms=1000"};
    auto session = client().open_session();
    segue::transaction tx{session};
    tx.execute("LOCK TABLE " + name);
    const auto ticket = own.submit(insert(name, 1));
    CHECK_THROWS(segue::limit_error, own.try_submit(insert(name, 2)));
    CHECK_THROWS(segue::limit_error, own.submit(insert(name, 2)));
    CHECK(!ticket.poll());
    CHECK(!ticket.wait_for(1ms));
    CHECK(!ticket.wait_for(-1s));
    const auto status = own.submissions();
    CHECK_EQ(status.waiting + status.in_flight, 1);
    CHECK_EQ(status.submitted, 1);
    CHECK(status.bytes > 0);
    CHECK(!status.journal_bytes);
    tx.commit();
    committed(ticket);
    CHECK_EQ(own.submissions().committed, 1);
    CHECK_EQ(rows(name), 1);
}

TEST(callbacks) {
    const auto name = table();
    auto session = client().open_session();
    std::promise<std::pair<std::string, segue::executed>> told;
    auto alive = std::make_shared<int>(1);
    const std::weak_ptr<int> watched = alive;
    std::string id;
    {
        segue::transaction tx{session};
        tx.execute("LOCK TABLE " + name);
        const auto ticket = client().submit(insert(name, 1).key("called back " + name));
        id = ticket.id();
        ticket.on_done([](const segue::completion&) { throw std::runtime_error("it is swallowed"); });
        ticket.on_done([&told, held = std::move(alive), name, here = std::this_thread::get_id()](
                           const segue::completion& done) {
            CHECK(done.committed());
            CHECK(std::this_thread::get_id() != here);
            CHECK_EQ(*done.key(), "called back " + name);
            told.set_value({std::string(done.id()), done.get()});
        });
        CHECK(!watched.expired());
        tx.commit();
    }
    auto future = told.get_future();
    CHECK(future.wait_for(60s) == std::future_status::ready);
    const auto [called, done] = future.get();
    CHECK_EQ(called, id);
    CHECK(done.rows == std::vector<std::uint64_t>{1});
    WAIT_UNTIL(watched.expired());
    // A dead letter; and what is known is told here and now.
    const auto ticket = client().submit(insert(name, 1));
    CHECK_THROWS(segue::unique_violation, ticket.wait_for(60s));
    bool here = false;
    ticket.on_done([&](const segue::completion& it) {
        here = !it.committed() && !it.key();
        const auto error = CHECK_THROWS(segue::unique_violation, it.get());
        here = here && !error.maybe_committed();
    });
    CHECK(here);
    client().purge_dead_letter(std::string(ticket.id()));
}

TEST(dead_letters) {
    const auto name = table();
    segue::client own{one_server().conninfo() + " application_name=letters"};
    CHECK(own.dead_letters().empty());
    committed(own.submit(insert(name, 7)));
    const auto before = std::chrono::system_clock::now();
    const auto poison = own.submit(segue::submission()
                                       .statement("INSERT INTO " + name + " VALUES (6)")
                                       .statement("INSERT INTO " + name + " VALUES ($1)", 7)
                                       .lane("till")
                                       .key("poison " + name)
                                       .stop_on_failure());
    const auto behind = own.submit(insert(name, 8).lane("till"));
    const auto error = CHECK_THROWS(segue::unique_violation, poison.wait_for(60s));
    CHECK_CONTAINS(error.detail(), "(7)");
    CHECK_EQ(error.outcome(), segue::outcome::not_committed);
    const auto unmet =
        own.submit(segue::submission().statement("DELETE FROM " + name + " WHERE id = 99").expect_rows(1, 5));
    CHECK_EQ(CHECK_THROWS(segue::transaction_failed, unmet.wait()).sqlstate(), "25P02");
    const auto letters = own.dead_letters();
    CHECK_EQ(letters.size(), 2u);
    const auto& letter = letters[0];
    CHECK_EQ(letter.id, poison.id());
    CHECK_EQ(*letter.key, "poison " + name);
    CHECK_EQ(*letter.lane, "till");
    CHECK(letter.stops_lane);
    CHECK(letter.died_at > before - 1h);
    CHECK_EQ(letter.statement, 1u);
    CHECK_EQ(letter.statements.size(), 2u);
    CHECK_EQ(letter.statements[1], "INSERT INTO " + name + " VALUES ($1)");
    CHECK_EQ(letter.sqlstate, "23505");
    CHECK_CONTAINS(letter.message, name);
    CHECK_CONTAINS(*letter.detail, "(7)");
    const auto thrown = CHECK_THROWS(segue::unique_violation, std::rethrow_exception(letter.error));
    CHECK_EQ(thrown.constraint(), name + "_pkey");
    CHECK_EQ(thrown.outcome(), segue::outcome::not_committed);
    CHECK_THROWS(segue::transaction_failed, std::rethrow_exception(letters[1].error));
    CHECK(!letters[1].lane && !letters[1].key && !letters[1].detail && !letters[1].stops_lane);
    // What was sent behind the poison comes home without having been executed, and waits.
    WAIT_UNTIL(own.submissions().waiting == 1);
    auto status = own.submissions();
    CHECK_EQ(status.dead_letters, 2);
    CHECK_EQ(status.lanes, 1);
    CHECK_EQ(status.lanes_stopped, 1);
    CHECK_EQ(status.died, 2);
    CHECK(!status.problem);
    CHECK(!behind.poll());
    one_server().sql(0, "DELETE FROM " + name + " WHERE id = 7");
    const auto again = own.retry_dead_letter(letter.id);
    CHECK_EQ(again.id(), poison.id());
    CHECK(committed(again).rows == (std::vector<std::uint64_t>{1, 1}));
    committed(poison);
    committed(behind);
    own.purge_dead_letter(letters[1].id);
    CHECK(own.dead_letters().empty());
    CHECK_EQ(rows(name), 3);
}

/// A ticket may outlive its client, and goes on.
TEST(destroyed_in_any_order) {
    const auto name = table();
    std::optional<segue::ticket> ticket;
    {
        segue::client own{one_server().conninfo() + " application_name=gone"};
        ticket = own.submit(insert(name, 1));
    }
    committed(*ticket);
    CHECK_EQ(rows(name), 1);
}

TEST(no_server_at_all_and_then_one) {
    cluster servers({"--standbys", "0"});
    servers.sql(0, "CREATE TABLE s (id int, seq bigserial)");
    servers.sql(0, "GRANT ALL ON s, s_seq_seq TO PUBLIC");
    servers.command("stop 0");
    const folder journal;
    std::string id;
    {
        segue::client client{servers.conninfo() + journal.options()};
        for (int i = 0; i < 50; ++i) {
            const auto ticket = client.submit(
                insert("s", i).lane("till").key("sale " + std::to_string(i)));
            CHECK(!ticket.poll());
            if (i == 49) id = ticket.id();
        }
        WAIT_UNTIL(client.submissions().problem);
    }
    segue::client client{servers.conninfo() + journal.options()};
    CHECK_EQ(client.submissions().recovered, 50);
    CHECK(*client.submissions().journal_bytes > 0);
    const auto last = client.ticket(id);
    CHECK_EQ(*last->key(), "sale 49");
    client.submit(insert("s", 0).lane("till").key("sale 0"));
    servers.command("start 0");
    committed(*last);
    CHECK_EQ(servers.sql(0, "SELECT count(*) FROM s"), "50");
    CHECK_EQ(servers.sql(0, "SELECT string_agg(id::text, ' ' ORDER BY seq) = "
                            "string_agg(id::text, ' ' ORDER BY id) FROM s"),
             "t");
}

TEST(threads_submit_through_a_failover) {
    cluster servers({"--standbys", "1", "--replication", "sync"});
    servers.sql(0, "CREATE TABLE s (id int)");
    servers.sql(0, "GRANT ALL ON s TO PUBLIC");
    segue::client client{servers.conninfo() + " poll_interval_ms=50"};
    constexpr int threads = 4;
    constexpr int each = 100;
    std::promise<void> half;
    std::vector<std::future<std::vector<segue::ticket>>> workers;
    for (int thread = 0; thread < threads; ++thread) {
        workers.push_back(std::async(std::launch::async, [&, thread] {
            std::vector<segue::ticket> tickets;
            for (int i = 0; i < each; ++i) {
                tickets.push_back(client.submit(insert("s", thread * each + i).lane(std::to_string(thread))));
                if (thread == 0 && i == each / 2) half.set_value();
                if (i % 10 == 0) committed(tickets.back());
            }
            return tickets;
        }));
    }
    half.get_future().wait();
    servers.command("kill 0");
    servers.command("promote 1");
    for (auto& worker : workers) {
        for (const auto& ticket : worker.get()) committed(ticket);
    }
    CHECK_EQ(servers.sql(1, "SELECT count(*) || ' ' || count(DISTINCT id) FROM s"),
             std::to_string(threads * each) + " " + std::to_string(threads * each));
}

int main(int argc, char** argv) { return check::run(argc, argv); }
