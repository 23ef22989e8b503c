// Moves money between accounts, over and over. Kill the primary meanwhile and have the standby promoted:
// this program sees a slow statement and no error, and the sum stays what it was.
//
//     c++ -std=c++17 transfer.cpp $(pkg-config --cflags --libs segue) -o transfer
//     ./transfer "host=node1,node2 dbname=bank user=app" 1000
#include <segue.hpp>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>

namespace {

constexpr int accounts = 100;

std::int64_t sum(segue::session& session) {
    return session.query_one<std::int64_t>("SELECT sum(balance)::bigint FROM account");
}

std::int64_t noted(segue::session& session) {
    return session.query_one<std::int64_t>("SELECT count(*) FROM transfer");
}

void create_accounts(segue::session& session) {
    session.execute_batch(
        "CREATE TABLE IF NOT EXISTS account (id int PRIMARY KEY, balance bigint NOT NULL);"
        "CREATE TABLE IF NOT EXISTS transfer (id bigserial PRIMARY KEY, source int, target int, amount bigint)");
    session.execute("INSERT INTO account SELECT id, 1000 FROM generate_series(1, $1) AS id ON CONFLICT DO NOTHING", accounts);
}

bool run(segue::session& session, long count) {
    create_accounts(session);
    const auto before = sum(session);
    const auto noted_before = noted(session);

    std::minstd_rand random;
    std::uniform_int_distribution<int> any_account(1, accounts);
    std::uniform_int_distribution<std::int64_t> any_amount(1, 10);
    for (long done = 1; done <= count; ++done) {
        const int source = any_account(random);
        const int target = source % accounts + 1;
        const auto amount = any_amount(random);
        // One transaction. It is run again where that is certain not to apply it twice (a deadlock, say);
        // an exception out of it means that nothing of it stays, unless its outcome() says otherwise.
        session.transact([&](segue::transaction& tx) {
            tx.execute("UPDATE account SET balance = balance - $1 WHERE id = $2", amount, source);
            tx.execute("UPDATE account SET balance = balance + $1 WHERE id = $2", amount, target);
            tx.execute("INSERT INTO transfer (source, target, amount) VALUES ($1, $2, $3)", source, target, amount);
        });
        if (done % 100 == 0) {
            std::cout << done << " transfers" << std::endl;
        }
    }

    const auto after = sum(session);
    const auto in_database = noted(session) - noted_before;
    std::cout << count << " transfers reported, " << in_database << " in the database; sum " << before << " before, "
              << after << " after" << std::endl;
    return before == after && in_database == count;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2 || argc > 3) {
        std::cerr << "usage: " << argv[0] << " CONNINFO [TRANSFERS]\n";
        return EXIT_FAILURE;
    }
    try {
        const segue::client client{argv[1]};
        auto session = client.open_session(segue::access::read_write);
        return run(session, argc == 3 ? std::stol(argv[2]) : 1000) ? EXIT_SUCCESS : EXIT_FAILURE;
    } catch (const segue::error& error) {
        std::cerr << error.what() << " (SQLSTATE " << error.sqlstate() << ")\n";
        if (error.maybe_committed()) {
            std::cerr << "the transaction may stand: look before you run it again\n";
        }
        return EXIT_FAILURE;
    }
}
