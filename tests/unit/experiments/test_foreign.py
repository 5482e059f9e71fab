"""Files that somebody else has put there: what is no plain file is refused at once."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.foreign import append_plain, clean, clean_lines, open_plain, parse_object, read_object, read_plain


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # the path of a socket must be short
        server.bind(path.name)


def link_to_a_file(path: Path) -> None:
    (path.parent / "secret.json").write_text('{"a": 1}')
    path.symlink_to(path.parent / "secret.json")


NO_FILES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "socket": make_socket,
    "link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "link to a terminal": lambda path: path.symlink_to("/dev/tty"),
    "link to a folder": lambda path: path.symlink_to(path.parent),
    "link to itself": lambda path: path.symlink_to(path),
    "link to nothing": lambda path: path.symlink_to(path.parent / "nothing"),
    "link to a file": link_to_a_file,
}


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_plain_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x.json")

    for read in (open_plain, read_plain, read_object):
        with pytest.raises(ValueError, match=r"x\.json cannot be read: "):
            read(tmp_path / "x.json")
    with pytest.raises(OSError, match=r"x\.json"):
        append_plain(tmp_path / "x.json")


def test_a_plain_file_in_a_linked_folder_is_read_and_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    for text in (b'{"a": 1.5,', b' "b": 12345678901234567890}'):
        with append_plain(tmp_path / "linked" / "x.json") as stream:
            stream.write(text)

    assert read_object(tmp_path / "linked" / "x.json") == {"a": 1.5, "b": 12345678901234567890}


def test_the_devices_of_the_system_are_no_files() -> None:
    for device in ("/dev/zero", "/dev/null", "/dev/tty"):
        with pytest.raises(ValueError, match="cannot be read"):
            read_plain(Path(device))


def test_a_missing_file_is_missing_and_a_long_one_too_long(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * 11)

    assert len(read_plain(tmp_path / "long", 11)) == 11
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        read_plain(tmp_path / "long", 10)
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "missing")
    with pytest.raises(ValueError, match="cannot be read"):
        read_plain(tmp_path / "long" / "below")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e400}',
        '{"a": ' + "9" * 41 + "}",
        '{"a": ' + "9" * 6000 + "}",
        "[]",
        "null",
        "",
        b"\xff\xfe",
    ],
    ids=lambda text: str(text)[:12],
)
def test_what_is_no_object_of_finite_numbers_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"is not valid JSON|holds no JSON object"):
        parse_object(text)


def test_a_shown_text_moves_no_cursor_and_stays_on_its_line() -> None:
    assert clean("\x1b[2Ja\r\n\u202eb\x9b1m\u200b", 100) == " [2Ja   b 1m "
    assert clean(None) == "None"
    assert clean_lines("a\x07\nb\x1b]0;x") == "a \nb ]0;x"
    assert clean("Überraschung 漢字 🎬 e\u0301") == "Überraschung 漢字 🎬 e\u0301"
