"""Observers: callables that receive the events of a run."""
