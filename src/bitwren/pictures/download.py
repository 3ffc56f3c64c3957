"""Where the files of a data set are: found in a folder, or fetched; never used before their checksum fits."""

import gzip
import hashlib
import logging
import os
import re
import sys
import zlib
from pathlib import Path

from bitwren.errors import DataError, UsageError
from bitwren.pictures.registry import DatasetFile


def cache_folder() -> Path:
    """Return where downloads go: $BITWREN_DATA, else the platform's cache folder with /bitwren."""
    if os.environ.get("BITWREN_DATA"):
        return Path(os.environ["BITWREN_DATA"])
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "bitwren"


def locate(file: DatasetFile, folders: list[Path], cache: Path, download: bool, progress: bool) -> dict[str, Path]:
    """Return the checked path of a data set's file, or of all that it holds if that stands unpacked: name -> path.

    folders: searched in order, the file before its unpacked content. cache: folder for a download.
    Raises DataError: a wrong checksum, nothing found and no download wanted or possible.
    Raises UsageError where the library for downloads is missing.
    """
    for folder in folders:
        if (folder / file.name).is_file():
            _check(folder / file.name, file)
            return {file.name: folder / file.name}
        loose = {name: folder / name for name, _ in file.unpacked}
        if loose and all(path.is_file() for path in loose.values()):
            for name, md5 in file.unpacked:
                if md5:
                    _refuse_unless(loose[name], _md5(loose[name]), md5)
            return loose
    if not file.urls:
        raise DataError(
            f"{file.name}: not found in {_listed(folders)}; its publishers ask for registration, so fetch it yourself "
            f"and name its folder with --data-dir"
        )
    if not download:
        raise DataError(
            f"{file.name}: not found in {_listed(folders)}, and not to be downloaded; it is at {file.urls[0]}"
        )
    return {file.name: _fetch(file, cache, progress)}


def _check(path: Path, file: DatasetFile) -> None:
    """Refuse a file that is neither byte for byte as published nor, for a single .gz, with the published content."""
    got = _md5(path)
    if f"md5:{got}" == file.checksum:
        return
    if path.suffix == ".gz" and len(file.unpacked) == 1 and _md5_of_content(path) == file.unpacked[0][1]:
        return
    _refuse_unless(path, got, file.checksum.removeprefix("md5:"))


def _refuse_unless(path: Path, got: str, expected: str) -> None:
    if got != expected:
        raise DataError(f"{path}: MD5 {got}, expected {expected}; remove the file to have it fetched again")


def _md5(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error


def _md5_of_content(path: Path) -> str:
    """Return the MD5 of what a .gz holds, or "" if it cannot be unpacked."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with gzip.open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except (OSError, EOFError, zlib.error):
        return ""
    return digest.hexdigest()


def _fetch(file: DatasetFile, cache: Path, progress: bool) -> Path:
    """Return the downloaded, checked file; what fails to arrive whole leaves nothing behind."""
    try:
        import pooch
    except ImportError as error:
        raise UsageError("downloading needs pooch, which is missing; pip install 'bitwren[train]'") from error
    try:
        import tqdm  # noqa: F401 - pooch draws its bar with it
    except ImportError:
        progress = False
    pooch.get_logger().setLevel(logging.INFO if progress else logging.WARNING)
    reasons = []
    for url in file.urls:
        try:
            downloader = pooch.HTTPDownloader(progressbar=progress and sys.stderr.isatty(), timeout=30)
            return Path(pooch.retrieve(url, file.checksum, file.name, cache, downloader=downloader))
        # requests' errors are OSErrors; a checksum that does not fit is a ValueError.
        except (OSError, ValueError) as error:
            reasons.append(_why(url, file, error))
    raise DataError(f"{'; '.join(reasons)}; fetch it by other means and put it into {cache}")


def _why(url: str, file: DatasetFile, error: Exception) -> str:
    """Return one line on why a download failed; the messages of requests and pooch run to several."""
    got = re.search(r"but got (\w+)", str(error))
    if got:
        return f"{url}: what arrived has MD5 {got[1]}, expected {file.checksum.removeprefix('md5:')}"
    response = getattr(error, "response", None)
    cause = f"HTTP status {response.status_code}" if response is not None else type(error).__name__
    return f"{url}: cannot be downloaded ({cause})"


def _listed(folders: list[Path]) -> str:
    return ", ".join(str(folder) for folder in folders)
