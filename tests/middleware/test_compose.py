"""The chain: what a middleware may do before, after and instead of the function, in both colours.

Every rule is shown for a sync function in sync middleware, and for an async function in
sync and in async middleware: `run` does all of them.
"""

from __future__ import annotations

import asyncio
import contextvars
import traceback
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from typing import Any

import pytest

from goose.errors import Bury, ConfigError, Postpone, Skip
from goose.jobs import Job
from goose.middleware.base import Execution, Middleware, compose, compose_async, current

Colour = Callable[[Sequence[Any], Callable[..., Any], Execution], None]


def execution(*args: Any, **kwargs: Any) -> Execution:
    return Execution(Job("id", "app:fn"), args, kwargs, {})


def run_sync(middleware: Sequence[Any], fn: Callable[..., Any], this: Execution) -> None:
    compose(middleware, fn)(this)


def run_async(middleware: Sequence[Any], fn: Callable[..., Any], this: Execution) -> None:
    async def afn(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return fn(*args, **kwargs)

    asyncio.run(compose_async(middleware, afn)(this))  # type: ignore[arg-type]


def run_async_in_async(middleware: Sequence[Any], fn: Callable[..., Any], this: Execution) -> None:
    def asynced(one: Any) -> Any:
        @asynccontextmanager
        async def made(execution: Execution) -> AsyncGenerator[None]:
            await asyncio.sleep(0)
            with one(execution):
                yield

        return made

    run_async([asynced(one) for one in middleware], fn, this)


@pytest.fixture(params=[run_sync, run_async, run_async_in_async])
def run(request: pytest.FixtureRequest) -> Colour:
    """Run a function inside middleware, sync, async, and async throughout."""
    return request.param  # type: ignore[no-any-return]


def add(a: int, b: int = 0) -> int:
    return a + b


class TestRules:
    def test_without_middleware_the_function_is_called(self, run: Colour) -> None:
        """The result and the fact that it returned are found in the execution."""
        this = execution(1, b=2)
        run([], add, this)

        assert (3, True) == (this.result, this.returned)

    def test_middleware_nest_outermost_first(self, run: Colour) -> None:
        """They are entered in their order and left in reverse."""
        seen: list[str] = []

        def named(name: str) -> Middleware:
            @contextmanager
            def made(execution: Execution) -> Generator[None]:
                seen.append(f"+{name}")
                yield
                seen.append(f"-{name}")

            return made

        run([named("a"), named("b")], lambda: seen.append("fn"), execution())
        assert ["+a", "+b", "fn", "-b", "-a"] == seen

    def test_it_may_change_arguments_and_result(self, run: Colour) -> None:
        """What is set before the yield is what the function gets; what is set after it stays."""

        @contextmanager
        def change(execution: Execution) -> Generator[None]:
            execution.args = (10, *execution.args[1:])
            execution.kwargs["b"] = 5
            yield
            execution.result = str(execution.result)

        this = execution(1)
        run([change], add, this)
        assert "15" == this.result

    def test_an_error_passes_through(self, run: Colour) -> None:
        """Every middleware sees the function's exception, and it comes out as it was."""
        seen: list[str] = []
        error = ValueError("no")

        @contextmanager
        def watch(execution: Execution) -> Generator[None]:
            try:
                yield
            except ValueError as found:
                seen.append(str(found))
                raise

        def fail() -> None:
            raise error

        this = execution()
        with pytest.raises(ValueError, match="no") as caught:
            run([watch, watch], fail, this)
        assert ["no", "no"] == seen
        assert caught.value is error
        assert (None, False) == (this.result, this.returned)
        assert not hasattr(error, "__notes__")

    def test_a_swallowed_error_leaves_the_result_as_it_is(self, run: Colour) -> None:
        """Nothing comes out, so the job is done; the result is what middleware made it."""

        @contextmanager
        def swallow(execution: Execution) -> Generator[None]:
            execution.result = "before"
            with suppress(ZeroDivisionError):
                yield

        this = execution()
        run([swallow], lambda: 1 / 0, this)
        assert ("before", False) == (this.result, this.returned)

    def test_an_error_before_keeps_the_function_from_running(self, run: Colour) -> None:
        """It counts as the job's own, and middleware entered earlier are left with it."""
        seen: list[str] = []

        @contextmanager
        def outer(execution: Execution) -> Generator[None]:
            try:
                yield
            finally:
                seen.append("left")

        @contextmanager
        def broken(execution: Execution) -> Generator[None]:
            raise OSError("before")
            yield

        with pytest.raises(OSError, match="before") as caught:
            run([outer, broken], lambda: seen.append("ran"), execution())
        assert ["left"] == seen
        assert not hasattr(caught.value, "__notes__")

    def test_an_error_instead_of_a_manager_counts_as_well(self, run: Colour) -> None:
        """A middleware that raises when it is called keeps the function from running."""

        def broken(execution: Execution) -> Any:
            raise OSError("instead")

        with pytest.raises(OSError, match="instead"):
            run([broken], pytest.fail, execution())

    def test_an_error_after_says_that_the_function_will_run_again(self, run: Colour) -> None:
        """It counts as the job's own, with a note for whoever reads the traceback."""

        @contextmanager
        def broken(execution: Execution) -> Generator[None]:
            yield
            raise OSError("after")

        this = execution(1)
        with pytest.raises(OSError, match="after") as caught:
            run([nullcontext_of, broken], add, this)
        assert (1, True) == (this.result, this.returned)
        text = "".join(traceback.format_exception(caught.value))
        assert 1 == text.count("after the function had returned; a retry runs it again")

    def test_a_middleware_that_forgets_to_yield_fails_the_job(self, run: Colour) -> None:
        """Without a yield the function is not called, and that is an error, not a success."""

        @contextmanager
        def forgetful(execution: Execution) -> Generator[None]:
            if execution.args == ("never",):
                yield

        with pytest.raises(RuntimeError, match="didn't yield"):
            run([forgetful], pytest.fail, execution())

    @pytest.mark.parametrize("control", [Skip("seen"), Postpone(5), Bury("bad")])
    def test_control_before_the_yield_steers_the_job(self, run: Colour, control: Any) -> None:
        """The function is not called, and no ``except Exception`` on the way eats the control."""

        @contextmanager
        def steer(execution: Execution) -> Generator[None]:
            raise control
            yield

        with pytest.raises(type(control)) as caught:
            run([lambda execution: suppress(Exception), steer], pytest.fail, execution())
        assert caught.value is control

    def test_what_is_no_context_manager_is_named(self, run: Colour) -> None:
        """A middleware that returns something else is an error that says what to do."""
        if run is run_async_in_async:
            return  # the wrapping `with` of this test would raise its own error

        def forgot(execution: Execution) -> Any:
            return None

        with pytest.raises(ConfigError, match="returned a NoneType, not a context manager"):
            run([forgot], pytest.fail, execution())


def nullcontext_of(execution: Execution) -> nullcontext[None]:
    return nullcontext()


class TestColours:
    def test_async_middleware_around_a_sync_function_is_an_error(self) -> None:
        """The function is not called, and the message names the middleware."""

        @asynccontextmanager
        async def tenant(execution: Execution) -> AsyncGenerator[None]:
            yield

        with pytest.raises(ConfigError, match=r"tenant .* is async, but the job's function is not"):
            compose([tenant], pytest.fail)(execution())

    def test_both_colours_mix_around_an_async_function(self) -> None:
        """Sync and async middleware are entered in their one order."""
        seen: list[str] = []

        @contextmanager
        def sync(execution: Execution) -> Generator[None]:
            seen.append("sync")
            yield

        @asynccontextmanager
        async def other(execution: Execution) -> AsyncGenerator[None]:
            seen.append("async")
            yield

        run_async([sync, other, sync], lambda: None, execution())
        assert ["sync", "async", "sync"] == seen


class TestCurrent:
    def test_it_is_the_running_execution(self, run: Colour) -> None:
        """Function and middleware see it, and it is gone afterwards."""
        seen: list[Execution] = []

        @contextmanager
        def look(execution: Execution) -> Generator[None]:
            seen.append(current())
            yield
            seen.append(current())

        this = execution()
        run([look], lambda: seen.append(current()), this)
        run([], lambda: seen.append(current()), this)
        assert [this] * 4 == seen
        with pytest.raises(LookupError, match="only inside a running job"):
            current()

    def test_a_nested_run_gives_the_outer_one_back(self) -> None:
        """A job run inside a job, as test helpers do, does not end the outer one's context."""
        outer, inner = execution(), execution()
        seen: list[Execution] = []

        def fn() -> None:
            compose([], lambda: seen.append(current()))(inner)
            seen.append(current())

        compose([], fn)(outer)
        assert [inner, outer] == seen

    @pytest.mark.parametrize("middleware", [[], [nullcontext_of]])
    def test_a_forgotten_context_variable_does_not_reach_the_next_job(
        self, middleware: list[Middleware]
    ) -> None:
        """What a sync job sets and does not reset is gone before the thread's next job."""
        tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")

        def leak() -> None:
            tenant.set("somebody")

        compose(middleware, leak)(execution())
        this = execution()
        compose(middleware, tenant.get)(this)
        assert "nobody" == this.result == tenant.get()

    @pytest.mark.parametrize("middleware", [[], [nullcontext_of]])
    def test_an_async_execution_ends_in_its_own_task(self, middleware: list[Middleware]) -> None:
        """Code that goes on in the same task is outside of the job again, after errors too."""

        async def fail() -> None:
            raise ValueError

        async def main() -> None:
            with suppress(ValueError):
                await compose_async(middleware, fail)(execution())
            with pytest.raises(LookupError):
                current()

        asyncio.run(main())

    def test_many_async_executions_keep_apart(self) -> None:
        """Each of several tasks on one loop sees its own execution across its awaits."""

        async def fn() -> Execution:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return current()

        async def main() -> list[Execution]:
            these = [execution() for _ in range(10)]
            one = compose_async([nullcontext_of], fn)
            await asyncio.gather(*(one(this) for this in these))
            assert these == [this.result for this in these]
            return these

        assert 10 == len(asyncio.run(main()))


class TestExecution:
    def test_the_deadline_follows_from_the_timeout(self) -> None:
        """With a timeout there is an aware deadline and a remaining time; without, neither."""
        timed = Execution(Job("id", "app:fn", timeout=60), (), {}, {})

        assert timed.remaining is not None
        assert 59 < timed.remaining <= 60
        assert timed.deadline is not None
        assert timed.deadline.tzinfo is not None
        assert (None, None) == (execution().remaining, execution().deadline)

    def test_should_stop_tells_both_reasons(self) -> None:
        """It is true when the worker asks, and when the time is over."""
        late = Execution(Job("id", "app:fn", timeout=1), (), {}, {}, started_mono=-1e9)
        asked = execution()

        assert (True, False) == (late.should_stop, asked.should_stop)
        asked.stop_requested = True
        assert asked.should_stop


class TestAwaitables:
    def test_a_coroutine_that_nobody_would_await_is_an_error(self) -> None:
        """A sync function that returns a coroutine fails, by name, with and without middleware."""
        ran: list[int] = []

        async def later() -> None:
            ran.append(1)

        for middleware in ([], [nullcontext]):
            this = execution()
            with pytest.raises(TypeError, match="app:fn is not async, but returned a coroutine"):
                compose(middleware, later)(this)

            assert (None, False, []) == (this.result, this.returned, ran)

    def test_another_awaitable_is_an_error_too(self) -> None:
        """Whatever has to be awaited is not a result."""

        class Promise:
            def __await__(self) -> Generator[None]:
                yield

        with pytest.raises(TypeError, match="returned a Promise, which nobody awaits"):
            compose([], Promise)(execution())
