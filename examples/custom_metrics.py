"""A metrics backend of your own: any object with these three methods.

goose worker app.tasks --metrics custom_metrics:PrintMetrics
"""

from collections.abc import Mapping


class PrintMetrics:
    """Prints what Goose counts, one line each."""

    def increment(self, name: str, value: int, tags: Mapping[str, str]) -> None:
        print(f"{name} +{value} {dict(tags)}", flush=True)

    def gauge(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        print(f"{name} = {value} {dict(tags)}", flush=True)

    def timing(self, name: str, seconds: float, tags: Mapping[str, str]) -> None:
        print(f"{name} took {seconds:.6f} s {dict(tags)}", flush=True)
