"""What queues did over a period: runs, retries, deaths, and how long jobs took.

Nobody is made to pay for it: workers that have ``activity://`` among their metrics add up what
they ran, and every few seconds add that to small values in the store (`recorder`). `reading`
sums the values of a period up.

A value is one queue's numbers of five minutes, under the key ``activity:{QUEUE}:SLOT``, where the
slot counts five minutes since 1970 in ten digits, so that a period is one scan. Times are
counted in buckets, each a tenth longer than the one before, so a percentile is right to within
five percent, and adding up needs no samples.
"""

from goose.features.activity.reading import QueueActivity, read
from goose.features.activity.recorder import Activity

__all__ = ["Activity", "QueueActivity", "read"]
