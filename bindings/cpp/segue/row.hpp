// A row of a result: values by number and by name, and rows as tuples and structs.
#ifndef SEGUE_ROW_HPP
#define SEGUE_ROW_HPP

#include "iterator.hpp"
#include "values.hpp"
#include "zstring.hpp"

#include <segue.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

namespace segue {

class row;

/// How a whole row becomes a C++ type; specialise it to read rows as structs with `as<T>()`:
///
/// ```cpp
/// template <>
/// struct segue::row_traits<account> {
///     static account from_row(const segue::row& r) { return {r.get<int>("id"), r.get<std::string>("owner")};
///     }
/// };
/// ```
template <class T, class Enable = void>
struct row_traits {};

namespace detail {

template <class T, class = void>
struct has_row_traits : std::false_type {};
template <class T>
struct has_row_traits<T, std::void_t<decltype(row_traits<T>::from_row(std::declval<const row&>()))>>
    : std::true_type {};

/// What `as<Ts...>()` gives: the type itself if there is one, a tuple if there are several.
template <class... Ts>
struct as_type {
    using type = std::tuple<Ts...>;
};
template <class T>
struct as_type<T> {
    using type = T;
};
template <class... Ts>
using as_t = typename as_type<Ts...>::type;

template <class... Ts>
constexpr bool any_view = (is_view<Ts>::value || ...);

}  // namespace detail

/// One row. It points into its result, as cheap to copy as a pointer, and must not outlive it.
class row {
public:
    using iterator = detail::index_iterator<row>;
    using const_iterator = iterator;

    row() noexcept = default;
    /// For the library; `index` is in range.
    row(const segue_result* handle, std::size_t index, std::size_t columns, format form) noexcept
        : handle_(handle), index_(index), columns_(columns), format_(form) {}

    /// The number of columns.
    [[nodiscard]] std::size_t size() const noexcept { return columns_; }
    /// Which row of its result it is, from 0.
    [[nodiscard]] std::size_t index() const noexcept { return index_; }

    /// The value of a column, from 0; throws invalid_argument if there is no such column.
    [[nodiscard]] value operator[](std::size_t column) const {
        if (column >= columns_) {
            throw invalid_argument(
                "there is no column " + std::to_string(column) + ": the row has " + std::to_string(columns_),
                outcome::unknown);
        }
        return at_unchecked(column);
    }
    /// The value of a column by name; of several of one name, the first.
    [[nodiscard]] value operator[](zstring column) const { return at_unchecked(find(column)); }
    /// So that the literal 0 is a number, not a null pointer.
    [[nodiscard]] value operator[](int column) const { return (*this)[to_index(column)]; }

    /// The value of a column as a `T`.
    template <class T>
    [[nodiscard]] T get(std::size_t column) const {
        return (*this)[column].template get<T>();
    }
    template <class T>
    [[nodiscard]] T get(zstring column) const {
        return (*this)[column].template get<T>();
    }
    template <class T>
    [[nodiscard]] T get(int column) const {
        return (*this)[column].template get<T>();
    }

    [[nodiscard]] bool is_null(std::size_t column) const { return (*this)[column].is_null(); }
    [[nodiscard]] bool is_null(zstring column) const { return (*this)[column].is_null(); }
    [[nodiscard]] bool is_null(int column) const { return (*this)[column].is_null(); }

    /// The whole row: `as<int>()` is an int, `as<int, std::string>()` a tuple, `as<account>()` what
    /// row_traits<account> makes of it. The number of columns must be that of the types.
    template <class... Ts>
    [[nodiscard]] detail::as_t<Ts...> as() const {
        static_assert(sizeof...(Ts) > 0);
        if constexpr (sizeof...(Ts) == 1 && (detail::has_row_traits<Ts>::value && ...)) {
            return row_traits<detail::as_t<Ts...>>::from_row(*this);
        } else {
            if (sizeof...(Ts) != columns_) {
                throw invalid_argument("a row of " + std::to_string(columns_) +
                                           " columns was to be read as " + std::to_string(sizeof...(Ts)) +
                                           " values",
                                       outcome::unknown);
            }
            return as_values<Ts...>(std::index_sequence_for<Ts...>());
        }
    }

    [[nodiscard]] iterator begin() const { return {*this, 0}; }
    [[nodiscard]] iterator end() const { return {*this, columns_}; }

    /// As `[]`, without the check.
    [[nodiscard]] value at_unchecked(std::size_t column) const noexcept {
        std::size_t length = 0;
        const void* data = segue_result_value(handle_, index_, column, &length);
        return {static_cast<const char*>(data), length, segue_result_column_type(handle_, column), format_};
    }

private:
    template <class... Ts, std::size_t... Index>
    detail::as_t<Ts...> as_values(std::index_sequence<Index...>) const {
        if constexpr (sizeof...(Ts) == 1) {
            return at_unchecked(0).template get<Ts...>();
        } else {
            return std::tuple<Ts...>{at_unchecked(Index).template get<Ts>()...};
        }
    }

    [[nodiscard]] std::size_t find(zstring column) const {
        const std::int32_t found = segue_result_column(handle_, column.c_str());
        if (found < 0) {
            throw invalid_argument(std::string("there is no column ") + detail::copied(column.c_str()),
                                   outcome::unknown);
        }
        return static_cast<std::size_t>(found);
    }

    static std::size_t to_index(int column) {
        if (column < 0) {
            throw invalid_argument("a column's number is not negative", outcome::unknown);
        }
        return static_cast<std::size_t>(column);
    }

    const segue_result* handle_ = nullptr;
    std::size_t index_ = 0;
    std::size_t columns_ = 0;
    format format_ = format::text;
};

}  // namespace segue

#endif
