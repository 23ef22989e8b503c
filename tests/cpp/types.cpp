// What can be a parameter, what a value can be read as, and what is refused.
#include "support/check.hpp"
#include "support/cluster.hpp"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#if __cplusplus >= 202002L
#include <span>
#endif

namespace {

using segue::format;
using std::chrono::system_clock;
template <class D>
using time_of = std::chrono::time_point<system_clock, D>;
using std::chrono::microseconds;

segue::session& session() {
    static segue::client client{one_server().conninfo()};
    static segue::session shared = client.open_session();
    return shared;
}

/// `SELECT expression` in both forms of the wire.
template <class T>
void reads(const std::string& expression, const T& expected) {
    for (const format form : {format::text, format::binary}) {
        CHECK_EQ(session().query(form, "SELECT " + expression).front().template get<T>(0), expected);
    }
}

template <class T>
void refuses(const std::string& expression, bool text = true, bool binary = true) {
    for (const format form : {format::text, format::binary}) {
        if (form == format::text ? text : binary) {
            const auto rows = session().query(form, "SELECT " + expression);
            const auto error = CHECK_THROWS(segue::conversion_error, rows.front().get<T>(0));
            CHECK_EQ(error.kind(), segue::error_kind::conversion);
            CHECK_EQ(error.sqlstate(), "22023");
        }
    }
}

/// A parameter comes back as it went, in both forms.
template <class T>
void round_trip(const T& value, const std::string& type) {
    for (const format form : {format::text, format::binary}) {
        CHECK_EQ(session().query(form, "SELECT $1::" + type, value).front().template get<T>(0), value);
    }
}

std::vector<std::byte> bytes(std::initializer_list<int> list) {
    std::vector<std::byte> made;
    for (const int each : list) made.push_back(static_cast<std::byte>(each));
    return made;
}

}  // namespace

TEST(booleans) {
    reads("true", true);
    reads("false", false);
    round_trip(true, "bool");
    round_trip(false, "bool");
    refuses<bool>("1");
    refuses<bool>("'true'::text");
}

TEST(integers_of_all_widths) {
    round_trip<std::int8_t>(-128, "int2");
    round_trip<std::uint8_t>(255, "int2");
    round_trip<std::int16_t>(-32768, "int2");
    round_trip<std::uint16_t>(65535, "int4");
    round_trip<std::int32_t>(std::numeric_limits<std::int32_t>::min(), "int4");
    round_trip<std::uint32_t>(std::numeric_limits<std::uint32_t>::max(), "int8");
    round_trip<std::int64_t>(std::numeric_limits<std::int64_t>::min(), "int8");
    round_trip<std::int64_t>(std::numeric_limits<std::int64_t>::max(), "int8");
    round_trip<std::uint64_t>(static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()), "int8");
    round_trip<long long>(5, "int8");
    round_trip<unsigned long>(5, "int8");
    reads<std::uint32_t>("4294967295::oid", 4294967295u);
    reads<std::int64_t>("7::int2", 7);
    // Numeric only comes as text; in 64 bits without a sign there is room for more than int8 has.
    CHECK_EQ(session().query_one<std::uint64_t>("SELECT 18446744073709551615::numeric"),
             std::numeric_limits<std::uint64_t>::max());
}

TEST(integers_out_of_range) {
    refuses<std::int8_t>("128");
    refuses<std::uint8_t>("256");
    refuses<std::uint8_t>("-1");
    refuses<std::int16_t>("32768");
    refuses<std::uint16_t>("-1");
    refuses<std::int32_t>("2147483648");
    refuses<std::uint32_t>("-1");
    refuses<std::uint64_t>("-1::int8");
    refuses<std::int64_t>("9223372036854775808");
    refuses<int>("'5 '::text");
    refuses<int>("''::text");
    refuses<int>("5.0");
    refuses<int>("5.0::float8", false, true);
    const auto error = CHECK_THROWS(segue::conversion_error,
                                    session().query("SELECT $1", std::numeric_limits<std::uint64_t>::max()));
    CHECK_EQ(error.outcome(), segue::outcome::not_committed);
    CHECK(!error.maybe_committed());
}

