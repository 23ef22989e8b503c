// Points in time: between std::chrono and PostgreSQL's date, timestamp and timestamptz.
//
// PostgreSQL counts microseconds from 2000-01-01; here all is microseconds from 1970-01-01 UTC. No C
// library function is used: those depend on the process's locale and time zone.
#ifndef SEGUE_TIME_HPP
#define SEGUE_TIME_HPP

#include "error.hpp"

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>

namespace segue {
namespace detail {

/// A time to wait, as the C interface takes it.
template <class Rep, class Period>
std::int64_t wait_ms(std::chrono::duration<Rep, Period> timeout) {
    // A day is long enough to wait, and cannot overflow.
    if (timeout >= std::chrono::hours(24)) {
        return std::int64_t{24} * 3'600 * 1'000;
    }
    const auto zero = std::chrono::duration<Rep, Period>::zero();
    return timeout <= zero ? 0 : std::int64_t{std::chrono::ceil<std::chrono::milliseconds>(timeout).count()};
}

constexpr std::int64_t micros_per_day = 86'400'000'000;
/// From 1970-01-01 to 2000-01-01.
constexpr std::int64_t days_to_postgres_epoch = 10'957;

// The two calendar functions are Howard Hinnant's, https://howardhinnant.github.io/date_algorithms.html.
constexpr std::int64_t days_from_civil(std::int64_t year, unsigned month, unsigned day) noexcept {
    year -= month <= 2 ? 1 : 0;
    const std::int64_t era = (year >= 0 ? year : year - 399) / 400;
    const std::int64_t year_of_era = year - era * 400;
    const std::int64_t shifted = month > 2 ? month - 3 : month + 9;
    const std::int64_t day_of_year = (153 * shifted + 2) / 5 + day - 1;
    const std::int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146'097 + day_of_era - 719'468;
}

struct civil {
    std::int64_t year;
    int month;
    int day;
};

constexpr civil civil_from_days(std::int64_t days) noexcept {
    days += 719'468;
    const std::int64_t era = (days >= 0 ? days : days - 146'096) / 146'097;
    const std::int64_t day_of_era = days - era * 146'097;
    const std::int64_t year_of_era =
        (day_of_era - day_of_era / 1'460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
    const std::int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const std::int64_t shifted = (5 * day_of_year + 2) / 153;
    const auto day = static_cast<int>(day_of_year - (153 * shifted + 2) / 5 + 1);
    const auto month = static_cast<int>(shifted < 10 ? shifted + 3 : shifted - 9);
    return {year_of_era + era * 400 + (month <= 2 ? 1 : 0), month, day};
}

constexpr std::int64_t floor_div(std::int64_t value, std::int64_t by) noexcept {
    return value / by - (value % by < 0 ? 1 : 0);
}

/// "2024-05-06", or with the time of day "2024-05-06 07:08:09.000001+00", as PostgreSQL reads them.
inline std::string iso_text(std::int64_t unix_micros, bool with_time) {
    const std::int64_t days = floor_div(unix_micros, micros_per_day);
    const civil date = civil_from_days(days);
    const bool before_christ = date.year <= 0;
    const auto year = static_cast<long long>(before_christ ? 1 - date.year : date.year);
    char buffer[80];
    int length = std::snprintf(buffer, sizeof buffer, "%04lld-%02d-%02d", year, date.month, date.day);
    std::string text(buffer, static_cast<std::size_t>(length));
    if (with_time) {
        const std::int64_t rest = unix_micros - days * micros_per_day;
        length =
            std::snprintf(buffer, sizeof buffer, " %02d:%02d:%02d.%06d+00",
                          static_cast<int>(rest / 3'600'000'000), static_cast<int>(rest / 60'000'000 % 60),
                          static_cast<int>(rest / 1'000'000 % 60), static_cast<int>(rest % 1'000'000));
        text.append(buffer, static_cast<std::size_t>(length));
    }
    return before_christ ? text + " BC" : text;
}

/// Reads PostgreSQL's ISO form from left to right.
class time_reader {
public:
    explicit time_reader(std::string_view text) noexcept : rest_(text) {}

    /// Microseconds since 1970, or throws conversion_error.
    std::int64_t read() {
        const std::int64_t year = number(4, 6);
        expect('-');
        const std::int64_t month = number(2, 2);
        expect('-');
        const std::int64_t day = number(2, 2);
        std::int64_t time = 0;
        if (skip(' ') && !at("BC")) {
            time = clock();
            fraction(time);
            zone(time);
            skip(' ');
        }
        const bool before_christ = at("BC");
        if (before_christ) {
            rest_.remove_prefix(2);
        }
        if (!rest_.empty() || month < 1 || month > 12 || day < 1 || day > 31) {
            fail();
        }
        const std::int64_t days = days_from_civil(before_christ ? 1 - year : year,
                                                  static_cast<unsigned>(month), static_cast<unsigned>(day));
        // Six digits of a year times 366 days are within what 64 bits of microseconds hold, except at
        // the far end of PostgreSQL's own range.
        if (days > std::numeric_limits<std::int64_t>::max() / micros_per_day - 1) {
            fail();
        }
        return days * micros_per_day + time;
    }

private:
    [[noreturn]] static void fail() {
        throw conversion_error(
            "the value is no finite point in time in ISO form; with another DateStyle ask for "
            "format::binary");
    }

    bool at(std::string_view word) const noexcept { return rest_.substr(0, word.size()) == word; }

    bool skip(char c) noexcept {
        if (rest_.empty() || rest_.front() != c) {
            return false;
        }
        rest_.remove_prefix(1);
        return true;
    }

    void expect(char c) {
        if (!skip(c)) {
            fail();
        }
    }

    std::int64_t number(std::size_t least, std::size_t most) {
        std::int64_t value = 0;
        std::size_t digits = 0;
        while (digits < most && !rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9') {
            value = value * 10 + (rest_.front() - '0');
            rest_.remove_prefix(1);
            ++digits;
        }
        if (digits < least) {
            fail();
        }
        return value;
    }

    std::int64_t clock() {
        const std::int64_t hours = number(2, 2);
        expect(':');
        const std::int64_t minutes = number(2, 2);
        expect(':');
        return ((hours * 60 + minutes) * 60 + number(2, 2)) * 1'000'000;
    }

    void fraction(std::int64_t& time) {
        if (!skip('.')) {
            return;
        }
        const std::size_t before = rest_.size();
        std::int64_t value = number(1, 6);
        for (std::size_t digits = before - rest_.size(); digits < 6; ++digits) {
            value *= 10;
        }
        time += value;
    }

    void zone(std::int64_t& time) {
        const bool east = skip('+');
        if (!east && !skip('-')) {
            return;
        }
        std::int64_t seconds = number(2, 2) * 3'600;
        if (skip(':')) {
            seconds += number(2, 2) * 60;
            if (skip(':')) {
                seconds += number(2, 2);
            }
        }
        time += (east ? -seconds : seconds) * 1'000'000;
    }

    std::string_view rest_;
};

/// The time point of microseconds since 1970, rounded down; throws conversion_error where `Duration` has
/// no room for it (nanoseconds in 64 bits end in 2262).
template <class Duration>
std::chrono::time_point<std::chrono::system_clock, Duration> time_point_of(std::int64_t unix_micros) {
    using micros = std::chrono::microseconds;
    using ratio = std::ratio_divide<typename micros::period, typename Duration::period>;
    const long double wanted = static_cast<long double>(unix_micros) * static_cast<long double>(ratio::num) /
                               static_cast<long double>(ratio::den);
    if (wanted >= static_cast<long double>(Duration::max().count()) ||
        wanted <= static_cast<long double>(Duration::min().count())) {
        throw conversion_error("the point in time is out of the range of the C++ type");
    }
    return std::chrono::time_point<std::chrono::system_clock, Duration>(
        std::chrono::floor<Duration>(micros(unix_micros)));
}

/// Microseconds since 2000 of a time point, rounded down; throws conversion_error beyond PostgreSQL's range.
template <class Duration>
std::int64_t postgres_micros_of(std::chrono::time_point<std::chrono::system_clock, Duration> time) {
    using micros = std::chrono::microseconds;
    using ratio = std::ratio_divide<typename Duration::period, typename micros::period>;
    const auto count = time.time_since_epoch();
    const long double wanted = static_cast<long double>(count.count()) *
                               static_cast<long double>(ratio::num) / static_cast<long double>(ratio::den);
    // From 4713 BC to 294276 AD, less a little at the far end that 64 bits cannot shift by 30 years.
    if (wanted < -210'866'803'200'000'000.0L || wanted > 9'223'371'000'000'000'000.0L) {
        throw conversion_error("the point in time is out of PostgreSQL's range; nothing was sent",
                               outcome::not_committed);
    }
    return std::chrono::floor<micros>(count).count() - days_to_postgres_epoch * micros_per_day;
}

/// Whole days are dates.
template <class Duration>
constexpr bool is_date = std::ratio_greater_equal_v<typename Duration::period, std::ratio<86'400>>;

}  // namespace detail
}  // namespace segue

#endif
