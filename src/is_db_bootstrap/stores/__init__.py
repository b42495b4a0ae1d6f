"""The four stores, one module each.

Nothing is imported here, so that no client is needed that is not used.
"""
