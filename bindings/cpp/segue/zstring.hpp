// Text that goes to the C interface, which wants it NUL-terminated.
#ifndef SEGUE_ZSTRING_HPP
#define SEGUE_ZSTRING_HPP

#include "error.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace segue {

/// A borrowed, NUL-terminated text: what SQL and names are passed as.
///
/// Made from a literal, a `const char*` or a `std::string` without a copy. A `std::string_view` need not
/// be terminated, so it is not accepted: write `std::string(view)`.
class zstring {
public:
    // Both conversions are its purpose, hence not explicit.
    zstring(const char* text) noexcept : text_(text) {}
    /// Throws invalid_argument for a text with a NUL inside, which would be cut short in silence.
    zstring(const std::string& text) : text_(text.c_str()) {
        if (text.find('\0') != std::string::npos) {
            throw invalid_argument("the text has a NUL character inside; nothing was sent");
        }
    }
    zstring(std::nullptr_t) = delete;
    zstring(std::string_view) = delete;

    [[nodiscard]] const char* c_str() const noexcept { return text_; }

private:
    const char* text_;
};

}  // namespace segue

#endif
