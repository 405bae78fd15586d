"""Run one replica: `BREAKWATER_API_CONFIG=replica.json python -m services.api`."""

from __future__ import annotations

import logging
import sys

from services.api import logs
from services.api.app import Replica
from services.api.server import serve
from services.api.settings import SettingsError, load_settings

EXIT_USAGE = 2

logger = logging.getLogger(__name__)


def main() -> int:
    """Serve until asked to end; 2 when the configuration is wrong."""
    logs.configure("unconfigured")
    try:
        settings = load_settings()
        logs.configure(settings.replica)
        replica = Replica(settings)
    except SettingsError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message is the whole story, a traceback is noise
        return EXIT_USAGE
    serve(replica)
    return 0


if __name__ == "__main__":
    sys.exit(main())
