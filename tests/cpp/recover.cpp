// What became of the transactions of a client that was killed with SIGKILL, as ranges; the journal's figures.
#include "support/check.hpp"
#include "support/cluster.hpp"

#include <chrono>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace std::chrono_literals;

namespace {

std::string own_name;

constexpr const char* insert = "INSERT INTO r (id, note, raw) VALUES ($1, $2, $3)";
constexpr const char* last = "INSERT INTO r (id) VALUES ($1)";

std::string sql(const std::string& text) { return one_server().sql(0, text); }

/// A journal of its own, in a directory that goes with it.
class journal {
public:
    journal() {
        std::string name = (std::filesystem::temp_directory_path() / "segue-test.XXXXXX").string();
        CHECK(mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    journal(const journal&) = delete;
    journal& operator=(const journal&) = delete;
    ~journal() { std::filesystem::remove_all(path_); }

    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::string conninfo() const {
        return one_server().conninfo() + " journal=file journal_dir=" + path_;
    }
    [[nodiscard]] bool has(const std::string& text) const {
        for (const auto& file : std::filesystem::directory_iterator(path_)) {
            std::ifstream in(file.path(), std::ios::binary);
            const std::string all{std::istreambuf_iterator<char>(in), {}};
            if (all.find(text) != std::string::npos) return true;
        }
        return false;
    }

private:
    std::string path_;
};

template <class Condition>
void eventually(Condition&& holds) {
    for (const auto end = std::chrono::steady_clock::now() + 60s; !holds();) {
        CHECK(std::chrono::steady_clock::now() < end);
        std::this_thread::sleep_for(5ms);
    }
}

/// The client that is killed: this program, run once more.
int child(const std::string& conninfo, const std::string& what) {
    segue::client client{conninfo};
    auto session = client.open_session();
    segue::transaction tx{session, segue::isolation::serializable};
    tx.execute(insert, 1, "Ada", std::vector<std::byte>{std::byte{0}, std::byte{255}});
    auto copy = tx.copy_in("COPY r (id) FROM STDIN");
    copy.write_row(2);
    copy.finish();
    tx.execute(last, std::optional<int>());
    if (what == "commit") tx.commit();
    pause();
    return 0;
}

/// A process that does this, and is killed when the condition holds.
template <class Condition>
void killed(const journal& of, const char* what, Condition&& holds) {
    std::string conninfo = of.conninfo();
    std::string mode = "--child";
    std::string doing = what;
    char* argv[] = {own_name.data(), mode.data(), conninfo.data(), doing.data(), nullptr};
    pid_t pid = 0;
    CHECK_EQ(posix_spawn(&pid, own_name.c_str(), nullptr, nullptr, argv, environ), 0);
    eventually(std::forward<Condition>(holds));
    kill(pid, SIGKILL);
    int status = 0;
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status));
}

void make_table() {
    sql("DROP TABLE IF EXISTS r");
    sql("CREATE TABLE r (id int, note text, raw bytea)");
    sql("GRANT ALL ON r TO PUBLIC");
}

}  // namespace

TEST(killed_in_the_middle) {
    make_table();
    const journal kept;
    killed(kept, "middle", [&] { return kept.has(last); });
    segue::client client{kept.conninfo()};
    auto session = client.open_session();
    {
        const auto found = client.recover();
        CHECK_EQ(found.size(), 1u);
        CHECK(!found.empty());
        CHECK(found.handle() != nullptr);
        const auto it = found[0];
        CHECK(it.verdict() == segue::verdict::never_sent);
        CHECK(it.reason().empty());
        CHECK(it.number() > 0);
        CHECK(!it.is_doubtful() && !it.is_autocommit() && !it.is_read_only());
        CHECK_EQ(it.session()->size(), 36u);
        CHECK(*it.session_number() > 0);
        CHECK(it.database() && it.user());
        CHECK(*it.began_at() <= std::chrono::system_clock::now());
        CHECK(it.begin_statement().find("SERIALIZABLE") != std::string::npos);
        CHECK_EQ(it.statement_count(), 3u);
        CHECK(it.bytes() > 0);
        CHECK(it.seals().empty());
        CHECK_EQ(std::distance(found.begin(), found.end()), 1);

        auto statements = it.statements();
        auto first = statements.next();
        CHECK_EQ(first->sql(), insert);
        CHECK(!first->is_simple());
        CHECK_EQ(first->params().size(), 3u);
        CHECK(first->copy_data().empty());
        CHECK_EQ(statements.next()->copy_data(), "2\n");
        CHECK_EQ(statements.next()->params().data()->kind, SEGUE_PARAM_NULL);
        CHECK(!statements.next());
        CHECK(!statements.next());
    }
    // Again, by ranges, as the guide does it.
    for (const auto& it : client.recover()) {
        segue::transaction tx{session};
        for (const auto& statement : it.statements()) {
            if (statement.copy_data().empty()) {
                tx.execute(statement.sql(), statement.params());
            } else {
                auto copy = tx.copy_in(statement.sql());
                copy.write(statement.copy_data());
                copy.finish();
            }
        }
        tx.commit();
        it.done();
        it.done();
    }
    CHECK(client.recover().empty());
    CHECK_EQ(sql("SELECT string_agg(coalesce(id::text, '-'), ' ' ORDER BY id) FROM r"), "1 2 -");
    CHECK_EQ(sql("SELECT count(*) FROM r WHERE raw = '\\x00ff' AND note = 'Ada'"), "1");
}

