"""What ``goose doctor`` can find: each kind with a code, what it means, and what to do about it.

What is found about a broker's server is the broker's to say (`goose.brokers.examining`); here is the
rest. Codes are for good: scripts and runbooks know them. docs/doctor.md lists all, by a test.
"""

from __future__ import annotations

from goose.brokers.examining import Finding, Kind, Severity

__all__ = ["Finding", "Kind", "everything"]

KINDS: dict[str, Kind] = {}


def _kind(code: str, severity: Severity, title: str, meaning: str, fix: str) -> Kind:
    made = KINDS[code] = Kind(code, severity, title, meaning, fix)
    return made


WRONG_SETTING = _kind(
    "G101", "error", "a setting is wrong",
    "Workers and clients refuse to start with it.",
    "change the line that is named",
)  # fmt: skip
UNNAMED_MODULES = _kind(
    "G102", "note", "no modules are named",
    "Whether stored jobs can be run is not looked at.",
    "name them: goose doctor app.tasks, or `allow` in goose.toml",
)  # fmt: skip
WRONG_PART = _kind(
    "G103", "error", "a middleware, backend or resource cannot be had",
    "Workers refuse to start, or clients to enqueue.",
    "correct the name, or install what is missing",
)  # fmt: skip
TIMEOUT_ABOVE_HARD = _kind(
    "G104", "warning", "timeout is above hard_timeout",
    "The process is killed before the job's own timeout could end it gently.",
    "raise hard_timeout above timeout",
)  # fmt: skip
DEFAULT_BROKER = _kind(
    "G105", "note", "the broker is the default file",
    "Two programs started in two directories may use two files and never meet.",
    "name the broker by an absolute path or URL before production",
)  # fmt: skip
FEW_DESCRIPTORS = _kind(
    "G106", "warning", "few files may be open at once",
    "Each running job may need connections of its own; a process that runs out fails jobs.",
    "raise the limit: ulimit -n, LimitNOFILE= in systemd",
)  # fmt: skip
BAD_MODULE = _kind(
    "G201", "error", "a module cannot be imported",
    "Workers end with exit code 3.",
    "correct the name, the directory you start in, or what the module's own code raises",
)  # fmt: skip
EMPTY_MODULE = _kind(
    "G202", "warning", "the modules offer no function",
    "Every job would be left for another worker.",
    "name the modules that define the functions, not those that import them",
)  # fmt: skip
UNREACHABLE = _kind(
    "G301", "error", "the broker cannot be reached",
    "Nothing can be enqueued or run.",
    "start it, or correct its URL",
)  # fmt: skip
REFUSED = _kind(
    "G302", "error", "the broker refuses",
    "Nothing can be enqueued or run.",
    "do what the message says",
)  # fmt: skip
PRIVATE_BROKER = _kind(
    "G303", "error", "the broker lives in one process",
    "No worker process can share it.",
    "use another broker, or goose.Worker in that process",
)  # fmt: skip
NO_INSPECTOR = _kind(
    "G304", "note", "the broker cannot list its jobs",
    "Queues and stored jobs are not looked at.",
    "use the tools of the server itself",
)  # fmt: skip
CLOCK_SKEW = _kind(
    "G305", "warning", "this machine's clock and the broker's differ",
    "Instants given here, and ages shown here, are wrong by as much.",
    "keep the clocks together: chrony, systemd-timesyncd",
)  # fmt: skip
NO_DRIVER = _kind(
    "G306", "error", "the driver is not installed",
    "Nothing can be enqueued or run.",
    "install it, by the extra of its name: pip install 'goose-jobs[redis]'",
)  # fmt: skip
UNKNOWN_FUNCTION = _kind(
    "G401", "error", "stored jobs name functions this code does not have",
    "Workers leave them for newer code, and after 3 days they are dead.",
    "deploy the code that has them, or leave a function of the old name that calls the new one",
)  # fmt: skip
WRONG_ARGUMENTS = _kind(
    "G402", "error", "stored jobs have arguments their function does not take",
    "Workers leave them for newer code, and after 3 days they are dead.",
    "take what was stored: give new parameters a default",
)  # fmt: skip
UNDECODABLE = _kind(
    "G403", "warning", "what is stored is not a job",
    "Workers bury it, with the reason.",
    "see who writes it; goose jobs show prints the bytes",
)  # fmt: skip
UNSERVED_QUEUE = _kind(
    "G404", "warning", "jobs wait in queues that are not served here",
    "Unless another worker takes from them, they wait for ever.",
    "add them to `queues`, or start a worker for them",
)  # fmt: skip
OLD_JOBS = _kind(
    "G405", "warning", "jobs have been ready for long",
    "There are too few workers, or none.",
    "start workers, or more of them",
)  # fmt: skip
DEAD_JOBS = _kind(
    "G406", "note", "there are dead jobs",
    "They were given up, and wait for a decision.",
    "goose dead list; replay or purge them",
)  # fmt: skip


def everything() -> list[Kind]:
    """Return all kinds there are, also those of the brokers that come with Goose, by code."""
    from goose.brokers.postgres import examination as postgres
    from goose.brokers.rabbitmq import examination as rabbitmq
    from goose.brokers.redis import examination as redis
    from goose.brokers.sqlite import examination as sqlite

    of_brokers = [*redis.KINDS, *sqlite.KINDS, *rabbitmq.KINDS, *postgres.KINDS]
    return sorted([*KINDS.values(), *of_brokers], key=lambda kind: kind.code)
