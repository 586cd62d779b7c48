"""Simulated people: T1w heads whose anatomy, ageing and acquisition are known exactly.

A person is a warp of a template anatomy: a smooth individual shape, then a smooth and
invertible ageing warp that gives every region the volume that its age asks for.  A scan of
that person is a rendering with its own contrast, pose, bias field, noise and resolution.
"""

from bids_brainage.simulation.person import Person, make_person
from bids_brainage.simulation.scan import SimulatedScan, simulate_person, simulate_scan

__all__ = ['Person', 'SimulatedScan', 'make_person', 'simulate_person', 'simulate_scan']
