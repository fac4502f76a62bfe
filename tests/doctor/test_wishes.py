"""Requirement files as people write them."""

import pytest

from doctor.wishes import of_project, read

FILE = """\
# a comment
numpy>=1.25  # for core
torch
opencv-python-headless ; platform_system != "Darwin"

-r other.txt
--extra-index-url https://download.pytorch.org/whl/cu128
git+https://github.com/o/r.git@main#egg=thing
thing @ git+https://github.com/o/r.git
https://host.example/wheel-1.0-py3-none-any.whl
-e ./local
long-name \\
    >=1.0
pinned==1.0 --hash=sha256:abc
this is no requirement
Pillow[extra]~=10.0
"""


def test_every_line_is_understood_for_what_it_is():
    found = [(w.line, w.kind, w.name) for w in read(FILE, "requirements.txt")]
    assert found == [
        (2, "requirement", "numpy"),
        (3, "requirement", "torch"),
        (4, "requirement", "opencv-python-headless"),
        (6, "option", ""),
        (7, "option", ""),
        (8, "address", "thing"),
        (9, "address", "thing"),
        (10, "address", "wheel"),
        (11, "editable", ""),
        (12, "requirement", "long-name"),
        (14, "requirement", "pinned"),
        (15, "unreadable", ""),
        (16, "requirement", "pillow"),
    ]


@pytest.mark.parametrize(
    ("line", "file", "constrains"),
    [
        ("-r other.txt", "other.txt", False),
        ("-rother.txt", "other.txt", False),
        ("--requirement=deep/other.txt", "deep/other.txt", False),
        ("-c bounds.txt", "bounds.txt", True),
        ("--constraint bounds.txt", "bounds.txt", True),
        ("--extra-index-url https://x.example", "", False),
        ("-e ./here", "", False),
    ],
)
def test_files_that_include_files(line, file, constrains):
    (wish,) = read(line, "f")
    assert wish.includes == file
    assert not file or wish.constrains == constrains


@pytest.mark.parametrize("line", ["./local-1.0-py3-none-any.whl", "/opt/x-2-py3-none-any.whl", "."])
def test_paths_are_addresses(line):
    assert [w.kind for w in read(line, "f")] == ["address"]


def test_a_wish_says_whose_it_is():
    (wish,) = read("numpy<2\n", "custom_nodes/a/requirements.txt", "a")
    assert (wish.where, wish.pack) == ("custom_nodes/a/requirements.txt:1", "a")
    assert str(wish.requirement.specifier) == "<2"


@pytest.mark.parametrize("text", ["", "\n\n", "# only\n", "\\\n", "\ufeff"])
def test_files_that_say_nothing_have_no_requirements(text):
    assert [w for w in read(text, "f") if w.kind == "requirement"] == []


def test_dependencies_of_a_project_are_wishes_too():
    (wish,) = of_project(["einops>=0.7"], "pyproject.toml", "p")
    assert (wish.name, wish.line) == ("einops", 1)
