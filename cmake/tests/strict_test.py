#!/usr/bin/env python3
"""Every flag that would make the oracle's arithmetic inexact is refused: by check_strict.py, and by the arithmetic itself.

    strict_test.py COMPILER ROOT      COMPILER: the C++ compiler of the build; ROOT: the project's folder
"""
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
import unittest

COMPILER, ROOT = None, None
INEXACT = ["-ffast-math", "-Ofast", "-fassociative-math", "-freciprocal-math", "-ffinite-math-only", "-funsafe-math-optimizations",
           "-fno-signed-zeros", "-ffp-contract=fast"]
PROGRAM = """#include "reference/strict_arithmetic.hpp"
#include <cstdio>
int main() {
  const char* fault = kdacheck::certified::arithmetic_fault();
  std::puts(fault ? fault : "strict");
}
"""
REARRANGED = ["-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"]
# As if the compiler did not say what it may do.
SILENT = ["-U__FAST_MATH__", "-U__ASSOCIATIVE_MATH__", "-U__NO_SIGNED_ZEROS__", "-U__RECIPROCAL_MATH__"]


def fused_steps():
    """Whether this processor has the instruction that contraction needs."""
    return platform.machine() == "x86_64" and " fma " in pathlib.Path("/proc/cpuinfo").read_text()


class Arithmetic(unittest.TestCase):
    def said(self, *flags):
        """What a program built with these flags says of its arithmetic, or that it does not build."""
        with tempfile.TemporaryDirectory() as folder:
            source, program = pathlib.Path(folder) / "strict.cpp", pathlib.Path(folder) / "strict"
            source.write_text(PROGRAM)
            build = subprocess.run([COMPILER, "-std=c++20", "-O2", f"-I{ROOT}", *flags, str(source), "-o", str(program)], capture_output=True, text=True)
            if build.returncode != 0:
                self.assertIn("must not be compiled with fast-math", build.stderr)
                return "does not build"
            return subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip()

    def test_the_project_s_own_flags_are_strict(self):
        self.assertEqual(self.said("-march=native", "-ffp-contract=off", "-fno-fast-math"), "strict")

    def test_parts_of_fast_math_do_not_build(self):
        for flag in INEXACT:
            if "contract" not in flag:
                flags = REARRANGED if flag == "-fassociative-math" else [flag]
                with self.subTest(flag=flag):
                    self.assertEqual(self.said("-ffp-contract=off", *flags), "does not build")

    @unittest.skipUnless(fused_steps(), "no fused multiply-add here")
    def test_contraction_is_noticed_at_run_time(self):
        for flags in (["-mfma", "-ffp-contract=fast"], ["-mfma"]):  # the second is the compiler's default
            with self.subTest(flags=flags):
                self.assertIn("contracted", self.said(*flags))

    def test_rearranged_sums_are_noticed_at_run_time(self):
        self.assertEqual(self.said("-ffp-contract=off", *REARRANGED, *SILENT), "sums are rearranged")

    def test_flushed_subnormals_are_noticed_at_run_time(self):
        # the flag that links the start-up routine is taken back for the compiler, not for the linker
        self.assertIn("subnormal", self.said("-ffp-contract=off", "-Ofast", "-fno-fast-math"))


class Commands(unittest.TestCase):
    def checked(self, command, ninja="", file="reference/truth.cpp"):
        with tempfile.TemporaryDirectory() as folder:
            build = pathlib.Path(folder)
            (build / "compile_commands.json").write_text(json.dumps([{"file": file, "command": command}]))
            (build / "build.ninja").write_text(ninja)
            return subprocess.run([sys.executable, str(ROOT / "cmake/check_strict.py"), folder], capture_output=True, text=True)

    def test_strict_commands_pass(self):
        self.assertEqual(self.checked("c++ -O3 -ffp-contract=off -fno-fast-math -c truth.cpp", "  FLAGS = -O3 -ffp-contract=off").returncode, 0)
        self.assertEqual(self.checked("nvcc -O3 -c gates.cu", file="kernels/cuda/gates.cu").returncode, 0)

    def test_every_inexact_flag_is_found(self):
        for flag in INEXACT:
            with self.subTest(flag=flag):
                compiled = self.checked(f"c++ {flag} -ffp-contract=off -c truth.cpp")
                self.assertEqual(compiled.returncode, 1)
                self.assertIn(flag, compiled.stdout)
                self.assertEqual(self.checked("c++ -ffp-contract=off -c truth.cpp", f"  LINK_FLAGS = {flag}").returncode, 1)

    def test_contraction_must_be_switched_off(self):
        for command in ("c++ -O2 -c truth.cpp", "c++ -ffp-contract=off -ffp-contract=fast -c truth.cpp"):
            self.assertIn("contracted", self.checked(command).stdout)

    def test_a_folder_without_a_build_is_no_build(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(subprocess.run([sys.executable, str(ROOT / "cmake/check_strict.py"), folder], capture_output=True).returncode, 2)


if __name__ == "__main__":
    COMPILER, ROOT = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    unittest.main(argv=sys.argv[:1])
