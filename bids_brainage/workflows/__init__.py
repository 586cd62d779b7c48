"""Builders of Nipype workflows: wiring and methods text, no arithmetic."""
