"""The command for a part of the system, by distribution and layout; none where nobody knows."""

from dataclasses import replace

import pytest

from doctor import advise
from tests.doctor.test_machines import read

BARE = {"wsl": False, "container": ""}


def facts(name, layout="venv", **host):
    healthy = read("healthy-cuda")
    target = replace(healthy.target, layout=layout)
    return replace(healthy, target=target, host=replace(healthy.host, name=name, **BARE | host))


@pytest.mark.parametrize(
    ("name", "part", "command"),
    [
        ("Ubuntu 24.04.2 LTS", "libGL.so.1", "sudo apt-get install libgl1"),
        ("Debian GNU/Linux 12 (bookworm)", "venv", "sudo apt-get install python3.12-venv"),
        ("Fedora Linux 42", "libGL.so.1", "sudo dnf install mesa-libGL"),
        ("Rocky Linux 9.5", "compiler", "sudo dnf install gcc gcc-c++ python3-devel"),
        ("openSUSE Tumbleweed", "libGL.so.1", "sudo zypper install Mesa-libGL1"),
        ("Arch Linux", "driver", "sudo pacman -S nvidia-open nvidia-utils"),
        ("Ubuntu 22.04", "driver", "sudo ubuntu-drivers install"),
        ("Alpine Linux v3.20", "git", "sudo apk add git"),
        ("Linux Mint 22", "compiler", "sudo apt-get install build-essential python3.12-dev"),
    ],
)
def test_each_distribution_has_its_own_words(name, part, command):
    assert advise.system(facts(name), part) == (command,)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Fedora Linux 42", "venv"),  # is part of python3 there
        ("Rocky Linux 9.5", "driver"),  # not of the distribution
        ("Haiku R1", "libGL.so.1"),
        ("Ubuntu 24.04", "libunheard.so.1"),
    ],
)
def test_nothing_is_said_where_no_table_tells(name, part):
    assert advise.system(facts(name), part) == ()


def test_in_a_container_the_next_image_is_thought_of_and_a_driver_is_the_hosts():
    inside = facts("Debian GNU/Linux 12", container="docker")
    assert advise.system(inside, "libGL.so.1") == (
        "apt-get install libgl1",
        "RUN apt-get update && apt-get install -y libgl1",
    )
    assert advise.system(inside, "driver") == ()


def test_conda_needs_no_root_and_wsl_takes_the_driver_of_windows():
    conda = facts("Ubuntu 24.04", layout="conda")
    (command,) = advise.system(conda, "libGL.so.1")
    assert command == "conda install -p /srv/ComfyUI/.venv -c conda-forge libgl"
    wsl = facts("Ubuntu 24.04", wsl=True)
    assert advise.system(wsl, "driver") == ("wsl --update", "wsl --shutdown")
    assert advise.system(wsl, "libGL.so.1") == ("sudo apt-get install libgl1",)


def test_long_paths_on_windows():
    commands = advise.system(facts("Windows 11", os="windows"), "long-paths")
    assert "LongPathsEnabled" in commands[0]
    assert advise.system(facts("Ubuntu 24.04"), "long-paths") == ()
