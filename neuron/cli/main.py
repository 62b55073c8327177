"""The console entry: runs a command, and turns every way it can end into a message and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Container, Sequence
from pathlib import Path

import typer

from neuron.cli.exits import Exit, exit_code
from neuron.cli.terminal_text import clean
from neuron.errors import Mistakes, NeuronError, UsageError


def main() -> None:
    """What the installed ``neuron`` runs."""
    code = run(sys.argv[1:])
    if threading.active_count() > 1:
        # a thread that downloads would hold the process, and one that computes would abort it on the way out
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def run(args: Sequence[str]) -> int:
    """Run the command line ``args`` and return the exit code; nothing is raised."""
    _prepare_streams()
    try:
        code = _invoke(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return Exit.PIPE
    except NeuronError as e:
        return _complain(e.message, e.hint, exit_code(e))
    except Mistakes as e:
        codes = [_complain(each.message, each.hint, exit_code(each)) for each in e.found]
        return codes[0]
    except OSError as e:
        message = _os_message(e)
        _abandon_stdout()
        return _complain(message, None, Exit.IO)
    except Exception as e:
        return _internal(e)


def _invoke(args: Sequence[str]) -> int:
    """Parse and run; the exit code of a command that ended by itself."""
    from neuron.cli.app import program
    from neuron.cli.completing import BASH

    _refuse_undecodable(args)
    if os.environ.get("_NEURON_COMPLETE") == "source_bash":
        print(BASH, end="")
        return Exit.OK
    group = program()
    if "_NEURON_COMPLETE" in os.environ:
        group.main(args=list(args), prog_name="neuron")
    try:
        with group.make_context("neuron", list(args)) as context:
            group.invoke(context)
    except typer.Exit as e:
        return e.exit_code
    except typer.TyperException as e:
        raise _usage_error(e, _command(group.commands, args)) from e
    return Exit.OK


def _command(known: Container[str], args: Sequence[str]) -> str:
    """The command, which the parser leaves out where an option lacks its value."""
    return f"neuron {args[0]}" if args and args[0] in known else "neuron"


def _usage_error(error: typer.TyperException, command: str) -> UsageError:
    """What the parser refused, with the help that says what it takes."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else command
    return UsageError(error.format_message().rstrip("."), hint=f"{path} --help shows what it takes")


def _refuse_undecodable(args: Sequence[str]) -> None:
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError as e:
            raise UsageError(f"an argument is not valid UTF-8: {arg!a}") from e


def _prepare_streams() -> None:
    """Streams that are there: output takes any character, input is text or an error, whatever the locale says."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (it lives as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if mode == "w" else "strict")


def _abandon_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush has nowhere to fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # not a real file, or closed: then there is nothing to flush


def _complain(message: str, hint: str | None, code: Exit) -> Exit:
    lines = [f"neuron: {clean(message)}", *([f"hint: {clean(hint)}"] if hint else [])]
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody reads stderr; the exit code still says it
    return code


def _os_message(error: OSError) -> str:
    where = error.filename or _failed_stdout()
    return f"{f'{where}: ' if where else ''}{error.strerror or error}"


def _failed_stdout() -> str | None:
    """Standard output, with what it leads to where that is a file, if it refuses what is left for it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return None
    except OSError:
        leads_to = Path(f"/proc/self/fd/{sys.stdout.fileno()}")
        file = leads_to.readlink() if leads_to.is_symlink() else None
        return f"standard output ({file})" if file and file.is_absolute() else "standard output"
    return None


def _internal(error: Exception) -> Exit:
    """A bug. ``NEURON_TRACEBACK=1`` shows where."""
    if os.environ.get("NEURON_TRACEBACK"):
        raise error
    hint = "this is a bug; NEURON_TRACEBACK=1 in the environment shows where, for a report"
    return _complain(f"internal error: {type(error).__name__}: {error}", hint, Exit.INTERNAL)


if __name__ == "__main__":
    main()
