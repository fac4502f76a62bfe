import pytest

from doctor.accelerators import built_for_this, triton
from doctor.choice import (
    NoChoice,
    capability,
    choose,
    compiled_for,
    cuda_version,
    floor,
    installed,
    portable,
    runnable,
    runs,
    supported,
)
from doctor.facts import ComfyUI, Facts, Gpu, Host, NotKnown, Package, Python, Torch
from doctor.manifest import world

WORLD = world()
WINDOWS = {"os": "windows", "machine": "amd64", "libc": "", "name": "Windows-11"}
ARM = {"machine": "aarch64"}


def facts(*gpus, python="3.12.7", bits=64, comfyui=None, torch=None, packages=None, **host):
    host = {
        "os": "linux",
        "machine": "x86_64",
        "libc": "glibc 2.39",
        "wsl": False,
        "name": "",
    } | host
    return Facts(
        host=Host(**host),
        python=Python(version=python, bits=bits),
        gpus=gpus,
        comfyui=comfyui,
        torch=torch,
        packages=packages or {},
        world=WORLD,
    )


def nvidia(driver, level, name="NVIDIA card"):
    return Gpu(name, driver=driver, capability=level)


def refused(*args, want="", **kwargs):
    with pytest.raises(NoChoice) as none:
        choose(facts(*args, **kwargs), want)
    assert none.value.why
    assert "\n" not in none.value.why
    return none.value.why


# (driver, system, the newest CUDA it runs): the cases of NVIDIA's tables
DRIVERS = [
    ("460.32.03", "linux", "11.8"),
    ("470.82.01", "linux", "11.8"),
    ("450.80.02", "linux", "11.8"),
    ("525.60.13", "linux", "12.9"),
    ("535.104.05", "linux", "12.9"),
    ("575.57.08", "linux", "12.9"),
    ("579.99", "linux", "12.9"),
    ("580.65.06", "linux", "13.2"),
    ("440.33", "linux", "10.2"),
    ("440.32", "linux", ""),
    ("450.51.06", "linux", "10.2"),
    ("450.80.01", "linux", "10.2"),
    ("452.39", "windows", "11.8"),
    ("452.38", "windows", "10.2"),
    ("528.33", "windows", "12.9"),
    ("527.41", "windows", "11.8"),
    ("390.46", "linux", ""),
]


@pytest.mark.parametrize(("driver", "system", "newest"), DRIVERS)
def test_a_driver_runs_its_own_major_of_cuda_and_older(driver, system, newest):
    builds = runnable(WORLD, driver, system)
    assert (builds[0].cuda if builds else "") == newest


def test_minor_versions_are_compatible_from_11_1_on_only():
    assert floor(WORLD, "11.8", "linux") == floor(WORLD, "11.1", "linux") == "450.80.02"
    assert floor(WORLD, "11.0", "linux") == "450.36.06"
    assert floor(WORLD, "10.2", "linux") != floor(WORLD, "10.1", "linux")
    assert floor(WORLD, "9.2", "linux") == ""
    assert floor(WORLD, "14.0", "linux") == ""


