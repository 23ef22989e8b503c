// A test runner of one page: tests that register themselves, checks that say what was expected, where.
// Every check that fails ends its test; the program's exit status says whether all have passed.
#ifndef SEGUE_TESTS_CHECK_HPP
#define SEGUE_TESTS_CHECK_HPP

#include <segue.hpp>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

namespace check {

struct failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct test {
    const char* name;
    void (*run)();
};

inline std::vector<test>& tests() {
    static std::vector<test> all;
    return all;
}

struct registration {
    registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

template <class T, class = void>
struct printable : std::false_type {};
template <class T>
struct printable<T, std::void_t<decltype(std::declval<std::ostream&>() << std::declval<const T&>())>>
    : std::true_type {};

template <class T>
std::string show(const T& value) {
    std::ostringstream out;
    if constexpr (std::is_enum_v<T>) {
        out << static_cast<long long>(value);
    } else if constexpr (printable<T>::value) {
        out << value;
    } else {
        out << "(a value of its own kind)";
    }
    return out.str();
}

[[noreturn]] inline void fail(const char* file, int line, const std::string& message) {
    std::ostringstream out;
    out << file << ':' << line << ": " << message;
    throw failure(out.str());
}

template <class A, class B>
void equal(const A& got, const B& expected, const char* text, const char* file, int line) {
    if (!(got == expected)) {
        fail(file, line, std::string(text) + " is " + show(got) + ", expected " + show(expected));
    }
}

/// Runs `body`, which must throw exactly an `Expected`, and returns it.
template <class Expected, class Body>
Expected throws(Body&& body, const char* text, const char* file, int line) {
    try {
        body();
    } catch (const Expected& caught) {
        if (typeid(caught) != typeid(Expected)) {
            fail(file, line,
                 std::string(text) + " threw a subclass, " + typeid(caught).name() + ": " + caught.what());
        }
        return caught;
    } catch (const failure&) {
        throw;
    } catch (const std::exception& other) {
        fail(file, line, std::string(text) + " threw " + typeid(other).name() + ": " + other.what());
    }
    fail(file, line, std::string(text) + " threw nothing");
}

/// Waits for a condition; there is no time that is long enough to sleep for.
template <class Condition>
void wait_until(Condition&& condition, const char* text, const char* file, int line) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) {
            fail(file, line, std::string("in vain waited for ") + text);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

/// Runs the tests whose names contain the first argument.
inline int run(int argc, char** argv) {
    const std::string_view wanted = argc > 1 ? argv[1] : "";
    int failed = 0;
    int count = 0;
    for (const test& each : tests()) {
        if (std::string_view(each.name).find(wanted) == std::string_view::npos) {
            continue;
        }
        ++count;
        std::cout << "test " << each.name << std::endl;
        try {
            each.run();
        } catch (const std::exception& error) {
            ++failed;
            std::cout << "FAILED " << each.name << ": " << error.what() << std::endl;
            if (const auto* of_segue = dynamic_cast<const segue::error*>(&error)) {
                std::cout << "  " << segue_status_name(of_segue->status()) << " " << of_segue->sqlstate()
                          << " " << of_segue->detail() << " " << of_segue->cause() << std::endl;
            }
        }
    }
    std::cout << count << " tests, " << failed << " failed" << std::endl;
    // A filter that fits nothing must not pass for success.
    return failed == 0 && count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace check

#define TEST(name)                                                        \
    static void test_##name();                                            \
    static const check::registration register_##name(#name, test_##name); \
    static void test_##name()

#define CHECK(condition)                                               \
    do {                                                               \
        if (!(condition)) check::fail(__FILE__, __LINE__, #condition); \
    } while (false)
#define CHECK_EQ(got, expected) check::equal((got), (expected), #got, __FILE__, __LINE__)
#define CHECK_THROWS(type, ...) \
    check::throws<type>([&] { static_cast<void>(__VA_ARGS__); }, #__VA_ARGS__, __FILE__, __LINE__)
#define CHECK_CONTAINS(text, part)                                                            \
    do {                                                                                      \
        if (std::string_view(text).find(part) == std::string_view::npos)                      \
            check::fail(__FILE__, __LINE__,                                                   \
                        "\"" + std::string(text) + "\" does not contain \"" + (part) + "\""); \
    } while (false)
#define WAIT_UNTIL(condition) \
    check::wait_until([&] { return static_cast<bool>(condition); }, #condition, __FILE__, __LINE__)

#endif
