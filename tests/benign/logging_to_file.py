# Logs to a file and to the screen.
# stdout: 'INFO ready\n'
# files: run.log
import logging
import logging.handlers
import sys

logging.basicConfig(
    level=logging.INFO,
    format="%(levelname)s %(message)s",
    handlers=[logging.StreamHandler(sys.stdout), logging.handlers.RotatingFileHandler("run.log")],
)
logging.info("ready")
logging.shutdown()
