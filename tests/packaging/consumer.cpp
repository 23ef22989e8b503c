// As consumer.c, with the C++ headers.
#include <segue.hpp>

#include <iostream>
#include <string>

namespace {

int complain(const char* what) {
    std::cerr << "not so: " << what << '\n';
    return 1;
}

int without_a_server() {
    try {
        const segue::client client{"hots=nowhere"};
        return complain("an unknown option is an error");
    } catch (const segue::config_error& error) {
        if (std::string(error.what()).find("hots") == std::string::npos) {
            return complain("the error names the option");
        }
    }
    try {
        const segue::client client{
            "host=127.0.0.1 port=1 user=nobody dbname=nothing sslmode=disable failover_timeout_ms=300"};
        const auto session = client.open_session();
        return complain("nobody listens on port 1");
    } catch (const segue::error& error) {
        return error.maybe_committed() ? complain("nothing was committed") : 0;
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (segue::version() != SEGUE_VERSION) {
        return complain("header and library are of one version");
    }
    if (argc < 2) {
        return without_a_server();
    }
    const segue::client client{argv[1]};
    auto session = client.open_session();
    return session.query_one<int>("SELECT $1 + $2", 40, 2) == 42 ? 0 : complain("40 + 2 is 42");
}
