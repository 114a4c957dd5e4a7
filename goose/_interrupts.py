"""Raises an exception in another thread, and leaves no trace of it in the interpreter.

Python has a way to do the first (``PyThreadState_SetAsyncExc``). To have the thread notice, it
raises a flag that all threads look at, and takes it down when some thread raises what was meant
for it. So the flag stays up while the thread waits in C code, and for ever if what was meant for
it is taken back. Then every thread takes the slow way at every call (a tenth to a third more CPU);
and Python 3.11, when a profiler, tracer or debugger is on, begins the next call of a function
over and over again: the process hangs.

Here the flag is taken down at once: whoever puts it up next has something of its own raised in
itself. Nothing is missed by that, since a thread that gets the interpreter's lock looks whether
something was meant for it, and then puts the flag up again.

Source: Python/ceval.c of CPython 3.11, ``handle_eval_breaker`` and ``DO_TRACING``, and
``take_gil`` in Python/ceval_gil.h.
"""

from __future__ import annotations

import ctypes
import threading

_set = ctypes.PyDLL(None).PyThreadState_SetAsyncExc
_set.argtypes = (ctypes.c_ulong, ctypes.py_object)


exposed: set[int] = set()
"""Threads in which something may be raised at any step: who runs there leaves nothing half done that
others rely on."""


def may_strike() -> bool:
    """Say whether something may be raised in this thread at any step, by a timeout or a signal handler."""
    own = threading.get_ident()
    return own in exposed or own == threading.main_thread().ident


class _Nothing(BaseException):
    """What is raised so that the flag goes down."""


def raise_in(ident: int, error: type[BaseException]) -> None:
    """Have *error* raised in thread *ident* at its next step in the interpreter."""
    _beside(ident, error)


def lower() -> None:
    """Take the flag down, whoever left it up. Costs half a millisecond; from any thread."""
    _beside(None, _Nothing)


def take_back() -> None:
    """See to it that what was meant to be raised in this thread, and was not yet, never is."""
    _raise(None, _Nothing)


def _beside(ident: int | None, error: type[BaseException]) -> None:
    """Call `_raise` on a thread of its own, so that nothing meant for this one is lost."""
    thread = threading.Thread(target=_raise, args=(ident, error), name="goose-raise", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread to be had
        _raise(ident, error)
    else:
        thread.join()


def _raise(ident: int | None, error: type[BaseException]) -> None:
    """Have *error* raised in *ident*, if given; then `_Nothing` here, in place of anything else.

    No function of Python's may be called in between: with the flag up and a tracer on, that call
    would be one that never begins.
    """
    own = threading.get_ident()
    try:
        if ident is not None:
            _set(ident, error)
        _set(own, _Nothing)
        for _ in range(1000):  # raised by now, or at the first look in here
            pass
    except _Nothing:
        return
