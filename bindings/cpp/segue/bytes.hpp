// Binary data, and the byte order of PostgreSQL's binary formats.
#ifndef SEGUE_BYTES_HPP
#define SEGUE_BYTES_HPP

#include <cstddef>
#include <cstdint>
#include <vector>

namespace segue {

/// Borrowed binary data: a bytea parameter, or a bytea value of a result in binary format.
class bytes_view {
public:
    constexpr bytes_view() noexcept = default;
    bytes_view(const void* data, std::size_t size) noexcept
        : data_(static_cast<const std::byte*>(data)), size_(size) {}
    bytes_view(const std::vector<std::byte>& data) noexcept : data_(data.data()), size_(data.size()) {}

    [[nodiscard]] const std::byte* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] const std::byte* begin() const noexcept { return data_; }
    [[nodiscard]] const std::byte* end() const noexcept { return data_ + size_; }

private:
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

namespace detail {

/// The OIDs of pg_type that this layer knows by name.
namespace oid {
constexpr std::uint32_t boolean = 16, bytea = 17, character = 18, name = 19, int8 = 20, int2 = 21, int4 = 23;
constexpr std::uint32_t text = 25, oid = 26, json = 114, xml = 142, float4 = 700, float8 = 701, unknown = 705;
constexpr std::uint32_t bpchar = 1042, varchar = 1043, date = 1082, timestamp = 1114, timestamptz = 1184;
constexpr std::uint32_t uuid = 2950, jsonb = 3802;
}  // namespace oid

/// Reads `size` bytes, most significant first.
inline std::uint64_t load_big_endian(const char* data, std::size_t size) noexcept {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i) {
        value = value << 8 | static_cast<unsigned char>(data[i]);
    }
    return value;
}

inline void store_big_endian(unsigned char* out, std::uint64_t value, std::size_t size) noexcept {
    for (std::size_t i = size; i > 0; --i) {
        out[i - 1] = static_cast<unsigned char>(value & 0xff);
        value >>= 8;
    }
}

}  // namespace detail
}  // namespace segue

#endif
