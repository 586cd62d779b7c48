"""Simulated people: T1w heads whose anatomy, ageing and acquisition are known exactly.

A person is a smooth and invertible warp of a template head: an individual shape in which every
region has the volume that was drawn for the person's age (`lifespan`).  A scan of that person is a
rendering with its own contrast, pose, bias field, noise and resolution.
"""

from bids_brainage.simulation.person import Person, make_person
from bids_brainage.simulation.scan import SimulatedScan, simulate_person, simulate_scan

__all__ = ['Person', 'SimulatedScan', 'make_person', 'simulate_person', 'simulate_scan']
