#include "../safetensors.hpp"
#include "../atomic_file.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <unistd.h>

using namespace kdacheck;
namespace fs = std::filesystem;
using Catch::Contains;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("kdacheck-safetensors-" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string file_of(const std::string& header, const std::string& data = "") {
  const std::uint64_t length = header.size();
  std::string text(sizeof length, '\0');
  std::memcpy(text.data(), &length, sizeof length);
  return text + header + data;
}

TensorTable parsed(const std::string& file) { return parse_safetensors(std::as_bytes(std::span(file)), "x"); }

template <class T> std::span<const std::byte> bytes(const std::vector<T>& values) { return std::as_bytes(std::span(values)); }

const std::string one_float = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";

} // namespace

TEST_CASE("every element type comes back bit for bit, with its shape and the metadata") {
  const Folder folder;
  const fs::path path = folder.path / "a.safetensors";
  const std::vector<double> f64{1.0 / 3, -0.0, std::nan(""), INFINITY};
  const std::vector<float> f32{1.5f, -0.0f, std::nanf(""), 1e-45f, -INFINITY, 3e38f};
  const std::vector<std::uint16_t> half{0x0001, 0x7c00, 0xfe01};
  const std::vector<std::int64_t> i64{INT64_MIN, -1, INT64_MAX};
  const std::vector<std::int32_t> i32{INT32_MIN, 7};
  const std::vector<std::uint8_t> u8{0, 1, 255};
  const std::vector<StoredTensor> tensors{
      {"bool", ElementType::BOOL, {3}, bytes(u8)},   {"u8", ElementType::U8, {3, 1}, bytes(u8)},
      {"f16", ElementType::F16, {3}, bytes(half)},   {"bf16", ElementType::BF16, {1, 3}, bytes(half)},
      {"i32", ElementType::I32, {2}, bytes(i32)},    {"f32", ElementType::F32, {2, 3}, bytes(f32)},
      {"f64", ElementType::F64, {2, 2}, bytes(f64)}, {"i64", ElementType::I64, {3}, bytes(i64)},
      {"empty", ElementType::F64, {0, 5}, {}},       {"number", ElementType::I32, {}, bytes(i32).first(4)}};
  const Metadata metadata{{"key", "a \"value\"\nof two lines"}, {"", "empty key"}};
  write_safetensors(path, tensors, metadata);
  const SafetensorsFile file(path);
  CHECK(file.table().metadata == metadata);
  CHECK(file.table().tensors.size() == tensors.size());
  for (const StoredTensor& written : tensors) {
    const StoredTensor* read = file.table().find(written.name);
    REQUIRE(read);
    CHECK(read->type == written.type);
    CHECK(read->shape == written.shape);
    CHECK(std::equal(read->bytes.begin(), read->bytes.end(), written.bytes.begin(), written.bytes.end()));
    if (!read->bytes.empty()) CHECK(reinterpret_cast<std::uintptr_t>(read->bytes.data()) % element_bytes(read->type) == 0);
  }
  CHECK(file.table().find("missing") == nullptr);
  CHECK(integers(*file.table().find("i64")) == i64);
  CHECK(integers(*file.table().find("i32")) == std::vector<std::int64_t>{INT32_MIN, 7});
  CHECK(integers(*file.table().find("bool")) == std::vector<std::int64_t>{0, 1, 255});
  CHECK(doubles(*file.table().find("f64"))[0] == 1.0 / 3);
  CHECK(floats(*file.table().find("f16"))[0] == 0x1p-24f);
  CHECK_THROWS_WITH(floats(*file.table().find("i64")), "tensor i64 holds I64 where floating-point numbers are due");
  CHECK_THROWS_WITH(integers(*file.table().find("f32")), "tensor f32 holds F32 where integers are due");
}

TEST_CASE("numbers are rounded once, to nearest, when they are stored") {
  const std::vector<float> numbers{1.0f + 0x1p-8f, 1.0f + 0x1p-8f + 0x1p-20f, -0.0f, 65520.0f, INFINITY};
  const auto stored = [&](ElementType type) {
    const auto stored_bytes = encoded(numbers, type);
    return floats({"t", type, {5}, stored_bytes});
  };
  CHECK(stored(ElementType::BF16) == std::vector<float>{1.0f, 1.0f + 0x1p-7f, -0.0f, 65536.0f, INFINITY});
  CHECK(std::signbit(stored(ElementType::BF16)[2]));
  CHECK(stored(ElementType::F16)[3] == INFINITY);
  CHECK(stored(ElementType::F32) == numbers);
  CHECK(stored(ElementType::F64) == numbers);
  CHECK_THROWS_AS(encoded(numbers, ElementType::I32), std::invalid_argument);
}

