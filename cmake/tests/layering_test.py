#!/usr/bin/env python3
"""Each rule of check_layering.py sees a planted breach, and says nothing of a tree that keeps the rules."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.dont_write_bytecode = True
import check_layering

CLEAN = {
    "reference/problem.hpp": "#pragma once\n",
    "reference/oracle.hpp": '#pragma once\n#include "problem.hpp"\n',
    "kernels/kernel.hpp": '#pragma once\n#include "../reference/problem.hpp"\n',
    "kernels/cpu/chunk.hpp": '#include "../kernel.hpp"\n',
    "kernels/cuda/chunk.cu": '#include "../kernel.hpp"\n#include <cuda_runtime.h>\n',
    "kernels/tests/oracle_test.cpp": '#include "../../reference/oracle.hpp"\n#include <boost/version.hpp>\n',
    "properties/judge.hpp": '#include "../kernels/kernel.hpp"\n#include "../reference/oracle.hpp"\n',
    "golden/recorded.hpp": '#include "../reference/problem.hpp"\n',
    "reports/table.cpp": '#include "../properties/judge.hpp"\n',
    "CMakeLists.txt": "add_compile_options(-ffp-contract=off -fno-fast-math)\n",
}


def breaches_with(planted):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in {**CLEAN, **planted}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return check_layering.breaches(root)[1]


class Layering(unittest.TestCase):
    def assert_seen(self, name, text, words, line=1):
        found = breaches_with({name: text})
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].startswith(f"{name}:{line}: "), found)
        self.assertIn(words, found[0])

    def test_a_tree_that_keeps_the_rules_has_no_breach(self):
        self.assertEqual(breaches_with({}), [])

    def test_reference_does_not_include_kernels(self):
        self.assert_seen("reference/bad.cpp", '// why\n#include "../kernels/kernel.hpp"\n', "the arrow points the other way", 2)

    def test_kernels_do_not_include_properties(self):
        self.assert_seen("kernels/cpu/bad.cpp", '#include "../../properties/judge.hpp"\n', "the arrow points the other way")

    def test_properties_do_not_include_reports(self):
        self.assert_seen("properties/bad.cpp", '#include "../reports/table.cpp"\n', "the arrow points the other way")

    def test_golden_does_not_include_reports(self):
        self.assert_seen("golden/bad.cpp", '#include "../reports/table.cpp"\n', "the arrow points the other way")

    def test_a_kernel_does_not_include_the_oracle(self):
        self.assert_seen("kernels/cpu/bad.cpp", '#include "../../reference/oracle.hpp"\n', "may see only")

    def test_an_include_found_through_the_search_path_is_seen_too(self):
        self.assert_seen("kernels/cpu/bad.cpp", '#include "reference/oracle.hpp"\n', "may see only")

    def test_a_property_does_not_look_inside_a_kernel(self):
        self.assert_seen("properties/bad.cpp", '#include "../kernels/cpu/chunk.hpp"\n', "may see only")

    def test_cuda_code_sees_no_host_library(self):
        for header in ("boost/version.hpp", "Eigen/Dense", "rapidcheck.h", "catch2/catch.hpp"):
            self.assert_seen("kernels/cuda/bad.cu", f"#include <{header}>\n", "CUDA code includes")

    def test_a_file_of_401_lines_is_too_long(self):
        self.assert_seen("reports/long.cpp", "\n" * 401, "more than 400", 401)
        self.assertEqual(breaches_with({"reports/long.cpp": "\n" * 400}), [])

    def test_fast_math_is_refused(self):
        for flag in ("-ffast-math", "-Ofast", "--use_fast_math", "-funsafe-math-optimizations", "-ffp-contract=fast"):
            self.assert_seen("kernels/CMakeLists.txt", f"add_compile_options({flag})\n", "inexact floating point")

    def test_a_private_path_is_refused(self):
        self.assert_seen("README.md", "see /home/someone/notes\n", "private path")

    def test_an_empty_tree_is_not_called_clean(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(check_layering.main(["", folder]), 2)


if __name__ == "__main__":
    unittest.main(verbosity=1)