CHOSEN = [  # machine -> torch, build
    ("cuda 11.2 server", facts(nvidia("460.32.03", "7.5")), "2.7.1", "cu118"),
    ("its python 3.10", facts(nvidia("460.32.03", "7.5"), python="3.10.14"), "2.7.1", "cu118"),
    ("its glibc", facts(nvidia("460.32.03", "7.5"), libc="glibc 2.17"), "2.6.0", "cu118"),
    ("the floor", facts(nvidia("450.80.02", "7.5")), "2.7.1", "cu118"),
    ("cuda 12 driver", facts(nvidia("560.35.03", "8.9")), "2.14.0", "cu126"),
    ("current", facts(nvidia("580.65.06", "8.9")), "2.14.0", "cu130"),
    ("current, windows", facts(nvidia("581.42", "8.9"), **WINDOWS), "2.14.0", "cu130"),
    ("old driver, windows", facts(nvidia("452.39", "7.5"), **WINDOWS), "2.7.1", "cu118"),
    ("wsl: the driver of windows", facts(nvidia("527.41", "7.5"), wsl=True), "2.7.1", "cu118"),
    ("maxwell", facts(nvidia("580.65.06", "5.2")), "2.14.0", "cu126"),
    ("pascal", facts(nvidia("580.65.06", "6.1")), "2.14.0", "cu126"),
    ("volta", facts(nvidia("580.65.06", "7.0")), "2.14.0", "cu126"),
    ("kepler", facts(nvidia("470.82.01", "3.7")), "2.6.0", "cu118"),
    ("blackwell", facts(nvidia("580.65.06", "12.0")), "2.14.0", "cu130"),
    ("blackwell, cuda 12 driver", facts(nvidia("570.124.06", "12.0")), "2.11.0", "cu128"),
    ("b300 by the rule of majors", facts(nvidia("580.95.05", "10.3")), "2.14.0", "cu130"),
    ("gb10", facts(nvidia("580.95.05", "12.1"), **ARM), "2.14.0", "cu130"),
    ("grace hopper", facts(nvidia("560.35.03", "9.0"), **ARM), "2.14.0", "cu126"),
    ("by name", facts(nvidia("580.65.06", "", "NVIDIA GeForce GTX 1080 Ti")), "2.14.0", "cu126"),
    (
        "old beside new",
        facts(nvidia("580.65.06", "6.1"), nvidia("580.65.06", "8.6")),
        "2.14.0",
        "cu126",
    ),
    ("no card", facts(), "2.13.0", "cpu"),
    ("no card, arm", facts(**ARM), "2.13.0", "cpu"),
    ("python 3.15", facts(python="3.15.0"), "2.15.0", "cpu"),
    (
        "python 3.9, old comfyui",
        facts(python="3.9.18", comfyui=ComfyUI("/c", version="0.3.50")),
        "2.8.0",
        "cpu",
    ),
    ("card without driver", facts(Gpu("PCI 10de:2684")), "2.13.0", "cpu"),
    ("radeon", facts(Gpu("RX 7900", "amd", "6.10", "gfx1100")), "2.14.0", "rocm7.2"),
    ("radeon nobody builds for", facts(Gpu("RX 580", "amd", "6.10", "gfx803")), "2.13.0", "cpu"),
    ("radeon on windows", facts(Gpu("RX 7900", "amd", "", "gfx1100"), **WINDOWS), "2.13.0", "cpu"),
    ("arc", facts(Gpu("Intel(R) Arc(TM) A770", "intel")), "2.12.0", "xpu"),
    ("integrated graphics", facts(Gpu("Intel(R) UHD Graphics 630", "intel")), "2.13.0", "cpu"),
    ("mac", facts(os="macos", machine="arm64", name="macOS-15.1"), "2.14.0", "cpu"),
    ("older mac", facts(os="macos", machine="arm64", name="macOS-13.6"), "2.11.0", "cpu"),
]


@pytest.mark.parametrize(
    ("machine", "torch", "build"), [c[1:] for c in CHOSEN], ids=[c[0] for c in CHOSEN]
)
def test_the_newest_that_runs(machine, torch, build):
    family = choose(machine)
    assert (family.torch, family.build) == (torch, build)
    assert family.why


def test_the_family_comes_from_one_index_in_one_build():
    family = choose(facts(nvidia("460.32.03", "7.5")))
    assert family.pins == (
        "torch==2.7.1+cu118",
        "torchvision==0.22.1+cu118",
        "torchaudio==2.7.1+cu118",
    )
    assert family.index == "https://download.pytorch.org/whl/cu118"


def test_the_default_index_serves_macs():
    family = choose(facts(os="macos", machine="arm64", name="macOS-15.1"))
    assert family.index == ""
    assert family.pins[0] == "torch==2.14.0"


def test_the_newer_card_decides_where_no_build_serves_both():
    old, new = nvidia("580.65.06", "6.1", "GTX 1080"), nvidia("580.65.06", "12.0", "RTX 5090")
    family = choose(facts(old, new))
    assert family.build == "cu130"
    assert "GTX 1080" in family.why