TEST_CASE("the same tensors give the same file") {
  const Folder folder;
  const std::vector<float> numbers{1, 2, 3};
  const std::vector<StoredTensor> tensors{{"a", ElementType::F32, {3}, bytes(numbers)}, {"b", ElementType::F32, {1, 3}, bytes(numbers)}};
  write_safetensors(folder.path / "1", tensors, {{"b", "1"}, {"a", "2"}});
  write_safetensors(folder.path / "2", tensors, {{"a", "2"}, {"b", "1"}});
  CHECK(contents(folder.path / "1") == contents(folder.path / "2"));
}

TEST_CASE("what cannot be written is refused and leaves no file") {
  const Folder folder;
  const std::vector<float> numbers{1, 2, 3};
  const fs::path path = folder.path / "a";
  const StoredTensor good{"a", ElementType::F32, {3}, bytes(numbers)};
  CHECK_THROWS_WITH(write_safetensors(path, std::vector{good, good}), "tensor name a is given twice or reserved");
  CHECK_THROWS_AS(write_safetensors(path, std::vector{StoredTensor{"__metadata__", ElementType::F32, {3}, bytes(numbers)}}),
                  std::invalid_argument);
  CHECK_THROWS_AS(write_safetensors(path, std::vector{StoredTensor{"a", ElementType::F32, {4}, bytes(numbers)}}), std::invalid_argument);
  CHECK_THROWS_AS(write_safetensors(path, std::vector{StoredTensor{"\xff", ElementType::F32, {3}, bytes(numbers)}}), std::invalid_argument);
  CHECK_THROWS_AS(write_safetensors(folder.path / "missing" / "a", std::vector{good}), FileTrouble);
  CHECK(fs::is_empty(folder.path));
}

TEST_CASE("each way to be malformed has its own sentence") {
  const auto with = [](const std::string& entry) { return file_of("{\"a\":" + entry + "}", "1234"); };
  const std::vector<std::pair<std::string, std::string>> files{
      {"", "x: too short for a safetensors file (0 bytes)"},
      {"1234567", "x: too short for a safetensors file (7 bytes)"},
      {"hello, world", "x: not a safetensors file (its header would have 8583909746840200552 bytes)"},
      {file_of(one_float).substr(0, 30), "x: cut off inside the header, which should have 54 bytes"},
      {file_of("{\"a\":"), "x: the header is not JSON"},
      {file_of("{} {}"), "x: the header is not JSON"},
      {file_of("\"\xff\""), "x: the header is not JSON"},
      {file_of("[]"), "x: the header is not a JSON object"},
      {file_of(one_float.substr(0, one_float.size() - 1) + "," + one_float.substr(1), "1234"), "x: the header names \"a\" twice"},
      {file_of(R"({"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}})", "1234"), "x: the header names \"dtype\" twice"},
      {file_of("{\"a\":[[[[[]]]]]}"), "x: the header is nested deeper than the format is"},
      {file_of("{\"__metadata__\":[]}"), "x: __metadata__ is not an object"},
      {file_of("{\"__metadata__\":{\"a\":1}}"), "x: __metadata__ holds something that is not text"},
      {with("3"), "x: tensor a is not described by dtype, shape and data_offsets"},
      {with(R"({"dtype":"F32","shape":[1]})"), "x: tensor a is not described by dtype, shape and data_offsets"},
      {with(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1})"), "x: tensor a is not described by dtype, shape and data_offsets"},
      {with(R"({"dtype":3,"shape":[1],"data_offsets":[0,4]})"), "x: tensor a has no dtype"},
      {with(R"({"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,4]})"),
       "x: tensor a has the dtype F8_E4M3; known are F64 F32 F16 BF16 I64 I32 U8 BOOL"},
      {with(R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})"), "x: tensor a has no list shape"},
      {with(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})"), "x: tensor a: shape holds something that is not a size"},
      {with(R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})"), "x: tensor a: shape holds something that is not a size"},
      {with(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]})"),
       "x: tensor a: shape holds something that is not a size"},
      {with(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})"), "x: tensor a: data_offsets is not a begin and an end"},
      {with(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})"), "x: tensor a: data_offsets is not a begin and an end"},
      {with(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})"), "x: tensor a ends at byte 8 of the data, which has 4"},
      {with(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})"), "x: tensor a: shape and dtype need 8 bytes, data_offsets give 4"},
      {with(R"({"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,4]})"),
       "x: tensor a: shape and dtype need too many bytes, data_offsets give 4"},
      {with(R"({"dtype":"F16","shape":[1],"data_offsets":[0,2]})"), "x: 2 bytes lie behind the last tensor"},
      {with(R"({"dtype":"F16","shape":[1],"data_offsets":[2,4]})"), "x: there is a gap before tensor a"},
      {file_of(R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}})", "1234"),
       "x: tensor b overlaps the one before it"},
      {file_of(one_float, "12345"), "x: 1 bytes lie behind the last tensor"}};
  for (const auto& [file, sentence] : files) CHECK_THROWS_WITH(parsed(file), sentence);
}

