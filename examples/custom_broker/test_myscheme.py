"""Every promise a broker makes, tested on this one."""

import tempfile

from myscheme import FileBroker

from goose.testing import BrokerSuite


class TestFileBroker(BrokerSuite):
    def make_broker(self) -> FileBroker:
        return FileBroker(f"myscheme://{tempfile.mkdtemp()}/jobs.json")
