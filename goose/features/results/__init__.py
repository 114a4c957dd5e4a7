"""Results: what a job returned, or why it did not, kept for a while under its id.

A function or a call asks for it (``result=True``, or seconds); the trait ``result`` then has the
worker write one `Record` into the store before the broker forgets the job. `Progress` needs no
asking. Reading is the client's, see `goose.following`.
"""

from goose.features.results.progress import Progress
from goose.features.results.records import Record
from goose.features.results.trait import NAME, Results, asked

__all__ = ["NAME", "Progress", "Record", "Results", "asked"]