TEST_CASE("what the format allows is read: padding, any order, no tensor, NaN, empty tensors anywhere") {
  CHECK(parsed(file_of("{}")).tensors.empty());
  CHECK(parsed(file_of(one_float + "     ", "1234")).tensors.size() == 1);
  const std::string file =
      file_of(R"({"b":{"dtype":"F16","shape":[1],"data_offsets":[2,4]},"e":{"dtype":"F64","shape":[0],"data_offsets":[2,2]},)"
              R"("a":{"dtype":"F16","shape":[],"data_offsets":[0,2]}})",
              "\xff\x7f\xff\x7f");
  const TensorTable table = parsed(file);
  REQUIRE(table.tensors.size() == 3);
  CHECK(table.tensors[0].name == "a");
  CHECK(table.tensors[1].name == "e");
  CHECK(std::isnan(floats(table.tensors[2])[0]));
}

TEST_CASE("files that cannot be read are one sentence") {
  const Folder folder;
  CHECK_THROWS_WITH(SafetensorsFile(folder.path / "missing"), Contains("cannot read") && Contains("No such file"));
  CHECK_THROWS_WITH(SafetensorsFile(folder.path), Contains("is a folder, where a file is due"));
  std::ofstream(folder.path / "empty");
  CHECK_THROWS_WITH(SafetensorsFile(folder.path / "empty"), Contains("too short"));
}

TEST_CASE("a file moved from and to still holds its tensors") {
  const Folder folder;
  const std::vector<float> numbers{1, 2, 3};
  write_safetensors(folder.path / "a", std::vector{StoredTensor{"a", ElementType::F32, {3}, bytes(numbers)}});
  SafetensorsFile first(folder.path / "a");
  SafetensorsFile second(std::move(first));
  first = SafetensorsFile(folder.path / "a");
  CHECK(floats(*first.table().find("a")) == numbers);
  CHECK(floats(*second.table().find("a")) == numbers);
}

TEST_CASE("a file with any bytes changed, cut or added is read or refused with BadFile, never worse") {
  const Folder folder;
  const std::vector<float> numbers{1, 2, 3, 4};
  write_safetensors(folder.path / "a",
                    std::vector{StoredTensor{"a", ElementType::F32, {2, 2}, bytes(numbers)},
                                StoredTensor{"bb", ElementType::BF16, {4}, bytes(numbers).first(8)}},
                    {{"scale", "0.5"}});
  const std::string good = contents(folder.path / "a");
  const std::string telling = "{}[]\",:0123456789-.eE\\u\xff";
  std::mt19937_64 random(7);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  std::size_t refused = 0, read = 0;
  for (int trial = 0; trial < 50000; ++trial) {
    std::string file = good;
    for (std::size_t change = 0; change <= below(3); ++change) {
      const std::size_t at = below(file.size() + 1);
      switch (below(5)) {
      case 0: file.resize(at); break;
      case 1: file.insert(at, 1, telling[below(telling.size())]); break;
      case 2: file.insert(at, good.substr(below(good.size()), below(40))); break;
      case 3: file.erase(at, below(20)); break;
      default:
        if (at < file.size()) file[at] = below(2) ? static_cast<char>(random()) : telling[below(telling.size())];
      }
      if (file.empty()) break;
    }
    try {
      const TensorTable table = parsed(file);
      ++read;
      for (const StoredTensor& tensor : table.tensors) {
        const bool inside = reinterpret_cast<const char*>(tensor.bytes.data()) >= file.data() &&
                            reinterpret_cast<const char*>(tensor.bytes.data() + tensor.bytes.size()) <= file.data() + file.size();
        if (!inside) FAIL("a tensor lies outside its file");
      }
    } catch (const BadFile&) {
      ++refused;
    }
  }
  CHECK(read > 500); // changes inside the numbers leave a good file
  CHECK(refused > 10000);
}
