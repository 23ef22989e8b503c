// Parameters of statements: C++ values as $1, $2 and so on.
#ifndef SEGUE_PARAMS_HPP
#define SEGUE_PARAMS_HPP

#include "bytes.hpp"
#include "error.hpp"
#include "text.hpp"
#include "time.hpp"

#include <segue.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#if __has_include(<version>)
#include <version>
#endif
#if defined(__cpp_lib_span)
#include <span>
#endif

namespace segue {

namespace detail {
template <class>
constexpr bool always_false = false;
}

/// Where a type needs no room of its own for the form in which it is sent.
struct no_storage {};

/// How a C++ type is passed as a parameter. Specialise it for types of your own:
///
/// ```cpp
/// template <>
/// struct segue::param_traits<money> {
///     using storage = std::string;  // lives until the call has ended
///     static segue_param to_param(const money& value, storage& room) {
///         room = to_string(value);
///         return segue_param_text_sized(room.data(), room.size());
///     }
/// };
/// ```
///
/// Built in: bool, the integers (unsigned ones as the next wider type; an unsigned 64-bit number that
/// does not fit int8 throws conversion_error), float, double, text (`const char*`, string, string_view;
/// sent with its type open, so that it serves for dates, numeric, JSON, uuid or enums as well), bytea
/// (bytes_view, vectors and arrays of std::byte, vectors of unsigned char, std::span of std::byte),
/// system_clock's time points (timestamptz; those that count days: date), nullptr and std::nullopt
/// (NULL), std::optional, and vectors and arrays of all these (PostgreSQL's arrays, as for `= ANY($1)`).
template <class T, class Enable = void>
struct param_traits {
    static_assert(detail::always_false<T>,
                  "segue: this type is no parameter; specialise segue::param_traits for it");
    using storage = no_storage;
    static segue_param to_param(const T&, storage&) noexcept;
};

template <>
struct param_traits<bool> {
    using storage = no_storage;
    static segue_param to_param(bool value, storage&) noexcept { return segue_param_bool(value); }
};

/// Integers; characters are excluded, since nobody can tell whether a number or a text is meant.
template <class T>
struct param_traits<T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool> &&
                                        !std::is_same_v<T, char> && !std::is_same_v<T, wchar_t> &&
                                        !std::is_same_v<T, char16_t> && !std::is_same_v<T, char32_t>>> {
    using storage = no_storage;
    static segue_param to_param(T value, storage&) {
        using limits = std::numeric_limits<T>;
        if constexpr (limits::digits <= 15) {
            return segue_param_int2(static_cast<std::int16_t>(value));
        } else if constexpr (limits::digits <= 31) {
            return segue_param_int4(static_cast<std::int32_t>(value));
        } else if constexpr (limits::digits <= 63) {
            return segue_param_int8(static_cast<std::int64_t>(value));
        } else {
            if (value > static_cast<T>(std::numeric_limits<std::int64_t>::max())) {
                throw conversion_error("an unsigned parameter is too large for int8; nothing was sent",
                                       outcome::not_committed);
            }
            return segue_param_int8(static_cast<std::int64_t>(value));
        }
    }
};

template <>
struct param_traits<float> {
    using storage = no_storage;
    static segue_param to_param(float value, storage&) noexcept { return segue_param_float4(value); }
};

template <>
struct param_traits<double> {
    using storage = no_storage;
    static segue_param to_param(double value, storage&) noexcept { return segue_param_float8(value); }
};

template <>
struct param_traits<std::string_view> {
    using storage = no_storage;
    static segue_param to_param(std::string_view value, storage&) noexcept {
        // A default-made view has no data, and would be taken for NULL.
        return segue_param_text_sized(value.data() == nullptr ? "" : value.data(), value.size());
    }
};

template <>
struct param_traits<std::string> : param_traits<std::string_view> {};

/// A null pointer is SQL's NULL.
template <>
struct param_traits<const char*> {
    using storage = no_storage;
    static segue_param to_param(const char* value, storage&) noexcept { return segue_param_text(value); }
};
template <>
struct param_traits<char*> : param_traits<const char*> {};
template <std::size_t N>
struct param_traits<char[N]> : param_traits<const char*> {};

template <>
struct param_traits<bytes_view> {
    using storage = no_storage;
    static segue_param to_param(bytes_view value, storage&) noexcept {
        return segue_param_bytea(value.data() == nullptr ? "" : static_cast<const void*>(value.data()),
                                 value.size());
    }
};

namespace detail {
/// Any contiguous container of bytes.
template <class Container>
struct bytes_param {
    using storage = no_storage;
    static segue_param to_param(const Container& value, storage& room) noexcept {
        return param_traits<bytes_view>::to_param(bytes_view(value.data(), value.size()), room);
    }
};
}  // namespace detail

template <>
struct param_traits<std::vector<std::byte>> : detail::bytes_param<std::vector<std::byte>> {};
template <>
struct param_traits<std::vector<unsigned char>> : detail::bytes_param<std::vector<unsigned char>> {};
template <std::size_t N>
struct param_traits<std::array<std::byte, N>> : detail::bytes_param<std::array<std::byte, N>> {};
#if defined(__cpp_lib_span)
template <std::size_t Extent>
struct param_traits<std::span<const std::byte, Extent>>
    : detail::bytes_param<std::span<const std::byte, Extent>> {};
template <std::size_t Extent>
struct param_traits<std::span<std::byte, Extent>> : detail::bytes_param<std::span<std::byte, Extent>> {};
#endif

template <>
struct param_traits<std::nullptr_t> {
    using storage = no_storage;
    static segue_param to_param(std::nullptr_t, storage&) noexcept { return segue_param_null(); }
};
template <>
struct param_traits<std::nullopt_t> {
    using storage = no_storage;
    static segue_param to_param(std::nullopt_t, storage&) noexcept { return segue_param_null(); }
};

template <class T>
struct param_traits<std::optional<T>> {
    using storage = typename param_traits<T>::storage;
    static segue_param to_param(const std::optional<T>& value, storage& room) {
        return value ? param_traits<T>::to_param(*value, room) : segue_param_null();
    }
};

/// timestamptz; what counts whole days is a date.
template <class Duration>
struct param_traits<std::chrono::time_point<std::chrono::system_clock, Duration>> {
    using storage = std::array<unsigned char, 8>;
    static segue_param to_param(std::chrono::time_point<std::chrono::system_clock, Duration> value,
                                storage& room) {
        const std::int64_t micros = detail::postgres_micros_of(value);
        if constexpr (detail::is_date<Duration>) {
            detail::store_big_endian(
                room.data(), static_cast<std::uint64_t>(detail::floor_div(micros, detail::micros_per_day)),
                4);
            return segue_param_value(detail::oid::date, SEGUE_FORMAT_BINARY, room.data(), 4);
        } else {
            detail::store_big_endian(room.data(), static_cast<std::uint64_t>(micros), 8);
            return segue_param_value(detail::oid::timestamptz, SEGUE_FORMAT_BINARY, room.data(), 8);
        }
    }
};

namespace detail {
/// A sequence as a PostgreSQL array of one dimension.
template <class Container>
struct array_param {
    using storage = std::string;
    static segue_param to_param(const Container& values, storage& room) {
        using element = typename Container::value_type;
        std::uint32_t type = 0;
        room = '{';
        for (const auto& value : values) {
            typename param_traits<element>::storage element_room;
            const segue_param param =
                param_traits<element>::to_param(static_cast<const element&>(value), element_room);
            if (param.kind != SEGUE_PARAM_NULL) {
                type = array_oid(param.type_oid);
            }
            if (room.size() > 1) {
                room += ',';
            }
            append_element(room, param);
        }
        room += '}';
        return segue_param_value(type, SEGUE_FORMAT_TEXT, room.data(), room.size());
    }
};
}  // namespace detail

template <class T>
struct param_traits<std::vector<T>> : detail::array_param<std::vector<T>> {};
template <class T, std::size_t N>
struct param_traits<std::array<T, N>> : detail::array_param<std::array<T, N>> {};

/// A list of parameters whose length is known at run time only. It owns copies of the values.
///
/// ```cpp
/// segue::params list;
/// for (int id : ids) list.add(id);
/// session.execute(sql, list);
/// ```
class params {
public:
    params() = default;
    params(params&&) = default;
    params& operator=(params&&) = default;
    // The parameters point into the copies, so a copy of the list would point into the original.
    params(const params&) = delete;
    params& operator=(const params&) = delete;

