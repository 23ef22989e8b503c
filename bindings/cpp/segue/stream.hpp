// Rows as they arrive, however many there are.
#ifndef SEGUE_STREAM_HPP
#define SEGUE_STREAM_HPP

#include "result.hpp"

#include <segue.h>

#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

namespace segue {

/// The rows of one statement, fetched a few at a time; a failover in the middle goes on with the next row.
///
/// ```cpp
/// for (auto row : session.stream("SELECT id, name FROM big")) { ... }
/// ```
///
/// While it is open its session takes no other calls (busy_error). It is open until the last row has been
/// read, close() or the destructor. Closing early reads the rest and throws it away: cancel a long one first.
class row_stream {
public:
    /// Rows fetched by one call into the library; they are in memory at once.
    static constexpr std::size_t default_batch = 256;

    /// Takes a handle of the C interface over.
    explicit row_stream(segue_stream* handle) noexcept : handle_(handle) {}
    row_stream(row_stream&&) noexcept = default;
    row_stream& operator=(row_stream&&) noexcept = default;
    row_stream(const row_stream&) = delete;
    row_stream& operator=(const row_stream&) = delete;
    ~row_stream() = default;

    [[nodiscard]] segue_stream* handle() const noexcept { return handle_.get(); }

    /// The next row, which stays valid until the next call; nothing at the end.
    [[nodiscard]] std::optional<row> next() {
        if (at_ == rows_.size()) {
            auto more = next_batch(default_batch);
            if (!more) {
                return std::nullopt;
            }
            rows_ = std::move(*more);
            at_ = 0;
        }
        return rows_[at_++];
    }

    /// The next rows, `rows_max` at most, as a result of their own; nothing at the end.
    [[nodiscard]] std::optional<result> next_batch(std::size_t rows_max) {
        if (!handle_) {
            return std::nullopt;
        }
        segue_result* fetched = nullptr;
        detail::call(segue_stream_next, handle_.get(), rows_max, &fetched);
        if (fetched == nullptr) {
            handle_.reset();
            return std::nullopt;
        }
        return result(fetched);
    }

    /// Ends the stream early.
    void close() noexcept {
        handle_.reset();
        rows_ = result();
        at_ = 0;
    }

    /// Goes over the rows that are left, once. A row is valid until the iterator moves on.
    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = row;
        using difference_type = std::ptrdiff_t;
        using pointer = const row*;
        using reference = const row&;

        iterator() noexcept = default;
        explicit iterator(row_stream& stream) : stream_(&stream) { ++*this; }
        reference operator*() const noexcept { return *row_; }
        pointer operator->() const noexcept { return &*row_; }
        iterator& operator++() {
            row_ = stream_->next();
            if (!row_) {
                stream_ = nullptr;
            }
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(const iterator& a, const iterator& b) noexcept {
            return a.stream_ == b.stream_;
        }
        friend bool operator!=(const iterator& a, const iterator& b) noexcept {
            return a.stream_ != b.stream_;
        }

    private:
        row_stream* stream_ = nullptr;
        std::optional<row> row_;
    };

    [[nodiscard]] iterator begin() { return iterator(*this); }
    [[nodiscard]] iterator end() const noexcept { return {}; }

private:
    std::unique_ptr<segue_stream, detail::freed_by<&segue_stream_free>> handle_;
    result rows_;
    std::size_t at_ = 0;
};

}  // namespace segue

#endif
