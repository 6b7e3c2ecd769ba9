"""Compares an sdist and its wheel with the repository: ``compare_distributions.py SDIST WHEEL``.

The sdist holds the package, the tests and every file at the top of the repository but the hidden ones; the wheel the
package. What is not tracked by git is not in them.
"""

import subprocess
import sys
import tarfile
import zipfile

MOST_MEGABYTES_OF_MINI = 16


def tracked(*paths: str) -> set[str]:
    """The files under some paths that git tracks; without paths, all."""
    return set(subprocess.check_output(["git", "ls-files", *paths], text=True).splitlines())


def compare(what: str, names: set[str], expected: set[str]) -> None:
    """Ends the process with a message if two sets of names are not the same."""
    if names != expected:
        sys.exit(f"the {what} and the repository differ in {sorted(names ^ expected)}")


with tarfile.open(sys.argv[1]) as sdist:
    held = {member.name.partition("/")[2] for member in sdist if member.isfile()} - {"PKG-INFO", ".gitignore"}
with zipfile.ZipFile(sys.argv[2]) as wheel:
    sizes = {file.filename: file.file_size for file in wheel.infolist()}
top = {name for name in tracked() if "/" not in name and not name.startswith(".")}
compare("sdist", held, tracked("pyterrier_bertcat", "tests") | top)
names = {name for name in sizes if not name.startswith("pyterrier_bertcat-")}
compare("wheel", names, tracked("pyterrier_bertcat"))
megabytes = sum(sizes[name] for name in names if "/mini/" in name) / 1e6
print(f"{len(names)} files; mini is {megabytes:.1f} MB")
if megabytes > MOST_MEGABYTES_OF_MINI:
    sys.exit(f"mini is larger than {MOST_MEGABYTES_OF_MINI} MB")
