// One random access iterator for everything that is read by index.
#ifndef SEGUE_ITERATOR_HPP
#define SEGUE_ITERATOR_HPP

#include <cstddef>
#include <iterator>
#include <utility>

namespace segue::detail {

/// Iterates over `Sequence`, a cheap view with `at_unchecked(index)`, which makes elements on the fly.
template <class Sequence>
class index_iterator {
public:
    using iterator_category = std::random_access_iterator_tag;
    using difference_type = std::ptrdiff_t;
    using reference = decltype(std::declval<const Sequence&>().at_unchecked(std::size_t{}));
    using value_type = std::remove_cv_t<std::remove_reference_t<reference>>;

    /// Holds the element while `->` looks at it.
    class pointer {
    public:
        explicit pointer(value_type&& element) : element_(std::move(element)) {}
        const value_type* operator->() const noexcept { return &element_; }

    private:
        value_type element_;
    };

    index_iterator() = default;
    index_iterator(const Sequence& sequence, std::size_t at)
        : sequence_(sequence), at_(static_cast<difference_type>(at)) {}

    reference operator*() const { return sequence_.at_unchecked(static_cast<std::size_t>(at_)); }
    pointer operator->() const { return pointer(**this); }
    reference operator[](difference_type by) const { return *(*this + by); }

    index_iterator& operator++() noexcept { return *this += 1; }
    index_iterator& operator--() noexcept { return *this += -1; }
    index_iterator operator++(int) {
        index_iterator before = *this;
        ++*this;
        return before;
    }
    index_iterator operator--(int) {
        index_iterator before = *this;
        --*this;
        return before;
    }
    index_iterator& operator+=(difference_type by) noexcept {
        at_ += by;
        return *this;
    }
    index_iterator& operator-=(difference_type by) noexcept { return *this += -by; }

    friend index_iterator operator+(index_iterator i, difference_type by) { return i += by; }
    friend index_iterator operator+(difference_type by, index_iterator i) { return i += by; }
    friend index_iterator operator-(index_iterator i, difference_type by) { return i -= by; }
    friend difference_type operator-(const index_iterator& a, const index_iterator& b) noexcept {
        return a.at_ - b.at_;
    }
    friend bool operator==(const index_iterator& a, const index_iterator& b) noexcept {
        return a.at_ == b.at_;
    }
    friend bool operator!=(const index_iterator& a, const index_iterator& b) noexcept {
        return a.at_ != b.at_;
    }
    friend bool operator<(const index_iterator& a, const index_iterator& b) noexcept { return a.at_ < b.at_; }
    friend bool operator>(const index_iterator& a, const index_iterator& b) noexcept { return a.at_ > b.at_; }
    friend bool operator<=(const index_iterator& a, const index_iterator& b) noexcept {
        return a.at_ <= b.at_;
    }
    friend bool operator>=(const index_iterator& a, const index_iterator& b) noexcept {
        return a.at_ >= b.at_;
    }

private:
    Sequence sequence_{};
    difference_type at_ = 0;
};

}  // namespace segue::detail

#endif
