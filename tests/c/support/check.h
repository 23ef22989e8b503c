/*
 * Assertions for the tests of the C ABI: they count failures and go on; main() returns the count.
 *
 * Every call that can fail is wrapped in OK() or FAILS(), with ERR as its last argument. Both check
 * what holds for all functions: an error is set on failure only, says the same status, and has a
 * message. LAST is the error of the last such call on this thread; it is freed by the next one.
 */
#ifndef SEGUE_TEST_CHECK_H
#define SEGUE_TEST_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <segue.h>

#define CHECK(condition) check_that(__FILE__, __LINE__, #condition, (condition))
#define CHECK_INT(actual, expected) \
    check_int(__FILE__, __LINE__, #actual, (int64_t)(actual), (int64_t)(expected))
/* Texts; either may be NULL. */
#define CHECK_STR(actual, expected) check_str(__FILE__, __LINE__, #actual, (actual), (expected))
/* Whether a text contains another one. */
#define CHECK_HAS(text, part) check_has(__FILE__, __LINE__, #text, (text), (part))

#define ERR (check_error())
#define LAST (check_last())
#define FAILS(expected, call) check_status(__FILE__, __LINE__, #call, (call), (expected))
#define OK(call) FAILS(SEGUE_OK, call)

/* Ends the program where going on makes no sense. */
#define REQUIRE(condition) \
    do { \
        if (!CHECK(condition)) \
            exit(1); \
    } while (0)

/* Runs a test, which is a function without parameters. */
#define RUN(test) \
    do { \
        if (check_wanted(#test)) \
            (test)(); \
    } while (0)

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

bool check_that(const char *file, int line, const char *what, bool is_true);
bool check_int(const char *file, int line, const char *what, int64_t actual, int64_t expected);
bool check_str(const char *file, int line, const char *what, const char *actual, const char *expected);
bool check_has(const char *file, int line, const char *what, const char *text, const char *part);
bool check_status(const char *file, int line, const char *what, int32_t actual, int32_t expected);

/* Where the next call shall put its error. */
segue_error **check_error(void);
const segue_error *check_last(void);
/* Frees this thread's error; a thread calls it before it ends. */
void check_forget(void);

/* Whether a status has been returned, on any thread. */
bool check_seen(int32_t status);

/* Reads the arguments (names of tests; none means all) and sets the time limit. */
void check_start(int argc, char **argv);
bool check_wanted(const char *test);
/* What main() returns. */
int check_finish(void);

/* A time in milliseconds, longer where the tests run slowly: SEGUE_TEST_SLOWNESS is the factor. */
int check_scaled(int milliseconds);
bool check_is_slow(void);
int64_t check_now_ms(void);
void check_sleep_ms(int milliseconds);

#endif
