// The C++ types that values can be read as without further ado.
#ifndef SEGUE_VALUES_HPP
#define SEGUE_VALUES_HPP

#include "bytes.hpp"
#include "text.hpp"
#include "time.hpp"
#include "value.hpp"

#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace segue {

namespace detail {

/// The integer of a value in binary format, if it is one.
inline std::optional<std::int64_t> binary_integer(const value& v) noexcept {
    const std::string_view raw = v.raw();
    const std::uint64_t bits = raw.size() <= 8 ? load_big_endian(raw.data(), raw.size()) : 0;
    switch (v.type()) {
        case oid::int2:
            return raw.size() == 2 ? std::optional<std::int64_t>(static_cast<std::int16_t>(bits))
                                   : std::nullopt;
        case oid::int4:
            return raw.size() == 4 ? std::optional<std::int64_t>(static_cast<std::int32_t>(bits))
                                   : std::nullopt;
        case oid::int8:
            return raw.size() == 8 ? std::optional<std::int64_t>(static_cast<std::int64_t>(bits))
                                   : std::nullopt;
        case oid::oid:
            return raw.size() == 4 ? std::optional<std::int64_t>(static_cast<std::int64_t>(bits))
                                   : std::nullopt;
        default: return std::nullopt;
    }
}

/// The floating-point number of a value in binary format; integers will do.
inline std::optional<double> binary_float(const value& v) noexcept {
    const std::string_view raw = v.raw();
    if (v.type() == oid::float8 && raw.size() == 8) {
        const std::uint64_t bits = load_big_endian(raw.data(), 8);
        double number = 0;
        std::memcpy(&number, &bits, sizeof number);
        return number;
    }
    if (v.type() == oid::float4 && raw.size() == 4) {
        const auto bits = static_cast<std::uint32_t>(load_big_endian(raw.data(), 4));
        float number = 0;
        std::memcpy(&number, &bits, sizeof number);
        return static_cast<double>(number);
    }
    const auto integer = binary_integer(v);
    return integer ? std::optional<double>(static_cast<double>(*integer)) : std::nullopt;
}

/// The text of a value in binary format, where the two are the same.
inline std::optional<std::string_view> binary_text(const value& v) noexcept {
    switch (v.type()) {
        case oid::text:
        case oid::varchar:
        case oid::bpchar:
        case oid::name:
        case oid::character:
        case oid::unknown:
        case oid::json:
        case oid::xml: return v.raw();
        // One byte of version goes before the text.
        case oid::jsonb: return v.raw().substr(v.raw().empty() ? 0 : 1);
        default: return std::nullopt;
    }
}

/// Decodes PostgreSQL's `\x...` into `out`, `size` bytes of it at most; how many there are, or nothing.
template <class Byte>
std::optional<std::size_t> decode_hex(std::string_view text, Byte* out, std::size_t size) noexcept {
    if (text.size() < 2 || text.size() % 2 != 0 || text[0] != '\\' || text[1] != 'x') {
        return std::nullopt;
    }
    const std::size_t count = text.size() / 2 - 1;
    for (std::size_t i = 0; i < count && i < size; ++i) {
        const int high = hex_digit(text[2 * i + 2]);
        const int low = hex_digit(text[2 * i + 3]);
        if (high < 0 || low < 0) {
            return std::nullopt;
        }
        out[i] = static_cast<Byte>(high << 4 | low);
    }
    return count;
}

template <class Byte>
std::vector<Byte> bytea_of(const value& v) {
    static_assert(sizeof(Byte) == 1);
    const std::string_view raw = v.raw();
    std::vector<Byte> bytes;
    if (!v.is_text()) {
        if (v.type() != oid::bytea) {
            does_not_fit(v, "bytes");
        }
        bytes.resize(raw.size());
        if (!raw.empty()) {
            std::memcpy(bytes.data(), raw.data(), raw.size());
        }
        return bytes;
    }
    bytes.resize(raw.size() < 2 ? 0 : raw.size() / 2 - 1);
    if (!decode_hex(raw, bytes.data(), bytes.size())) {
        does_not_fit(v, "bytes");
    }
    return bytes;
}

inline std::int64_t unix_micros_of(const value& v) {
    if (v.is_text()) {
        return time_reader(v.raw()).read();
    }
    const std::string_view raw = v.raw();
    constexpr std::int64_t shift = days_to_postgres_epoch * micros_per_day;
    if (v.type() == oid::date && raw.size() == 4) {
        const auto days = static_cast<std::int32_t>(load_big_endian(raw.data(), 4));
        if (days != std::numeric_limits<std::int32_t>::max() &&
            days != std::numeric_limits<std::int32_t>::min() &&
            days < std::numeric_limits<std::int64_t>::max() / micros_per_day - days_to_postgres_epoch) {
            return days * micros_per_day + shift;
        }
    } else if ((v.type() == oid::timestamp || v.type() == oid::timestamptz) && raw.size() == 8) {
        const auto micros = static_cast<std::int64_t>(load_big_endian(raw.data(), 8));
        // The two ends of the range are the infinities.
        if (micros != std::numeric_limits<std::int64_t>::min() &&
            micros <= std::numeric_limits<std::int64_t>::max() - shift) {
            return micros + shift;
        }
    }
    does_not_fit(v, "a finite point in time");
}

}  // namespace detail

