"""A model server on loopback, strict and nasty, that speaks the dialect of one of five servers."""

from tests.emulators.faults import How
from tests.emulators.model.asked import Asked
from tests.emulators.model.behaviour import Calls, Script
from tests.emulators.model.emulator import ModelEmulator
from tests.emulators.model.failures import FAILURES, Failure
from tests.emulators.model.servers import Flavour

__all__ = ["FAILURES", "Asked", "Calls", "Failure", "Flavour", "How", "ModelEmulator", "Script"]
