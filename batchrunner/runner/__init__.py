"""How items flow: read, queued by lane, worked on, recorded; and every way in which that ends."""

from batchrunner.runner.brakes import Brakes
from batchrunner.runner.flow import Runner
from batchrunner.runner.ports import Feed, Watch
from batchrunner.runner.sessions import Sessions

__all__ = ["Brakes", "Feed", "Runner", "Sessions", "Watch"]
