"""Runs the snippets of one page, in order, in a fresh interpreter and folder.

Started by test_docs.py as ``python docs_driver.py STEPS.json``, with the current
directory as the reader's project. Code is compiled under the page's own name and line
numbers, so that a traceback points into the page.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

Step = dict[str, Any]


def main(path: str) -> None:
    """Run every step, then import the files nothing else has run."""
    page: dict[str, Any] = json.loads(Path(path).read_text())
    sys.path.insert(0, "")
    module = types.ModuleType(page["module"])
    sys.modules[module.__name__] = module
    pending: dict[str, str] = {}
    for step in page["steps"]:
        if step["file"]:
            write(step)
            if step["file"].endswith(".py"):
                pending[step["file"]] = step["file"][:-3].replace("/", ".")
        elif step["kind"] == "python":
            run_python(page["path"], step, module)
        else:
            run_console(page["path"], step)
            pending = {file: name for file, name in pending.items() if file not in step["text"]}
    for name in pending.values():
        importlib.import_module(name)


def write(step: Step) -> None:
    """Put a titled snippet where its title says; a module of that name is forgotten."""
    target = Path(step["file"])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(step["text"])
    importlib.invalidate_caches()
    if target.suffix == ".py":
        sys.modules.pop(".".join(target.with_suffix("").parts), None)


def run_python(page: str, step: Step, module: types.ModuleType) -> None:
    """Execute one snippet in the page's namespace; it must raise what it is marked to raise."""
    code = compile("\n" * step["line"] + step["text"], page, "exec", dont_inherit=True)
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        if type(error).__name__ != step["raises"]:
            raise
    else:
        if step["raises"]:
            raise SystemExit(f"{page}:{step['line']}: did not raise {step['raises']}")


def run_console(page: str, step: Step) -> None:
    """Run each ``$`` line; the lines below it must occur in its output, in order.

    ``…`` stands for anything. A command must exit with 0.
    """
    commands: list[tuple[str, list[str]]] = []
    for text in step["text"].splitlines():
        if text.startswith("$ "):
            commands.append((text[2:], []))
        elif text.strip() and commands:
            commands[-1][1].append(text)
    for command, expected in commands:
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, timeout=45, check=False
        )
        output = done.stdout + done.stderr
        pattern = ".*".join(
            ".*".join(map(re.escape, re.split(r"…|\.\.\.", line.strip()))) for line in expected
        )
        if done.returncode or not re.search(pattern, output, re.DOTALL):
            raise SystemExit(
                f"{page}:{step['line']}: $ {command}\n  exit code {done.returncode}, "
                f"expected {expected}, got:\n{output}"
            )


if __name__ == "__main__":
    main(sys.argv[1])
