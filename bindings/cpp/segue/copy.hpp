// COPY: bulk data into and out of tables.
#ifndef SEGUE_COPY_HPP
#define SEGUE_COPY_HPP

#include "bytes.hpp"
#include "error.hpp"
#include "params.hpp"
#include "text.hpp"
#include "zstring.hpp"

#include <segue.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace segue {

/// COPY ... FROM STDIN under way. Call finish(): the destructor aborts what is not finished.
///
/// ```cpp
/// auto copy = session.copy_in("COPY account (id, owner) FROM STDIN");
/// copy.write_row(1, "Ada");
/// copy.write_row(2, std::nullopt);
/// copy.finish();
/// ```
class copy_in {
public:
    /// Takes a handle of the C interface over.
    explicit copy_in(segue_copy_in* handle) noexcept : handle_(handle) {}
    copy_in(copy_in&&) noexcept = default;
    copy_in& operator=(copy_in&&) noexcept = default;
    copy_in(const copy_in&) = delete;
    copy_in& operator=(const copy_in&) = delete;
    ~copy_in() = default;

    [[nodiscard]] segue_copy_in* handle() const noexcept { return handle_.get(); }

    /// Sends a piece of data in the form that the statement names; pieces need not end where rows do.
    void write(std::string_view data) {
        detail::call(segue_copy_in_write, handle_.get(),
                     static_cast<const void*>(data.data() == nullptr ? "" : data.data()), data.size());
    }
    void write(bytes_view data) {
        write(std::string_view(reinterpret_cast<const char*>(data.data()), data.size()));
    }

    /// Sends a row in COPY's text format (the default one, not CSV), made of anything that could be a
    /// parameter.
    template <class First, class... More>
    void write_row(const First& first, const More&... more) {
        row_.clear();
        append(first);
        ((row_ += '\t', append(more)), ...);
        row_ += '\n';
        write(std::string_view(row_));
    }

    /// Ends the COPY; the number of rows.
    std::uint64_t finish() {
        std::uint64_t rows = 0;
        detail::call(segue_copy_in_finish, handle_.get(), &rows);
        handle_.reset();
        return rows;
    }

    /// Makes the COPY fail for a reason of the application's; nothing of it stays.
    void abort(zstring reason) {
        try {
            detail::call(segue_copy_in_abort, handle_.get(), reason.c_str());
        } catch (const query_canceled&) {
            // This is the failure that was asked for.
        }
        handle_.reset();
    }

private:
    template <class T>
    void append(const T& value) {
        typename param_traits<T>::storage room{};
        detail::append_copy_column(row_, param_traits<T>::to_param(value, room));
    }

    std::unique_ptr<segue_copy_in, detail::freed_by<&segue_copy_in_free>> handle_;
    std::string row_;
};

/// COPY ... TO STDOUT under way: the data, piece by piece; a piece of the text formats is a row.
///
/// ```cpp
/// for (std::string_view line : session.copy_out("COPY account TO STDOUT")) { ... }
/// ```
class copy_out {
public:
    /// Takes a handle of the C interface over.
    explicit copy_out(segue_copy_out* handle) noexcept : handle_(handle) {}
    copy_out(copy_out&&) noexcept = default;
    copy_out& operator=(copy_out&&) noexcept = default;
    copy_out(const copy_out&) = delete;
    copy_out& operator=(const copy_out&) = delete;
    ~copy_out() = default;

    [[nodiscard]] segue_copy_out* handle() const noexcept { return handle_.get(); }

    /// The next piece, valid until the next call; nothing at the end.
    [[nodiscard]] std::optional<std::string_view> read() {
        if (!handle_) {
            return std::nullopt;
        }
        const void* data = nullptr;
        std::size_t length = 0;
        detail::call(segue_copy_out_read, handle_.get(), &data, &length);
        if (data == nullptr) {
            handle_.reset();
            return std::nullopt;
        }
        return std::string_view(static_cast<const char*>(data), length);
    }

    /// Ends it early: the rest is read and thrown away.
    void close() noexcept { handle_.reset(); }

    /// Goes over the pieces that are left, once.
    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = std::string_view;
        using difference_type = std::ptrdiff_t;
        using pointer = const std::string_view*;
        using reference = const std::string_view&;

        iterator() noexcept = default;
        explicit iterator(copy_out& copy) : copy_(&copy) { ++*this; }
        reference operator*() const noexcept { return piece_; }
        pointer operator->() const noexcept { return &piece_; }
        iterator& operator++() {
            if (const auto piece = copy_->read()) {
                piece_ = *piece;
            } else {
                copy_ = nullptr;
            }
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(const iterator& a, const iterator& b) noexcept { return a.copy_ == b.copy_; }
        friend bool operator!=(const iterator& a, const iterator& b) noexcept { return a.copy_ != b.copy_; }

    private:
        copy_out* copy_ = nullptr;
        std::string_view piece_;
    };

    [[nodiscard]] iterator begin() { return iterator(*this); }
    [[nodiscard]] iterator end() const noexcept { return {}; }

private:
    std::unique_ptr<segue_copy_out, detail::freed_by<&segue_copy_out_free>> handle_;
};

}  // namespace segue

#endif
