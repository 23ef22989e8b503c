// Results: ranges over rows. A result is immutable; any thread may read it.
#ifndef SEGUE_RESULT_HPP
#define SEGUE_RESULT_HPP

#include "row.hpp"

#include <segue.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace segue {

template <class... Ts>
class typed_rows;

/// A result that somebody else owns: a result, or a batch. As cheap to copy as a pointer.
class result_view {
public:
    using value_type = row;
    using iterator = detail::index_iterator<result_view>;
    using const_iterator = iterator;

    result_view() noexcept = default;
    /// Of a handle of the C interface, which stays the caller's; null is an empty result.
    explicit result_view(const segue_result* handle) noexcept
        : handle_(handle),
          rows_(segue_result_row_count(handle)),
          columns_(segue_result_column_count(handle)),
          format_(segue_result_format(handle) == SEGUE_FORMAT_BINARY ? format::binary : format::text) {}

    [[nodiscard]] const segue_result* handle() const noexcept { return handle_; }

    /// The number of rows.
    [[nodiscard]] std::size_t size() const noexcept { return rows_; }
    [[nodiscard]] bool empty() const noexcept { return rows_ == 0; }

    /// A row, from 0; throws invalid_argument if there is no such row.
    [[nodiscard]] row operator[](std::size_t index) const {
        if (index >= rows_) {
            throw invalid_argument(
                "there is no row " + std::to_string(index) + ": the result has " + std::to_string(rows_),
                outcome::unknown);
        }
        return at_unchecked(index);
    }
    [[nodiscard]] row front() const { return (*this)[0]; }
    [[nodiscard]] row back() const { return (*this)[rows_ == 0 ? 0 : rows_ - 1]; }

    [[nodiscard]] iterator begin() const { return {*this, 0}; }
    [[nodiscard]] iterator end() const { return {*this, rows_}; }

    /// As `[]`, without the check.
    [[nodiscard]] row at_unchecked(std::size_t index) const noexcept {
        return {handle_, index, columns_, format_};
    }

    /// The rows as values: `for (auto [id, name] : result.as<int, std::string>())`; see row::as.
    template <class... Ts>
    [[nodiscard]] typed_rows<Ts...> as() const {
        return typed_rows<Ts...>(*this);
    }

    /// The number of columns.
    [[nodiscard]] std::size_t column_count() const noexcept { return columns_; }
    /// The name of a column; empty if there is no such column.
    [[nodiscard]] std::string_view column_name(std::size_t column) const noexcept {
        const char* name = segue_result_column_name(handle_, column);
        return name == nullptr ? std::string_view() : std::string_view(name);
    }
    /// The number of the first column of that name.
    [[nodiscard]] std::optional<std::size_t> column_index(zstring name) const noexcept {
        const std::int32_t found = segue_result_column(handle_, name.c_str());
        return found < 0 ? std::nullopt : std::optional<std::size_t>(static_cast<std::size_t>(found));
    }
    /// The OID of a column's type; 0 if there is no such column.
    [[nodiscard]] std::uint32_t column_type(std::size_t column) const noexcept {
        return segue_result_column_type(handle_, column);
    }
    /// The type's modifier, such as the length of a varchar plus 4; -1 if there is none.
    [[nodiscard]] std::int32_t column_modifier(std::size_t column) const noexcept {
        return segue_result_column_modifier(handle_, column);
    }
    /// The OID of the table that a column is of; 0 if it is of none.
    [[nodiscard]] std::uint32_t column_table(std::size_t column) const noexcept {
        return segue_result_column_table(handle_, column);
    }

    /// In which form the values came.
    [[nodiscard]] segue::format format() const noexcept { return format_; }
    /// What the server said of the statement, such as `INSERT 0 1`.
    [[nodiscard]] std::string_view tag() const noexcept {
        const char* tag = segue_result_tag(handle_);
        return tag == nullptr ? std::string_view() : std::string_view(tag);
    }
    /// How many rows the statement affected or returned.
    [[nodiscard]] std::uint64_t rows_affected() const noexcept { return segue_result_rows_affected(handle_); }

private:
    const segue_result* handle_ = nullptr;
    std::size_t rows_ = 0;
    std::size_t columns_ = 0;
    segue::format format_ = segue::format::text;
};

