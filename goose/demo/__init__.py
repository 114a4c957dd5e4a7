"""``goose demo``: real jobs on real files, while workers are killed under them.

`play` puts a job for each file on a queue of its own and starts ``goose worker`` as anybody
would. The functions in `work` leave a mark before and after each run and write what they
found into files. While they run, `crew` kills worker processes that have jobs under way.
In the end `verdict` holds the marks and the results against the list of what was enqueued
and against measurements of its own: nothing may be lost, nothing wrong, and what ran twice
must have been in a process that was killed.
"""