TEST(floating_point) {
    round_trip(0.1, "float8");
    round_trip(-1.5e300, "float8");
    round_trip(0.1f, "float4");
    round_trip(std::numeric_limits<double>::max(), "float8");
    round_trip(std::numeric_limits<double>::denorm_min(), "float8");
    round_trip(std::numeric_limits<double>::infinity(), "float8");
    round_trip(-std::numeric_limits<float>::infinity(), "float4");
    for (const format form : {format::text, format::binary}) {
        CHECK(std::isnan(session().query(form, "SELECT 'NaN'::float8").front().get<double>(0)));
    }
    reads("7::int4", 7.0);
    reads("0.5::float8", 0.5f);
    refuses<double>("'x'::text");
    refuses<float>("1e300::float8");
    refuses<double>("1.5::numeric", false, true);
    CHECK_EQ(session().query_one<double>("SELECT 1.5::numeric"), 1.5);
}

TEST(text) {
    round_trip<std::string>("gr\xc3\xbc\xc3\x9f dich \xe2\x82\xac", "text");
    round_trip<std::string>("", "text");
    reads<std::string>("'a'::varchar", "a");
    reads<std::string>("'a'::char(3)", "a  ");
    reads<std::string>("'a'::name", "a");
    reads<std::string>("'{\"a\": 1}'::json", "{\"a\": 1}");
    reads<std::string>("'{\"a\": 1}'::jsonb", "{\"a\": 1}");
    // As text, everything is text.
    CHECK_EQ(session().query_one<std::string>("SELECT 1.50::numeric"), "1.50");
    CHECK_EQ(session().query_one<std::string>("SELECT '1 day'::interval"), "1 day");
    refuses<std::string>("1", false, true);
    refuses<std::string>("'1 day'::interval", false, true);
    const char* pointer = "pointer";
    char array[] = "array";
    CHECK_EQ(session().query_one<std::string>("SELECT $1::text", pointer), "pointer");
    CHECK_EQ(session().query_one<std::string>("SELECT $1::text", array), "array");
    CHECK_EQ(session().query_one<std::string>("SELECT $1::text", "literal"), "literal");
    CHECK_EQ(session().query_one<std::string>("SELECT $1::text", std::string_view("views", 4)), "view");
    CHECK_EQ(session().query_one<std::string>("SELECT $1::text", std::string_view()), "");
    CHECK_EQ(session().query_one<std::string>("SELECT $1::text", std::string("temporary") + "!"),
             "temporary!");
    // Its type is open: the server reads it as it would read a literal.
    CHECK_EQ(session().query_one<int>("SELECT $1 + 1", "41"), 42);
    CHECK_EQ(session().query_one<bool>("SELECT $1 = '2024-02-29'::date", "2024-02-29"), true);
    const auto rows = session().query("SELECT 'of the result'");
    CHECK_EQ(rows.front().get<std::string_view>(0), "of the result");
    CHECK_EQ(rows.front()[0].raw(), "of the result");
    CHECK_THROWS(segue::conversion_error, session().query("SELECT $1::text", std::string("a\0b", 3)));
    CHECK_THROWS(segue::invalid_argument, session().query("SELECT $1::text", "\xff"));
    CHECK_THROWS(segue::invalid_argument, session().query(std::string("SELECT 1;\0 more", 14)));
    CHECK_EQ(session().query_one<int>("SELECT 1"), 1);
}

TEST(null) {
    CHECK(session().query("SELECT $1::int", nullptr).front().is_null(0));
    CHECK(session().query("SELECT $1::int", std::nullopt).front()[0].is_null());
    CHECK(session().query("SELECT $1::text", static_cast<const char*>(nullptr)).front().is_null("text"));
    CHECK(!session().query_one<std::optional<int>>("SELECT $1::int", std::optional<int>()));
    CHECK_EQ(*session().query_one<std::optional<int>>("SELECT $1::int", std::optional<int>(5)), 5);
    round_trip(std::optional<std::string>("x"), "text");
    round_trip(std::optional<std::string>(), "text");
    const auto rows = session().query("SELECT NULL::int, 3");
    CHECK_EQ(rows.front()[0].get_or(7), 7);
    CHECK_EQ(rows.front()[1].get_or(7), 3);
    CHECK(!rows.front()[0]);
    CHECK(rows.front()[1]);
    CHECK(rows.front()[0].raw().empty());
    const auto error = CHECK_THROWS(segue::null_value, rows.front().get<int>(0));
    CHECK_EQ(error.status(), SEGUE_NULL_VALUE);
    CHECK_EQ(error.sqlstate(), "22002");
    CHECK_EQ(error.outcome(), segue::outcome::unknown);
}