def test_refused_below_the_floor():
    for python in ("3.12.7", "3.10.14"):
        why = refused(nvidia("450.51.06", "7.5"), python=python)
        assert "450.51.06" in why
        assert "450.80.02" in why


def test_refused_where_the_wheel_holds_only_portable_code():
    why = refused(nvidia("471.41", "12.0"), want="==2.5.1", **WINDOWS)
    assert "PTX" in why


def test_refused_where_the_wheel_holds_nothing():
    assert "machine code" in refused(nvidia("460.32.03", "12.0"))
    assert "3.0" in refused(nvidia("470.82.01", "3.0"))


def test_a_jetson_takes_no_code_of_another_minor():
    assert "8.7" in refused(nvidia("580.65.06", "8.7", "Orin"), **ARM)
    assert choose(facts(nvidia("580.65.06", "11.0", "Thor"), **ARM)).build == "cu130"


def test_refused_where_the_wish_has_no_wheel_for_this_python():
    why = refused(want="<2")
    assert "Python 3.12" in why
    assert "2.2.0" in why
    assert choose(facts(python="3.10.14"), "<2").torch == "1.13.1"


@pytest.mark.parametrize(
    ("machine", "word"),
    [
        ({"python": "3.16.0"}, "3.16"),
        ({"bits": 32}, "32-bit"),
        ({"machine": "riscv64"}, "riscv64"),
        ({**WINDOWS, "machine": "arm64"}, "arm64"),
        ({"libc": "musl 1.2"}, "musl"),
        ({"libc": "glibc 2.12"}, "2.12"),
        ({"os": "macos", "name": "macOS-13.6"}, "Intel"),
    ],
)
def test_refused_for_what_torch_is_not_published_for(machine, word):
    assert word in refused(**machine)


def test_a_card_nobody_can_place_is_not_guessed():
    assert "compute capability" in refused(nvidia("580.65.06", "", "NVIDIA Something 9999"))


def test_comfyui_has_a_floor_of_its_own():
    old, new = ComfyUI("/c", version="0.3.50"), ComfyUI("/c", version="0.38.1")
    assert choose(facts(python="3.8.18", comfyui=old)).torch == "2.4.1"
    assert "2.5" in refused(python="3.8.18", comfyui=new)


def test_without_the_facts_nothing_is_chosen():
    with pytest.raises(NotKnown):
        choose(Facts(world=WORLD))


@pytest.mark.parametrize(
    ("level", "sm", "fits"),
    [
        ("8.9", ["86"], True),
        ("8.6", ["sm_89"], False),
        ("6.1", ["60"], True),
        ("7.5", ["80"], False),
        ("9.0", ["sm_90a"], True),
        ("10.3", ["100"], True),
        ("12.0", ["100"], False),
        ("8.7", ["86"], False),
    ],
)
def test_machine_code_runs_on_the_same_major_from_its_minor_on(level, sm, fits):
    assert runs(level, sm, WORLD) == fits


def test_portable_code_is_compiled_for_newer_cards_only():
    assert portable("9.0", ["compute_80"])
    assert not portable("7.5", ["compute_80"])


@pytest.mark.parametrize(
    ("build", "cuda"),
    [
        ("cu118", "11.8"),
        ("cu130", "13.0"),
        ("cu92", "9.2"),
        ("cpu", ""),
        ("rocm6.4", ""),
        ("cuda", ""),
    ],
)
def test_the_cuda_of_a_build(build, cuda):
    assert cuda_version(build) == cuda


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("NVIDIA GeForce RTX 3080 Laptop GPU", "8.6"),
        ("Tesla V100-SXM2-16GB", "7.0"),
        ("NVIDIA A100-SXM4-80GB", "8.0"),
        ("NVIDIA A10", "8.6"),
        ("NVIDIA RTX A2000 12GB", "8.6"),
        ("Tesla T4", "7.5"),
        ("NVIDIA T400 4GB", "7.5"),
        ("NVIDIA L40S", "8.9"),
        ("NVIDIA RTX 4000 Ada Generation", "8.9"),
        ("Quadro RTX 4000", "7.5"),
        ("GeForce GTX 1060 6GB", "6.1"),
        ("GeForce GTX TITAN X", "5.2"),
        ("NVIDIA Something 9999", ""),
    ],
)
def test_a_name_tells_the_capability(name, level):
    assert capability(Gpu(name), WORLD) == level