template <>
struct value_traits<bool> {
    static bool from_value(const value& v) {
        const std::string_view raw = v.raw();
        if (v.is_text() ? raw == "t" || raw == "f" : v.type() == detail::oid::boolean && raw.size() == 1) {
            return raw[0] == 't' || raw[0] == '\1';
        }
        detail::does_not_fit(v, "bool");
    }
};

template <class T>
struct value_traits<T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool> &&
                                        !std::is_same_v<T, char> && !std::is_same_v<T, wchar_t> &&
                                        !std::is_same_v<T, char16_t> && !std::is_same_v<T, char32_t>>> {
    static T from_value(const value& v) {
        if (v.is_text()) {
            const std::string_view raw = v.raw();
            T number{};
            const auto end = std::from_chars(raw.data(), raw.data() + raw.size(), number);
            if (end.ec == std::errc() && end.ptr == raw.data() + raw.size()) {
                return number;
            }
        } else if (const auto number = detail::binary_integer(v)) {
            const auto narrow = static_cast<T>(*number);
            if (static_cast<std::int64_t>(narrow) == *number && (narrow < T{}) == (*number < 0)) {
                return narrow;
            }
        }
        detail::does_not_fit(v, name());
    }

private:
    static constexpr const char* name() noexcept {
        switch (sizeof(T)) {
            case 1: return std::is_signed_v<T> ? "an 8-bit integer" : "an unsigned 8-bit integer";
            case 2: return std::is_signed_v<T> ? "a 16-bit integer" : "an unsigned 16-bit integer";
            case 4: return std::is_signed_v<T> ? "a 32-bit integer" : "an unsigned 32-bit integer";
            default: return std::is_signed_v<T> ? "a 64-bit integer" : "an unsigned 64-bit integer";
        }
    }
};

template <class T>
struct value_traits<T, std::enable_if_t<std::is_same_v<T, float> || std::is_same_v<T, double>>> {
    static T from_value(const value& v) {
        if (v.is_text()) {
            T number{};
            if (detail::parse_float(v.raw(), number)) {
                return number;
            }
        } else if (const auto number = detail::binary_float(v)) {
            const bool finite = *number - *number == 0;
            if (!finite || (*number <= static_cast<double>(std::numeric_limits<T>::max()) &&
                            *number >= static_cast<double>(std::numeric_limits<T>::lowest()))) {
                return static_cast<T>(*number);
            }
        }
        detail::does_not_fit(v, "a floating-point number of this size");
    }
};

template <>
struct value_traits<std::string_view> {
    static constexpr bool is_view = true;
    static std::string_view from_value(const value& v) {
        if (v.is_text()) {
            return v.raw();
        }
        if (const auto text = detail::binary_text(v)) {
            return *text;
        }
        detail::does_not_fit(v, "text");
    }
};

template <>
struct value_traits<std::string> {
    static std::string from_value(const value& v) { return std::string(v.get<std::string_view>()); }
};

template <>
struct value_traits<std::vector<std::byte>> {
    static std::vector<std::byte> from_value(const value& v) { return detail::bytea_of<std::byte>(v); }
};
template <>
struct value_traits<std::vector<unsigned char>> {
    static std::vector<unsigned char> from_value(const value& v) {
        return detail::bytea_of<unsigned char>(v);
    }
};

/// Only of results in binary format: text has to be decoded into memory of its own.
template <>
struct value_traits<bytes_view> {
    static constexpr bool is_view = true;
    static bytes_view from_value(const value& v) {
        if (v.is_text() || v.type() != detail::oid::bytea) {
            detail::does_not_fit(v, "a view of bytes, which needs a bytea in format::binary");
        }
        return bytes_view(v.raw().data(), v.raw().size());
    }
};

/// A bytea of exactly N bytes, or a uuid.
template <std::size_t N>
struct value_traits<std::array<std::byte, N>> {
    static std::array<std::byte, N> from_value(const value& v) {
        std::array<std::byte, N> bytes{};
        const std::string_view raw = v.raw();
        if (v.is_text()) {
            if (const auto count = detail::decode_hex(raw, bytes.data(), N); count && *count == N) {
                return bytes;
            }
            // 8-4-4-4-12 digits
            if (N == 16 && raw.size() == 36) {
                std::string hex = "\\x";
                for (const char c : raw) {
                    if (c != '-') {
                        hex += c;
                    }
                }
                if (hex.size() == 34 && detail::decode_hex(hex, bytes.data(), N)) {
                    return bytes;
                }
            }
        } else if (raw.size() == N && (v.type() == detail::oid::bytea || v.type() == detail::oid::uuid)) {
            std::memcpy(bytes.data(), raw.data(), N);
            return bytes;
        }
        detail::does_not_fit(v, "an array of so many bytes");
    }
};

