"""Processes that train one network together: their ranks, their exchanges and their heartbeats."""
