"""Files are replaced whole or not at all; what is no file is written to, never replaced."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from bitwren.atomic import write_atomic
from bitwren.errors import WriteError


@pytest.mark.parametrize("function", ["open", "os.fsync", "os.replace"])
def test_no_space_left_at_any_call(monkeypatch, tmp_path, function):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"bitwren.atomic.{function}", full, raising=False)
    with pytest.raises(WriteError, match=r"^.*/file: cannot be written: No space left on device; the previous"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "third").write_bytes(b"old")
    link = tmp_path / "newest"
    for target in ("models/third", "models/fourth"):  # of which the second is not there yet
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        write_atomic(link, b"new")
        assert os.readlink(link) == target and (tmp_path / target).read_bytes() == b"new"


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_to(tmp_path, linked):
    """As /dev/stdout is, which a superuser's command would otherwise make a file of, for every program after it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = tmp_path / "link" if linked else pipe
    if linked:
        path.symlink_to(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomic(path, b"new")
    reader.join(10)
    assert read == [b"new"] and pipe.is_fifo() and path.is_symlink() == linked


WRITING = """
from pathlib import Path
from bitwren.atomic import write_atomic
print("before")
write_atomic(Path(LINK), b"content\\n")
print("after")
"""


@pytest.mark.parametrize("stream", [1, 2])
@pytest.mark.parametrize("to_file", [False, True])
def test_the_output_keeps_what_was_printed(tmp_path, stream, to_file):
    link = tmp_path / "stdout"
    link.symlink_to(f"/proc/self/fd/{stream}")
    words = [sys.executable, "-c", f"LINK = {str(link)!r}\n{WRITING}"]
    if to_file:
        with open(tmp_path / "file", "wb") as file:
            subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=True)
        printed = (tmp_path / "file").read_text()
    else:
        printed = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True).stdout.decode()
    assert link.is_symlink() and printed == "before\ncontent\nafter\n"


def test_a_pipe_whose_reader_goes_is_one_line(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: pipe.open("rb", buffering=0).close(), daemon=True)
    reader.start()
    with pytest.raises(WriteError, match=r"pipe: cannot be written: Broken pipe$"):
        write_atomic(pipe, bytes(1 << 22))  # more than a pipe holds
    reader.join(10)
    assert pipe.is_fifo()
