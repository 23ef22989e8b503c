// Values as PostgreSQL's text, for arrays and COPY; and numbers, whatever the process's locale says.
#ifndef SEGUE_TEXT_HPP
#define SEGUE_TEXT_HPP

#include "bytes.hpp"
#include "error.hpp"
#include "time.hpp"

#include <segue.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <locale>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>

namespace segue {
namespace detail {

template <class Number>
void append_integer(std::string& out, Number value) {
    char buffer[24];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value);
    out.append(buffer, end.ptr);
}

/// The shortest text that reads back as the same number.
template <class Float>
void append_float(std::string& out, Float value) {
    if (std::isnan(value)) {
        out += "NaN";
    } else if (std::isinf(value)) {
        out += value < 0 ? "-Infinity" : "Infinity";
    } else {
#if defined(__cpp_lib_to_chars)
        char buffer[64];
        out.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
#else
        std::ostringstream stream;
        stream.imbue(std::locale::classic());
        stream.precision(std::numeric_limits<Float>::max_digits10);
        stream << value;
        out += stream.str();
#endif
    }
}

/// Whether all of `text` is a number, which goes to `out`.
template <class Float>
bool parse_float(std::string_view text, Float& out) {
    if (text == "NaN") {
        out = std::numeric_limits<Float>::quiet_NaN();
        return true;
    }
    if (text == "Infinity" || text == "-Infinity") {
        out = text.front() == '-' ? -std::numeric_limits<Float>::infinity()
                                  : std::numeric_limits<Float>::infinity();
        return true;
    }
#if defined(__cpp_lib_to_chars)
    const auto end = std::from_chars(text.data(), text.data() + text.size(), out);
    return end.ec == std::errc() && end.ptr == text.data() + text.size();
#else
    std::istringstream stream{std::string(text)};
    stream.imbue(std::locale::classic());
    stream >> out;
    return !stream.fail() && stream.peek() == std::istringstream::traits_type::eof();
#endif
}

inline void append_hex(std::string& out, const char* data, std::size_t size) {
    static constexpr char digits[] = "0123456789abcdef";
    out += "\\x";
    for (std::size_t i = 0; i < size; ++i) {
        const auto byte = static_cast<unsigned char>(data[i]);
        out += digits[byte >> 4];
        out += digits[byte & 0xf];
    }
}

/// The value of a hexadecimal digit, or -1.
constexpr int hex_digit(char c) noexcept {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

inline void append_binary(std::string& out, const segue_param& param) {
    const auto* data = static_cast<const char*>(param.data);
    if (param.type_oid == oid::bytea) {
        append_hex(out, data, param.length);
    } else if (param.type_oid == oid::timestamptz && param.length == 8) {
        const auto micros = static_cast<std::int64_t>(load_big_endian(data, 8));
        out += iso_text(micros + days_to_postgres_epoch * micros_per_day, true);
    } else if (param.type_oid == oid::date && param.length == 4) {
        const auto days = static_cast<std::int32_t>(static_cast<std::uint32_t>(load_big_endian(data, 4)));
        out += iso_text((days + days_to_postgres_epoch) * micros_per_day, false);
    } else {
        throw conversion_error(
            "a parameter in binary format cannot be put into an array or a COPY row; "
            "give its param_traits the text format",
            outcome::not_committed);
    }
}

/// Appends a parameter that is not NULL as PostgreSQL would write it.
inline void append_param(std::string& out, const segue_param& param) {
    switch (param.kind) {
        case SEGUE_PARAM_BOOL: out += param.integer != 0 ? 't' : 'f'; break;
        case SEGUE_PARAM_INT: append_integer(out, param.integer); break;
        case SEGUE_PARAM_FLOAT:
            if (param.type_oid == oid::float4) {
                append_float(out, static_cast<float>(param.real));
            } else {
                append_float(out, param.real);
            }
            break;
        case SEGUE_PARAM_TEXT:
            if (param.length > 0) {
                out.append(static_cast<const char*>(param.data), param.length);
            }
            break;
        default: append_binary(out, param);
    }
}

/// Appends an element of an array's literal.
inline void append_element(std::string& out, const segue_param& param) {
    if (param.kind == SEGUE_PARAM_NULL) {
        out += "NULL";
        return;
    }
    std::string plain;
    append_param(plain, param);
    if (param.kind != SEGUE_PARAM_TEXT && param.kind != SEGUE_PARAM_BINARY) {
        out += plain;
        return;
    }
    out += '"';
    for (const char c : plain) {
        if (c == '"' || c == '\\') {
            out += '\\';
        }
        out += c;
    }
    out += '"';
}

/// Appends a column of COPY's text format.
inline void append_copy_column(std::string& out, const segue_param& param) {
    if (param.kind == SEGUE_PARAM_NULL) {
        out += "\\N";
        return;
    }
    std::string plain;
    append_param(plain, param);
    for (const char c : plain) {
        switch (c) {
            case '\\': out += "\\\\"; break;
            case '\n': out += "\\n"; break;
            case '\r': out += "\\r"; break;
            case '\t': out += "\\t"; break;
            default: out += c;
        }
    }
}

/// The array type of a parameter's type; 0, which lets the server infer it, where there is no need.
constexpr std::uint32_t array_oid(std::uint32_t element) noexcept {
    switch (element) {
        case oid::boolean: return 1000;
        case oid::bytea: return 1001;
        case oid::int2: return 1005;
        case oid::int4: return 1007;
        case oid::int8: return 1016;
        case oid::oid: return 1028;
        case oid::float4: return 1021;
        case oid::float8: return 1022;
        case oid::date: return 1182;
        case oid::timestamptz: return 1185;
        default: return 0;
    }
}

}  // namespace detail
}  // namespace segue

#endif
