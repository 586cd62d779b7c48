"""Thin Nipype interfaces, one per step, around pure functions or a library."""