TEST(bytea) {
    const auto data = bytes({0, 1, 0x7f, 0x80, 0xff, '\\', '\''});
    round_trip(data, "bytea");
    round_trip(bytes({}), "bytea");
    round_trip(std::vector<unsigned char>{0, 255, 9}, "bytea");
    round_trip(std::array<std::byte, 3>{std::byte{1}, std::byte{0}, std::byte{3}}, "bytea");
    CHECK_EQ(session().query_one<std::vector<std::byte>>("SELECT $1::bytea", segue::bytes_view(data)), data);
    CHECK_EQ(session().query_one<std::vector<std::byte>>("SELECT $1::bytea", segue::bytes_view("ab", 2)),
             bytes({'a', 'b'}));
    CHECK_EQ(session().query_one<std::vector<std::byte>>("SELECT $1::bytea", segue::bytes_view()), bytes({}));
#if defined(__cpp_lib_span)
    CHECK_EQ(session().query_one<std::vector<std::byte>>("SELECT $1::bytea", std::span(data)), data);
#endif
    const auto rows = session().query(format::binary, "SELECT $1::bytea", data);
    const auto view = rows.front().get<segue::bytes_view>(0);
    CHECK_EQ(std::vector<std::byte>(view.begin(), view.end()), data);
    CHECK(!view.empty());
    refuses<segue::bytes_view>("'\\x00'::bytea", true, false);
    refuses<std::vector<std::byte>>("'\\xzz'::text");
    refuses<std::vector<std::byte>>("'x'::text");
    refuses<std::vector<std::byte>>("5");
    refuses<std::array<std::byte, 2>>("'\\x000102'::bytea");
}

TEST(uuids) {
    std::array<std::byte, 16> expected{};
    for (int i = 0; i < 16; ++i) expected[static_cast<std::size_t>(i)] = static_cast<std::byte>(i * 17);
    reads("'00112233-4455-6677-8899-aabbccddeeff'::uuid", expected);
    refuses<std::array<std::byte, 15>>("'00112233-4455-6677-8899-aabbccddeeff'::uuid");
}