/// Rows as values, made as they are read. It points into the result.
template <class... Ts>
class typed_rows {
public:
    using value_type = detail::as_t<Ts...>;
    using iterator = detail::index_iterator<typed_rows>;
    using const_iterator = iterator;

    typed_rows() noexcept = default;
    explicit typed_rows(result_view rows) noexcept : rows_(rows) {}

    [[nodiscard]] std::size_t size() const noexcept { return rows_.size(); }
    [[nodiscard]] bool empty() const noexcept { return rows_.empty(); }
    [[nodiscard]] value_type operator[](std::size_t index) const { return rows_[index].template as<Ts...>(); }
    [[nodiscard]] value_type at_unchecked(std::size_t index) const {
        return rows_.at_unchecked(index).template as<Ts...>();
    }
    [[nodiscard]] iterator begin() const { return {*this, 0}; }
    [[nodiscard]] iterator end() const { return {*this, rows_.size()}; }

private:
    result_view rows_;
};

template <class... Ts>
class owned_typed_rows;

/// What a statement returned. Movable; a moved-from result is empty.
class result : public result_view {
public:
    result() noexcept = default;
    /// Takes a handle of the C interface over.
    explicit result(segue_result* handle) noexcept : result_view(handle), owned_(handle) {}
    result(result&& other) noexcept
        : result_view(std::exchange(static_cast<result_view&>(other), {})), owned_(std::move(other.owned_)) {}
    result& operator=(result&& other) noexcept {
        static_cast<result_view&>(*this) = std::exchange(static_cast<result_view&>(other), {});
        owned_ = std::move(other.owned_);
        return *this;
    }
    result(const result&) = delete;
    result& operator=(const result&) = delete;
    ~result() = default;

    /// See result_view::as.
    template <class... Ts>
    [[nodiscard]] typed_rows<Ts...> as() const& {
        return result_view::as<Ts...>();
    }
    /// Of a temporary: takes the result along, so that
    /// `for (auto [id, name] : session.query(...).as<int, std::string>())` is sound.
    template <class... Ts>
    [[nodiscard]] owned_typed_rows<Ts...> as() && {
        return owned_typed_rows<Ts...>(std::move(*this));
    }

private:
    std::unique_ptr<segue_result, detail::freed_by<&segue_result_free>> owned_;
};

/// As typed_rows, together with the result itself.
template <class... Ts>
class owned_typed_rows {
public:
    using value_type = detail::as_t<Ts...>;
    using iterator = typename typed_rows<Ts...>::iterator;
    using const_iterator = iterator;

    explicit owned_typed_rows(segue::result&& rows) noexcept : rows_(std::move(rows)) {}

    [[nodiscard]] std::size_t size() const noexcept { return rows_.size(); }
    [[nodiscard]] bool empty() const noexcept { return rows_.empty(); }
    [[nodiscard]] value_type operator[](std::size_t index) const { return rows_[index].template as<Ts...>(); }
    [[nodiscard]] iterator begin() const { return rows_.as<Ts...>().begin(); }
    [[nodiscard]] iterator end() const { return rows_.as<Ts...>().end(); }

private:
    segue::result rows_;
};

/// The results of a string of several statements, in order.
class batch {
public:
    using value_type = result_view;
    using iterator = std::vector<result_view>::const_iterator;
    using const_iterator = iterator;

    /// Takes a chain of results of the C interface over.
    explicit batch(segue_result* first) : owned_(first) {
        for (const segue_result* at = first; at != nullptr; at = segue_result_next(at)) {
            results_.emplace_back(at);
        }
    }

    [[nodiscard]] const segue_result* handle() const noexcept { return owned_.get(); }
    [[nodiscard]] std::size_t size() const noexcept { return results_.size(); }
    [[nodiscard]] bool empty() const noexcept { return results_.empty(); }
    [[nodiscard]] const result_view& operator[](std::size_t index) const {
        if (index >= results_.size()) {
            throw invalid_argument("the batch has " + std::to_string(results_.size()) + " results",
                                   outcome::unknown);
        }
        return results_[index];
    }
    [[nodiscard]] iterator begin() const noexcept { return results_.begin(); }
    [[nodiscard]] iterator end() const noexcept { return results_.end(); }

private:
    std::unique_ptr<segue_result, detail::freed_by<&segue_result_free>> owned_;
    std::vector<result_view> results_;
};

}  // namespace segue

#endif