TEST(killed_at_commit) {
    make_table();
    sql("CREATE OR REPLACE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$");
    sql("CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON r DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
        "EXECUTE FUNCTION wait()");
    const journal kept;
    segue::client beside{one_server().conninfo()};
    auto holder = beside.open_session();
    segue::transaction tx{holder};
    tx.execute("SELECT pg_advisory_xact_lock(1)");
    killed(kept, "commit", [&] {
        return sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'") != "0";
    });
    segue::client client{kept.conninfo()};
    const auto found = client.recover();
    tx.rollback();
    CHECK_EQ(found.size(), 1u);
    CHECK(found.begin()->verdict() == segue::verdict::not_committed);
    const auto seals = found[0].seals();
    CHECK_EQ(seals.size(), 1u);
    CHECK_EQ(seals[0].row.size(), 36u);
    CHECK(seals[0].number > 0);
    CHECK(seals[0].committed == std::optional<bool>(false));
    CHECK_EQ(sql("SELECT count(*) FROM r"), "0");
    found[0].done();
}

TEST(what_is_not_there) {
    segue::client client{one_server().conninfo()};
    const auto none = client.recover();
    CHECK(none.empty());
    CHECK(none.begin() == none.end());
    CHECK(!none[3].session() && !none[3].began_at() && !none[3].session_number());
    CHECK_THROWS(segue::invalid_argument, none[3].done());
    CHECK_THROWS(segue::invalid_argument, static_cast<void>(none[3].statements()));
}

TEST(journals_that_are_not_opened) {
    make_table();
    const std::string key = " journal_key=" + std::string(64, 'a');
    const std::string wrong = " journal_key=" + std::string(64, 'b');
    const journal kept;
    // What cannot be executed stays in the journal.
    auto holder = segue::client{one_server().conninfo()}.open_session();
    segue::transaction tx{holder};
    tx.execute("LOCK TABLE r");
    {
        segue::client client{kept.conninfo() + key};
        client.submit(segue::submission().statement("INSERT INTO r (id) VALUES (1)").key("kept"));
        CHECK_THROWS(segue::config_error, segue::client{kept.conninfo() + key + " application_name=other"});
    }
    CHECK_THROWS(segue::config_error, segue::client{kept.conninfo() + wrong});
    CHECK_THROWS(segue::config_error, segue::client{kept.conninfo()});
    segue::client client{kept.conninfo() + key};
    CHECK(client.recover().empty());
    tx.commit();
    client.ticket_for_key("kept")->wait();
}

TEST(the_journal_s_figures) {
    segue::client without{one_server().conninfo()};
    CHECK(!without.status().journal_dir);
    CHECK(!without.status().journal_bytes);
    const journal kept;
    segue::client client{kept.conninfo()};
    CHECK_EQ(*client.status().journal_dir, kept.path());
    client.submit(segue::submission().statement("SELECT 1")).wait();
    eventually([&] { return *client.status().journal_bytes > 0; });
}

TEST(it_outlives_its_client) {
    make_table();
    const journal kept;
    killed(kept, "middle", [&] { return kept.has(last); });
    std::optional<segue::client> client{kept.conninfo()};
    auto found = client->recover();
    client.reset();
    found[0].done();
    auto statements = found[0].statements();
    { const auto gone = std::move(found); }
    CHECK_EQ(statements.next()->sql(), insert);
}

int main(int argc, char** argv) {
    own_name = argv[0];
    if (argc == 4 && std::string(argv[1]) == "--child") return child(argv[2], argv[3]);
    return check::run(argc, argv);
}