template <class Duration>
struct value_traits<std::chrono::time_point<std::chrono::system_clock, Duration>> {
    static std::chrono::time_point<std::chrono::system_clock, Duration> from_value(const value& v) {
        return detail::time_point_of<Duration>(detail::unix_micros_of(v));
    }
};

template <class T>
struct value_traits<std::optional<T>> {
    static constexpr bool accepts_null = true;
    static constexpr bool is_view = detail::is_view<T>::value;
    static std::optional<T> from_value(const value& v) {
        return v.is_null() ? std::nullopt : std::optional<T>(v.get<T>());
    }
};

namespace detail {

/// Calls `each` with the elements of an array of one dimension that came as text: `{1,"a b",NULL}`.
template <class Each>
void each_text_element(const value& v, Each&& each) {
    std::string_view rest = v.raw();
    // Bounds other than the usual ones go before: [0:1]={...}
    if (!rest.empty() && rest.front() == '[') {
        rest.remove_prefix(rest.find('=') == std::string_view::npos ? rest.size() : rest.find('=') + 1);
    }
    if (rest.size() < 2 || rest.front() != '{' || rest.back() != '}') {
        does_not_fit(v, "an array");
    }
    rest = rest.substr(1, rest.size() - 2);
    std::string element;
    while (!rest.empty()) {
        element.clear();
        bool quoted = false;
        bool inside = false;
        std::size_t at = 0;
        for (; at < rest.size() && (inside || rest[at] != ','); ++at) {
            if (rest[at] == '"') {
                quoted = true;
                inside = !inside;
            } else if (rest[at] == '\\' && at + 1 < rest.size()) {
                element += rest[++at];
            } else if (!inside && rest[at] == '{') {
                does_not_fit(v, "an array of one dimension");
            } else {
                element += rest[at];
            }
        }
        const bool null = !quoted && element == "NULL";
        each(value(null ? nullptr : element.data(), null ? 0 : element.size(), 0, format::text));
        rest.remove_prefix(at < rest.size() ? at + 1 : at);
    }
}

/// The same for the binary format: dimensions, flags, element type; size and lower bound; elements.
template <class Each>
void each_binary_element(const value& v, Each&& each) {
    std::string_view rest = v.raw();
    const auto take = [&](std::size_t size) {
        if (rest.size() < size) {
            does_not_fit(v, "an array");
        }
        const std::string_view taken = rest.substr(0, size);
        rest.remove_prefix(size);
        return taken;
    };
    const auto number = [&] { return static_cast<std::uint32_t>(load_big_endian(take(4).data(), 4)); };
    const std::uint32_t dimensions = number();
    const std::uint32_t flags = number();
    const std::uint32_t type = number();
    if (dimensions > 1 || flags > 1) {
        does_not_fit(v, "an array of one dimension");
    }
    if (dimensions == 0) {
        return;
    }
    const std::uint32_t count = number();
    take(4);
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::uint32_t size = number();
        if (size == 0xffff'ffff) {
            each(value(nullptr, 0, type, format::binary));
        } else {
            const std::string_view element = take(size);
            each(value(element.data(), element.size(), type, format::binary));
        }
    }
    if (!rest.empty()) {
        does_not_fit(v, "an array");
    }
}

template <class Each>
void each_element(const value& v, Each&& each) {
    if (v.is_text()) {
        each_text_element(v, std::forward<Each>(each));
    } else {
        each_binary_element(v, std::forward<Each>(each));
    }
}

}  // namespace detail

template <class T>
struct value_traits<std::vector<T>> {
    static_assert(!detail::is_view<T>::value,
                  "segue: elements of arrays are decoded; read them as owning types");
    static std::vector<T> from_value(const value& v) {
        std::vector<T> elements;
        detail::each_element(v, [&](const value& element) { elements.push_back(element.get<T>()); });
        return elements;
    }
};

/// An array of exactly N elements.
template <class T, std::size_t N>
struct value_traits<std::array<T, N>> {
    static_assert(!detail::is_view<T>::value,
                  "segue: elements of arrays are decoded; read them as owning types");
    static std::array<T, N> from_value(const value& v) {
        std::array<T, N> elements{};
        std::size_t count = 0;
        detail::each_element(v, [&](const value& element) {
            if (count < N) {
                elements[count] = element.get<T>();
            }
            ++count;
        });
        if (count != N) {
            detail::does_not_fit(v, "an array of so many elements");
        }
        return elements;
    }
};

}  // namespace segue

#endif
