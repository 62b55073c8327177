"""The files of sessions: what is in them, what is refused, and that no damage goes unsaid."""

from pathlib import Path

import pytest

from neuron.cli import sessions
from neuron.cli.conversation import Conversation
from neuron.cli.talk import resume
from neuron.errors import SessionBusy, SessionUnreadable, UsageError
from tests.support.cli import neuron

USER = {"role": "user", "content": "a"}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEURON_STATE", str(tmp_path))
    return tmp_path


def test_what_was_written_is_read_again() -> None:
    session = sessions.open_session("s")
    session.append({"do": "model", "value": "m"})
    assert not sessions.names()
    session.append(USER)
    session.close()
    assert sessions.names() == ["s"] == [sessions.last_name()]
    again = sessions.open_session("s")
    assert again.lines == [{"do": "model", "value": "m"}, USER]
    assert again.cut_bytes == 0
    again.close()


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_file_cut_anywhere_in_its_last_line_loses_that_line_only(cut: int) -> None:
    session = sessions.open_session("s")
    for n in range(3):
        session.append({"role": "user", "content": f"line number {n}"})
    session.close()
    path = sessions.path_of("s")
    raw = path.read_bytes()
    path.write_bytes(raw[:-cut])
    again = sessions.open_session("s")
    again.append(USER)
    again.close()
    assert again.cut_bytes == raw.splitlines(keepends=True)[-1].__len__() - cut
    assert [line["content"] for line in sessions.read(path)] == ["line number 0", "line number 1", "a"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hello\n", ":1: damaged"),
        ('{"other":1}\n', ":1: not a chat"),
        ('{"neuron_chat":2}\n', ":1: not a chat"),
        ('{"neuron_chat":1}\nxx\n{"role":"user","content":"a"}\n', ":2: damaged"),
        ('{"neuron_chat":1}\n[1]\n', ":2: damaged"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_with_its_line_and_left_as_it_is(text: str, says: str) -> None:
    sessions.folder().mkdir()
    path = sessions.path_of("s")
    path.write_text(text)
    with pytest.raises(SessionUnreadable, match=says):
        sessions.open_session("s")
    assert path.read_text() == text
    done = neuron("chat", "--session", "s", stdin="hi", env={"NEURON_STATE": str(path.parents[1])})
    assert (done.returncode, done.stdout) == (1, "")


def test_a_line_that_makes_no_sense_is_named() -> None:
    sessions.folder().mkdir()
    sessions.path_of("s").write_text('{"neuron_chat":1}\n{"role":"assistant","content":"no question"}\n')
    session = sessions.open_session("s")
    with pytest.raises(SessionUnreadable, match=r"s\.jsonl:2"):
        resume(Conversation(lambda request: iter(()), "m"), session)  # type: ignore[arg-type, return-value]
    session.close()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 101, "a\n"])
def test_a_name_stays_in_the_folder(name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        sessions.open_session(name)


def test_a_link_in_the_place_of_a_session_is_not_followed(tmp_path: Path) -> None:
    sessions.folder().mkdir()
    (tmp_path / "target").write_text("")
    sessions.path_of("s").symlink_to(tmp_path / "target")
    with pytest.raises(OSError):
        sessions.open_session("s")


def test_two_do_not_have_it_open_at_once() -> None:
    one = sessions.open_session("s")
    with pytest.raises(SessionBusy, match="open in another terminal"):
        sessions.open_session("s")
    one.close()
    sessions.open_session("s").close()


def test_sessions_of_their_own_never_share_a_name() -> None:
    made = [sessions.new_session() for _ in range(3)]
    assert len({session.name for session in made}) == 3
    for session in made:
        session.close()
    assert not list(sessions.folder().iterdir())


def test_there_is_nothing_to_continue_at_first() -> None:
    with pytest.raises(SessionUnreadable, match="no session to continue"):
        sessions.last_name()
    done = neuron("chat", "-c", stdin="hi", env={"NEURON_STATE": str(sessions.state_dir())})
    assert done.returncode == 1
