"""Measures of rankings and the records of evaluations."""
