"""Prefect flows, the command line, and where everything is put together."""

import logging

# A worker's process shows in Prefect's UI what our loggers say (PREFECT_LOGGING_EXTRA_LOGGERS in
# infra/work_pools), but leaves their level to the root logger's, which is WARNING.
for _name in ("flows", "tasks", "infra", "pvar"):
    logging.getLogger(_name).setLevel(logging.INFO)
