// One value of a result, and how it becomes a C++ value.
#ifndef SEGUE_VALUE_HPP
#define SEGUE_VALUE_HPP

#include "bytes.hpp"
#include "error.hpp"
#include "params.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace segue {

/// In which of PostgreSQL's two forms values are asked for.
///
/// Text is the default: every type can be read as a string, and numbers cost next to nothing to read.
/// Binary saves the server the formatting of timestamps, floating-point numbers and bytea.
enum class format : std::int32_t { text = SEGUE_FORMAT_TEXT, binary = SEGUE_FORMAT_BINARY };

class value;

/// How a value becomes a C++ type. Specialise it for types of your own:
///
/// ```cpp
/// template <>
/// struct segue::value_traits<money> {
///     static money from_value(const segue::value& v) { return money::parse(v.get<std::string_view>()); }
/// };
/// ```
///
/// It is not called for NULL, unless it says `static constexpr bool accepts_null = true`. A type that
/// points into the result says `static constexpr bool is_view = true`: it is then refused where the result
/// would be gone at once. Throw conversion_error for what does not fit.
///
/// Built in: bool, the integers (checked for range), float, double, std::string, std::string_view, bytea
/// (vectors of std::byte or unsigned char; bytes_view of binary results), uuid as std::array<std::byte,
/// 16>, system_clock's time points (date, timestamp read as UTC, timestamptz), std::optional, and vectors
/// and arrays of all these (PostgreSQL's arrays of one dimension).
template <class T, class Enable = void>
struct value_traits {
    static T from_value(const value&) {
        static_assert(detail::always_false<T>,
                      "segue: no value can be read as this type; specialise segue::value_traits for it");
    }
};

namespace detail {
template <class T, class = void>
struct accepts_null : std::false_type {};
template <class T>
struct accepts_null<T, std::void_t<decltype(value_traits<T>::accepts_null)>>
    : std::bool_constant<value_traits<T>::accepts_null> {};

template <class T, class = void>
struct is_view : std::false_type {};
template <class T>
struct is_view<T, std::void_t<decltype(value_traits<T>::is_view)>>
    : std::bool_constant<value_traits<T>::is_view> {};
}  // namespace detail

/// A value as the server has sent it. It points into its result, and must not outlive it.
class value {
public:
    /// For traits that take values apart: `data` is null for SQL's NULL.
    value(const char* data, std::size_t size, std::uint32_t type, format form) noexcept
        : data_(data), size_(size), type_(type), format_(form) {}

    [[nodiscard]] bool is_null() const noexcept { return data_ == nullptr; }
    [[nodiscard]] explicit operator bool() const noexcept { return data_ != nullptr; }

    /// The bytes as sent; empty for NULL.
    [[nodiscard]] std::string_view raw() const noexcept {
        return data_ == nullptr ? std::string_view() : std::string_view(data_, size_);
    }

    /// The OID of its type; 0 for an element of an array that came as text.
    [[nodiscard]] std::uint32_t type() const noexcept { return type_; }
    [[nodiscard]] segue::format format() const noexcept { return format_; }
    [[nodiscard]] bool is_text() const noexcept { return format_ == segue::format::text; }

    /// The value as a `T`; throws null_value for NULL, conversion_error if it does not fit.
    template <class T>
    [[nodiscard]] T get() const {
        if constexpr (!detail::accepts_null<T>::value) {
            if (is_null()) {
                throw null_value("the value is NULL; read it as std::optional to allow for that");
            }
        }
        return value_traits<T>::from_value(*this);
    }

    /// The value as a `T`, or `otherwise` for NULL.
    template <class T>
    [[nodiscard]] T get_or(T otherwise) const {
        return is_null() ? std::move(otherwise) : get<T>();
    }

private:
    const char* data_;
    std::size_t size_;
    std::uint32_t type_;
    segue::format format_;
};

namespace detail {

/// Values are never put into a message: they may be secret. Their type is told instead.
[[noreturn]] inline void does_not_fit(const value& v, const char* what) {
    std::string message = "a value ";
    message += v.is_text() ? "that came as text" : "of the type with OID " + std::to_string(v.type());
    message += " cannot be read as ";
    message += what;
    if (!v.is_text()) {
        message += "; ask for format::text if the type is right";
    }
    throw conversion_error(message);
}

inline const char* data_of(const value& v) noexcept { return v.raw().data(); }

}  // namespace detail
}  // namespace segue

#endif
