"""The conformance suite: every promise a broker makes, as tests you can point at your own.

A broker's author writes three lines and lets pytest run them::

    from goose.testing import BrokerSuite

    class TestMyBroker(BrokerSuite):
        def make_broker(self):
            return MyBroker(...)          # holding nothing

Each test states its promise in a sentence. A test of an optional part that the broker does
not implement, of a capability it does not declare, or in which it raises `Unsupported`, is
skipped with that reason; `BrokerSuite.left_out` lists parts and capabilities. Further hooks
of `Hooks` let the suite test a second object on the same store, namespaces, retention and
transactions, turn the broker's clock instead of waiting, or allow a slow server more time.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from goose.errors import Unsupported

pytest.register_assert_rewrite(
    *(
        f"goose.testing.suite.{name}"
        for name in (
            "base",
            "completing",
            "crowds",
            "inspecting",
            "lending",
            "sessions",
            "settling",
            "sharing",
            "stores",
            "storing",
            "waiting",
        )
    )
)

from goose.testing.suite.base import Hooks  # noqa: E402 - their asserts are rewritten first
from goose.testing.suite.completing import Completions  # noqa: E402
from goose.testing.suite.crowds import Crowds, Racing, Transactions  # noqa: E402
from goose.testing.suite.inspecting import Inspecting, Upkeeping  # noqa: E402
from goose.testing.suite.lending import Lending  # noqa: E402
from goose.testing.suite.sessions import Living, Recovering  # noqa: E402
from goose.testing.suite.settling import Settling  # noqa: E402
from goose.testing.suite.sharing import Sharing  # noqa: E402
from goose.testing.suite.stores import StoreSuite  # noqa: E402
from goose.testing.suite.storing import Storing  # noqa: E402
from goose.testing.suite.waiting import Waiting  # noqa: E402


class BrokerSuite(
    Storing,
    Lending,
    Waiting,
    Settling,
    Sharing,
    Living,
    Recovering,
    Racing,
    Inspecting,
    Upkeeping,
    Crowds,
    Transactions,
    Completions,
):
    """Subclass it, define `make_broker`, and pytest tests your broker. See `Hooks` for more."""


def _skipping(test: Callable[..., None]) -> Callable[..., None]:
    """Return *test*, skipped where the broker says that it cannot do what is tested."""

    @wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        try:
            test(*args, **fixtures)
        except Unsupported as what:
            pytest.skip(str(what))

    return run


for _name in dir(BrokerSuite):
    if _name.startswith("test_"):
        setattr(BrokerSuite, _name, _skipping(getattr(BrokerSuite, _name)))


__all__ = ["BrokerSuite", "Hooks", "StoreSuite"]
