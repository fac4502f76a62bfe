"""Every failed import has one cause, and every text that is printed leads to the right one."""

from dataclasses import replace

import pytest

from doctor.checks.causes import brought, built_for, cause, has_torch, tried
from doctor.facts import Facts, Import, NotKnown, Package, Torch, Unknown
from doctor.manifest import world

PACKAGES = {
    "numpy": Package("2.4.6"),
    "torch": Package("2.14.0+cu130"),
    "opencv-python": Package("4.9.0.80"),
    "torchsde": Package("0.2.6", requires=("torch>=1.6.0",)),
    "kornia": Package("0.8.1", requires=("torch>=2.0.0",)),
}
GOOD = Facts(
    torch=Torch("2.14.0+cu130", "cu130"),
    packages=PACKAGES,
    imports={"torch": Import(True), "numpy": Import(True)},
    world=world(),
)
NO_NUMPY = replace(
    GOOD,
    packages={k: v for k, v in PACKAGES.items() if k != "numpy"},
    imports={"torch": Import(True)},
)
SICK_NUMPY = replace(GOOD, imports={**GOOD.imports, "numpy": Import(False, "ImportError: x")})
SICK_TORCH = replace(GOOD, imports={**GOOD.imports, "torch": Import(False, "ImportError: x")})
NUMPY_1 = replace(GOOD, packages={**PACKAGES, "numpy": Package("1.26.4")})
TWO_OPENCVS = replace(GOOD, packages={**PACKAGES, "opencv-contrib-python": Package("4.11.0.86")})
CUT_SHORT = replace(
    GOOD, packages={**PACKAGES, "safetensors": Package("0.6.2", missing=("safetensors/x.so",))}
)
NO_NUMPY_TEXT = "ModuleNotFoundError: No module named 'numpy'"
OLD_MODULE = "ValueError: numpy.dtype size changed. Expected 96 from C header, got 88 from PyObject"
NEW_MODULE = "ValueError: numpy.dtype size changed. Expected 88 from C header, got 96 from PyObject"
MULTIARRAY = "ImportError: numpy.core.multiarray failed to import"
LIBGL = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
LIBCUDNN = "ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory"
LIBTORCH = "ImportError: libtorch_cuda.so: cannot open shared object file: No such file"
GLIBC = "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found"
DLL = "OSError: [WinError 126] The specified module could not be found. Error loading fbgemm.dll"


@pytest.mark.parametrize(
    ("facts", "module", "error", "id"),
    [
        (GOOD, "torch", "ImportError: undefined symbol: ncclCommRegister", "torch-broken"),
        (GOOD, "torch", LIBTORCH, "torch-broken"),
        (GOOD, "torch", LIBCUDNN, "torch-broken"),
        (GOOD, "torch", GLIBC, "glibcxx-glibc-too-old"),
        (GOOD, "torch", DLL, "windows-dll-missing"),
        (GOOD, "torch", LIBGL.replace("GL", "gomp"), "system-lib-missing"),
        (GOOD, "numpy", "ImportError: cannot import name x", "numpy-broken"),
        (GOOD, "cv2", MULTIARRAY, "numpy2-abi"),
        (GOOD, "pandas", OLD_MODULE, "numpy2-abi"),
        (NUMPY_1, "pandas", NEW_MODULE, "numpy2-abi"),
        (NUMPY_1, "pandas", OLD_MODULE, "import-fails"),
        (GOOD, "cv2", LIBGL, "system-lib-missing"),
        (TWO_OPENCVS, "cv2", "ImportError: recursion is detected", "opencv-conflict"),
        (TWO_OPENCVS, "cv2", MULTIARRAY, "numpy2-abi"),
        (CUT_SHORT, "safetensors", "ModuleNotFoundError: _rust", "package-files-corrupt"),
        (
            GOOD,
            "torchvision",
            "RuntimeError: operator torchvision::nms does not exist",
            "torch-companion-mismatch",
        ),
        (GOOD, "torchaudio", "OSError: undefined symbol", "torch-companion-mismatch"),
        (GOOD, "xformers", "ImportError: undefined symbol", "xformers-mismatch"),
        (GOOD, "onnxruntime", "ImportError: DLL not there", "onnxruntime-gpu"),
        (
            GOOD,
            "imgaug",
            "AttributeError: `np.sctypes` was removed in the NumPy 2.0 release",
            "numpy-removed-alias",
        ),
        (
            GOOD,
            "x",
            "AttributeError: module 'numpy' has no attribute 'bool'",
            "numpy-removed-alias",
        ),
        (GOOD, "x", "SyntaxError: invalid syntax", "import-fails"),
        (NO_NUMPY, "scipy", NO_NUMPY_TEXT, "numpy-missing"),
        (NO_NUMPY, "cv2", MULTIARRAY, "numpy-missing"),
        (NO_NUMPY, "x", "SyntaxError: invalid syntax", "import-fails"),
        (SICK_NUMPY, "scipy", "ImportError: numpy._core", "numpy-broken"),
        (SICK_TORCH, "torchsde", "ImportError: undefined symbol", "torch-broken"),
        (SICK_TORCH, "torchvision", "ImportError: libtorch.so", "torch-broken"),
        (SICK_TORCH, "pandas", OLD_MODULE, "numpy2-abi"),
    ],
)
def test_the_cause_of_a_failed_import(facts, module, error, id):
    assert cause(facts, module, Import(False, error)) == id


@pytest.mark.parametrize("how", [{"signal": "SIGSEGV"}, {"timeout": True}])
def test_a_torch_that_dies_or_hangs_crashes(how):
    assert cause(GOOD, "torch", Import(False, "", **how)) == "torch-crashes"


def test_a_module_that_dies_with_torch_is_no_second_cause():
    dead = replace(GOOD, imports={**GOOD.imports, "torch": Import(False, signal="SIGILL")})
    assert cause(dead, "torchsde", Import(False, "died", signal="SIGILL")) == "torch-broken"


def test_the_trace_counts_as_well_as_the_last_line():
    outcome = Import(False, "ImportError", trace=("AttributeError: _ARRAY_API not found",))
    assert cause(GOOD, "onnxruntime", outcome) == "numpy2-abi"


@pytest.mark.parametrize(
    ("facts", "text", "built"),
    [
        (GOOD, OLD_MODULE, "1"),
        (NUMPY_1, NEW_MODULE, "2"),
        (GOOD, MULTIARRAY, "1"),
        (NUMPY_1, MULTIARRAY, "2"),
        (NUMPY_1, OLD_MODULE, ""),
        (GOOD, "nothing about it", ""),
        (NO_NUMPY, OLD_MODULE, ""),
    ],
)
def test_the_numbers_tell_the_direction(facts, text, built):
    assert built_for(facts, text) == built


def test_what_brings_a_module():
    assert set(brought(GOOD, "cv2")) == {"opencv-python"}
    assert set(brought(GOOD, "torchsde")) == {"torchsde"}
    assert brought(GOOD, "absent") == {}


def test_not_imported_on_purpose_differs_from_could_not():
    assert tried(replace(GOOD, imports=Unknown("level 1", skipped=True)), "torch") is None
    with pytest.raises(NotKnown):
        tried(replace(GOOD, imports=Unknown("the child died")), "torch")


def test_an_unknown_torch_is_not_taken_for_an_installed_one():
    assert has_torch(GOOD)
    assert not has_torch(replace(GOOD, torch=None))
    with pytest.raises(NotKnown):
        has_torch(replace(GOOD, torch=Unknown("the probe died")))
