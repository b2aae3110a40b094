#!/usr/bin/env python3
"""The launcher, tried on a project of one file: builds when it must, starts at once when it need not, and its statuses are right."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

LAUNCHER = pathlib.Path(__file__).resolve().parent.parent.parent / "kdacheck"

CMAKE = """cmake_minimum_required(VERSION 3.25)
project(small LANGUAGES CXX)
enable_testing()
add_executable(kdacheck kdacheck.cpp)
add_test(NAME good COMMAND kdacheck status 0)
add_test(NAME bad COMMAND kdacheck status 1)
add_test(NAME skipped COMMAND kdacheck status 77)
set_tests_properties(skipped PROPERTIES SKIP_RETURN_CODE 77)
"""
PROGRAM = """#include <cstdio>
#include <cstdlib>
#include <cstring>
int main(int argc, char** argv) {
  if (argc > 2 && !std::strcmp(argv[1], "status")) return std::atoi(argv[2]);
  for (int i = 1; i < argc; ++i) std::printf("[%s]", argv[i]);
  std::puts(" version 1");
}
"""


class Launcher(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="kdacheck launcher ")  # a path with spaces
        cls.root = pathlib.Path(cls.folder.name) / "a clone"
        (cls.root / "reference").mkdir(parents=True)
        shutil.copy(LAUNCHER, cls.root)
        (cls.root / "CMakeLists.txt").write_text(CMAKE)
        (cls.root / "kdacheck.cpp").write_text(PROGRAM)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_launcher(self, *arguments, launcher=None, **environment):
        clean = {key: value for key, value in os.environ.items() if key not in ("KDACHECK_BUILD_DIR", "KDACHECK_JOBS", "CTEST_PARALLEL_LEVEL")}
        return subprocess.run([str(launcher or self.root / "kdacheck"), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              env={**clean, "CI": "true", **environment}, cwd="/")

    def edit(self, name, old, new):
        path = self.root / name
        time.sleep(0.02)  # later than the stamp by more than the clock's grain
        path.write_text(path.read_text().replace(old, new))

    def test_arguments_and_status_go_through_and_a_second_call_starts_at_once(self):
        first = self.run_launcher("verify", "two words", "", "--x=*")
        self.assertEqual((first.returncode, first.stdout), (0, "[verify][two words][][--x=*] version 1\n"), first.stderr)
        began = time.monotonic()
        second = self.run_launcher("status", "4")
        self.assertLess(time.monotonic() - began, 0.5)
        self.assertEqual((second.returncode, second.stdout, second.stderr), (4, "", ""))

    def test_a_changed_source_is_built_and_a_broken_one_is_status_3_with_the_place_of_the_log(self):
        self.run_launcher("x")
        self.edit("kdacheck.cpp", "version 1", "version 2")
        self.assertEqual(self.run_launcher("x").stdout, "[x] version 2\n")
        self.edit("kdacheck.cpp", "version 2", 'version 1"')
        for _ in range(2):  # a failed build is not forgotten
            broken = self.run_launcher("x")
            self.assertEqual((broken.returncode, broken.stdout), (3, ""))
            self.assertIn("error:", broken.stderr)
            self.assertIn(str(self.root / "build" / "kdacheck-build.log"), broken.stderr)
        self.edit("kdacheck.cpp", 'version 1"', "version 1")
        self.assertEqual(self.run_launcher("x").stdout, "[x] version 1\n")

    def test_a_removed_file_is_noticed(self):
        header = self.root / "reference" / "gone.hpp"
        header.write_text("#pragma once\n")
        self.edit("kdacheck.cpp", "#include <cstdio>", '#include "reference/gone.hpp"\n#include <cstdio>')
        self.assertEqual(self.run_launcher("x").returncode, 0)
        header.unlink()
        self.assertEqual(self.run_launcher("x").returncode, 3)
        self.edit("kdacheck.cpp", '#include "reference/gone.hpp"\n', "")
        self.assertEqual(self.run_launcher("x").returncode, 0)

    def test_it_works_through_a_link_and_builds_where_it_is_told(self):
        link = pathlib.Path(self.folder.name) / "link"
        link.symlink_to(self.root / "kdacheck")
        elsewhere = pathlib.Path(self.folder.name) / "another build"
        result = self.run_launcher("x", launcher=link, KDACHECK_BUILD_DIR=str(elsewhere))
        self.assertEqual(result.stdout, "[x] version 1\n", result.stderr)
        self.assertTrue((elsewhere / "kdacheck").is_file())

    def test_many_at_once_from_nothing_all_succeed(self):
        build = str(pathlib.Path(self.folder.name) / "shared build")
        clean = {**os.environ, "CI": "true", "KDACHECK_BUILD_DIR": build}
        started = [subprocess.Popen([str(self.root / "kdacheck"), str(i)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean,
                                    stdin=subprocess.DEVNULL) for i in range(4)]
        for i, process in enumerate(started):
            output, trouble = process.communicate()
            self.assertEqual((process.returncode, output), (0, f"[{i}] version 1\n"), trouble)

    def test_a_clone_that_moved_builds_again(self):
        moved = pathlib.Path(self.folder.name) / "moved clone"
        self.run_launcher("x")
        shutil.copytree(self.root, moved)
        result = self.run_launcher("x", launcher=moved / "kdacheck")
        self.assertEqual((result.returncode, result.stdout), (0, "[x] version 1\n"), result.stderr)

    def test_test_is_0_only_if_something_ran_and_passed(self):
        for arguments, status in ((("-R", "good"), 0), (("-R", "bad"), 1), ((), 1), (("-R", "skipped"), 5), (("-R", "nothing"), 5),
                                  (("-Q", "-R", "nothing"), 5), (("-Q", "-R", "good"), 0), (("--bogus",), 2), (("good",), 2), (("-N",), 0)):
            result = self.run_launcher("test", *arguments)
            self.assertEqual(result.returncode, status, (arguments, result.stdout, result.stderr))

    def test_help_needs_no_build_and_no_command_is_wrong_usage(self):
        nowhere = str(pathlib.Path(self.folder.name) / "never built")
        result = self.run_launcher("--help", KDACHECK_BUILD_DIR=nowhere)
        self.assertEqual(result.returncode, 0)
        self.assertIn("./kdacheck verify", result.stdout)
        result = self.run_launcher(KDACHECK_BUILD_DIR=nowhere)
        self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertFalse(os.path.exists(nowhere))

    def test_a_build_folder_that_cannot_be_made_is_status_3(self):
        result = self.run_launcher("x", KDACHECK_BUILD_DIR=str(self.root / "CMakeLists.txt" / "build"))
        self.assertEqual(result.returncode, 3)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)

    def test_missing_packages_without_root_are_status_3_with_the_command_to_run(self):
        stubs = pathlib.Path(self.folder.name) / "stubs"
        stubs.mkdir()
        for name, text in (("dpkg-query", "echo installed cmake"), ("id", "echo 1000"), ("sudo", "exit 1"), ("apt-get", "exit 1")):
            (stubs / name).write_text(f"#!/bin/sh\n{text}\n")
            (stubs / name).chmod(0o755)
        result = self.run_launcher("x", KDACHECK_BUILD_DIR=str(pathlib.Path(self.folder.name) / "unset"), PATH=f"{stubs}:{os.environ['PATH']}")
        self.assertEqual(result.returncode, 3)
        self.assertIn("apt-get install ninja-build g++", result.stderr)
        (stubs / "id").write_text("#!/bin/sh\necho 0\n")
        (stubs / "apt-get").write_text("#!/bin/sh\necho 'E: Unable to locate package ninja-build'\nexit 100\n")
        result = self.run_launcher("x", KDACHECK_BUILD_DIR=str(pathlib.Path(self.folder.name) / "unset"), PATH=f"{stubs}:{os.environ['PATH']}")
        self.assertEqual(result.returncode, 3)
        self.assertIn("E: Unable to locate package ninja-build", result.stderr)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    unittest.main(verbosity=1)
