"""How items flow: read, queued by lane, worked on, recorded; and every way in which that ends."""

from batchrunner.runner.brakes import Brakes
from batchrunner.runner.flow import Feed, Runner, Watch

__all__ = ["Brakes", "Feed", "Runner", "Watch"]
