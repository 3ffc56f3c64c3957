"""Where the two files of a network go, and the small files that a build system asks for beside them."""

from bitwren.deploy.generate_c.template import render

# Of each layout: file -> template; NETWORK_FILES stand for themselves, in the folder that is named first.
LAYOUTS: dict[str, tuple[str, dict[str, str]]] = {
    "plain": ("", {}),
    "cmake": ("", {"CMakeLists.txt": "cmake.txt.in", "selftest.c": "host_main.c.in"}),
    "arduino": (
        "src/",
        {"library.properties": "arduino.properties.in", "examples/Classify/Classify.ino": "arduino.ino.in"},
    ),
    "zephyr": (
        "src/",
        {"CMakeLists.txt": "zephyr.txt.in", "prj.conf": "zephyr.conf.in", "src/main.c": "zephyr_main.c.in"},
    ),
    "esp-idf": (
        "components/network/",
        {
            "CMakeLists.txt": "esp_idf.txt.in",
            "components/network/CMakeLists.txt": "esp_idf_component.txt.in",
            "main/CMakeLists.txt": "esp_idf_main.txt.in",
            "main/main.c": "esp_idf_main.c.in",
        },
    ),
}


def laid_out(layout: str, files: dict[str, str], version: str) -> dict[str, str]:
    """Return the files of a layout: name to text. files: network.h and network.c."""
    folder, others = LAYOUTS[layout]
    made = {folder + name: text for name, text in files.items()}
    return made | {name: render(template, version=version) for name, template in others.items()}
