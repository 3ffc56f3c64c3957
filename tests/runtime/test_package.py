"""The installed C library as a C programmer finds it: by pkg-config and by find_package, from a prefix moved away."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from network.examples import network, pictures, requantise, wide_resnet
from PIL import Image
from runtime.program import EXPECTED, RUNTIME

import bitwren
from bitwren.network.graph import PIXELS, Sum
from bitwren.network.pack import write_bwn

EXAMPLE = RUNTIME / "examples"
NET = wide_resnet(8, 0.25, size=8)


def call(*command, **options):
    """Run a command; show what it says where it fails; return what it prints."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=1200, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def prefix(tmp_path_factory):
    """The installed library, moved after the installation: nothing may remember where it was."""
    absent = [tool for tool in ("gcc", "cmake", "pkg-config") if not shutil.which(tool)]
    if absent:
        (pytest.fail if EXPECTED else pytest.skip)(f"needs {', '.join(absent)}: packages of the same names")
    folder = tmp_path_factory.mktemp("package")
    call("cmake", "-S", RUNTIME, "-B", folder / "build", "-DBITWREN_WERROR=ON", "-DCMAKE_C_COMPILER=gcc")
    call("cmake", "--build", folder / "build", "--parallel", "2")
    call("cmake", "--install", folder / "build", "--prefix", folder / "first")
    shutil.move(folder / "first", folder / "prefix")
    shutil.rmtree(folder / "build")
    return folder / "prefix"


@pytest.fixture(scope="session")
def libraries(prefix):
    """The folder of the libraries: lib, or what the system has in its place."""
    return next(prefix.rglob("libbitwren.a")).parent


def by_pkg_config(prefix, libraries, folder, static):
    found = {"PKG_CONFIG_PATH": str(libraries / "pkgconfig"), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    flags = call("pkg-config", "--cflags", "--libs", *["--static"][:static], "bitwren", env=found).split()
    assert call("pkg-config", "--modversion", "bitwren", env=found).strip() == header_version()
    if static:
        flags[flags.index("-lbitwren")] = "-l:libbitwren.a"
    warnings = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
    call("gcc", *warnings, EXAMPLE / "classify.c", *flags, "-lm", "-o", folder / "classify")
    return folder / "classify"


def by_find_package(prefix, libraries, folder, static):
    shutil.copytree(EXAMPLE, folder / "source")
    if static:
        lists = folder / "source" / "CMakeLists.txt"
        lists.write_text(lists.read_text().replace("bitwren::bitwren", "bitwren::static"))
    call("cmake", "-S", folder / "source", "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    call("cmake", "--build", folder / "build")
    return folder / "build" / "classify"


def header_version():
    return re.search(r'BITWREN_VERSION "(.*)"', header())[1]


@pytest.fixture
def files(tmp_path):
    """A network and a picture for it, as files."""
    write_bwn(tmp_path / "model.bwn", NET)
    Image.fromarray(pictures(NET, 1, 5)[0].transpose(1, 2, 0)).save(tmp_path / "picture.ppm")
    return tmp_path / "model.bwn", tmp_path / "picture.ppm"


@pytest.mark.parametrize("static", [False, True], ids=["shared", "static"])
@pytest.mark.parametrize("build", [by_pkg_config, by_find_package])
def test_the_example_answers_as_python_does(prefix, libraries, files, tmp_path, build, static):
    program = build(prefix, libraries, tmp_path, static)
    lines = call(program, *files, env={} if static else {"LD_LIBRARY_PATH": str(libraries)}).splitlines()
    model = bitwren.load(files[0])
    assert [line.rpartition(" ")[0] for line in lines] == list(model.classes)
    expected = model.probabilities(pictures(NET, 1, 5))[0]
    np.testing.assert_allclose([float(line.split()[-1]) for line in lines], expected, atol=5.1e-5)
    assert ("libbitwren" in call("ldd", program, env={"LD_LIBRARY_PATH": str(libraries)})) != static


def test_the_example_refuses(prefix, libraries, files, tmp_path):
    program = by_pkg_config(prefix, libraries, tmp_path, static=True)
    model, picture = files
    content, grey, junk = picture.read_bytes(), tmp_path / "grey.bwn", tmp_path / "junk"
    write_bwn(grey, network((1, 8, 8), requantise("r", PIXELS), Sum("s", "r")))
    junk.write_bytes(b"junk")
    (tmp_path / "short.ppm").write_bytes(content[:-1])
    for words, message in [
        ((model,), "usage: classify MODEL.bwn PICTURE.ppm"),
        ((tmp_path / "none.bwn", picture), "none.bwn: cannot be opened"),
        ((junk, picture), "junk: 4 bytes, expected at least"),
        ((model, tmp_path / "none.ppm"), "none.ppm: cannot be opened"),
        ((model, junk), "junk: no binary PPM or PGM of 8 bits"),
        ((grey, picture), "picture.ppm: of another size"),
        ((model, tmp_path / "short.ppm"), "short.ppm: ends too early"),
    ]:
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
        assert done.stderr.startswith("classify: ") and message in done.stderr


def test_the_example_is_short():
    assert len((EXAMPLE / "classify.c").read_text().splitlines()) < 60


def test_the_library_exports_the_header_and_nothing_else(libraries):
    declared = set(re.findall(r"\b(bitwren_\w+)\(", re.sub(r"/\*.*?\*/", "", header(), flags=re.DOTALL)))
    lines = call("nm", "--dynamic", "--defined-only", libraries / "libbitwren.so").splitlines()
    exported = {line.split()[-1] for line in lines}
    assert exported == declared and len(declared) > 10


def test_the_library_has_no_globals(libraries):
    """No variable that can be written: neither data (d, D) nor zeroed (b, B, C); tables of pointers are read-only."""
    lines = call("nm", libraries / "libbitwren.a").splitlines()
    assert [line for line in lines if re.fullmatch(r"[0-9a-f]+ [bBC] \S+", line)] == []
    sections = call("objdump", "-h", libraries / "libbitwren.a").splitlines()
    data = [line.split() for line in sections if re.search(r"^\s+\d+ \.data(\.(?!rel\.ro)\S*)? ", line)]
    assert data and all(int(words[2], 16) == 0 for words in data)


def test_the_header_serves_cpp(prefix, libraries, tmp_path):
    if not shutil.which("g++"):
        (pytest.fail if EXPECTED else pytest.skip)("needs g++: package g++")
    (tmp_path / "user.cpp").write_text(
        "#include <bitwren.h>\n#include <cstdio>\n"
        'int main() { for (std::size_t k = 0; bitwren_kernels(k); k++) std::printf("%s\\n", bitwren_kernels(k)); }\n'
    )
    flags = ["-std=c++11", "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{prefix / 'include'}"]
    library = [libraries / "libbitwren.a", "-pthread"]
    call("g++", *flags, tmp_path / "user.cpp", *library, "-o", tmp_path / "user")
    assert call(tmp_path / "user").split()[-1] == "portable"


def test_clang_has_nothing_to_say_either(tmp_path):
    absent = [tool for tool in ("clang", "cmake") if not shutil.which(tool)]
    if absent:
        (pytest.fail if EXPECTED else pytest.skip)(f"needs {', '.join(absent)}: packages of the same names")
    call("cmake", "-S", RUNTIME, "-B", tmp_path, "-DBITWREN_WERROR=ON", "-DCMAKE_C_COMPILER=clang")
    call("cmake", "--build", tmp_path, "--parallel", "2")


def header():
    return (RUNTIME / "include" / "bitwren.h").read_text()
