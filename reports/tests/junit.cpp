#include "../junit.hpp"
#include "sample_results.hpp"

#include <catch2/catch.hpp>
#include <pugixml.hpp>

#include <algorithm>
#include <set>
#include <string>

using namespace kdacheck;

namespace {

pugi::xml_document parsed(const Results& results) {
  pugi::xml_document document;
  const std::string text = to_junit_xml(results);
  const auto outcome = document.load_buffer(text.data(), text.size(), pugi::parse_full, pugi::encoding_utf8);
  REQUIRE(outcome.status == pugi::status_ok);
  return document;
}

/// What the usual JUnit schema demands of a document.
void check_schema(const pugi::xml_document& document) {
  const auto root = document.child("testsuites");
  REQUIRE(root);
  int tests = 0, failures = 0, errors = 0, skipped = 0;
  for (const auto suite : root.children()) {
    REQUIRE(std::string(suite.name()) == "testsuite");
    CHECK_FALSE(std::string(suite.attribute("name").value()).empty());
    std::set<std::string> names;
    int suite_tests = 0, suite_failures = 0, suite_errors = 0, suite_skipped = 0;
    bool cases_began = false;
    for (const auto node : suite.children()) {
      if (std::string(node.name()) == "properties") {
        CHECK_FALSE(cases_began);
        continue;
      }
      cases_began = true;
      REQUIRE(std::string(node.name()) == "testcase");
      CHECK_FALSE(std::string(node.attribute("name").value()).empty());
      CHECK_FALSE(std::string(node.attribute("classname").value()).empty());
      CHECK(node.attribute("time").as_double(-1) >= 0);
      CHECK(names.insert(std::string(node.attribute("classname").value()) + node.attribute("name").value()).second);
      ++suite_tests;
      const auto result = node.first_child();
      CHECK_FALSE(result.next_sibling());
      const std::string kind = result.name();
      suite_failures += kind == "failure";
      suite_errors += kind == "error";
      suite_skipped += kind == "skipped";
      CHECK((kind.empty() || kind == "failure" || kind == "error" || kind == "skipped"));
      if (kind == "failure" || kind == "error") {
        CHECK_FALSE(std::string(result.attribute("type").value()).empty());
        CHECK(std::string(result.text().get()).find("./kdacheck replay TOKEN-") != std::string::npos);
      }
      if (!kind.empty()) CHECK_FALSE(std::string(result.attribute("message").value()).empty());
    }
    CHECK(suite.attribute("tests").as_int(-1) == suite_tests);
    CHECK(suite.attribute("failures").as_int(-1) == suite_failures);
    CHECK(suite.attribute("errors").as_int(-1) == suite_errors);
    CHECK(suite.attribute("skipped").as_int(-1) == suite_skipped);
    tests += suite_tests, failures += suite_failures, errors += suite_errors, skipped += suite_skipped;
  }
  CHECK(root.attribute("tests").as_int(-1) == tests);
  CHECK(root.attribute("failures").as_int(-1) == failures);
  CHECK(root.attribute("errors").as_int(-1) == errors);
  CHECK(root.attribute("skipped").as_int(-1) == skipped);
}

} // namespace

TEST_CASE("every kernel is a suite and every property and regime a case of it, in the usual schema") {
  const auto document = parsed(sample_results());
  check_schema(document);
  const auto root = document.child("testsuites");
  CHECK(root.attribute("tests").as_int() == 8);
  CHECK(root.attribute("failures").as_int() == 3);
  CHECK(root.attribute("errors").as_int() == 2);
  CHECK(root.attribute("skipped").as_int() == 2);
}

TEST_CASE("a failure says verdict, place and how to replay the simplest case known") {
  Results results;
  CaseResult failing = sample_case("k", Verdict::failed_proved, 13.25);
  failing.shrunk = "TOKEN-SHRUNK";
  add(results, failing);
  const auto document = parsed(results);
  const auto failure = document.child("testsuites").child("testsuite").child("testcase").child("failure");
  CHECK(std::string(failure.attribute("message").value()) ==
        "FAILED (proved): error/bound 13.2; final_state: sequence 0, head 1, row 3, channel 5");
  CHECK(std::string(failure.attribute("type").value()) == "failed_proved");
  const std::string text = failure.text().get();
  CHECK(text.find("./kdacheck replay TOKEN-SHRUNK\n") != std::string::npos);
  CHECK(text.find("first seen as: ./kdacheck replay TOKEN-k-slow-decay\n") != std::string::npos);
}

TEST_CASE("not supported is skipped with its reason") {
  Results results;
  add(results, sample_case("k", Verdict::not_supported, 0));
  const auto document = parsed(results);
  CHECK(std::string(document.child("testsuites").child("testsuite").child("testcase").child("skipped").attribute("message").value()) ==
        "not supported: K=60 is not in 16..256/16");
}

TEST_CASE("the document is valid XML whatever bytes the names and details hold") {
  for (int byte = 0; byte < 256; ++byte) {
    Results results;
    CaseResult odd = sample_case("kernel", Verdict::failed_property, 1);
    const std::string text = std::string("<&>\"']]>") + static_cast<char>(byte) + "x" + static_cast<char>(byte);
    odd.kernel += text;
    odd.property += text;
    odd.regime += text;
    odd.finding.detail += text;
    odd.finding.place->tensor += text;
    add(results, odd);
    check_schema(parsed(results));
    const std::string xml = to_junit_xml(results);
    CHECK(std::ranges::none_of(xml, [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t'; }));
    for (int control = 1; control < 0x20; ++control)
      if (control != '\t' && control != '\n')
        CHECK(xml.find("&#" + std::string(control < 10 ? "0" : "") + std::to_string(control) + ";") == std::string::npos);
  }
}

TEST_CASE("only bytes that XML cannot hold are replaced") {
  const std::string bad = "\xEF\xBF\xBD";
  CHECK(xml_characters("plain \t\n\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80") == "plain \t\n\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80");
  CHECK(xml_characters(std::string("a\0b", 3)) == "a" + bad + "b");
  CHECK(xml_characters("\x1b") == bad);
  CHECK(xml_characters("\xff") == bad);
  CHECK(xml_characters("\xC3") == bad);           // cut off
  CHECK(xml_characters("\xC0\x80") == bad + bad); // overlong
  CHECK(xml_characters("\xE0\x80\x80") == bad + bad + bad);
  CHECK(xml_characters("\xED\xA0\x80") == bad + bad + bad); // surrogate
  CHECK(xml_characters("\xEF\xBF\xBE") == bad);             // U+FFFE is UTF-8, and one replaced character
  CHECK(xml_characters("\xF5\x80\x80\x80") == bad + bad + bad + bad);
}
