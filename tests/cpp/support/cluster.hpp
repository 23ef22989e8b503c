// A real cluster, started and driven through the program segue-cluster; it ends with this object, and with
// this process should that be killed.
#ifndef SEGUE_TESTS_CLUSTER_HPP
#define SEGUE_TESTS_CLUSTER_HPP

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

class cluster {
public:
    /// Starts servers with the arguments of segue-cluster, such as `--standbys 1 --replication sync`.
    explicit cluster(std::vector<std::string> arguments = {}) {
        const char* program = std::getenv("SEGUE_CLUSTER");
        if (program == nullptr) {
            throw std::runtime_error("SEGUE_CLUSTER must name the program segue-cluster");
        }
        int commands[2];
        int answers[2];
        if (pipe2(commands, O_CLOEXEC) != 0 || pipe2(answers, O_CLOEXEC) != 0) {
            throw std::runtime_error(std::string("pipe: ") + std::strerror(errno));
        }
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, commands[0], STDIN_FILENO);
        posix_spawn_file_actions_adddup2(&actions, answers[1], STDOUT_FILENO);
        arguments.insert(arguments.begin(), program);
        std::vector<char*> argv;
        for (auto& argument : arguments) {
            argv.push_back(argument.data());
        }
        argv.push_back(nullptr);
        const int failed = posix_spawn(&process_, program, &actions, nullptr, argv.data(), environ);
        posix_spawn_file_actions_destroy(&actions);
        close(commands[0]);
        close(answers[1]);
        commands_ = fdopen(commands[1], "w");
        answers_ = fdopen(answers[0], "r");
        if (failed != 0) {
            throw std::runtime_error(std::string(program) + ": " + std::strerror(failed));
        }
        for (std::string line = read(); line != "ready"; line = read()) {
            const auto space = line.find(' ');
            if (line.compare(0, space, "error") == 0) {
                throw std::runtime_error("segue-cluster: " + line);
            }
            greeting_[line.substr(0, space)] = space == std::string::npos ? "" : line.substr(space + 1);
        }
    }

    cluster(const cluster&) = delete;
    cluster& operator=(const cluster&) = delete;

    ~cluster() {
        std::fclose(commands_);
        std::fclose(answers_);
        int status = 0;
        waitpid(process_, &status, 0);
    }

    /// What was said at the start: `conninfo`, `conninfo_unix`, `conninfo_proxy`, `tls_ca`.
    [[nodiscard]] const std::string& told(const std::string& key) const { return greeting_.at(key); }
    [[nodiscard]] const std::string& conninfo() const { return told("conninfo"); }

    /// Gives a command; the text of its answer. Any thread.
    std::string command(const std::string& line) {
        const std::lock_guard<std::mutex> guard(mutex_);
        std::fputs((line + '\n').c_str(), commands_);
        std::fflush(commands_);
        const std::string answer = read();
        if (answer.compare(0, 2, "ok") != 0) {
            throw std::runtime_error("segue-cluster: " + line + ": " + answer);
        }
        return answer.size() > 3 ? answer.substr(3) : std::string();
    }

    /// The first value that a server answers, asked without Segue.
    std::string sql(int server, const std::string& text) {
        return command("sql " + std::to_string(server) + " " + text);
    }

private:
    std::string read() {
        std::string line;
        for (int c = std::fgetc(answers_); c != '\n'; c = std::fgetc(answers_)) {
            if (c == EOF) {
                throw std::runtime_error("segue-cluster has ended after: " + line);
            }
            line += static_cast<char>(c);
        }
        return line;
    }

    pid_t process_ = 0;
    std::FILE* commands_ = nullptr;
    std::FILE* answers_ = nullptr;
    std::map<std::string, std::string> greeting_;
    std::mutex mutex_;
};

/// A server alone, shared by the tests of one program.
inline cluster& one_server() {
    static cluster shared({"--standbys", "0"});
    return shared;
}

#endif