    template <class T>
    params& add(const T& value) {
        typename param_traits<T>::storage room{};
        segue_param param = param_traits<T>::to_param(value, room);
        if (param.kind == SEGUE_PARAM_TEXT || param.kind == SEGUE_PARAM_BINARY) {
            // A deque's elements stay where they are when it grows or is moved.
            const std::string& copy =
                copies_.emplace_back(static_cast<const char*>(param.data), param.length);
            param.data = copy.data();
        }
        list_.push_back(param);
        return *this;
    }

    [[nodiscard]] std::size_t size() const noexcept { return list_.size(); }
    [[nodiscard]] const segue_param* data() const noexcept { return list_.data(); }
    void clear() noexcept {
        list_.clear();
        copies_.clear();
    }

private:
    std::vector<segue_param> list_;
    std::deque<std::string> copies_;
};

namespace detail {

/// The parameters of one call, on the stack: nothing is allocated but what a type's own storage needs.
template <class... Values>
class param_pack {
public:
    explicit param_pack(const Values&... values)
        : param_pack(std::index_sequence_for<Values...>(), values...) {}
    param_pack(const param_pack&) = delete;
    param_pack& operator=(const param_pack&) = delete;

    [[nodiscard]] const segue_param* data() const noexcept { return params_.data(); }
    [[nodiscard]] std::size_t size() const noexcept { return sizeof...(Values); }

private:
    template <std::size_t... Index>
    explicit param_pack(std::index_sequence<Index...>, const Values&... values)
        : params_{{param_traits<Values>::to_param(values, std::get<Index>(storage_))...}} {}

    // Before the parameters, which point into it.
    std::tuple<typename param_traits<Values>::storage...> storage_;
    std::array<segue_param, sizeof...(Values)> params_;
};

template <>
class param_pack<> {
public:
    [[nodiscard]] static const segue_param* data() noexcept { return nullptr; }
    [[nodiscard]] static std::size_t size() noexcept { return 0; }
};

template <>
class param_pack<params> {
public:
    explicit param_pack(const params& list) noexcept : list_(list) {}
    [[nodiscard]] const segue_param* data() const noexcept { return list_.data(); }
    [[nodiscard]] std::size_t size() const noexcept { return list_.size(); }

private:
    const params& list_;
};

}  // namespace detail
}  // namespace segue

#endif