def test_the_driver_is_asked_before_the_name():
    assert capability(Gpu("NVIDIA GeForce RTX 3080", capability="8.9"), WORLD) == "8.9"


@pytest.mark.parametrize(
    ("gpu", "is_supported"),
    [
        (nvidia("560.35.03", "8.9"), True),
        (nvidia("", "8.9"), False),
        (nvidia("470.82.01", "3.0"), False),
        (Gpu("RX 7900", "amd", "", "gfx1100"), True),
        (Gpu("RX 580", "amd", "", "gfx803"), False),
        (Gpu("PCI 1002:15bf", "amd"), False),
        (Gpu("Intel(R) Arc(TM) B580", "intel"), True),
        (Gpu("Intel(R) UHD Graphics 630", "intel"), False),
    ],
)
def test_is_there_a_torch_for_this_card(gpu, is_supported):
    assert supported(gpu, facts(gpu)) == is_supported


def test_a_card_is_supported_where_its_wheels_are():
    thor = nvidia("580.95.05", "11.0", "Thor")
    assert supported(thor, facts(thor, **ARM))
    assert not supported(thor, facts(thor, **WINDOWS))


def test_the_family_of_the_torch_that_is_there():
    family = installed(facts(torch=Torch("2.13.0+cpu", "cpu")))
    assert family is not None
    assert family.pins[1] == "torchvision==0.28.0+cpu"
    assert installed(facts(torch=Torch("2.13.0", "cu130"))).build == "cu130"
    assert installed(facts(torch=Torch("2.16.0.dev20261101", "cu132"))) is None
    assert installed(facts(torch=None)) is None


def test_the_list_of_a_neighbour_is_named_as_such():
    assert compiled_for(facts(), "2.7.1+cu118", "cu118").assumed
    assert not compiled_for(facts(), "2.6.0+cu118", "cu118").assumed
    assert compiled_for(facts(**ARM), "2.7.1", "cu118") is None


@pytest.mark.parametrize(
    ("torch", "machine", "xformers"),
    [
        ("2.10.0+cu128", {}, "xformers==0.0.35"),
        ("2.9.0+cu128", {}, "xformers==0.0.33.post1"),
        ("2.5.1+cu124", {}, "xformers==0.0.29.post1"),
        ("2.5.1+cu124", WINDOWS, ""),  # no wheel for Windows in those months
        ("2.6.0+cu124", WINDOWS, "xformers==0.0.29.post3"),
        ("2.9.0+cpu", {}, ""),
        ("2.9.0+rocm6.4", {}, ""),
        ("1.12.1+cu116", {}, ""),
        ("2.9.0+cu128", {"os": "macos"}, ""),
    ],
)
def test_an_accelerator_is_named_only_where_it_was_built_for_this_torch(torch, machine, xformers):
    own = Torch(torch, torch.partition("+")[2])
    assert built_for_this(facts(torch=own, **machine), "xformers") == xformers


def test_triton_is_the_one_that_torch_asks_for():
    wish = 'triton==3.5.0; platform_system == "Linux"'
    packages = {"torch": Package("2.9.0+cu128", requires=("filelock", wish))}
    here = {"torch": Torch("2.9.0+cu128", "cu128"), "packages": packages}
    assert triton(facts(**here)) == "triton==3.5.0"
    assert triton(facts(**here, **WINDOWS)) == "triton-windows>=3.5,<3.6"
    assert triton(facts(torch=Torch("2.9.0+cpu", "cpu"), packages={}, **WINDOWS)) == ""
