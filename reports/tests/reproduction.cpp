// What a saved case is reproduced by: in the direction of its law, and with the kernel where it is to be found.

#include "../reproduction.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <string>

using namespace kdacheck;
using Catch::Matchers::Contains;

namespace {

CaseResult saved(const char* kernel, const char* property) {
  return {.kernel = kernel, .property = property, .regime = "narrow", .replay = "token", .shrunk = {}, .finding = {}};
}

} // namespace

TEST_CASE("a case of a law of gradients is reproduced backward, in both languages") {
  const CaseResult outputs = saved("cpu.chunk16.fp32", "agrees-with-the-oracle"),
                   gradients = saved("cpu.chunk16.fp32", "gradients-agree-with-the-oracle");
  CHECK_THAT(cpp_reproduction(outputs), Contains("run_forward(") && !Contains("run_backward("));
  CHECK_THAT(cpp_reproduction(gradients), Contains("run_backward(") && Contains("gradient_truth(") && !Contains("run_forward("));
  CHECK_THAT(python_reproduction({}, outputs), Contains("print(\"o\", o, \"final_state\", states") && !Contains("grad("));
  CHECK_THAT(python_reproduction({}, gradients), Contains("grad(loss)"));
  // safetensors alone does not read bf16 into NumPy
  for (const CaseResult& result : {outputs, gradients}) {
    const std::string text = python_reproduction({}, result), line = text.substr(text.find("import "));
    CHECK_THAT(line.substr(0, line.find('#')), Contains("ml_dtypes") && !Contains("from"));
  }
}

TEST_CASE("the kernel is looked for where it came from, and missing it is an error") {
  const char* law = "agrees-with-the-oracle";
  CHECK_THAT(cpp_reproduction(saved("cpu.chunk16.fp32", law)), Contains("built_in_kernels()") && Contains("return 2;"));
  CHECK_THAT(cpp_reproduction(saved("fault.no-decay", law)), Contains("faulty_kernel(info)"));
  CHECK_THAT(cpp_reproduction(saved("correct.fp32.chunk16", law)), Contains("correct_variants()"));
  CHECK_THAT(cpp_reproduction(saved("mine", law), {.plugins = {"./lib\"x.so"}, .commands = {}, .functions = {}}),
             Contains(R"(plugin_kernels("./lib\"x.so"))"));
}

TEST_CASE("neither program has more than about thirty lines") {
  Problem problem;
  problem.options = {.gate = GateForm::bounded, .beta = BetaForm::twice_sigmoid, .l2norm = true};
  for (const char* law : {"agrees-with-the-oracle", "gradients-agree-with-the-oracle"})
    for (const std::string& text : {python_reproduction(problem, saved("k", law)), cpp_reproduction(saved("k", law))}) {
      const auto lines = std::count(text.begin(), text.end(), '\n');
      CHECK(lines >= 20);
      CHECK(lines <= 33);
    }
}
