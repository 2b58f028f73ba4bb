"""Runs one retraining in a process of its own, which a test may kill.

python -m tests.retrain_process CONFIG NOW HELD

CONFIG is the JSON of a RetrainConfig, NOW the time of its clock. The process waits for ever where
it would put an object whose key ends with HELD, a pattern of `fnmatch`.
"""

import sys
from dataclasses import replace
from datetime import datetime
from typing import cast

from flows import wiring
from flows.retraining import retrain_once
from infra.store import open_store
from pvar.ports import Store
from pvar.retrain_decision import RetrainConfig
from tests.stage_process import HeldStore

if __name__ == "__main__":
    config, now, held = sys.argv[1:]
    # The runs of the pipeline connect by themselves.
    wiring.open_store = lambda uri: cast(Store, HeldStore(open_store(uri), held))
    connected = replace(wiring.connect(), clock=lambda: datetime.fromisoformat(now))
    retrain_once(RetrainConfig.model_validate_json(config), connected)
