"""Environments that are broken: packages lost, cut, twice, out of step, or for another machine."""

import shutil
import subprocess
from pathlib import Path

from tests.lab.installation import Here, Impossible, drop, owes, pip, run, tiny, write


@owes("package-leftovers", quick=True)
def pip_was_interrupted(here: Here) -> None:
    old = next(here.site.glob("sympy-*.dist-info"))
    shutil.copytree(old, old.with_name("~" + old.name[1:]))
    metadata = old.with_name("~" + old.name[1:]) / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: ~ympy\nVersion: 1.0\n")
    (metadata.parent / "RECORD").unlink()


@owes("package-files-corrupt")
def library_cut_short(here: Here) -> None:
    library = next((here.site / "numpy").rglob("_multiarray_umath*.so"))
    content = library.read_bytes()[:5000]
    library.unlink()  # a hard link: the original must not be written to
    library.write_bytes(content)


@owes("package-files-corrupt")
def package_half_uninstalled(here: Here) -> None:
    shutil.rmtree(here.site / "sympy")


@owes("core-requirement-missing")
def updated_by_git_pull_alone(here: Here) -> None:
    write(here.root / "requirements.txt", "torch\nnumpy\ncomfy-kitchen>=0.2\neinops\n")


@owes("frontend-package-missing")
def updated_past_the_split_of_the_page(here: Here) -> None:
    write(here.root / "requirements.txt", "torch\nnumpy\ncomfyui-frontend-package==1.53.6\n")


@owes("core-requirement-version")
def core_asks_for_a_newer_package(here: Here) -> None:
    drop(here, "sympy*")
    pip(here, "sympy==1.13.3")
    write(here.root / "requirements.txt", "torch\nnumpy\nsympy>=1.14\n")


@owes("numpy-too-old")
def core_asks_for_a_newer_numpy(here: Here) -> None:
    drop(here, "numpy*")
    pip(here, "numpy==2.2.6")
    write(here.root / "requirements.txt", "torch\nnumpy>=2.4\n")


@owes("torch-missing", also="core-requirement-missing")
def torch_uninstalled(here: Here) -> None:
    drop(here, "torch*")


@owes("numpy-missing", quick=True)
def numpy_uninstalled(here: Here) -> None:
    drop(here, "numpy*")


@owes("venv-broken", quick=True)
def python_of_the_environment_removed(here: Here) -> None:
    python = here.root / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/bin/python3.11")
    for other in ("python3", "python3.11"):
        (here.root / ".venv/bin" / other).unlink(missing_ok=True)


@owes("venv-broken")
def line_in_a_pth_file_that_ends_python(here: Here) -> None:
    write(here.site / "broken.pth", "import os; os._exit(3)\n")


@owes("package-files-corrupt", quick=True)
def record_deleted(here: Here) -> None:
    (next(here.site.glob("filelock-*.dist-info")) / "RECORD").unlink()


@owes("package-files-corrupt")
def metadata_deleted(here: Here) -> None:
    (next(here.site.glob("sympy-*.dist-info")) / "METADATA").unlink()


@owes("package-twice", quick=True)
def update_rolled_back_by_half(here: Here) -> None:
    old = next(here.site.glob("sympy-*.dist-info"))
    shutil.copytree(old, here.site / "sympy-1.0.dist-info")
    text = (old / "METADATA").read_text(encoding="utf-8")
    version = old.name.removesuffix(".dist-info").partition("-")[2]
    changed = text.replace(f"Version: {version}", "Version: 1.0", 1)
    write(here.site / "sympy-1.0.dist-info/METADATA", changed)


@owes("requirement-unmet", quick=True)
def markupsafe_deleted(here: Here) -> None:
    """jinja2, which torch asks for, asks for it."""
    drop(here, "[mM]arkup[sS]afe*")


@owes("requirement-unmet")
def numba_beside_a_newer_llvmlite(here: Here) -> None:
    tiny(here, "numba", "0.61.2", "llvmlite<0.45,>=0.44.0dev0", "numpy<3")
    tiny(here, "llvmlite", "0.46.0")


@owes("pydantic-conflict", level=2)
def pydantic_core_updated_alone(here: Here) -> None:
    pip(here, "pydantic==2.10.1", "pydantic-core==2.41.5", "annotated-types")


@owes("hf-stack-conflict", level=2, also="requirement-unmet")
def diffusers_of_2023_beside_the_hub_of_today(here: Here) -> None:
    pip(here, "diffusers==0.25.0", "huggingface_hub==0.36.0", "tqdm", "packaging", "pyyaml")


@owes("protobuf-conflict")
def protobuf_updated_alone(here: Here) -> None:
    pip(here, "googleapis-common-protos==1.63.0", "protobuf==6.33.1")


@owes("numpy2-abi", level=2)
def opencv_for_numpy_1(here: Here) -> None:
    pip(here, "opencv-python-headless==4.9.0.80")


@owes("numpy-too-old")
def numpy_moved_below_comfyui(here: Here) -> None:
    drop(here, "numpy*")
    pip(here, "numpy==1.24.4")


@owes("torch-companion-mismatch")
def torchvision_for_another_torch(here: Here) -> None:
    pip(here, "torchvision==0.20.1", "pillow")


