// The examples of docs/cpp.md, compiled and run; the last test finds each of them in here.
#include "support/check.hpp"
#include "support/cluster.hpp"

#include <atomic>
#include <chrono>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

using namespace std::chrono_literals;

namespace {

const std::string& conninfo() { return one_server().conninfo(); }

void report(const segue::error&) {}

// `account` of the guide.
struct account {
    int id;
    std::string owner;
};

}  // namespace

template <>
struct segue::row_traits<account> {
    static account from_row(const segue::row& r) { return {r.get<int>("id"), r.get<std::string>("owner")}; }
};

namespace {
enum class currency { eur, chf };
}

template <>
struct segue::param_traits<currency> {
    using storage = segue::no_storage;
    static segue_param to_param(currency value, storage&) {
        return segue_param_text(value == currency::eur ? "EUR" : "CHF");
    }
};

template <>
struct segue::value_traits<currency> {
    static currency from_value(const segue::value& v) {
        const auto text = v.get<std::string_view>();
        if (text != "EUR" && text != "CHF") throw segue::conversion_error("no currency of ours");
        return text == "EUR" ? currency::eur : currency::chf;
    }
};

TEST(examples) {
    segue::client client{conninfo()};
    segue::session session = client.open_session();

    session.execute("CREATE TABLE account (id int PRIMARY KEY, owner text, balance int8 DEFAULT 0)");
    session.execute("INSERT INTO account (id, owner) VALUES ($1, $2), ($3, $4)", 1, "Ada", 2, std::nullopt);
    for (auto [id, owner] :
         session.query("SELECT id, owner FROM account ORDER BY id").as<int, std::optional<std::string>>()) {
        std::cout << id << ' ' << owner.value_or("(nobody)") << '\n';
    }

    for (auto row : session.query("SELECT * FROM account WHERE id = ANY($1)", std::vector<int>{1, 2, 3})) {
        if (!row.is_null("owner")) std::cout << row.get<std::string>("owner") << '\n';
    }

    const auto balance = session.query_one<std::int64_t>("SELECT balance FROM account WHERE id = $1", 1);
    const auto owner = session.query_opt<std::string>("SELECT owner FROM account WHERE id = $1", 7);
    auto [id, since] =
        session.query_one<int, std::chrono::system_clock::time_point>("SELECT $1::int, now()", 1);

    CHECK_EQ(balance, 0);
    CHECK(!owner);
    CHECK_EQ(id, 1);
    CHECK(since.time_since_epoch().count() > 0);

    const auto rows = session.query(segue::format::binary, "SELECT sha256('x'), now()");
    const auto digest = rows.front().get<segue::bytes_view>(0);

    CHECK_EQ(digest.size(), 32u);

    const account first = session.query_one<account>("SELECT * FROM account WHERE id = 1");

    CHECK_EQ(first.owner, "Ada");
    CHECK(session.query_one<currency>("SELECT $1::text", currency::chf) == currency::chf);

    const int from = 1, to = 2, amount = 10;

    {
        segue::transaction tx{session, segue::isolation::serializable};
        tx.execute("UPDATE account SET balance = balance - $1 WHERE id = $2", amount, from);
        tx.execute("UPDATE account SET balance = balance + $1 WHERE id = $2", amount, to);
        tx.commit();
    }

    {
        segue::transaction tx{session};
        tx.execute("UPDATE account SET owner = 'Grace' WHERE id = 2");
        try {
            auto attempt = tx.nested();
            attempt.execute("INSERT INTO account (id) VALUES (1)");
            attempt.commit();
        } catch (const segue::unique_violation&) {
            // The savepoint is rolled back, the transaction goes on.
        }
        tx.commit();
    }

    segue::transact_options options;
    options.isolation = segue::isolation::serializable;
    options.max_attempts = 5;
    const auto left = session.transact(
        [&](segue::transaction& tx) {
            tx.execute("UPDATE account SET balance = balance - $1 WHERE id = $2", amount, from);
            return tx.query_one<std::int64_t>("SELECT balance FROM account WHERE id = $1", from);
        },
        options);

    CHECK_EQ(left, -20);

    const auto ticket =
        client.submit(segue::submission()
                          .statement("UPDATE account SET balance = balance - $1 WHERE id = $2", 5, 1)
                          .expect_rows(1)
                          .statement("INSERT INTO account (id, owner) VALUES ($1, $2)", 3, "Edsger")
                          .lane("branch 7")
                          .key("payment 4711"));
    if (const auto done = ticket.wait_for(5s)) std::cout << done->rows.size() << " statements\n";

    ticket.wait();
    CHECK_THROWS(segue::unique_violation,
                 client.submit(segue::submission().statement("INSERT INTO account (id) VALUES (1)")).wait());
    CHECK_EQ(client.dead_letters().size(), 1u);

    client.ticket_for_key("payment 4711")->on_done([](const segue::completion& done) {
        std::clog << done.id() << (done.committed() ? " is done\n" : " is a dead letter\n");
    });
    for (const auto& letter : client.dead_letters()) {
        std::cout << letter.sqlstate << ' ' << letter.message << '\n';
        client.purge_dead_letter(letter.id);  // or, once its cause is gone, retry_dead_letter(letter.id)
    }

    CHECK(client.dead_letters().empty());

    for (const auto& it : client.recover()) {
        switch (it.verdict()) {
            case segue::verdict::committed: break;  // tell whoever was waiting for it
            case segue::verdict::not_committed:
            case segue::verdict::never_sent: {
                segue::transaction tx{session};  // or run the business operation again
                for (const auto& statement : it.statements()) tx.execute(statement.sql(), statement.params());
                tx.commit();
                break;
            }
            case segue::verdict::unknown: std::cerr << it.number() << ": " << it.reason() << '\n'; continue;  // keep it
        }
        it.done();  // the journal forgets it
    }

    try {
        session.execute("INSERT INTO account (id) VALUES ($1)", 1);
    } catch (const segue::unique_violation& error) {
        std::cout << error.constraint() << ": " << error.detail() << '\n';
    } catch (const segue::outcome_unknown& error) {
        report(error);  // look whether it is there before running it again
    } catch (const segue::error& error) {
        if (error.maybe_committed()) report(error);
        throw;
    }

    auto by_owner = session.prepare("SELECT id FROM account WHERE owner = $1");
    for (const char* name : {"Ada", "Grace"}) {
        std::cout << name << ' ' << by_owner.query_one<int>(name) << '\n';
    }

    auto pipe = session.pipeline();
    for (int n = 10; n < 100; ++n) pipe.add("INSERT INTO account (id) VALUES ($1)", n);
    while (auto result = pipe.next()) std::cout << result->tag() << '\n';

    for (auto row : session.stream("SELECT id, balance FROM account")) {
        auto [number, money] = row.as<int, std::int64_t>();
        std::cout << number << ' ' << money << '\n';
    }

    auto copy = session.copy_in("COPY account (id, owner) FROM STDIN");
    copy.write_row(1000, "Barbara");
    copy.write_row(1001, std::nullopt);
    std::cout << copy.finish() << " rows\n";

    for (std::string_view line : session.copy_out("COPY account TO STDOUT (FORMAT csv)")) std::cout << line;

    session.execute("LISTEN jobs");
    session.execute("NOTIFY jobs, '42'");
    if (auto notification = session.notification(5s)) {
        std::cout << notification->channel << ": " << notification->payload << '\n';
    }

    auto cancel = session.cancel_handle();
    std::thread impatient([&] { cancel.cancel(); });
    impatient.join();

    auto subscription = client.on_event(
        [](const segue::event& event) { std::clog << event.name() << ": " << event.message() << '\n'; });
    for (const auto& server : client.status().servers) std::cout << server.summary << '\n';
    for (const auto& [name, count] : client.statistics()) std::cout << name << ' ' << count << '\n';
}

namespace {

/// Without white space, which the source's formatter and the page arrange each in its own way.
std::string condensed(std::istream& in) {
    std::string all;
    for (std::string word; in >> word;) all += word;
    return all;
}

}  // namespace

TEST(the_guide_shows_what_is_compiled_here) {
    std::ifstream source(SEGUE_GUIDE_SOURCE);
    std::ifstream guide(SEGUE_GUIDE);
    CHECK(source && guide);
    const std::string compiled = condensed(source);
    int examples = 0;
    std::ostringstream block;
    bool inside = false;
    for (std::string line; std::getline(guide, line);) {
        if (line == "```cpp") {
            inside = true;
            block.str("");
        } else if (line == "```" && inside) {
            inside = false;
            ++examples;
            std::istringstream in(block.str());
            const std::string wanted = condensed(in);
            if (compiled.find(wanted) == std::string::npos)
                check::fail(SEGUE_GUIDE, examples, "not in guide.cpp:\n" + wanted);
        } else if (inside) {
            block << line << '\n';
        }
    }
    CHECK(examples > 10);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