TEST(points_in_time) {
    const time_of<microseconds> leap(microseconds(1'709'164'800'000'001));  // 2024-02-29 00:00:00.000001 UTC
    for (const char* zone : {"UTC", "Asia/Kathmandu", "America/St_Johns", "Europe/Berlin"}) {
        session().execute(std::string("SET timezone = '") + zone + "'");
        round_trip(leap, "timestamptz");
        round_trip(time_of<microseconds>(microseconds(-1)), "timestamptz");
        round_trip(time_of<microseconds>(microseconds(-62'000'000'000'000'000)), "timestamptz");
        round_trip(time_of<microseconds>(microseconds(-150'000'000'000'000'000)), "timestamptz");
        round_trip(time_of<microseconds>(microseconds(9'000'000'000'000'000'000)), "timestamptz");
        reads("'2024-02-29 00:00:00.000001'::timestamp", leap);
        reads("'2024-02-29'::date", time_of<std::chrono::hours>(std::chrono::hours(19'782 * 24)));
        reads("'0044-03-15 BC'::date", time_of<std::chrono::hours>(std::chrono::hours(-735'160 * 24)));
        reads("'0044-03-15 BC'::timestamp", time_of<std::chrono::seconds>(std::chrono::hours(-735'160 * 24)));
        using days = std::chrono::duration<int, std::ratio<86'400>>;
        round_trip(time_of<days>(days(19'782)), "date");
        round_trip(time_of<days>(days(-735'160)), "date");
        CHECK_EQ(session().query_one<std::string>("SELECT $1::date", time_of<days>(days(19'782))),
                 "2024-02-29");
    }
    session().execute("RESET timezone");
    const auto now = std::chrono::floor<microseconds>(system_clock::now());
    round_trip(now, "timestamptz");
    round_trip(system_clock::time_point(now), "timestamptz");
    CHECK_EQ(session().query_one<std::string>("SELECT $1 = '2024-02-29 00:00:00.000001+00'", leap), "t");
}

TEST(points_in_time_that_do_not_fit) {
    for (const char* odd : {"'infinity'::timestamptz", "'-infinity'::timestamptz", "'infinity'::date",
                            "'-infinity'::date", "'infinity'::timestamp", "'2024-02-29x'::text",
                            "'2024'::text", "5", "'2024-13-01'::text", "''::text"}) {
        refuses<time_of<microseconds>>(odd);
    }
    // 64 bits of nanoseconds end in 2262.
    refuses<time_of<std::chrono::nanoseconds>>("'2300-01-01'::timestamptz");
    refuses<time_of<std::chrono::nanoseconds>>("'1600-01-01'::timestamptz");
    refuses<time_of<std::chrono::duration<std::int32_t>>>("'2100-01-01'::timestamptz");
    reads("'2300-01-01'::timestamp", time_of<std::chrono::seconds>(std::chrono::seconds(10'413'792'000)));
    const auto far = time_of<std::chrono::hours>(std::chrono::hours(24LL * 366 * 300'000));
    CHECK_THROWS(segue::conversion_error, session().query("SELECT $1::timestamptz", far));
    session().execute("SET datestyle = 'German'");
    CHECK_THROWS(segue::conversion_error,
                 session().query_one<time_of<microseconds>>("SELECT '2024-02-29'::date"));
    CHECK(session().query(format::binary, "SELECT '2024-02-29'::date").front().get<time_of<microseconds>>(0) >
          time_of<microseconds>());
    session().execute("RESET datestyle");
}

TEST(arrays) {
    round_trip(std::vector<int>{1, -2, 3}, "int4[]");
    round_trip(std::vector<int>{}, "int4[]");
    round_trip(std::vector<std::int64_t>{std::numeric_limits<std::int64_t>::min()}, "int8[]");
    round_trip(std::vector<std::int16_t>{1}, "int2[]");
    round_trip(std::vector<bool>{true, false}, "bool[]");
    round_trip(std::vector<double>{0.1, -std::numeric_limits<double>::infinity()}, "float8[]");
    round_trip(std::vector<float>{0.1f}, "float4[]");
    round_trip(std::vector<std::string>{"", "a b", "NULL", "{,}", "back\\slash \"quoted\"", "null", " x "},
               "text[]");
    round_trip(std::vector<std::optional<std::string>>{std::nullopt, "NULL", ""}, "text[]");
    round_trip(std::vector<std::optional<int>>{std::nullopt, 5, std::nullopt}, "int4[]");
    round_trip(std::vector<std::optional<int>>{std::nullopt}, "int4[]");
    round_trip(std::vector<std::vector<std::byte>>{bytes({0, 255}), bytes({})}, "bytea[]");
    round_trip(std::vector<time_of<microseconds>>{time_of<microseconds>(microseconds(-1)),
                                                  time_of<microseconds>(microseconds(1'709'164'800'000'001))},
               "timestamptz[]");
    using days = std::chrono::duration<int, std::ratio<86'400>>;
    round_trip(std::vector<time_of<days>>{time_of<days>(days(-735'160))}, "date[]");
    round_trip(std::array<int, 3>{1, 2, 3}, "int4[]");
    reads("'[0:1]={7,8}'::int4[]", std::vector<int>{7, 8});
    reads("'{00112233-4455-6677-8899-aabbccddeeff}'::uuid[]", std::vector<std::array<std::byte, 16>>{[] {
              std::array<std::byte, 16> id{};
              for (int i = 0; i < 16; ++i) id[static_cast<std::size_t>(i)] = static_cast<std::byte>(i * 17);
              return id;
          }()});
    CHECK_EQ(session().query_one<int>("SELECT count(*) FROM generate_series(1, 9) n WHERE n = ANY($1)",
                                      std::vector<int>{2, 4, 99}),
             2);
    CHECK_EQ(session().query_one<int>("SELECT count(*) FROM generate_series(1, 9) n WHERE n::text = ANY($1)",
                                      std::vector<std::string>{"2"}),
             1);
    refuses<std::vector<int>>("'{{1,2},{3,4}}'::int4[]");
    refuses<std::vector<int>>("'x'::text");
    refuses<std::vector<int>>("'{a}'::text[]");
    refuses<std::array<int, 2>>("'{1,2,3}'::int4[]");
    CHECK_THROWS(segue::null_value, session().query_one<std::vector<int>>("SELECT '{1,NULL}'::int4[]"));
}

namespace {
struct celsius {
    double degrees;
};
struct point {
    int x;
    int y;
};
enum class mood { sad, happy };
}  // namespace

template <>
struct segue::param_traits<celsius> : segue::param_traits<double> {
    static segue_param to_param(const celsius& value, storage& room) {
        return segue::param_traits<double>::to_param(value.degrees, room);
    }
};
template <>
struct segue::value_traits<celsius> {
    static celsius from_value(const segue::value& v) { return {v.get<double>()}; }
};
template <>
struct segue::param_traits<mood> {
    using storage = std::string;
    static segue_param to_param(mood value, storage& room) {
        room = value == mood::sad ? "sad" : "happy";
        return segue_param_text_sized(room.data(), room.size());
    }
};
template <>
struct segue::value_traits<mood> {
    static constexpr bool accepts_null = true;
    static mood from_value(const segue::value& v) {
        return v.is_null() || v.get<std::string_view>() == "sad" ? mood::sad : mood::happy;
    }
};
template <>
struct segue::row_traits<point> {
    static point from_row(const segue::row& r) { return {r.get<int>("x"), r.get<int>("y")}; }
};

TEST(types_of_the_application) {
    CHECK_EQ(session().query_one<celsius>("SELECT $1::float8 + 1", celsius{20.5}).degrees, 21.5);
    round_trip(mood::happy, "text");
    CHECK_EQ(session().query_one<mood>("SELECT NULL::text"), mood::sad);
    round_trip(std::vector<mood>{mood::sad, mood::happy}, "text[]");
    round_trip(std::optional<mood>(mood::happy), "text");
    const auto p = session().query_one<point>("SELECT 1 AS y, 2 AS x, 'more' AS z");
    CHECK_EQ(p.x, 2);
    CHECK_EQ(p.y, 1);
    int sum = 0;
    for (const point& each :
         session().query("SELECT n AS x, 2 * n AS y FROM generate_series(1, 3) n").as<point>())
        sum += each.y;
    CHECK_EQ(sum, 12);
}

TEST(parameters_by_the_dozen) {
    const auto sum = session().query_one<int>(
        "SELECT "
        "$1::int+$2::int+$3::int+$4::int+$5::int+$6::int+$7::int+$8::int+$9::int+$10::int+$11::int+$12::int"
        "+$13::int+$14::int+$15::int+$16::int+$17::int",
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17);
    CHECK_EQ(sum, 153);
    segue::params list;
    std::string sql = "SELECT concat(";
    for (int i = 1; i <= 100; ++i) {
        list.add("x" + std::to_string(i));
        sql += (i > 1 ? ", $" : "$") + std::to_string(i) + "::text";
    }
    CHECK_EQ(list.size(), 100u);
    const segue::params moved = std::move(list);
    CHECK_EQ(
        session().query_one<std::size_t>("SELECT length(concat)::int FROM (" + sql + ") AS concat) q", moved),
        292u);
    segue::params mixed;
    mixed.add(1).add(nullptr).add(std::vector<int>{1, 2}).add(2.5).add(true);
    const auto row = session().query("SELECT $1, $2::text, $3, $4, $5", mixed);
    CHECK_EQ(row.front().get<int>(0), 1);
    CHECK(row.front().is_null(1));
    CHECK_EQ(row.front().get<std::vector<int>>(2), (std::vector<int>{1, 2}));
    CHECK_EQ(row.front().get<double>(3), 2.5);
    CHECK(row.front().get<bool>(4));
    mixed.clear();
    CHECK_EQ(mixed.size(), 0u);
    CHECK_EQ(session().query_one<int>("SELECT 1", mixed), 1);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