@owes("torch-companion-missing", unfixed="no CPU build of it is on the default index")
def torchvision_never_installed(here: Here) -> None:
    write(here.root / "requirements.txt", "torch\ntorchvision\nnumpy\n")


@owes("torch-crashes", level=2)
def torch_dies_on_import(here: Here) -> None:
    init = here.site / "torch/__init__.py"
    write(init, "import ctypes\n\nctypes.string_at(0)\n" + init.read_text(encoding="utf-8"))


@owes("torch-broken", level=2)
def torch_library_deleted(here: Here) -> None:
    (here.site / "torch/lib/libtorch_cpu.so").unlink()


@owes("opencv-conflict", level=2)
def two_opencvs_over_one_another(here: Here) -> None:
    text = 'raise ImportError("recursion is detected during loading of cv2 binary extensions")\n'
    for name, version in (("python", "4.11.0.86"), ("contrib-python", "4.9.0.80")):
        tiny(here, f"opencv-{name}-headless", version, code=text, module="cv2")


@owes("numpy-removed-alias", level=2)
def insightface_of_2021(here: Here) -> None:
    tiny(here, "insightface", "0.2", "numpy", code="import numpy\n\nkind = numpy.float\n")


@owes("onnxruntime-gpu", level=2)
def onnxruntime_that_does_not_load(here: Here) -> None:
    code = "raise ImportError('onnxruntime_pybind11_state: DLL initialisation failed')\n"
    tiny(here, "onnxruntime", "1.20.0", code=code)


@owes("xformers-mismatch")
def xformers_for_another_torch(here: Here) -> None:
    code = "__version__ = '0.0.28.post3'\n"
    tiny(here, "xformers", "0.0.28.post3", "numpy", "torch==2.5.1", code=code)


@owes("import-fails", level=2)
def package_of_a_newer_python(here: Here) -> None:
    tiny(here, "matplotlib", "3.99", "numpy", code="type X = int\n")


@owes("triton-missing")
def sageattention_without_triton(here: Here) -> None:
    tiny(here, "sageattention", "2.2.0", code="import triton\n")


def library(here: Here, name: str, source: str, *words: str) -> None:
    """A compiled module that is really loaded, and really fails as its libraries want it."""
    if not shutil.which("cc"):
        raise Impossible("no C compiler to make a module with")
    code = here.root.parent / "module.c"
    code.write_text(source, encoding="utf-8")
    target = here.site / f"{name}.so"
    target.parent.mkdir(parents=True, exist_ok=True)
    run("cc", "-shared", "-fPIC", "-o", str(target), str(code), *words)


@owes("extension-for-another-torch", level=2, also="")
def sageattention_for_another_torch(here: Here) -> None:
    tiny(here, "sageattention", "2.2.0", "torch", code="from sageattention import _fused\n")
    tiny(here, "triton", "3.5.0")
    symbol = "_ZN3c105ErrorC2ENS_14SourceLocationE"
    library(here, "sageattention/_fused", f"extern char {symbol}; char *use = &{symbol};\n")


@owes("system-lib-missing", level=2)
def opencv_without_a_library_of_the_system(here: Here) -> None:
    """The library is there while the module is made, and gone when it is loaded."""
    tiny(here, "opencv-python", "4.11.0.86", code="")
    write(here.site / "cv2/__init__.py", "from cv2 import cv2\n")
    fake = here.root.parent / "libGLlab.so.1"
    source = here.root.parent / "gl.c"
    source.write_text("int glNone(void) { return 0; }\n", encoding="utf-8")
    if shutil.which("cc"):
        soname = "-Wl,-soname,libGLlab.so.1"
        run("cc", "-shared", "-fPIC", soname, "-o", str(fake), str(source))
    library(here, "cv2/cv2", "int glNone(void); int use(void) { return glNone(); }\n", str(fake))
    fake.unlink()


@owes("glibcxx-glibc-too-old", level=2)
def module_made_on_a_newer_system(here: Here) -> None:
    """It asks for a symbol of a glibc that is not out yet."""
    tiny(here, "av", "17.0.0", code="from av import _core\n")
    folder = here.root.parent
    (folder / "stub.c").write_text("int newer(void) { return 0; }\n", encoding="utf-8")
    (folder / "map").write_text("GLIBC_2.99 { global: newer; };\n", encoding="utf-8")
    if shutil.which("cc"):
        words = ["-shared", "-fPIC", "-Wl,-soname,libc.so.6", f"-Wl,--version-script,{folder}/map"]
        run("cc", *words, "-o", str(folder / "libstub.so"), str(folder / "stub.c"), "-nostdlib")
    source = "int newer(void); int use(void) { return newer(); }\n"
    library(here, "av/_core", source, str(folder / "libstub.so"), "-nostdlib")


@owes("mounted-noexec", level=2)
def environment_on_a_noexec_disk(here: Here) -> None:
    mounted(here, here.root / ".venv", "noexec")


def mounted(here: Here, place: Path, option: str) -> None:
    """The same folder through a mount with this option."""
    if subprocess.run(["mount", "--bind", str(place), str(place)], capture_output=True).returncode:
        raise Impossible("only root mounts")
    here.ended.callback(run, "umount", "-l", str(place))
    run("mount", "-o", f"remount,bind,{option}", str(place))
