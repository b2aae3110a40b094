"""The interpreters of Python that tests can use on this machine."""
import glob
import os
import shutil
import subprocess

VERSIONS = ("3.10", "3.11", "3.12", "3.13")


def found():
    """{version: path} of those that start, from PATH and from pyenv."""
    interpreters = {}
    for version in VERSIONS:
        installed = sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python{version}")))
        for path in [shutil.which(f"python{version}"), *installed]:
            if path and version not in interpreters:
                asked = subprocess.run([path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True)
                if asked.returncode == 0 and asked.stdout.strip() == version:
                    interpreters[version] = path
    return interpreters
