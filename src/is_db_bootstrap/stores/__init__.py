"""The stores, a folder each.

Nothing is imported here, so that a client that is not used is not needed.
"""
